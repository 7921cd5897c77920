"""From per-object runs to one composed latent: placing, shifting and pasting (docs/lmd.md, 5.2, 5.3 and 6).

Latents are [..., C, h, w]; masks are boolean [h, w]. All functions treat one image; batches loop over them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..layout import Box

SHIFT_UNITS = 8  # shifts are multiples of an eighth of the canvas, so that every grid of the U-Net moves whole cells
SEED_BUMP = 12345


def centred_box(
    box: Box,
    horizontal_only: bool = True,
    placement: str = "centered",
    vertical_centre: float | None = None,
    floor_padding: float | None = None,
) -> Box:
    """Where an object is drawn in its own image: in the middle, and standing on a floor with `floor_padding` below.

    LMD uses `horizontal_only=False, placement="floor_padding", floor_padding=0.2`. The box keeps its size; its top
    may be negative. Raises ValueError for an unknown placement or contradicting arguments. Source: 5.2.
    """
    x = 0.5 - box.w / 2
    if horizontal_only:
        return Box(x, box.y, box.w, box.h)
    if placement == "floor_padding":
        return Box(x, 1 - (0.2 if floor_padding is None else floor_padding) - box.h, box.w, box.h)
    if placement != "centered":
        raise ValueError(f'vertical placement must be "floor_padding" or "centered", got {placement!r}')
    if floor_padding is not None:
        raise ValueError(f"a floor padding ({floor_padding}) has no meaning with centered placement: leave it out")
    return Box(x, (0.5 if vertical_centre is None else vertical_centre) - box.h / 2, box.w, box.h)


def seeded_noise(seed: int, shape: Sequence[int]) -> Tensor:
    """N(0, 1) float32 from torch's CPU generator, the same on every machine."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


def object_seed(background_seed: int, first_seed: int, index: int) -> int:
    """The seed of object `index`; one that would repeat the background's noise is moved away (5.3)."""
    seed = first_seed + index
    return seed + SEED_BUMP if seed == background_seed else seed


def blended_noise(background: Tensor, own: Tensor, box: Box, blending_ratio: float) -> Tensor:
    """The background's noise [..., h, w] with a little of the object's own inside `box`, variance kept (5.3)."""
    y0, y1, x0, x1 = box.cells(*background.shape[-2:])
    mixed = background.clone()
    if y1 > y0 and x1 > x0:
        r = blending_ratio
        mixed[..., y0:y1, x0:x1] = (
            (1 - r) ** 0.5 * background[..., y0:y1, x0:x1] + r**0.5 * own[..., y0:y1, x0:x1]
        )  # fmt: skip
    return mixed


def _set_cells(mask: Tensor) -> tuple[Tensor, Tensor]:
    ys, xs = torch.nonzero(mask, as_tuple=True)
    if not len(ys):
        raise ValueError("an empty mask has neither a centre nor a box: use the object's box instead")
    return ys, xs


def centre_of_mass(mask: Tensor) -> tuple[float, float]:
    """(x, y) of the mean cell index over the size, without a half-cell offset. Raises ValueError for an empty mask."""
    ys, xs = _set_cells(mask)
    return float(xs.double().mean()) / mask.shape[1], float(ys.double().mean()) / mask.shape[0]


def tight_cells(mask: Tensor) -> tuple[int, int, int, int]:
    """(x_min, y_min, x_max, y_max), maxima inclusive. Raises ValueError for an empty mask."""
    ys, xs = _set_cells(mask)
    return int(xs.min()), int(ys.min()), int(xs.max()), int(ys.max())


def grown_cells(mask: Tensor) -> tuple[int, int, int, int]:
    """The tight box grown by one cell on each side: x_min and y_min at least 0, x_max and y_max at most the size."""
    x0, y0, x1, y1 = tight_cells(mask)
    return max(x0 - 1, 0), max(y0 - 1, 0), min(x1 + 1, mask.shape[1]), min(y1 + 1, mask.shape[0])


def grown_box_mask(mask: Tensor) -> Tensor:
    """The grown box as a mask; its last row and column count (6.2)."""
    x0, y0, x1, y1 = grown_cells(mask)
    box = torch.zeros_like(mask)
    box[y0 : y1 + 1, x0 : x1 + 1] = True
    return box


def shift(x: Tensor, offset_x: float, offset_y: float) -> Tensor:
    """Move [..., h, w] by fractions of the canvas, rounded half to even to eighths of it; zeros come in (6.1)."""
    h, w = x.shape[-2:]
    return shift_cells(
        x,
        round(round(offset_x * SHIFT_UNITS) * w / SHIFT_UNITS),
        round(round(offset_y * SHIFT_UNITS) * h / SHIFT_UNITS),
    )


def shift_cells(x: Tensor, dx: int, dy: int) -> Tensor:
    """Move [..., h, w] by whole cells, right and down; zeros come in."""
    h, w = x.shape[-2:]
    out = torch.zeros_like(x)
    if abs(dx) < w and abs(dy) < h:
        target = (..., slice(max(dy, 0), h + min(dy, 0)), slice(max(dx, 0), w + min(dx, 0)))
        source = (..., slice(max(-dy, 0), h + min(-dy, 0)), slice(max(-dx, 0), w + min(-dx, 0)))
        out[target] = x[source]
    return out


def alignment(mask: Tensor, box: Box, horizontal_only: bool = False) -> tuple[float, float]:
    """The offset (x, y), in canvas fractions, from the mask's centre of mass to the centre of the box (6.1)."""
    (sx, sy), (dx, dy) = centre_of_mass(mask), box.centre
    return dx - sx, 0.0 if horizontal_only else dy - sy


@dataclass(frozen=True)
class Placed:
    """One object ready to be pasted: `latents` [steps + 1, C, h, w] and its `mask` [h, w], both shifted into place."""

    latents: Tensor
    mask: Tensor


def compose(
    background: Tensor, objects: Sequence[Placed], paste_box: bool = True, order: Sequence[int] | None = None
) -> tuple[Tensor, Tensor]:
    """Paste the objects, largest first or in the `order` of these indices, over the background's initial latent.

    The initial latents of all grown boxes go in first (`paste_box`), then every object's mask at every step.
    background [C, h, w]. Returns the composed latents [steps + 1, C, h, w], zero where nothing is known beyond step 0,
    and the foreground index [h, w]: 0 = background, i + 1 = object i. Without objects, one step. Source: 6.2.
    """
    steps = max((len(o.latents) for o in objects), default=1)
    composed = background.new_zeros(steps, *background.shape)
    composed[0] = background
    owner = torch.zeros(background.shape[-2:], dtype=torch.long, device=background.device)
    if order is None:
        order = sorted(range(len(objects)), key=lambda i: -int(objects[i].mask.sum()))
    seen = [i for i in order if objects[i].mask.any()]
    for i in seen if paste_box else ():
        composed[0] = torch.where(grown_box_mask(objects[i].mask), objects[i].latents[0], composed[0])
    for i in seen:
        composed = torch.where(objects[i].mask, objects[i].latents, composed)
        owner[objects[i].mask] = i + 1
    return composed, owner


def freeze(x: Tensor, known: Tensor, mask: Tensor) -> Tensor:
    """`x` with the objects' latents put back where `mask` is set (7.1, step 3)."""
    return torch.where(mask, known.to(x), x)
