"""What is the answer of a model, whoever asks: a planner, a caption, or a user who pastes a reply."""

import json

import pytest
from ella_lmd.chat.answer import answer_in, answer_of
from ella_lmd.ella.upsample import caption_from_reply, doubts
from ella_lmd.lmd.planner.reply import ReplyError, parse, to_layout
from hypothesis import given, settings
from hypothesis import strategies as st

DRAFT = "[('a draft cow', [1, 2, 30, 40])]"
THINGS = [{"name": "a cat", "box": [20, 200, 200, 200]}, {"name": "a dog", "box": [290, 190, 210, 230]}]
FINAL = json.dumps({"objects": THINGS, "background": "A park", "negative": ""})
CHANNELS = "<|channel|>analysis<|message|>We could use {0}.<|end|><|start|>assistant<|channel|>"

THOUGHT_AND_ANSWER = {
    "a pair": "<think>maybe {0}</think>\n{1}",
    "another name": "<thinking>maybe {0}</thinking>{1}",
    "a namespace and a capital": "<Seed:Think>maybe {0}</Seed:Think>{1}",
    "two words": "<thought_process>\nmaybe {0}\n</thought_process>{1}",
    "attributes": '<think duration="3">maybe {0}</think>{1}',
    "square": "[THINK]maybe {0}[/THINK]{1}",
    "triangles": "\u25c1think\u25b7maybe {0}\u25c1/think\u25b7{1}",
    "tokens": "<|begin_of_thought|>maybe {0}<|end_of_thought|><|begin_of_solution|>{1}<|end_of_solution|>",
    "escaped": "&lt;think&gt;maybe {0}&lt;/think&gt;{1}",
    "a web page's fold": '<details type="reasoning" done="true"><summary>Thought</summary>{0}</details>\n{1}',
    "a terminal": "Thinking...\nmaybe {0}\n...done thinking.\n\n{1}",
    "never opened": "maybe {0}\n</think>\n{1}",
    "never opened, and odd": "maybe {0}\n</think\n{1}",
    "opened twice": "<think>maybe <think>{0}</think>{1}",
    "closed twice": "<think>maybe {0}</think> or {0}</think>{1}",
    "opened again behind the answer": "<think>maybe {0}</think>{1}\n<think>or was it",
    "channels": CHANNELS + "final<|message|>{1}<|return|>",
    "channels and a format": CHANNELS + "final <|constrain|>json<|message|>{1}",
    "channels and a call": CHANNELS + "commentary to=functions.layout <|constrain|>json<|message|>{1}<|call|>",
    "channels without a message": CHANNELS + "final {1}",
    "channels without tokens": "analysisWe could use {0}.assistantfinal{1}",
    "answer tags": "I'd say {0}. <answer>{1}</answer>",
    "an invented turn": "{1}<|im_end|>\n<|im_start|>user\nno, {0}",
}


@pytest.mark.parametrize("form", THOUGHT_AND_ANSWER)
def test_the_answer_stands_behind_the_thinking(form):
    text = THOUGHT_AND_ANSWER[form].replace("{0}", DRAFT).replace("{1}", FINAL)
    layout = to_layout(parse(text), 512, 512)
    assert [o.phrase for o in layout.objects] == ["a cat", "a dog"] and layout.background == "A park"
    text = THOUGHT_AND_ANSWER[form].replace("{0}", "a long draft").replace("{1}", "a red cube.")
    assert caption_from_reply(text, "prompt") == "a red cube."


@pytest.mark.parametrize(
    "text",
    [
        "<think>Maybe {0}? No wait",
        "<think>a</think><think>Maybe {0}",
        "[THINK]Maybe {0}",
        "<|channel|>analysis<|message|>Maybe {0}",
        "analysisWe could take {0} then",
        "Maybe {0} and so on </think>",
        "<think>\n{0}",
        "<think\n{0}",
        '<think effort="low">{0}',
        "\u25c1think\u25b7{0}",
    ],
)
def test_thinking_that_was_cut_off_is_never_an_answer(text):
    text = text.replace("{0}", DRAFT)
    assert not answer_in(text).text
    with pytest.raises(ReplyError, match="thinking.*raise max_tokens"):
        parse(text)
    assert caption_from_reply(text, "a cat") == "a cat" and "passes unchanged" in doubts(answer_in(text))[0]


def test_a_doubt_leaves_a_note():
    for text, said in (
        (f"{DRAFT}</think>{FINAL}", "never opened"),
        (f"{FINAL}<think>hm", "ends inside the model's thinking"),
        (f"We {DRAFT}.assistantfinal{FINAL}", "channel tokens are missing"),
    ):
        assert said in to_layout(parse(text), 512, 512).notes[0]
    assert parse(FINAL).notes == () and parse(f"<think>x</think>{FINAL}").notes == ()


def _choice(finish="stop", **message):
    return {"message": {"role": "assistant", **message}, "finish_reason": finish}


CALL = {"name": "layout", "arguments": FINAL}


@pytest.mark.parametrize(
    "choice",
    [
        _choice(content=FINAL),
        _choice(content=[{"type": "text", "text": FINAL}]),
        _choice(content=[{"type": "thinking", "thinking": DRAFT, "text": DRAFT}, {"type": "text", "text": FINAL}]),
        _choice(content="", reasoning_content=FINAL),
        _choice(content=None, reasoning=f"maybe {DRAFT}, no: {FINAL}"),
        _choice(content=FINAL, reasoning_content=DRAFT),
        _choice("tool_calls", content=None, tool_calls=[{"type": "function", "function": CALL}]),
        _choice(tool_calls=[{"function": {"name": "layout", "arguments": json.loads(FINAL)}}]),
        _choice(content=None, function_call=CALL),
    ],
)
def test_a_servers_message_holds_its_answer_in_many_places(choice):
    answer = answer_of(choice)
    layout = to_layout(parse(answer), 512, 512)
    assert [o.phrase for o in layout.objects] == ["a cat", "a dog"]
    assert bool(layout.notes) == (not choice["message"].get("content"))


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (_choice(content=None, refusal="I'm sorry, I cannot assist."), "refuses.*cannot assist"),
        (_choice("content_filter", content=""), "content filter"),
        (_choice("length", content="", reasoning_content=FINAL), "cut at its limit.*max_tokens"),
        (_choice("length", content="<think>we could"), "cut at its limit.*max_tokens"),
        (_choice(content="", thinking=f"maybe {DRAFT} or not"), "thinking and no answer"),
        (_choice(content="I'm sorry, but I can't help with that."), "refuses.*can't help"),
        (_choice("length", content=FINAL[:90]), "never closed.*cut at its limit.*max_tokens"),
        (_choice(content=""), "answer is empty"),
    ],
)
def test_what_is_no_answer_says_why(choice, said):
    with pytest.raises(ReplyError, match=said):
        parse(answer_of(choice))


def test_an_answer_that_was_cut_behind_its_list_says_so():
    text = "Objects: [('a cat', [20, 200, 200, 200])]\nBackground prompt: A pa"
    assert "raise max_tokens" in to_layout(parse(answer_of(_choice("length", content=text))), 512, 512).notes[0]


def test_a_caption_is_no_refusal_and_no_json():
    assert caption_from_reply("I'm sorry, but I can't help with that.", "a cat") == "a cat"
    assert caption_from_reply("Sorry trees line a road.", "a cat") == "a cat"  # the harmless side
    assert caption_from_reply('{"caption": "a white cat sits."}', "a cat") == "a white cat sits."
    assert caption_from_reply("I see a cat.", "a cat") == "I see a cat."


_PIECES = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "<", ">", "/", "[THINK]", "[/THINK]", "<|channel|>", "final", "analysis", "<|message|>",
         "<|end|>", "assistantfinal", "a", " ", "\n", "<answer>", "</answer>", "{", "}", '"', "&lt;", "\ud800", "Long:"]
    ),
    max_size=30,
).map("".join)  # fmt: skip
_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), _PIECES, st.text(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["message", "content", "finish_reason", "tool_calls", "function", "arguments", "refusal",
                             "reasoning", "type", "text", "function_call"]), inner, max_size=4),
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(_PIECES, st.booleans())
def test_any_text_is_an_answer_or_says_why_it_is_none(text, cut):
    answer = answer_in(text, cut)
    assert bool(answer.text) != bool(answer.why)
    (answer.text + caption_from_reply(text, "p")).encode("utf-8")


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(_VALUES)
def test_any_json_of_a_server_is_an_answer_or_an_ordinary_error(value):
    try:
        answer = answer_of(value)
    except ValueError:
        return
    answer.text.encode("utf-8")
