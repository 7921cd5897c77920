"""What the model attended to while it drew: a record that is filled during sampling, and measures of it.

Shapes: B images, P phrases, h x w cells of the attention grid.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from ..layout import Box, Layout
from ..sampling.energy import union_mask
from ..sampling.object_runs import ObjectRun, ObjectRuns


@dataclass(frozen=True)
class Look:
    """One step: its number (from 1), and the attention `maps` [B, P, h, w], on the CPU."""

    step: int
    maps: Tensor


@dataclass
class AttentionRecord:
    """Where each phrase was looked for in the latest run (socket type LMD_ATTENTION); `looks` is filled while sampling.

    `numbers`: per phrase, its boxes' numbers in the layout's picture, from 1.
    `own_image`: each phrase was drawn in an image of its own, as the objects of LMD's first stage are.
    `estimate`: the maps follow learned tokens back to the text, and are no attention to the phrase itself.
    A phrase may have no box.
    """

    canvas: tuple[int, int]
    phrases: tuple[str, ...]
    boxes: tuple[tuple[Box, ...], ...]
    numbers: tuple[tuple[int, ...], ...]
    looks: list[Look] = field(default_factory=list)
    steps: int = 0
    own_image: bool = False
    estimate: bool = False

    def in_order(self) -> list[int]:
        """The phrases' indices in the order of their numbers."""
        return sorted(range(len(self.phrases)), key=lambda p: self.numbers[p])

    def chosen(self, count: int) -> list[Look]:
        """`count` looks spread over the run, the first and the last among them."""
        n = len(self.looks)
        if n <= max(count, 1):
            return list(self.looks)
        if count == 1:
            return [self.looks[-1]]
        return [self.looks[round(i * (n - 1) / (count - 1))] for i in range(count)]

    def share_inside(self, look: Look, image: int, phrase: int) -> float:
        """The share of a phrase's attention that lies inside its boxes, 0..1."""
        return share_inside(look.maps[image, phrase], self.boxes[phrase])

    def contrast(self, look: Look, image: int, phrase: int) -> float:
        """How much a phrase's attention varies over the image: standard deviation over mean, 0 for a flat map."""
        attention = look.maps[image, phrase]
        return float(attention.std(correction=0) / attention.mean().clamp_min(1e-12))

    def area(self, phrase: int) -> float:
        """The share of the image that a phrase's boxes cover: what attention spread evenly would have inside."""
        return float(union_mask(self.boxes[phrase], 64, 64, torch.ones(1)).mean())


def share_inside(attention: Tensor, boxes: tuple[Box, ...]) -> float:
    """The share of attention [h, w] inside the union of the boxes; 0 if there is none at all."""
    height, width = attention.shape
    mask = union_mask(boxes, height, width, attention).view(height, width)
    return float((attention * mask).sum() / attention.sum().clamp_min(1e-12))


def joined(maps: list[Tensor]) -> Tensor:
    """Maps [..., h, w] of several layers on the finest of their grids, averaged."""
    size = max((m.shape[-2:] for m in maps), key=lambda s: s[0] * s[1])
    lead = maps[0].shape[:-2]
    fitted = [
        F.interpolate(m.float().reshape(-1, 1, *m.shape[-2:]), size=tuple(size), mode="bilinear", align_corners=False)
        for m in maps
    ]
    return torch.stack(fitted).mean(0).view(*lead, *size)


def object_attention(run: ObjectRun) -> Tensor:
    """The word's attention over an object's own run [N, B, h, w]: the guided layers, averaged over their heads."""
    guided = list(run.attention.values())[1:] or [run.mask_attention]
    steps = min(len(a) for a in guided)
    return joined([a[:steps].float().mean(2) for a in guided])


def numbers_by_name(layout: Layout) -> list[int]:
    """The objects' numbers in the layout's picture, from 1, in the order of their names, as LMD runs them."""
    return [i + 1 for i in sorted(range(len(layout.objects)), key=lambda i: layout.objects[i].phrase)]


def record_of(objects: ObjectRuns) -> AttentionRecord:
    """The record of LMD's first stage, which keeps its attention anyway."""
    runs = objects.runs
    record = AttentionRecord(
        (objects.layout.width, objects.layout.height),
        tuple(r.item.phrase for r in runs),
        tuple((r.box,) for r in runs),
        tuple((n,) for n in numbers_by_name(objects.layout)),
        own_image=True,
    )
    if runs:
        attention = [object_attention(r) for r in runs]
        record.steps = min(len(a) for a in attention)
        record.looks = [Look(k + 1, torch.stack([a[k] for a in attention], 1)) for k in range(record.steps)]
    return record
