"""What in a chat model's output is its answer. The one place that decides it, for text and for a server's message.

Models think aloud, in tags, in channels or in a field of their own, and what they think is never the answer: neither
when the tags are odd, nor when the thinking was cut off. Every doubt leaves a note. All of it takes linear time.

Forms: tags such as `<think>`; OpenAI's Harmony channels (gpt-oss); Mistral's `[THINK]`, Kimi's `◁think▷`, Cohere's and
Gemma's tokens; `reasoning_content`, `reasoning` and `thinking` beside `content`; tool calls; refusals.
"""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass, replace

_THINKING = (
    r"(?:[a-z]{1,12}[:_-]){0,2}(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|scratchpad|analysis|cot|monologue)"
    r"(?:[_-][a-z]{1,12})?"
)
_OPEN = (
    rf"<\s{{0,4}}{_THINKING}(?:\s[^<>\n]{{0,200}})?(?:>|(?=\n))",  # <think>, <seed:think>, <think duration="3">
    r"<details\s[^<>\n]{0,100}reasoning[^<>\n]{0,200}>",
    r"\[(?:think|thinking|reasoning)\]",
    r"[\u25c1\u25c0]think(?:ing)?[\u25b7\u25b6]",
    r"<[|\uff5c]{1,2}(?:begin_of_thought|start_thinking|think(?:ing)?)[|\uff5c]{1,2}>",
    r"<\|channel>(?:thought|analysis)",
    r"<unused94>",
    r"(?:(?<=\n)|\A)Thinking\.\.\.[ \t]{0,4}(?=\n)",
)
_CLOSE = (
    rf"<\s{{0,4}}/\s{{0,4}}{_THINKING}\b[ \t]{{0,4}}>?",
    r"</details>",
    r"\[/(?:think|thinking|reasoning)\]",
    r"[\u25c1\u25c0]/think(?:ing)?[\u25b7\u25b6]",
    r"<[|\uff5c]{1,2}(?:end_of_thought|end_thinking|/think(?:ing)?)[|\uff5c]{1,2}>",
    r"<channel\|>",
    r"<unused95>",
    r"(?:(?<=\n)|\A)\.{3}done thinking\.",
)
_TAG = re.compile(f"(?P<open>{'|'.join(_OPEN)})|(?P<close>{'|'.join(_CLOSE)})", re.I)
_ESCAPED_TAG = re.compile(rf"&lt;(/?{_THINKING})&gt;", re.I)
_CHANNEL = re.compile(r"<\|channel\|>\s{0,4}(\w{0,20})(?:([^<]{0,200}(?:<\|constrain\|>[^<]{0,40})?)<\|message\|>)?")
_MESSAGE_END = re.compile(r"<\|(?:end|return|call|start|channel)\|>")
_TURN_END = re.compile(r"<\|(?:im_end|eot_id|endoftext|end_of_turn|return)\|>|<end_of_turn>|</s>")
_TOKEN = re.compile(r"<\|[a-z_]{1,30}\|>", re.I)
_ANSWER_TAG = re.compile(
    r"<(?P<end>/?)(?:\|(?:begin_of|end_of|start|end)_)?(?:final_)?(?:answer|solution|response|output)\|?>", re.I
)
_BARE_CHANNELS = re.compile(r"\s{0,20}(?:assistant)?analysis(?=[A-Z\s\"'])")
_BARE_FINAL = re.compile(r"assistant(?:final|commentary[^{\n]{0,80}(?=\{))")
_REFUSAL = re.compile(
    r"[\s\W]{0,20}(?:i(?:['\u2019]m| am) (?:\w{1,12} ){0,2}(?:sorry|unable|not able)|(?:i )?apologi[sz]e"
    r"|sorry\b|as an ai\b|(?:unfortunately,? )?i (?:can ?not|can['\u2019]t|won['\u2019]t|must decline|do not feel))",
    re.I,
)
_REASONING = ("reasoning_content", "reasoning", "thinking")
_SURROGATE = re.compile(r"[\ud800-\udfff]")

ONLY_THOUGHT = (
    "the reply holds the model's thinking and no answer behind it: paste the part behind the thinking, raise max_tokens, "
    "or turn the model's thinking off"
)
CUT = "the answer was cut at its limit of length: raise max_tokens, or turn the model's thinking off"


@dataclass(frozen=True)
class Answer:
    """A model's answer: `text`, "" where there is none; then `why` says why in words for the user. `notes` are doubts
    about the text, and `cut` tells that the model was stopped at its limit of length.
    """

    text: str
    notes: tuple[str, ...] = ()
    why: str = ""
    cut: bool = False


def answer_in(text: str, cut: bool = False) -> Answer:
    """The answer in a model's whole output. `cut`: the server said that it stopped at the limit of length."""
    text = _SURROGATE.sub("\ufffd", text).lstrip("\ufeff")
    if not text.strip():
        return Answer("", (), CUT if cut else "the model's answer is empty", cut)
    text, notes = _final_channel(_ESCAPED_TAG.sub(r"<\1>", text))
    text, more = _without_thinking(text)
    text, told = _answer_tag(text)
    text = _TOKEN.sub(" ", _before_turn_end(text)).strip()
    if not text:
        return Answer("", (), CUT if cut else ONLY_THOUGHT, cut)
    notes = (*notes, *more, *told, *((CUT,) if cut else ()))
    return Answer(text, tuple(dict.fromkeys(notes)), "", cut)


def answer_of(choice: dict) -> Answer:
    """The answer in one of a chat completion's `choices`: its `message`, judged with its `finish_reason`.

    Raises ValueError when the choice holds no message.
    """
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise ValueError("a choice without a message")
    cut = choice.get("finish_reason") in ("length", "max_tokens")
    content = _joined(message.get("content"))
    said = answer_in(content, cut)
    if said.text:
        return said
    if refusal := _joined(message.get("refusal")) or _parts(message.get("content"), "refusal"):
        return Answer("", (), refused(refusal), cut)
    if choice.get("finish_reason") == "content_filter":
        return Answer("", (), "the server's content filter stopped the answer: word the prompt differently", cut)
    if call := _tool_call(message):
        note = "the model answered with a tool call, whose arguments were taken as its answer"
        return replace(said, text=call, why="", notes=(note, *((CUT,) if cut else ())))
    thoughts = next((t for name in _REASONING if (t := _joined(message.get(name))).strip()), "")
    if not thoughts:
        return said
    found = "" if cut else _json_at_the_end(thoughts)
    if found:
        note = "the model's answer is empty; the JSON at the end of its thinking was taken, which may be a draft"
        return Answer(found, (note,))
    return replace(said, why=CUT if cut else ONLY_THOUGHT)


def refused(text: str) -> str:
    """What to tell a user whose model refused with these words."""
    words = " ".join(text.split())
    return f"the language model refuses: {words[:200]!r}. Word the prompt differently, or choose another model"


def is_refusal(text: str) -> bool:
    """Whether the text begins like a refusal ("I'm sorry, but I can't ...")."""
    return _REFUSAL.match(text[:400]) is not None


def _joined(content: object) -> str:
    """Content as text: itself, or its parts of text in a row; a part that is a thought is none."""
    return content if isinstance(content, str) else _parts(content, "text")


def _parts(content: object, field: str) -> str:
    if not isinstance(content, list):
        return ""
    parts = [p.get(field) for p in content if isinstance(p, dict) and "think" not in str(p.get("type", ""))
             and "reason" not in str(p.get("type", ""))]  # fmt: skip
    return "".join(p for p in parts if isinstance(p, str))


def _tool_call(message: dict) -> str:
    calls = message.get("tool_calls")
    functions = [c.get("function") for c in calls if isinstance(c, dict)] if isinstance(calls, list) else []
    for function in (*functions, message.get("function_call")):
        arguments = function.get("arguments") if isinstance(function, dict) else None
        if isinstance(arguments, dict):
            return json.dumps(arguments, ensure_ascii=False)
        if isinstance(arguments, str) and arguments.strip():
            return _SURROGATE.sub("\ufffd", arguments)
    return ""


def _json_at_the_end(text: str) -> str:
    """The JSON object or list that ends the text, "" if there is none."""
    text = _SURROGATE.sub("\ufffd", text).rstrip().removesuffix("```").rstrip()
    decoder = json.JSONDecoder()
    at, tries = 0, 0
    while tries < 200 and (match := re.compile(r"[{\[]").search(text, at)):
        tries += 1
        try:
            _, end = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            at = match.end()
            continue
        if end == len(text):
            return text[match.start() :]
        at = end
    return ""


def _final_channel(text: str) -> tuple[str, tuple[str, ...]]:
    """Harmony: the last message on the final channel, else the arguments of a call; the rest is thinking."""
    found: dict[str, str] = {}
    first = None
    for match in _CHANNEL.finditer(text):
        first = match.start() if first is None else first
        end = _MESSAGE_END.search(text, match.end())
        body = text[match.end() : end.start() if end else len(text)]
        name = match.group(1).lower()
        if name == "commentary" and "to=" in (match.group(2) or ""):
            name = "call"
        found[name] = body
    if first is not None:
        if found.get("final", "").strip():
            return found["final"], ()
        if found.get("call", "").strip():
            return found["call"], ("the model answered with a tool call, whose arguments were taken as its answer",)
        return "", ()
    bare = list(_BARE_FINAL.finditer(text))
    if bare:
        return text[bare[-1].end() :], ("the reply's channel tokens are missing; what follows the last "
                                        '"assistantfinal" was taken as the answer',)  # fmt: skip
    opening = _BARE_CHANNELS.match(text)
    if opening and not text[opening.end() : opening.end() + 1].isspace():  # "analysisWe could ..." and no more
        return "", ()
    return text, ()


def _without_thinking(text: str) -> tuple[str, tuple[str, ...]]:
    """The text outside of thinking. A closing tag without an opening one closes all that stands before it."""
    kept: list[str] = []
    notes: list[str] = []
    inside, at = False, 0
    for tag in _TAG.finditer(text):
        if tag.lastgroup == "open":
            if not inside:
                kept.append(text[at : tag.start()])
            inside = True
        else:
            if not inside:
                notes.append(f"{tag.group()} closes thinking that was never opened; all before it was left out")
                kept.clear()
            inside, at = False, tag.end()
    if inside:
        notes.append("the reply ends inside the model's thinking; the thinking was left out")
    else:
        kept.append(text[at:])
    return " ".join(kept) if len(kept) > 1 else "".join(kept), tuple(notes)


def _answer_tag(text: str) -> tuple[str, tuple[str, ...]]:
    """What stands in the last pair of answer tags, the whole text without any."""
    start = inside = None
    for tag in _ANSWER_TAG.finditer(text):
        closing = tag.group("end") or "end_" in tag.group().lower()
        if not closing:
            start = tag.end()
        elif start is not None:
            inside, start = text[start : tag.start()], None
    if start is not None and text[start:].strip():
        inside = text[start:]
    return (inside, ()) if inside is not None and inside.strip() else (text, ())


def _before_turn_end(text: str) -> str:
    """Without what a model invents behind the end of its turn."""
    for end in _TURN_END.finditer(text):
        if text[: end.start()].strip():
            return text[: end.start()]
    return text


def unescaped(text: str) -> tuple[str, tuple[str, ...]]:
    """Text that came through a web page: `&quot;` and the like read back, where no plain quote mark is left."""
    if "&quot;" not in text or '"' in text:
        return text, ()
    return html.unescape(text), ("the reply is HTML; its &quot; and the like were read as characters",)
