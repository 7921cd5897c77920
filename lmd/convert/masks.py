"""Layouts as masks, and the boxes around masks."""

from __future__ import annotations

import torch
from torch import Tensor

from ..layout import Box, Layout
from .boxes import Region


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
