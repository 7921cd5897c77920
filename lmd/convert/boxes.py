"""Layouts from the boxes that other tools speak: the host's BOUNDING_BOX, its box elements, and text.

BOUNDING_BOX: `{"x", "y", "width", "height"}` in pixels, alone, in a list, or in a list per image; detectors add
"label" and "score". An element: `{"bbox": [ymin, xmin, ymax, xmax], "desc"}` on a grid of 0 to 1000.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..english import inflection, lexicon
from ..layout import Box, Layout, LayoutObject, json_in
from ..limits import CANVAS_MULTIPLE, LEAST_CANVAS, MAX_COORDINATE, MAX_OBJECTS, MAX_PHRASE, MAX_TEXT, within
from ..planner import reply
from ..planner.quality import tidy

GRID = 1000
_DETERMINERS = inflection.word_set("a an the some many several no") | set(lexicon.NUMBER_WORDS[1:])


@dataclass(frozen=True)
class Region:
    """A box of another tool: `box` in canvas fractions, None if it has no area; `caption` may be empty."""

    box: Box | None
    caption: str = ""


def layout_from(
    data: object,
    width: int,
    height: int,
    captions: str = "",
    background: str = "",
    negative: str = "",
    frame: int = 0,
    pixels: tuple[int, int] | None = None,
) -> Layout:
    """A layout of `width` x `height` pixels from boxes, elements, or a text that holds them or a whole layout.

    `captions` has one line per box in their order, or one line for all; without it the boxes' own captions and labels
    count. `frame` chooses the image of a batch, `pixels` is the (width, height) on which pixel boxes are counted, by
    default the canvas. Boxes are clipped to the canvas, and what was changed is in the layout's notes. Raises ValueError when a box has no caption, and when there is no box on the canvas.
    """
    found: Layout | None = None
    if isinstance(data, str):
        data, found = _read(data, width, height)
    if found is not None:
        if not found.objects:
            return replace(found.on_canvas(width, height), background=background or found.background)
        regions = [Region(o.box, o.phrase) for o in found.objects]
        layout = layout_of(regions, width, height, captions, background or found.background, negative or found.negative)
        return replace(layout, prompt=found.prompt, notes=found.notes + layout.notes)
    regions = regions_in(data, *(pixels or (width, height)), frame)
    return layout_of(regions, width, height, captions, background, negative)


def canvas_for(width: int, height: int) -> tuple[int, int]:
    """The canvas for an image of this size: multiples of 8, at least 64."""
    across, down = (max(round(v / CANVAS_MULTIPLE) * CANVAS_MULTIPLE, LEAST_CANVAS) for v in (width, height))
    return across, down


def layout_of(
    regions: Sequence[Region], width: int, height: int, captions: str = "", background: str = "", negative: str = ""
) -> Layout:
    """The layout of captioned regions, as `layout_from` says."""
    if not regions:
        raise ValueError(
            "there are no boxes: draw at least one, or lower the threshold of the detection node that gives them"
        )
    named, notes = _named(regions, captions)
    objects = []
    for number, region in enumerate(named, 1):
        box = region.box and clipped(region.box)
        if box is None:
            why = "has no area" if region.box is None else f"lies outside the {width} x {height} canvas"
            notes.append(f'box {number}, "{region.caption}", {why} and was dropped')
            continue
        if box != region.box:
            notes.append(f'box {number}, "{region.caption}", extended beyond the canvas and was clipped')
        objects.append(LayoutObject(within(f"the caption of box {number}", region.caption, MAX_PHRASE), box))
    if not objects:
        raise ValueError(
            f"none of the {len(regions)} boxes lies on the {width} x {height} canvas: {'; '.join(notes)}. Connect the "
            "image that the boxes were found in, or set width and height to its size"
        )
    if len(objects) > MAX_OBJECTS:
        raise ValueError(
            f"a layout holds at most {MAX_OBJECTS} boxes, got {len(objects)}: raise the threshold of the detection "
            "node, or lower its max_detections"
        )
    background = within("the background prompt", background.strip(), MAX_TEXT)
    negative = within("the negative prompt", negative.strip(), MAX_TEXT)
    return Layout(width, height, tuple(objects), background, negative, notes=tuple(notes))


def _named(regions: Sequence[Region], captions: str) -> tuple[list[Region], list[str]]:
    """Every region with its caption, and notes."""
    lines = [line.strip() for line in captions.splitlines() if line.strip()]
    notes = []
    if len(lines) == 1:
        lines = lines * len(regions)
    if len(lines) > len(regions):
        spare = ", ".join(f'"{line}"' for line in lines[len(regions) :])
        notes.append(f"{len(lines)} captions for {len(regions)} boxes: {spare} not used")
    named = [replace(r, caption=lines[i] if i < len(lines) else r.caption.strip()) for i, r in enumerate(regions)]
    without = [str(i) for i, r in enumerate(named, 1) if not r.caption]
    if without:
        which = f"box {without[0]} has" if len(without) == 1 else f"boxes {', '.join(without[:12])} have"
        raise ValueError(
            f"{which} no caption: there are {len(regions)} boxes and {len(lines)} captions. Write one line per box into "
            "captions, in the boxes' order, or a single line for all of them"
        )
    return named, notes


def clipped(box: Box) -> Box | None:
    """The part of the box on the canvas; None when there is none."""
    x0, y0, x1, y1 = box.corners
    inside = (max(x0, 0.0), max(y0, 0.0), min(x1, 1.0), min(y1, 1.0))
    if inside == (x0, y0, x1, y1):
        return box
    if inside[2] - inside[0] <= 1e-6 or inside[3] - inside[1] <= 1e-6:
        return None
    grown = max(-x0, -y0, x1 - 1, y1 - 1)
    return box if grown < 1e-6 else Box.from_corners(*inside)  # rounding alone is not worth a change


def regions_in(data: object, width: int, height: int, frame: int = 0) -> list[Region]:
    """The regions of BOUNDING_BOX or elements, without text. Raises ValueError that says what was received."""
    if isinstance(data, dict):
        data = [data]
    if data is None:
        return []
    if not isinstance(data, list):
        raise ValueError(f"boxes must be BOUNDING_BOX, box elements or text, got {type(data).__name__}")
    if any(isinstance(item, list) for item in data):
        if not 0 <= frame < len(data):
            raise ValueError(
                f"there is no image {frame}: the boxes are of {len(data)} images, counted from 0; set frame"
            )
        data = data[frame] if isinstance(data[frame], list) else [data[frame]]
    return [_region(item, i, width, height) for i, item in enumerate(data, 1)]


def _region(item: object, number: int, width: int, height: int) -> Region:
    if not isinstance(item, dict):
        raise ValueError(f"box {number} must be a bounding box or an element, got {str(item)[:60]!r}")
    try:
        if "bbox" in item:
            y0, x0, y1, x1 = (float(v) / GRID for v in item["bbox"])
        else:
            x0, y0, w, h = (float(item[k]) for k in ("x", "y", "width", "height"))
            x0, y0, x1, y1 = x0 / width, y0 / height, (x0 + w) / width, (y0 + h) / height
        if not all(math.isfinite(v) for v in (x0, y0, x1, y1)):
            raise ValueError
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ValueError(
            f"box {number} needs x, y, width and height in pixels, or bbox [ymin, xmin, ymax, xmax] from 0 to {GRID}, "
            f"got {repr(item)[:80]}"
        ) from None
    x0, x1, y0, y1 = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
    x0, x1, y0, y1 = (min(max(v, -MAX_COORDINATE / 2), MAX_COORDINATE / 2) for v in (x0, x1, y0, y1))
    box = Box.from_corners(x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None
    return Region(box, _caption(item))


def _caption(item: dict) -> str:
    """What a box says about itself; a detector's class name gets its article ("dog" -> "a dog")."""
    metadata = item.get("metadata")
    extra: dict = metadata if isinstance(metadata, dict) else {}
    for source, key in ((extra, "phrase"), (extra, "desc"), (item, "desc"), (item, "phrase")):
        if isinstance(source.get(key), str) and source[key].strip():
            return " ".join(source[key].split())
    text = extra.get("text") or item.get("text")
    if isinstance(text, str) and text.strip():
        return f'the words "{" ".join(text.split())}"'
    label = item.get("label")
    return phrase_of(label) if isinstance(label, str) else ""


def phrase_of(label: str) -> str:
    """A class name as the phrase of one thing: "traffic light" -> "a traffic light"; plurals and phrases stay."""
    label = " ".join(label.split())
    tokens = label.lower().split(" ")
    plain = label.isascii() and label.replace(" ", "").replace("-", "").isalpha()
    if not plain or tokens[0] in _DETERMINERS or tokens[-1] in inflection.PAIR_NOUNS or inflection.singular(tokens[-1]):
        return label
    return inflection.with_article(label)


def _read(text: str, width: int, height: int) -> tuple[object, Layout | None]:
    """The boxes that a text holds, or the layout that it is."""
    try:
        data = json_in(text)
    except ValueError:
        data = None
    if data == [] or _are_boxes(data):
        return data, None
    if _is_layout(data):
        layout = Layout.from_json(data)
    else:
        layout = tidy(reply.to_layout(reply.parse(text), width, height))
    if layout.width * height != layout.height * width:
        note = f"the layout was made for {layout.width} x {layout.height}; it was stretched to {width} x {height}"
        layout = replace(layout, notes=(*layout.notes, note))
    return None, layout


def _are_boxes(data: object) -> bool:
    """Bounding boxes or elements, rather than a layout or a language model's reply."""
    flat = data if isinstance(data, list) else [data]
    flat = [inner for item in flat for inner in (item if isinstance(item, list) else [item])]
    first = next((item for item in flat if isinstance(item, dict)), {})
    return "bbox" in first or {"x", "y", "width", "height"} <= first.keys()


def _is_layout(data: object) -> bool:
    """Our own wire form."""
    if not isinstance(data, dict) or "canvas" not in data:
        return False
    objects = data.get("objects")
    return isinstance(objects, list) and all(isinstance(o, dict) and "phrase" in o for o in objects)
