"""The shapes in which language models write boxes, once they are plain lists and mappings.

The words that name a field ("box", "label") are never taken for a thing's name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import cast

from .box_filter import NamedBox
from .literals import LiteralError, read_literal

_LISTS = ("objects", "boxes", "bounding_boxes", "bboxes", "layout", "items", "elements", "detections", "object_list")
_NAMES = ("name", "phrase", "caption", "label", "object", "description", "text", "prompt", "title", "category", "desc")
_BOXES = (
    "box",
    "bbox",
    "bounding_box",
    "boundingbox",
    "rect",
    "rectangle",
    "coordinates",
    "position",
    "coords",
    "xywh",
)
# Keys that detection models give corners under, chat models a size.
_CORNERS_OR_SIZE = ("bbox", "bounding_box", "boundingbox", "coordinates", "coords")
_BACKGROUND = ("background", "background_prompt", "bg", "bg_prompt", "backgroundprompt", "scene")
_NEGATIVE = ("negative", "negative_prompt", "neg", "neg_prompt", "negativeprompt")
_FIELDS = (
    ("x", "left", "x0", "x_min", "xmin", "x1"),
    ("y", "top", "y0", "y_min", "ymin", "y1"),
    ("w", "width"),
    ("h", "height"),
)
_FAR = (("x_max", "xmax", "right", "x2"), ("y_max", "ymax", "bottom", "y2"))

_CANVAS = ("canvas", "canvas_size", "image_size", "size")
_GRID = 1000  # of Gemini's box_2d: [ymin, xmin, ymax, xmax]
_FIELD_WORDS = frozenset(
    (*_LISTS, *_NAMES, *_BOXES, *_BACKGROUND, *_NEGATIVE, *_CANVAS, "box_2d", "bbox_2d", "place")
    + tuple(word for words in (*_FIELDS, *_FAR) for word in words)
)
_NUMBER_TEXT = re.compile(r"\s{0,4}([-+]?\d{1,9}(?:\.\d{0,9})?)\s{0,4}(?:px|pixels?)?\s{0,4}")
_DEEPEST = 3  # answers as text inside of answers


@dataclass
class Found:
    """Boxes as written, `fractions` when they are shares of the canvas; `listed`: they stood in a list, not one alone.

    `unsure`: their key does not tell whether the last two numbers are a size or the far corner.
    """

    boxes: list[NamedBox]
    background: str = ""
    negative: str = ""
    canvas: tuple[int, int] | None = None
    fractions: bool = False
    notes: tuple[str, ...] = field(default=())
    listed: bool = True
    unsure: bool = False


@dataclass(frozen=True)
class _Thing:
    name: str
    box: list[float]
    on_grid: bool = False
    note: str = ""
    unsure: bool = False


_OPENING = re.compile(
    r"[\[{(]\s{0,40}(?:[\[{(]\s{0,40}){0,12}(?:[\"'\u201c\u2018]|[\w' -]{1,40}[,:]\s{0,8}[\[({]?\s{0,8}-?\d)",
)
_SURELY = re.compile(
    r"[\[{(]\s{0,40}(?:[\[{(]\s{0,40}){0,12}[\"'\u201c\u2018][^\"\n]{0,80}?[\"'\u201d\u2019]\s{0,8}[,:]\s{0,8}[\[({\"'\d]"
)


def looks_like_boxes(text: str, surely: bool = False) -> bool:
    """Worth a complaint when it can't be read: a bracket with a quoted name, or with a name and numbers.

    `surely`: not a remark in brackets either, but a quoted name with something behind it.
    """
    return (_SURELY if surely else _OPENING).match(text[:400]) is not None


def boxes_in(value: object, depth: int = 0) -> Found | None:
    """The boxes that a literal holds; None when it is something else."""
    found = _mapping(value, depth) if isinstance(value, dict) else _list(value, depth)
    if found is not None and found.boxes and not found.fractions:
        numbers = [abs(v) for _, box in found.boxes for v in box]
        found.fractions = max(numbers) <= 1.5 and any(0 < v < 1 for v in numbers)
    return found


def _plain(key: object) -> str:
    return str(key).strip().lower().replace(" ", "_").replace("-", "_")


def _key(mapping: dict, names: tuple[str, ...]) -> object:
    plain = {_plain(k): v for k, v in mapping.items()}
    return next((plain[n] for n in names if n in plain and plain[n] is not None), None)


def _text(value: object) -> str:
    if isinstance(value, list):
        value = ", ".join(str(v) for v in value)
    text = str(value).strip() if isinstance(value, str) else ""
    return "" if text.lower() in ("none", "n/a", "null") else text


def _mapping(data: dict, depth: int) -> Found | None:
    found = _listing(data, depth) or _inside(data, depth)
    if found is None:
        return None
    background, negative = _text(_key(data, _BACKGROUND)), _text(_key(data, _NEGATIVE))
    found.background, found.negative = background or found.background, negative or found.negative
    canvas = _key(data, _CANVAS)
    if isinstance(canvas, dict):
        canvas = [_key(canvas, ("width", "w")), _key(canvas, ("height", "h"))]
    if isinstance(canvas, list) and len(canvas) == 2 and all(isinstance(v, int) and 0 < v < 1e6 for v in canvas):
        found.canvas = cast(tuple[int, int], tuple(canvas))
    return found


def _listing(data: dict, depth: int) -> Found | None:
    """The things of a mapping that lists them under a known name, is one itself, or has their names as its keys."""
    listing = _key(data, _LISTS)
    single = _named(data)
    if isinstance(listing, dict) and single is None:
        return _mapping(listing, depth) or _list([[k, v] for k, v in listing.items()], depth)
    if isinstance(listing, list):
        return _list(listing, depth)
    if single is not None:
        return _found([single], listed=False)
    boxes = [(k, v) for k, v in data.items() if _box(v) is not None and _plain(k) not in _FIELD_WORDS]
    told = [k for k, v in data.items() if isinstance(v, str) and _plain(k) not in _FIELD_WORDS]
    if not boxes or (len(boxes) == 1 and told):  # {"nom": "a cat", "boite": [...]}: which is the name?
        return None
    return _found([_Thing(str(k).strip(), cast(list, _box(v))) for k, v in boxes])


def _inside(data: dict, depth: int) -> Found | None:
    """The things in one of the values: a wrapper such as {"result": {...}}, also with its answer as a text."""
    if depth > _DEEPEST:
        return None
    for key, value in data.items():
        if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
            try:
                value = read_literal(value, 0)[0]
            except LiteralError:
                continue
        unknown = isinstance(value, list) and _plain(key) not in _FIELD_WORDS
        if (isinstance(value, dict) or (unknown and any(isinstance(v, (dict, list)) for v in cast(list, value)))) and (
            found := boxes_in(value, depth + 1)
        ):
            return _with_unread(found, data, key) if unknown and found.boxes else found
    return None


def _with_unread(found: Found, data: dict, key: object) -> Found:
    """Notes which fields beside an unknown `key` were not understood."""
    unread = [
        str(k)[:40] for k, v in data.items() if isinstance(v, str) and v.strip() and _plain(k) not in _FIELD_WORDS
    ]
    unread = [k for k in unread if _plain(k) not in ("caption", "name")]
    note = f'the boxes were read from the unknown field "{str(key)[:40]}"'
    if unread:
        note += f"; not understood and left out: {', '.join(unread[:5])}"
    return replace(found, notes=(*found.notes, note))


def _list(value: object, depth: int) -> Found | None:
    if not isinstance(value, list):
        return None
    if not value:
        return Found([])
    named = [_named(item) for item in value]
    if all(n is None for n in named):
        if (single := _named(value)) is not None:
            return _found([single], listed=False)
        named = _by_common_keys(value)
        if len(value) == 1 and named == [None] and isinstance(value[0], (dict, list)) and depth <= _DEEPEST:
            return boxes_in(value[0], depth + 1)
        if all(n is None for n in named):
            return None
    notes = tuple(f"entry {i + 1} of the reply's list is not a box and was left out: {str(value[i])[:60]}"
                  for i, n in enumerate(named) if n is None)  # fmt: skip
    found = _found([n for n in named if n is not None])
    return replace(found, notes=found.notes + notes)


def _found(things: list[_Thing], listed: bool = True) -> Found:
    """What a list of things comes to; boxes on a grid of 1000 become shares of the canvas if all are on it."""
    notes = dict.fromkeys(t.note for t in things if t.note)
    if not all(t.on_grid for t in things):
        spare = [t.name for t in things if t.on_grid]
        notes |= dict.fromkeys(
            f'"{name}" has its box on another scale than the others and was left out' for name in spare
        )
        things = [t for t in things if not t.on_grid]
        boxes, unsure = [(t.name, t.box) for t in things], all(t.unsure for t in things)
        return Found(boxes, notes=tuple(notes), listed=listed, unsure=unsure)
    boxes = [(t.name, [v / _GRID for v in t.box]) for t in things]
    return Found(boxes, fractions=True, notes=tuple(notes), listed=listed)


def _by_common_keys(items: list) -> list[_Thing | None]:
    """Things whose fields have unknown names: one text and one box each, under the same two keys in at least two."""
    pairs = []
    for item in items:
        texts = [k for k, v in item.items() if isinstance(v, str) and v.strip()] if isinstance(item, dict) else []
        boxes = [k for k, v in item.items() if _box(v) is not None] if isinstance(item, dict) else []
        pairs.append((texts[0], boxes[0]) if len(texts) == len(boxes) == 1 else None)
    common = set(pairs) - {None}
    if len(common) != 1 or len(pairs) - pairs.count(None) < 2:
        return [None] * len(items)
    note = "the fields {} and {} of the reply were read as name and box".format(*(k[:40] for k in common.pop()))
    return [p and _Thing(item[p[0]].strip(), cast(list, _box(item[p[1]])), note=note) for item, p in zip(items, pairs)]


def _named(item: object) -> _Thing | None:
    """`("a cat", [..])`, `["a cat", 1, 2, 3, 4]`, `{"name": .., "box": ..}`, `{"a cat": [..]}` or with x, y, w, h."""
    if isinstance(item, list) and len(item) == 2:
        for name, box in (item, item[::-1]):
            if isinstance(name, str) and name.strip() and (found := _box(box)) is not None:
                return None if _plain(name) in _BOXES else _Thing(name.strip(), found)
    if isinstance(item, list) and len(item) == 5 and isinstance(item[0], str) and item[0].strip():
        found = _box(item[1:])
        return None if found is None else _Thing(item[0].strip(), found)
    return _named_mapping(item) if isinstance(item, dict) else None


def _named_mapping(item: dict) -> _Thing | None:
    name = _key(item, _NAMES)
    if isinstance(name, str) and name.strip():
        name = name.strip()
        value = _key(item, _BOXES)
        if (box := _box(value)) is not None:
            unsure = not isinstance(value, dict) and value is _key(item, _CORNERS_OR_SIZE)
            return _Thing(name, box, unsure=unsure)
        if (box := _box(item)) is not None:
            return _Thing(name, box)
        if (box := _box(_key(item, ("box_2d",)))) is not None:
            y0, x0, y1, x1 = box
            note = "box_2d was read as [top, left, bottom, right] on a scale of 0 to 1000"
            return _Thing(name, [x0, y0, x1 - x0, y1 - y0], True, note)
        if (box := _box(_key(item, ("bbox_2d",)))) is not None:
            x0, y0, x1, y1 = box
            note = "bbox_2d was read as [left, top, right, bottom] in pixels"
            return _Thing(name, [x0, y0, x1 - x0, y1 - y0], note=note)
    if len(item) == 1:
        ((key, value),) = item.items()
        if _box(value) is not None and str(key).strip() and _plain(key) not in _FIELD_WORDS:
            return _Thing(str(key).strip(), cast(list, _box(value)))
    return None


def _number(value: object) -> float | None:
    if isinstance(value, str) and (match := _NUMBER_TEXT.fullmatch(value[:40])):
        return float(match[1])
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _numbers(values: list) -> list[float] | None:
    numbers = [_number(v) for v in values]
    return [n for n in numbers if n is not None] if None not in numbers else None


def _box(value: object) -> list[float] | None:
    if isinstance(value, str) and len(value) < 80:  # "20, 200, 200, 200"
        value = value.strip(" []()").split(",")
    if isinstance(value, list) and len(value) == 4:
        return _numbers(value)
    if isinstance(value, list) and len(value) == 2 and all(isinstance(v, list) and len(v) == 2 for v in value):
        return _numbers([*value[0], *value[1]])
    if isinstance(value, dict):
        near = _numbers([_key(value, names) for names in _FIELDS[:2]])
        size = _numbers([_key(value, names) for names in _FIELDS[2:]])
        far = _numbers([_key(value, names) for names in _FAR])
        if near and size:
            return near + size
        if near and far:
            return near + [far[0] - near[0], far[1] - near[1]]
    return None
