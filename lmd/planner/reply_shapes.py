"""The shapes in which language models write boxes, once they are plain lists and mappings."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .box_filter import NamedBox

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
_BACKGROUND = ("background", "background_prompt", "bg", "bg_prompt", "backgroundprompt", "scene")
_NEGATIVE = ("negative", "negative_prompt", "neg", "neg_prompt", "negativeprompt")
_FIELDS = (
    ("x", "left", "x0", "x_min", "xmin", "x1"),
    ("y", "top", "y0", "y_min", "ymin", "y1"),
    ("w", "width"),
    ("h", "height"),
)
_FAR = (("x_max", "xmax", "right", "x2"), ("y_max", "ymax", "bottom", "y2"))


@dataclass
class Found:
    boxes: list[NamedBox]
    background: str = ""
    negative: str = ""
    canvas: tuple[int, int] | None = None
    fractions: bool = False
    notes: tuple[str, ...] = field(default=())


_OPENING = re.compile(
    r"[\[{(]\s*(?:[\[{(]\s*)*(?:[\"'\u201c\u2018]|[\w' -]{1,40}[,:]\s*[\[({]?\s*-?\d)",
)


def looks_like_boxes(text: str) -> bool:
    """Worth a complaint when it can't be read: a bracket with a quoted name, or with a name and numbers."""
    return _OPENING.match(text) is not None


def boxes_in(value: object) -> Found | None:
    """The boxes that a literal holds; None when it is something else."""
    found = _mapping(value) if isinstance(value, dict) else _list(value)
    if found is not None and found.boxes and not found.fractions:
        numbers = [abs(v) for _, box in found.boxes for v in box]
        found.fractions = max(numbers) <= 1.5 and any(0 < v < 1 for v in numbers)
    return found


def _key(mapping: dict, names: tuple[str, ...]) -> object:
    plain = {str(k).strip().lower().replace(" ", "_").replace("-", "_"): v for k, v in mapping.items()}
    return next((plain[n] for n in names if n in plain and plain[n] is not None), None)


def _text(value: object) -> str:
    if isinstance(value, list):
        value = ", ".join(str(v) for v in value)
    text = str(value).strip() if isinstance(value, str) else ""
    return "" if text.lower() in ("none", "n/a", "null") else text


def _mapping(data: dict) -> Found | None:
    listing = _key(data, _LISTS)
    background, negative = _text(_key(data, _BACKGROUND)), _text(_key(data, _NEGATIVE))
    if isinstance(listing, dict) and _named(data) is None:
        inner = _mapping(listing)
        found = inner or _list([[k, v] for k, v in listing.items()])
    elif isinstance(listing, list):
        found = _list(listing)
    elif (single := _named(data)) is not None:
        found = Found([single])
    else:
        pairs = [(k, v) for k, v in data.items() if _box(v) is not None]
        found = Found([(str(k).strip(), _box(v)) for k, v in pairs]) if pairs else None
        if found is None:
            for inner in data.values():
                if isinstance(inner, dict) and (deeper := _mapping(inner)) is not None:
                    return deeper
    if found is None:
        return None
    found.background, found.negative = background or found.background, negative or found.negative
    canvas = _key(data, ("canvas", "canvas_size", "image_size", "size"))
    if isinstance(canvas, dict):
        canvas = [_key(canvas, ("width", "w")), _key(canvas, ("height", "h"))]
    if isinstance(canvas, list) and len(canvas) == 2 and all(isinstance(v, int) and 0 < v < 1e6 for v in canvas):
        found.canvas = (canvas[0], canvas[1])
    return found


def _list(value: object) -> Found | None:
    if not isinstance(value, list):
        return None
    if not value:
        return Found([])
    named = [_named(item) for item in value]
    if all(n is None for n in named):
        single = _named(value)
        return Found([single]) if single is not None else None
    notes = tuple(f"entry {i + 1} of the reply's list is not a box and was left out: {str(value[i])[:60]}"
                  for i, n in enumerate(named) if n is None)  # fmt: skip
    return Found([n for n in named if n is not None], notes=notes)


def _named(item: object) -> NamedBox | None:
    """`("a cat", [..])`, `["a cat", 1, 2, 3, 4]`, `{"name": .., "box": ..}`, `{"a cat": [..]}` or with x, y, w, h."""
    if isinstance(item, list) and len(item) == 2:
        for name, box in (item, item[::-1]):
            if isinstance(name, str) and name.strip() and _box(box) is not None:
                return name.strip(), _box(box)
    if isinstance(item, list) and len(item) == 5 and isinstance(item[0], str) and _box(item[1:]) is not None:
        return item[0].strip(), _box(item[1:])
    if isinstance(item, dict):
        name = _key(item, _NAMES)
        box = _box(_key(item, _BOXES)) or _box(item)
        if isinstance(name, str) and name.strip() and box is not None:
            return name.strip(), box
        if len(item) == 1:
            ((key, value),) = item.items()
            if _box(value) is not None and str(key).strip():
                return str(key).strip(), _box(value)
    return None


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _box(value: object) -> list[float] | None:
    if isinstance(value, list) and len(value) == 4 and all(_number(v) for v in value):
        return list(value)
    if isinstance(value, list) and len(value) == 2 and all(isinstance(v, list) and len(v) == 2 for v in value):
        flat = [*value[0], *value[1]]
        return flat if all(_number(v) for v in flat) else None
    if isinstance(value, dict):
        near = [_key(value, names) for names in _FIELDS[:2]]
        size = [_key(value, names) for names in _FIELDS[2:]]
        if all(_number(v) for v in near + size):
            return near + size
        far = [_key(value, names) for names in _FAR]
        if all(_number(v) for v in near + far):
            return near + [far[0] - near[0], far[1] - near[1]]
    return None
