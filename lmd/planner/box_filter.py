"""Boxes as a language model wrote them -> boxes that can be drawn. Pixel units, `(name, [x, y, w, h])`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..layout import Box, Layout

NamedBox = tuple[str, list[float]]

_WHOLE = 0.995  # a box that covers this share of both sides is the background, not an object
_SMALL_SHIFT = 0.05  # of a side: two readings of a box that differ by less are not worth a note
_ROUNDING = 1e-9  # shares of the canvas may come to a little more than 1
_LARGEST = 1.5  # a layout up to this many times the canvas is shrunk, a larger one clipped


def filter_boxes_exact(
    boxes: Sequence[NamedBox] | None,
    scale_boxes: bool = True,
    ignore_background: bool = True,
    max_scale: float = 3,
    size: int = 512,
) -> list[tuple[str, list[int]]]:
    """The reference's filter, faults included (a negative top shifts twice and may leave the canvas).

    Source: docs/lmd.md, 1.5 (LLM-groundedDiffusion@cef2a90 utils/parse.py).
    """
    kept: list[NamedBox] = []
    for name, box in boxes or []:
        if not box or box[2] <= 0 or box[3] <= 0:
            continue
        x, y, w, h = box
        if ignore_background and ((w >= size and h >= size) or x > size or y > size):
            continue
        if x < 0 or y < 0 or x + w > size or y + h > size:
            scale_boxes = True
        kept.append((name, list(box)))
    if not kept:
        return []
    if scale_boxes:
        left, right = min(b[0] for _, b in kept), max(b[0] + b[2] for _, b in kept)
        top, bottom = min(b[1] for _, b in kept), max(b[1] + b[3] for _, b in kept)
        if right == left or bottom == top:  # numbers too small to span anything
            return []
        s = min(size / (right - left), size / (bottom - top), max_scale)
        offset = -top * s if top * s < 0 else 0
        if bottom * s + offset >= size:
            offset -= bottom * s - size
        kept = [(name, _scaled(box, s, left, offset)) for name, box in kept]
    return [(name.rstrip("."), [round(v) for v in box]) for name, box in kept]


def _scaled(box: list[float], s: float, left: float, offset: float) -> list[float]:
    x, y, w, h = (box[0] - left) * s, box[1] * s + offset, box[2] * s, box[3] * s
    return [x, 0, w, h - y] if y < 0 else [x, y, w, h]


def with_sizes(boxes: Sequence[NamedBox], width: float, height: float) -> tuple[list[NamedBox], list[str]]:
    """Boxes whose last two numbers are a size or the far corner, as `[x, y, w, h]`, and notes.

    They are corners where only that keeps all of them on the canvas of `width` x `height`, and otherwise sizes.
    """
    named = list(boxes)
    sizes = [box for _, box in named]
    corners = [[x, y, right - x, bottom - y] for x, y, right, bottom in sizes]
    if not named or not _all_inside(corners, width, height):
        return named, []
    if not _all_inside(sizes, width, height):
        note = "the boxes were read as [left, top, right, bottom], because as [left, top, width, height] they leave the canvas"
        return [(name, box) for (name, _), box in zip(named, corners)], [note]
    if any(x > _SMALL_SHIFT * width or y > _SMALL_SHIFT * height for x, y, _, _ in sizes):
        return named, ["the boxes were read as [left, top, width, height]; as [left, top, right, bottom] they fit too"]
    return named, []


def _all_inside(boxes: Sequence[list[float]], width: float, height: float) -> bool:
    right, bottom = width * (1 + _ROUNDING), height * (1 + _ROUNDING)
    return all(x >= 0 and y >= 0 and w > 0 and h > 0 and x + w <= right and y + h <= bottom for x, y, w, h in boxes)


def filter_boxes(boxes: Sequence[NamedBox], width: float, height: float) -> tuple[list[NamedBox], list[str]]:
    """The filter for users: what can't be drawn is dropped, a layout that extends beyond the canvas is shrunk as a whole.

    Shrinking keeps every relation between boxes; a layout more than 1.5 times as large as the canvas is clipped box by
    box instead. Returns the boxes and a note for each change.
    """
    kept: list[NamedBox] = []
    notes: list[str] = []
    for name, (x, y, w, h) in boxes:
        name = name.strip().rstrip(".").strip()
        said = f'"{name}" [{x:g}, {y:g}, {w:g}, {h:g}]'
        if x + w <= x or y + h <= y:
            notes.append(f"{said} has no area and was dropped")
        elif w >= _WHOLE * width and h >= _WHOLE * height:
            notes.append(f"{said} covers the whole canvas, which is the background's job, and was dropped")
        elif x >= width or y >= height or x + w <= 0 or y + h <= 0:
            notes.append(f"{said} lies outside the {width:g} x {height:g} canvas and was dropped")
        else:
            kept.append((name, [x, y, w, h]))
    spans = [_span(kept, 0, width), _span(kept, 1, height)]
    if spans == [(0, width), (0, height)]:
        return kept, notes
    scale = min(width / (spans[0][1] - spans[0][0]), height / (spans[1][1] - spans[1][0]))
    if scale * _LARGEST >= 1:
        notes.append(f"the boxes extend beyond the {width:g} x {height:g} canvas; all were shrunk to {scale:.0%}")
        left, top = spans[0][0], spans[1][0]
        return [(n, [(x - left) * scale, (y - top) * scale, w * scale, h * scale]) for n, (x, y, w, h) in kept], notes
    notes.append(f"the boxes extend far beyond the {width:g} x {height:g} canvas and were clipped")
    return [(n, _clipped(box, width, height)) for n, box in kept], notes


def _span(boxes: Sequence[NamedBox], axis: int, size: float) -> tuple[float, float]:
    """From the lowest to the highest coordinate of the canvas and all boxes."""
    return min([0, *(b[axis] for _, b in boxes)]), max([size, *(b[axis] + b[axis + 2] for _, b in boxes)])


def _clipped(box: list[float], width: float, height: float) -> list[float]:
    x0, y0, x1, y1 = max(box[0], 0.0), max(box[1], 0.0), min(box[0] + box[2], width), min(box[1] + box[3], height)
    return [x0, y0, x1 - x0, y1 - y0]


def fill_canvas(layout: Layout, max_scale: float = 3.0) -> Layout:
    """The layout enlarged, up to `max_scale` times, until it reaches the canvas's width or height.

    All boxes grow alike; they are moved to the left edge, and upwards only as far as needed (docs/lmd.md, 1.5).
    """
    if not layout.objects:
        return layout
    width, height = layout.width, layout.height
    left = min(o.box.x for o in layout.objects) * width
    right = max(o.box.x + o.box.w for o in layout.objects) * width
    top = min(o.box.y for o in layout.objects) * height
    bottom = max(o.box.y + o.box.h for o in layout.objects) * height
    if right <= left or bottom <= top:
        return layout
    scale = min(width / (right - left), height / (bottom - top), max_scale)
    up = max(bottom * scale - height, 0.0)
    objects = tuple(
        replace(o, box=Box((o.box.x * width - left) * scale / width, (o.box.y * height * scale - up) / height,
                           o.box.w * scale, o.box.h * scale))
        for o in layout.objects
    )  # fmt: skip
    return replace(layout, objects=objects)
