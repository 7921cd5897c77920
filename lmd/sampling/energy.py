"""The cross-attention energies of LMD: layout (docs/lmd.md, 4.2) and attention transfer (4.3).

Everything here is a pure, differentiable function of attention probabilities; it knows nothing of a U-Net.
Shapes: B images, H heads, S = height * width cells (row-major), P token columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import checks
from ..layout import Box

REFERENCE_EPS = 1e-5
ENERGIES = ("top", "ratio")


@dataclass(frozen=True)
class AttentionMap:
    """Softmax-ed cross-attention of one layer: `probs` [B, H, S, P] on a `height` x `width` grid."""

    probs: Tensor
    height: int
    width: int


@dataclass(frozen=True)
class GuidedObject:
    """One phrase of the prompt: all its boxes, the columns of its tokens, and the column of its word token.

    `numbers` are those of the boxes in the layout's picture, from 1. Raises ValueError without a column.
    """

    phrase: str
    boxes: tuple[Box, ...]
    positions: tuple[int, ...]
    word: int
    numbers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        checks.wholes(self, "positions", 0, math.inf)
        checks.whole(self, "word", 0)
        checks.wholes(self, "numbers", 1, math.inf)
        if not self.positions:
            raise ValueError(f'GuidedObject: positions must hold a column of "{self.phrase[:80]}", got none')


@dataclass(frozen=True)
class EnergyOptions:
    """Parameters of the energies (docs/lmd.md, 7.2: LMD's defaults).

    `fg_top_p`, `bg_top_p`: the share (0..1) of a box, or of its outside, whose strongest cells count.
    `reference_weight`: weight of the attention transfer term, 0 = off.
    `kind`: "top" is LMD's energy, "ratio" that of Backward Guidance (docs/lmd.md, 8.1).
    """

    fg_top_p: float = 0.2
    bg_top_p: float = 0.2
    fg_weight: float = 1.0
    bg_weight: float = 4.0
    reference_weight: float = 2.0
    kind: str = "top"

    def __post_init__(self) -> None:
        for name in ("fg_top_p", "bg_top_p"):
            checks.number(self, name, 0, 1)
        for name in ("fg_weight", "bg_weight", "reference_weight"):
            checks.number(self, name, 0)
        checks.one_of(self, "kind", ENERGIES)


# Per object, per box, per layer: the saved word-token map of that box's own run at the same step, [B or 1, H, S], or
# [B or 1, H, h, w] where its grid may be another one than the map's that it is compared with.
References = Sequence[Sequence[Sequence[Tensor]]]


def union_mask(boxes: Sequence[Box], height: int, width: int, like: Tensor) -> Tensor:
    """The union of the rasterised boxes as a flat 0/1 mask [S] in the dtype and on the device of `like`."""
    mask = torch.zeros(height, width, dtype=like.dtype, device=like.device)
    for box in boxes:
        y0, y1, x0, x1 = box.cells(height, width)
        if y1 > y0 and x1 > x0:
            mask[y0:y1, x0:x1] = 1
    return mask.flatten()


@dataclass(frozen=True)
class Energies:
    """`total` [B], to differentiate, and each object's own energy, `objects` [O, B], to look at: its mean is the total."""

    total: Tensor
    objects: Tensor


def energies(
    maps: Sequence[AttentionMap],
    objects: Sequence[GuidedObject],
    options: EnergyOptions,
    references: References | None = None,
) -> Energies:
    """The layout energy [B], low where each phrase attends inside its boxes and not outside, and the transfer term.

    Heads are summed; tokens of a phrase, objects and layers are averaged. Without objects or maps it is 0. The transfer
    term is added where there are references, in the overall stage.
    Source: docs/lmd.md, 4.2 and 4.3; LLM-groundedDiffusion@cef2a90 utils/guidance.py.
    """
    if not maps or not objects:
        total = torch.zeros(maps[0].probs.shape[0] if maps else 1, device=maps[0].probs.device if maps else None)
        return Energies(total, total.new_zeros(0, len(total)))
    term = _ratio_term if options.kind == "ratio" else _top_term
    # Masks are made, and their cells counted, on the CPU: asking a GPU for the count would wait for all its work.
    like = maps[0].probs.new_empty(0, device="cpu")
    terms = [
        [term(m.probs[..., list(o.positions)], union_mask(o.boxes, m.height, m.width, like), options).mean(-1)
         for o in objects]
        for m in maps
    ]  # fmt: skip
    count = len(objects) * len(maps)
    total: Tensor = sum(t for layer in terms for t in layer) / count  # pyright: ignore[reportAssignmentType]
    transfers: list[Tensor] = []
    if references is not None and options.reference_weight:
        transfers = transfer_terms(maps, objects, references)
        total = total + sum(transfers) * options.reference_weight / count
    with torch.no_grad():
        own: list = [sum(layer[i] for layer in terms) for i in range(len(objects))]
        own = [e + t * options.reference_weight for e, t in zip(own, transfers)] if transfers else own
        return Energies(total, torch.stack(own).detach() / len(maps))


def _top_term(a: Tensor, mask: Tensor, options: EnergyOptions) -> Tensor:
    """e(o, p) of 4.2: `a` [B, H, S, P], `mask` [S] on the CPU -> [B, P], heads summed."""
    inside = int(mask.sum())
    k_fg = max(1, _share(inside, options.fg_top_p))
    k_bg = max(1, _share(mask.numel() - inside, options.bg_top_p))
    m = mask.to(a.device)[:, None]
    foreground = 1 - (a * m).topk(k_fg, dim=2).values.mean(2)
    background = (a * (1 - m)).topk(k_bg, dim=2).values.mean(2)
    return options.fg_weight * foreground.sum(1) + options.bg_weight * background.sum(1)


def _ratio_term(a: Tensor, mask: Tensor, _options: EnergyOptions) -> Tensor:
    inside = (a * mask.to(a.device)[:, None]).sum(2) / a.sum(2)
    return ((1 - inside) ** 2).mean(1)


def _share(count: int, top_p: float) -> int:
    # The reference multiplies in float32 and truncates; in float64 some counts differ, such as 100 * 0.29 (28, not 29).
    return int(torch.tensor(count, dtype=torch.float32) * top_p)


def transfer_terms(
    maps: Sequence[AttentionMap],
    objects: Sequence[GuidedObject],
    references: References,
) -> list[Tensor]:
    """The transfer term [B] of each object's word token, without its weight, summed over layers (docs/lmd.md, 4.3).

    `references[o][b][k]` is the map saved by box b of object o in layer k.
    """
    terms = []
    for i, o in enumerate(objects):
        distance = maps[0].probs.new_zeros(maps[0].probs.shape[0])
        for box, saved in zip(o.boxes, references[i]):
            for m, reference in zip(maps, saved):
                mask = union_mask([box], m.height, m.width, m.probs)
                target = _inside(_on_grid(reference.to(m.probs), m), mask).detach()
                distance = distance + (_inside(m.probs[..., o.word], mask) - target).abs().sum(-1).mean(1)
        terms.append(distance / len(o.boxes))
    return terms


def _on_grid(saved: Tensor, like: AttentionMap) -> Tensor:
    """A saved map as [B, H, S] on the grid of `like`: cells are averaged where that is the coarser one."""
    if saved.ndim == 3:
        return saved
    if saved.shape[-2:] != (like.height, like.width):
        saved = F.adaptive_avg_pool2d(saved, (like.height, like.width))
    return saved.flatten(-2)


def _inside(z: Tensor, mask: Tensor) -> Tensor:
    """Attention [B, H, S] as a distribution over the cells of the box."""
    z = z * mask
    return z / (z.sum(-1, keepdim=True) + REFERENCE_EPS)
