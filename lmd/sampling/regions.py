"""Which cells of a grid belong to which object of a layout, so that no cell has two owners (docs/lmd.md, 13)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..layout import Box, Layout
from .masks import rasterised


@dataclass(frozen=True)
class Region:
    """The cells of one or several objects: `boxes` from back to front, each with whether it is one of these objects'."""

    boxes: tuple[tuple[Box, bool], ...]

    def cells(self, height: int, width: int) -> Tensor:
        """The region on a grid of cells, boolean [h, w]; where boxes overlap, the cell is the front one's."""
        mask = torch.zeros(height, width, dtype=torch.bool)
        for box, own in self.boxes:
            mask[rasterised(box, height, width)] = own
        return mask


def region_of(layout: Layout, numbers: tuple[int, ...]) -> Region:
    """The region of the objects with these numbers (from 1, in the layout's order)."""
    return Region(tuple((layout.objects[i].box, i + 1 in numbers) for i in layout.back_to_front()))


def numbers_of(layout: Layout, text: str) -> tuple[int, ...]:
    """The numbers, from 1, of the objects that a user means by a number or a phrase.

    A phrase means every object that is called so, in any case. Raises ValueError that lists the objects.
    """
    wanted = " ".join(text.split()).casefold()
    named = tuple(i for i, o in enumerate(layout.objects, 1) if " ".join(o.phrase.split()).casefold() == wanted)
    if named:
        return named
    if wanted.isdecimal() and len(wanted) < 6 and 1 <= int(wanted) <= len(layout.objects):
        return (int(wanted),)
    listed = "; ".join(f"{i} {o.phrase}" for i, o in enumerate(layout.objects, 1)) or "no objects"
    raise ValueError(f"{text.strip()[:80]!r} is no object of the layout: write a phrase or a number of it: {listed}")
