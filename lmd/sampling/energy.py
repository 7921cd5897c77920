"""Cross-attention energies: LMD's layout (docs/lmd.md, 4.2) and attention transfer (4.3), and the baselines' (8).

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
ENERGIES = ("top", "ratio", "boxdiff")


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
    `kind`: "top" is LMD's energy, "ratio" that of Backward Guidance (docs/lmd.md, 8.1), "boxdiff" BoxDiff's (8.2). The
    weights are of "top" alone, the share inside of "top" and of "boxdiff", which takes it for both.
    """

    fg_top_p: float = 0.2
    bg_top_p: float = 0.2
    fg_weight: float = 1.0
    bg_weight: float = 4.0
    reference_weight: float = 2.0
    kind: str = "top"

    @property
    def all_words(self) -> bool:
        """Whether the maps must hold every column of the text, for a softmax over its words, and be of one size."""
        return self.kind == "boxdiff"

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
    count = len(objects) * len(maps)
    if options.all_words:
        found = boxdiff_terms(maps, objects, options.fg_top_p)
        total: Tensor = sum(found)  # pyright: ignore[reportAssignmentType]
        own = [e.detach() * count for e in found]
    else:
        total, own = _layer_terms(maps, objects, options)
    transfers: list[Tensor] = []
    if references is not None and options.reference_weight:
        transfers = transfer_terms(maps, objects, references)
        total = total + sum(transfers) * options.reference_weight / count
    with torch.no_grad():
        own = [e + t * options.reference_weight for e, t in zip(own, transfers)] if transfers else own
        return Energies(total, torch.stack(own).detach() / len(maps))


def _layer_terms(
    maps: Sequence[AttentionMap], objects: Sequence[GuidedObject], options: EnergyOptions
) -> tuple[Tensor, list[Tensor]]:
    """The mean over layers and objects [B], and each object's sum over the layers, not to be differentiated."""
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
    with torch.no_grad():
        own: list = [sum(layer[i] for layer in terms) for i in range(len(objects))]
    return total, own


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


def boxdiff_terms(
    maps: Sequence[AttentionMap],
    objects: Sequence[GuidedObject],
    top_p: float = 0.2,
    corner_width: int = 1,
    smooth: bool = True,
) -> list[Tensor]:
    """BoxDiff's loss [B] of each object, summed over its tokens, on maps of one size with every column of the text.

    The first and the last column, start and end of the prompt, take no part in the softmax over words. At least one
    cell inside and one outside counts. Raises ValueError for maps of several sizes.
    Source: arXiv 2307.10816; docs/lmd.md, 8.2; LLM-groundedDiffusion@cef2a90 utils/boxdiff.py.
    """
    height, width = maps[0].height, maps[0].width
    if any((m.height, m.width) != (height, width) for m in maps):
        sizes = sorted({f"{m.width}x{m.height}" for m in maps})
        raise ValueError(
            f"the energy boxdiff needs guided layers on one grid, got grids of {', '.join(sizes)} cells: set layers of "
            "LMD Options to auto, or to layers of one size"
        )
    attention = torch.cat([m.probs for m in maps], dim=1).mean(1)  # B S T
    words = torch.softmax(100 * attention[..., 1:-1], dim=-1).unflatten(1, (height, width))
    found = []
    for o in objects:
        like = words.new_empty(0, device="cpu")
        mask = union_mask(o.boxes, height, width, like).reshape(height, width)
        inside = int(mask.sum())
        corner_x, corner_y = _corners(o, height, width, corner_width, like)
        shape = _BoxShape(
            mask.to(words.device), max(1, _share(inside, top_p)), max(1, _share(mask.numel() - inside, top_p)),
            corner_x.to(words.device), corner_y.to(words.device),
        )  # fmt: skip
        own = [words[..., p - 1] for p in o.positions]
        found.append(sum(_boxdiff_loss(_smooth(a) if smooth else a, shape) for a in own))
    return found


@dataclass(frozen=True)
class _BoxShape:
    """A phrase's boxes on a grid: their union [h, w], how many cells count in and out, cells [w], [h] near the edges."""

    mask: Tensor
    inside: int
    outside: int
    corner_x: Tensor
    corner_y: Tensor


def _boxdiff_loss(a: Tensor, box: _BoxShape) -> Tensor:
    """Inner box, outer box and corner terms [B] of one token's map `a` [B, h, w]."""
    fg = (a * box.mask).flatten(1).topk(box.inside).values.mean(-1)
    bg = (a * (1 - box.mask)).flatten(1).topk(box.outside).values.mean(-1)
    along_x = ((a.amax(1) - box.mask.amax(0)).abs() * box.corner_x).mean(-1)
    along_y = ((a.amax(2) - box.mask.amax(1)).abs() * box.corner_y).mean(-1)
    return (1 - fg).clamp(min=0) + bg.clamp(min=0) + along_x + along_y


def _corners(o: GuidedObject, height: int, width: int, reach: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """1 on the columns (rows) within `reach` of a box's left and right (top and bottom) edge; the end is exclusive."""
    x, y = like.new_zeros(width), like.new_zeros(height)
    for box in o.boxes:
        y0, y1, x0, x1 = box.cells(height, width)
        for axis, size, edges in ((x, width, (x0, x1)), (y, height, (y0, y1))):
            for edge in edges:
                axis[max(edge - reach, 0) : min(edge + reach + 1, size)] = 1
    return x, y


def _smooth(a: Tensor) -> Tensor:
    """`a` [B, h, w] under a 3 x 3 kernel proportional to exp(-(d / (2 * 0.5))^2) per axis, reflected borders."""
    line = torch.exp(-(torch.tensor([-1.0, 0.0, 1.0], dtype=a.dtype, device=a.device) ** 2))
    kernel = torch.outer(line, line)
    padded = F.pad(a[:, None], (1, 1, 1, 1), mode="reflect")
    return F.conv2d(padded, (kernel / kernel.sum())[None, None])[:, 0]


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
