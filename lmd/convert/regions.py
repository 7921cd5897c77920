"""Layouts as what other tools read: box elements, text, and pixel regions of the host's area nodes."""

from __future__ import annotations

import json
from dataclasses import replace

from ..layout import Box, Layout
from ..limits import CANVAS_MULTIPLE
from ..planner.request import reply
from .boxes import GRID

LEAST_REGION = 64  # pixels: the host's area nodes allow no smaller side


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
    """The layout as JSON on one line."""
    return json.dumps(layout.to_json(), ensure_ascii=False)


def to_reply(layout: Layout) -> str:
    """The layout in LMD's own answer form, boxes in pixels of its canvas (docs/lmd.md, 1.4)."""
    return reply(layout)


def to_captions(layout: Layout) -> str:
    """The phrases, one per line, in the objects' order."""
    return "\n".join(o.phrase for o in layout.objects)


def only(layout: Layout, number: int) -> Layout:
    """The layout with the object of this number alone, counted from 1; 0 leaves it as it is."""
    if not 0 <= number <= len(layout.objects):
        raise ValueError(f"there is no object {number}: the layout has {len(layout.objects)}; 0 means all of them")
    return replace(layout, objects=layout.objects[number - 1 : number]) if number else layout


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
