"""Caption upsampling: asking a language model for the long form of a short prompt.

ELLA was trained on long descriptions; its authors recommend this step for short prompts. The request follows their
six points: the task, 3 to 5 sentences, concrete attributes, no mood, a few examples, the prompt last.
"""

from __future__ import annotations

import json
import re

from ..chat.answer import Answer, answer_in, is_refusal, refused

SHORT_PROMPT_WORDS = 25

_TASK = (
    "Write the long version of a short image caption, in the way of the examples below. Use 3 to 5 plain sentences "
    "of about 60 words in all. Keep everything that the short caption says, and state the colour, shape, texture or "
    "spatial relation of the objects. Describe only what can be seen. Write no sentence about atmosphere, mood or "
    "feeling. Answer with the long caption alone."
)
_EXAMPLES = (
    (
        "a cup left of a laptop",
        "a white ceramic cup with a thin blue rim stands on the left side of an open silver laptop. the two objects "
        "are about a hand apart on a light oak table. the screen of the laptop is black, and the cup is half full of "
        "dark coffee.",
    ),
    (
        "a woman reading on a bench",
        "a woman with short grey hair sits in the middle of a green wooden bench, reading a thick red book. she wears "
        "a long beige coat and round glasses. behind her, two men in dark jackets walk along a gravel path, and a row "
        "of bare trees stands further back.",
    ),
    (
        "a lighthouse",
        "a tall round lighthouse with red and white stripes stands on a flat grey rock at the right of the picture. "
        "a small house with a slate roof touches its base. blue water with short waves covers the lower half, and the "
        "sky above is pale with three thin clouds.",
    ),
    (
        "kitchen with a dog",
        "a brown dog with curly fur lies on a square patterned rug in the centre of a small kitchen. white cupboards "
        "with round metal handles line the wall on the left. a steel pot stands on the black stove behind the dog, "
        "and a yellow towel hangs from the oven door.",
    ),
)


def upsampling_request(prompt: str) -> str:
    """The text to send to a language model for the long form of `prompt`."""
    examples = "\n\n".join(f"Short: {short}\nLong: {long}" for short, long in _EXAMPLES)
    return f"{_TASK}\n\n{examples}\n\nShort: {prompt.strip()}\nLong:"


def needs_upsampling(prompt: str) -> bool:
    """Whether a prompt is so short that the authors recommend a longer form (empty text never is)."""
    return 0 < len(prompt.split()) < SHORT_PROMPT_WORDS


def caption_from_reply(reply: str | Answer, prompt: str) -> str:
    """The caption in a language model's reply, on one line; the prompt itself when the reply holds none."""
    answer = reply if isinstance(reply, Answer) else answer_in(reply)
    if is_refusal(answer.text):
        return prompt
    text = _named_caption(answer.text)
    label = re.search(r"\bLong:", text)
    text = text[label.end() :] if label else text
    text = text.split("\nShort:")[0]  # a model that goes on inventing examples
    text = " ".join(text.replace("```", " ").split()).strip().strip('"').strip()
    return text or prompt


def doubts(answer: Answer) -> tuple[str, ...]:
    """What a user should know about the caption that was read from an answer."""
    if answer.cut:
        kept = "" if answer.text else "; the prompt passes unchanged"
        return (
            f"the language model was stopped at its limit of length: turn its thinking off, or choose another{kept}",
        )
    if not answer.text:
        return (f"{answer.why}; the prompt passes unchanged",)
    if is_refusal(answer.text):
        return (f"{refused(answer.text)}; the prompt passes unchanged",)
    return answer.notes


def _named_caption(text: str) -> str:
    """The caption out of an answer in JSON, such as a tool call's arguments."""
    if not text.startswith("{"):
        return text
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return text
    texts = [v for v in data.values() if isinstance(v, str)]
    return next((data[k] for k in ("long", "caption") if isinstance(data.get(k), str)), texts[0] if texts else "")
