"""The layout that a planner hands to the samplers: one captioned box per object, a background and a negative prompt."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace

from .limits import (
    CANVAS_MULTIPLE,
    LEAST_CANVAS,
    MAX_COORDINATE,
    MAX_EDITS,
    MAX_OBJECTS,
    MAX_PHRASE,
    MAX_TEXT,
    MOST_CANVAS,
    readable,
    within,
)
from .object_settings import ObjectSettings


@dataclass(frozen=True)
class Box:
    """A rectangle in canvas fractions: `x`, `y` are the left and top edge, y grows downwards.

    Parts may lie outside 0..1 (a centred tall box does); rasterising clips.
    """

    x: float
    y: float
    w: float
    h: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(v) for v in (self.x, self.y, self.w, self.h)):
            raise ValueError(f"a box needs four finite numbers, got x={self.x}, y={self.y}, w={self.w}, h={self.h}")
        if self.x + self.w <= self.x or self.y + self.h <= self.y:
            raise ValueError(f"a box needs a width and a height above 0, got w={self.w:g}, h={self.h:g}")
        if max(abs(self.x), abs(self.y), self.w, self.h) > MAX_COORDINATE:
            raise ValueError(
                f"a box may be at most {MAX_COORDINATE:g} canvas sides away or large, got x={self.x:g}, y={self.y:g}, "
                f"w={self.w:g}, h={self.h:g}: boxes are shares of the canvas, from 0 to 1"
            )

    @classmethod
    def from_corners(cls, x_min: float, y_min: float, x_max: float, y_max: float) -> Box:
        """The box between two corners, in the same units."""
        return cls(x_min, y_min, x_max - x_min, y_max - y_min)

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """`(x_min, y_min, x_max, y_max)`, the form in which the LMD reference keeps boxes."""
        return self.x, self.y, self.x + self.w, self.y + self.h

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y) of its middle."""
        return self.x + self.w / 2, self.y + self.h / 2

    @property
    def area(self) -> float:
        """Width times height, as a share of the canvas."""
        return self.w * self.h

    def cells(self, height: int, width: int) -> tuple[int, int, int, int]:
        """The cells `(y0, y1, x0, x1)` of a `height` x `width` grid that the box covers, end exclusive.

        The origin and the size are rounded separately, half to even, so that a shifted box keeps its size; the result
        may be empty on a coarse grid. Reference: LLM-groundedDiffusion@cef2a90 utils/utils.py.
        """
        x0, y0 = round(self.x * width), round(self.y * height)
        x_max, y_max = self.x + self.w, self.y + self.h
        x1, y1 = x0 + round((x_max - self.x) * width), y0 + round((y_max - self.y) * height)
        return max(y0, 0), min(y1, height), max(x0, 0), min(x1, width)

    def iou(self, other: Box) -> float:
        """Intersection over union, 0..1."""
        w = min(self.x + self.w, other.x + other.w) - max(self.x, other.x)
        h = min(self.y + self.h, other.y + other.h) - max(self.y, other.y)
        shared = max(w, 0.0) * max(h, 0.0)
        return shared / (self.area + other.area - shared)


@dataclass(frozen=True)
class LayoutObject:
    """One object: a short noun phrase with its article ("a red cat"), its box, and what it has of its own."""

    phrase: str
    box: Box
    settings: ObjectSettings = ObjectSettings()

    def __post_init__(self) -> None:
        if not self.phrase.strip():
            raise ValueError("a layout object needs a phrase, got an empty one")
        object.__setattr__(self, "phrase", readable(self.phrase))


@dataclass(frozen=True)
class Layout:
    """What stage 1 gives to stage 2 (socket type LMD_LAYOUT).

    `width` and `height` are the canvas in pixels, multiples of 8. Boxes are fractions of it, so the same layout can be
    put on another canvas with `on_canvas`. `prompt` is the user's own caption. Where boxes overlap, the smaller one is in
    front, as published; with `ordered` the later one.
    """

    width: int
    height: int
    objects: tuple[LayoutObject, ...] = ()
    background: str = ""
    negative: str = ""
    prompt: str = ""
    notes: tuple[str, ...] = field(default=(), compare=False)  # what the planner could not do or had to repair
    ordered: bool = False

    def __post_init__(self) -> None:
        for name, value in (("width", self.width), ("height", self.height)):
            if not LEAST_CANVAS <= value <= MOST_CANVAS or value % CANVAS_MULTIPLE:
                raise ValueError(
                    f"the canvas {name} must be a multiple of {CANVAS_MULTIPLE} and at least {LEAST_CANVAS}, at most "
                    f"{MOST_CANVAS} pixels, got {value}"
                )
        if len(self.objects) > MAX_OBJECTS:
            raise ValueError(
                f"a layout holds at most {MAX_OBJECTS} objects, got {len(self.objects)}: "
                "ask for fewer, or group small ones into one box"
            )
        for name in ("background", "negative", "prompt"):
            object.__setattr__(self, name, readable(getattr(self, name)))

    def back_to_front(self) -> list[int]:
        """The objects' indices, the one in front last; of equally large ones the later is in front."""
        indices = range(len(self.objects))
        return list(indices) if self.ordered else sorted(indices, key=lambda i: -self.objects[i].box.area)

    def on_canvas(self, width: int, height: int) -> Layout:
        """The same layout on a canvas of another size in pixels."""
        return replace(self, width=width, height=height)

    def to_json(self) -> dict:
        """The wire form: boxes `[x, y, w, h]` as fractions, rounded to 1e-6; "settings" where an object has any."""
        return {
            "prompt": self.prompt,
            "canvas": [self.width, self.height],
            "objects": [_object_json(o) for o in self.objects],
            "background": self.background,
            "negative": self.negative,
            **({"ordered": True} if self.ordered else {}),
        }

    @classmethod
    def from_json(cls, data: object) -> Layout:
        """Read the wire form. Raises ValueError naming the field that is wrong."""
        if isinstance(data, str):
            data = json_in(data)
        if not isinstance(data, dict) or not isinstance(data.get("objects"), list):
            raise ValueError('a layout is a JSON object with "canvas" and a list "objects"')
        try:
            width, height = (_whole(v) for v in data.get("canvas", (512, 512)))
        except (TypeError, ValueError, OverflowError):
            shown = repr(data.get("canvas"))[:80]
            raise ValueError(f'"canvas" must be [width, height] in pixels, got {shown}') from None
        objects = []
        for i, item in enumerate(data["objects"]):
            try:
                box = Box(*(float(v) for v in item["box"]))
                phrase = within(f"the phrase of object {i}", str(item["phrase"]), MAX_PHRASE)
                objects.append(LayoutObject(phrase, box, ObjectSettings.from_json(item.get("settings") or {})))
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise ValueError(
                    f'object {i} must be {{"phrase": text, "box": [x, y, w, h] in 0..1}}, got {repr(item)[:200]}: {error}'
                ) from None
        background, negative = (within(f'"{k}"', str(data.get(k) or ""), MAX_TEXT) for k in ("background", "negative"))
        prompt, ordered = str(data.get("prompt") or ""), data.get("ordered", False)
        if not isinstance(ordered, bool):
            raise ValueError(f'"ordered" must be true or false, got {repr(ordered)[:80]}')
        return cls(width, height, tuple(objects), background, negative, prompt, ordered=ordered)

    def to_bounding_boxes(self) -> list[list[dict]]:
        """ComfyUI's BOUNDING_BOX: one frame of pixel boxes on the canvas, the phrase as label and in the metadata.

        `desc` is where the host's Create Bounding Boxes looks for a box's text.
        """
        frame = []
        for o in self.objects:
            x0, y0, x1, y1 = o.box.corners
            x0, x1 = _pixels(x0, x1, self.width)
            y0, y1 = _pixels(y0, y1, self.height)
            metadata = {"phrase": o.phrase, "type": "obj", "desc": o.phrase}
            frame.append(
                {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0, "label": o.phrase, "metadata": metadata}
            )
        return [frame]


def _object_json(item: LayoutObject) -> dict:
    box = item.box
    found = {"phrase": item.phrase, "box": [round(v, 6) for v in (box.x, box.y, box.w, box.h)]}
    own = item.settings.to_json()
    return found | ({"settings": own} if own else {})


def json_in(text: str) -> object:
    """The JSON in a user's text. Raises ValueError that says where it is wrong."""
    if len(text) > MAX_EDITS:
        raise ValueError(f"the text has {len(text)} characters, and at most {MAX_EDITS} are read")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("this is not JSON that can be read: it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"this is not JSON: {error}") from None


def _whole(value: object) -> int:
    number = int(value)  # type: ignore[call-overload]
    if not isinstance(value, str) and number != value:
        raise ValueError(f"{value} is not a whole number")
    return number


def _pixels(low: float, high: float, size: int) -> tuple[int, int]:
    """A side's first and last edge in pixels, inside the canvas and at least one pixel apart."""
    first = min(max(round(low * size), 0), size - 1)
    return first, min(max(round(high * size), first + 1), size)
