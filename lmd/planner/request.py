"""The request that a language model gets in stage 1: an instruction, worked examples, the caption.

Source: docs/lmd.md, 1.1 to 1.3; wording and examples are our own. Decoding as published:
temperature 0.25, at most 900 tokens, stop at a blank line.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from ..layout import Layout
from ..limits import MAX_OBJECTS

VERSION = "4"  # part of every cache key: a new wording asks again
TEMPERATURE = 0.25
MAX_TOKENS = 900
STOP = "\n\n"
_SIDE = 512  # the canvas of the examples below


@dataclass(frozen=True)
class Example:
    """A worked answer on a 512 x 512 canvas; boxes are `(name, (left, top, width, height))` in pixels."""

    caption: str
    objects: tuple[tuple[str, tuple[float, float, float, float]], ...]
    background: str
    negative: str = ""


# Ordered so that the first few already show counts, supports, negation and vertical order.
EXAMPLES = (
    Example(
        "A wooden bench with two pigeons on top of it, seen from the front, in a town square",
        (
            ("a wooden bench", (70, 292, 372, 170)),
            ("a pigeon", (112, 196, 106, 100)),
            ("a pigeon", (290, 190, 112, 106)),
        ),
        "A realistic photo of a town square, front view",
    ),
    Example(
        "a kitten under a table and a fruit bowl on the table, without a tablecloth",
        (
            ("a table", (56, 214, 400, 160)),
            ("a fruit bowl", (170, 116, 172, 104)),
            ("a kitten", (186, 366, 140, 118)),
        ),
        "A realistic scene",
        "a tablecloth",
    ),
    Example(
        "Two sailing boats and a lighthouse on the left of a windmill, clear sky above the coast",
        (
            ("a lighthouse", (24, 92, 108, 270)),
            ("a windmill", (356, 110, 136, 250)),
            ("a sailing boat", (150, 380, 96, 112)),
            ("a sailing boat", (262, 388, 92, 108)),
        ),
        "A realistic landscape of a coast under a clear sky",
    ),
    Example(
        "An ink drawing of an old oak on the right and a jumping hare on the left, behind them a fence",
        (
            ("an old oak", (260, 60, 220, 390)),
            ("a jumping hare", (40, 300, 150, 140)),
            ("a fence", (20, 196, 226, 92)),
        ),
        "An ink drawing of a meadow",
    ),
    Example(
        "a tractor at the bottom of the picture, a hot-air balloon and three geese at the top",
        (
            ("a tractor", (120, 316, 250, 180)),
            ("a hot-air balloon", (296, 20, 180, 226)),
            ("a goose", (26, 60, 84, 70)),
            ("a goose", (112, 30, 80, 66)),
            ("a goose", (180, 96, 82, 72)),
        ),
        "A realistic photo of a field under a wide sky",
    ),
    Example(
        "Two yellow canaries above a green parrot in an aviary with no cage",
        (
            ("a yellow canary", (96, 62, 122, 108)),
            ("a yellow canary", (292, 54, 126, 112)),
            ("a green parrot", (166, 240, 180, 236)),
        ),
        "A realistic photo of an aviary",
        "a cage",
    ),
    Example(
        "A pastel picture of a child's room: a lamp above a chest of drawers, two toy bears on top of it, no posters",
        (
            ("a chest of drawers", (118, 306, 280, 176)),
            ("a toy bear", (138, 204, 104, 106)),
            ("a toy bear", (272, 200, 108, 110)),
            ("a lamp", (190, 30, 134, 120)),
        ),
        "A pastel picture of a child's room",
        "posters",
    ),
)


def instruction(width: int = _SIDE, height: int = _SIDE) -> str:
    """The paragraph that states the task for a canvas of `width` x `height` pixels."""
    return (
        "You plan images. Read the caption of a photo, picture or painting and decide where each thing that it names "
        f"should be. The canvas is {width} pixels wide and {height} pixels high; its top-left corner is [0, 0] and its "
        f"bottom-right corner is [{width}, {height}]. For every single thing write one pair ('name', [left, top, "
        "width, height]) with whole numbers: a thing on the left has a small left, one on the right a large left, one "
        "at the top a small top, one at the bottom a large top. A name is a short singular phrase with its article; "
        "two of a kind are two pairs. "
        "Every box has the size that its thing would have in such a picture; together they fill a good part of it. "
        "Boxes stay inside the canvas and do not overlap, except that a thing may stand on or in another one. Then "
        "write a background prompt: the place and the style of the picture without the things that have boxes and "
        "without "
        'anything that the caption rules out; if the caption gives no place, write "A realistic scene". Last, write '
        "a negative prompt with what the caption rules out, or leave it empty. Guess sensibly where the caption is "
        "silent. Names and prompts are always in English, whatever language the caption is written in. "
        "Answer in exactly the form of the examples, with nothing before or after it."
    )


def answer(example: Example, width: int = _SIDE, height: int = _SIDE) -> str:
    """The reply that an example expects, with its boxes on the wanted canvas."""
    fx, fy = width / _SIDE, height / _SIDE
    boxes = [
        f"({name!r}, [{round(x * fx)}, {round(y * fy)}, {round(w * fx)}, {round(h * fy)}])"
        for name, (x, y, w, h) in example.objects
    ]
    negative = f"Negative prompt: {example.negative}".rstrip()
    return f"Objects: [{', '.join(boxes)}]\nBackground prompt: {example.background}\n{negative}"


def reply(layout: Layout) -> str:
    """The answer that would give this layout, boxes in pixels of its canvas."""
    return answer(_example(layout), layout.width, layout.height)


def clean_caption(prompt: str) -> str:
    """The caption on one line without periods at its end. Raises ValueError when nothing is left."""
    caption = " ".join(prompt.split()).rstrip(".").strip()
    if not caption:
        raise ValueError(
            "the prompt is empty, so there is nothing to ask a language model: write what the image should show"
        )
    return caption


def _examples(count: int) -> Sequence[Example]:
    if not 0 <= count <= len(EXAMPLES):
        raise ValueError(f"there are 0 to {len(EXAMPLES)} examples, got {count}: change the number of examples")
    return EXAMPLES[:count]


def text(prompt: str, width: int = _SIDE, height: int = _SIDE, examples: int = len(EXAMPLES)) -> str:
    """The whole request as one text; it ends in "Objects:" with nothing behind it, ready for a plain completion."""
    caption = clean_caption(prompt)
    shown = [f"Caption: {e.caption}\n{answer(e, width, height)}" for e in _examples(examples)]
    parts = [instruction(width, height), *shown, f"Caption: {caption}\nObjects:"]
    if not shown:
        parts.insert(1, _FORM)
    return "\n\n".join(parts)


_FORM = (
    "The form of the answer:\nObjects: [('name', [left, top, width, height]), ...]\n"
    "Background prompt: place and style\nNegative prompt: what must not appear"
)
_CHAT_FORM = _FORM.replace("Objects:", "Caption: the caption\nPlaces: name: left; name: top right; ...\nObjects:")
_JSON_FORM = (
    'The form of the answer is JSON: {"caption": the caption, "objects": [{"name": name, "place": where in the picture, '
    '"box": [left, top, width, height]}, ...], "background": place and style, "negative": what must not appear}'
)


PLACES = (
    "top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right",
)  # fmt: skip


def _place(x: float, y: float, w: float, h: float) -> str:
    """In which ninth of the examples' canvas the middle of a box lies."""
    column, row = (min(max(int(v * 3 / _SIDE), 0), 2) for v in (x + w / 2, y + h / 2))
    return PLACES[3 * row + column]


def schema(width: int = _SIDE, height: int = _SIDE) -> dict:
    """The JSON schema of an answer. A small model does better when the caption comes first and when it says in words
    where a thing is before it writes the numbers.
    """
    number = {"type": "integer", "minimum": 0, "maximum": max(width, height)}
    box = {"type": "array", "items": number, "minItems": 4, "maxItems": 4}
    thing = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "place": {"type": "string", "enum": list(PLACES)}, "box": box},
        "required": ["name", "place", "box"],
        "additionalProperties": False,
    }
    properties = {
        "caption": {"type": "string"},
        "objects": {"type": "array", "items": thing, "maxItems": MAX_OBJECTS},
        "background": {"type": "string"},
        "negative": {"type": "string"},
    }
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _reply(caption: str, layout: Layout | Example, width: int, height: int, as_json: bool) -> str:
    """The answer in the form that is asked for: it repeats its caption and says where things are before any number."""
    example = layout if isinstance(layout, Example) else _example(layout)
    if not as_json:
        places = "; ".join(f"{name}: {_place(*box)}" for name, box in example.objects)
        return f"Caption: {caption}\nPlaces: {places}\n{answer(example, width, height)}"
    fx, fy = width / _SIDE, height / _SIDE
    objects = [
        {"name": name, "place": _place(x, y, w, h), "box": [round(x * fx), round(y * fy), round(w * fx), round(h * fy)]}
        for name, (x, y, w, h) in example.objects
    ]
    whole = {"caption": caption, "objects": objects, "background": example.background, "negative": example.negative}
    return json.dumps(whole, ensure_ascii=False)


def _example(layout: Layout) -> Example:
    objects = tuple(
        (o.phrase, (o.box.x * _SIDE, o.box.y * _SIDE, o.box.w * _SIDE, o.box.h * _SIDE)) for o in layout.objects
    )
    return Example("", objects, layout.background, layout.negative)


def messages(
    prompt: str,
    width: int = _SIDE,
    height: int = _SIDE,
    examples: int = len(EXAMPLES),
    as_json: bool = False,
) -> list[dict[str, str]]:
    """The request as chat messages: instruction as system text, each example as a turn, the caption last."""
    caption = clean_caption(prompt)
    form = _JSON_FORM if as_json else _CHAT_FORM
    system = instruction(width, height) + ("" if examples else "\n\n" + form)
    out = [{"role": "system", "content": system}]
    for example in _examples(examples):
        out.append({"role": "user", "content": f"Caption: {example.caption}"})
        out.append({"role": "assistant", "content": _reply(example.caption, example, width, height, as_json)})
    return [*out, {"role": "user", "content": f"Caption: {caption}"}]


def edit_messages(
    previous: Layout,
    change: str,
    width: int,
    height: int,
    examples: int = len(EXAMPLES),
    as_json: bool = False,
) -> list[dict[str, str]]:
    """The request to change a layout: the talk so far ends in that layout, the last turn says what to change."""
    caption = previous.prompt.strip() or ", ".join(o.phrase for o in previous.objects) or "a picture"
    asked = (
        f"Change this layout: {clean_caption(change)}.\nKeep every name, number and line that this does not mention "
        "exactly as it is, and write the whole answer again in the same form."
    )
    return [
        *messages(caption, width, height, examples, as_json),
        {"role": "assistant", "content": _reply(clean_caption(caption), previous, width, height, as_json)},
        {"role": "user", "content": asked},
    ]


def complaint(faults: Sequence[str]) -> str:
    """The turn that asks again and names what is wrong."""
    listed = "\n".join(f"- {fault}" for fault in faults)
    return f"This answer has faults:\n{listed}\nCorrect them and write the whole answer again in the same form."


def as_text(talk: Sequence[dict[str, str]]) -> str:
    """Chat messages as one text, for a model that takes a single message; it asks for the next answer."""
    system, *turns = talk
    body = "\n\n".join(m["content"] for m in turns)
    return f"{system['content']}\n\n{body}\n\nWrite the answer to the last one only, beginning with its caption."
