"""Layouts from and to the boxes that other tools speak: the host's BOUNDING_BOX, its box elements, text, and masks.

BOUNDING_BOX: `{"x", "y", "width", "height"}` in pixels, alone, in a list, or in a list per image; detectors add
"label" and "score". An element: `{"bbox": [ymin, xmin, ymax, xmax], "desc"}` on a grid of 0 to 1000.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..english import inflection, lexicon
from ..layout import CANVAS_MULTIPLE, MAX_OBJECTS, Box, Layout, LayoutObject
from ..planner import reply, request
from ..planner.quality import tidy

GRID = 1000
LEAST_REGION = 64  # pixels: the host's area nodes allow no smaller side
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
    sides = (max(round(v / CANVAS_MULTIPLE) * CANVAS_MULTIPLE, LEAST_REGION) for v in (width, height))
    return tuple(sides)


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
            notes.append(f'box {number}, "{region.caption}", reached over the canvas and was clipped')
        objects.append(LayoutObject(region.caption, box))
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
    text = {"background": background.strip(), "negative": negative.strip()}
    return Layout(width, height, tuple(objects), **text, notes=tuple(notes))


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
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"box {number} needs x, y, width and height in pixels, or bbox [ymin, xmin, ymax, xmax] from 0 to {GRID}, "
            f"got {str(item)[:80]}"
        ) from None
    x0, x1, y0, y1 = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
    box = Box.from_corners(x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None
    return Region(box, _caption(item))


def _caption(item: dict) -> str:
    """What a box says about itself; a detector's class name gets its article ("dog" -> "a dog")."""
    extra = item.get("metadata") if isinstance(item.get("metadata"), dict) else {}
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
        data = json.loads(text)
    except json.JSONDecodeError:
        data = None
    flat = data if isinstance(data, list) else [data]
    flat = [inner for item in flat for inner in (item if isinstance(item, list) else [item])]
    first = next((item for item in flat if isinstance(item, dict)), {})
    if "bbox" in first or {"x", "y", "width", "height"} <= first.keys() or data == []:
        return data, None
    if isinstance(data, dict) and "canvas" in data and all("phrase" in o for o in data.get("objects", [{}])):
        layout = Layout.from_json(data)
    else:
        layout = tidy(reply.to_layout(reply.parse(text), width, height))
    if layout.width * height != layout.height * width:
        note = f"the layout was made for {layout.width} x {layout.height}; it was stretched to {width} x {height}"
        layout = replace(layout, notes=(*layout.notes, note))
    return None, layout


def regions_of_masks(masks: Tensor, threshold: float = 0.5) -> list[Region]:
    """The smallest box around each mask's cells above `threshold`; `masks` [N, H, W] or [H, W] in 0..1."""
    masks = masks[None] if masks.ndim == 2 else masks
    regions = []
    for mask in masks:
        on = mask > threshold
        rows, columns = on.any(1).nonzero().flatten(), on.any(0).nonzero().flatten()
        if not len(rows):
            regions.append(Region(None))
            continue
        y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        height, width = mask.shape
        regions.append(Region(Box.from_corners(x0 / width, y0 / height, x1 / width, y1 / height)))
    return regions


def to_elements(layout: Layout) -> list[dict]:
    """The elements of the host's Create Bounding Boxes, each with the phrase as its description."""

    def grid(value: float) -> int:
        return max(0, min(GRID, round(value * GRID)))

    elements = []
    for o in layout.objects:
        x0, y0, x1, y1 = (grid(v) for v in o.box.corners)
        elements.append({"type": "obj", "bbox": [y0, x0, y1, x1], "desc": o.phrase})
    return elements


def to_json_text(layout: Layout) -> str:
    return json.dumps(layout.to_json(), ensure_ascii=False)


def to_reply(layout: Layout) -> str:
    """The layout in LMD's own answer form, boxes in pixels of its canvas (docs/lmd.md, 1.4)."""
    return request.reply(layout)


def to_captions(layout: Layout) -> str:
    """The phrases, one per line, in the objects' order."""
    return "\n".join(o.phrase for o in layout.objects)


def to_masks(layout: Layout, soften: int = 0) -> tuple[Tensor, Tensor]:
    """One mask per object [N, H, W] and what no box covers [1, H, W], in pixels of the canvas, 0..1.

    `soften` fades each mask's edge over that many pixels towards its inside; the canvas's own border stays sharp.
    """
    height, width = layout.height, layout.width
    masks = torch.zeros(len(layout.objects), height, width)
    for i, o in enumerate(layout.objects):
        y0, y1, x0, x1 = o.box.cells(height, width)
        y0, x0 = min(y0, height - 1), min(x0, width - 1)
        y1, x1 = max(y1, y0 + 1), max(x1, x0 + 1)
        rows, columns = _ramp(y0, y1, height, soften), _ramp(x0, x1, width, soften)
        masks[i] = rows[:, None] * columns[None, :]
    covered = masks.amax(0, keepdim=True) if len(masks) else torch.zeros(1, height, width)
    return masks, 1 - covered


def only(layout: Layout, number: int) -> Layout:
    """The layout with the object of this number alone, counted from 1; 0 leaves it as it is."""
    if not 0 <= number <= len(layout.objects):
        raise ValueError(f"there is no object {number}: the layout has {len(layout.objects)}; 0 means all of them")
    return replace(layout, objects=layout.objects[number - 1 : number]) if number else layout


def _ramp(start: int, end: int, size: int, soften: int) -> Tensor:
    """1 from `start` to `end`, rising and falling over `soften` cells inside, but not at 0 and `size`."""
    at = torch.arange(size, dtype=torch.float32)
    line = ((at >= start) & (at < end)).float()
    soften = min(soften, (end - start) // 2)
    if soften:
        rise = ((at - start + 1) / (soften + 1)).clamp(0, 1) if start > 0 else torch.ones(size)
        fall = ((end - at) / (soften + 1)).clamp(0, 1) if end < size else torch.ones(size)
        line = line * torch.minimum(rise, fall)
    return line


def pixel_region(box: Box, width: int, height: int, least: int = LEAST_REGION) -> tuple[int, int, int, int]:
    """`(width, height, x, y)` in pixels on the canvas, in steps of 8, at least `least` wide and high.

    These are values that the host's own area and GLIGEN nodes take.
    """
    x, w = _snapped(box.x, box.x + box.w, width, least)
    y, h = _snapped(box.y, box.y + box.h, height, least)
    return w, h, x, y


def _snapped(low: float, high: float, size: int, least: int) -> tuple[int, int]:
    """(start, length) of a side: edges rounded to multiples of 8 on the canvas, grown to `least` about the middle."""
    cells, least = size // CANVAS_MULTIPLE, min(least, size) // CANVAS_MULTIPLE
    start, end = (min(max(round(v * cells), 0), cells) for v in (low, high))
    length = max(end - start, least)
    if length > end - start:
        middle = min(max((low + high) / 2, 0.0), 1.0) * cells
        start = round(middle - length / 2)
    start = min(max(start, 0), cells - length)
    return start * CANVAS_MULTIPLE, length * CANVAS_MULTIPLE
