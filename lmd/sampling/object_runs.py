"""What the per-object stage hands to the composition (socket type LMD_OBJECTS), and how it is put together.

Shapes: B images, C latent channels, h x w latent cells, N steps.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..layout import Box, Layout
from ..prompts import ObjectPrompt
from . import compose, masks
from .options import LMDOptions, SamplingSettings


@dataclass(frozen=True, eq=False)
class ObjectRun:
    """One object's own run.

    `item`: its prompt and its box in the layout; `box`: where it was drawn. `noise` [B, C, h, w]: unit initial noise.
    `latents` [N + 1, B, C, h, w]: the sampler's latents (x0 + sigma * noise) before each step, and the result.
    `attention`: per layer name, word-token attention [N, B, heads, gh, gw]. `result` [B, C, h, w]: for the VAE.
    `mask` [B, h, w], boolean: the object's foreground. `energies`: `(step, reference index, energy [B])`.
    """

    item: ObjectPrompt
    box: Box
    noise: Tensor
    latents: Tensor
    attention: dict[str, Tensor]
    result: Tensor
    mask: Tensor
    energies: tuple

    @property
    def steps(self) -> int:
        """The number of sampling steps of the run."""
        return len(self.latents) - 1

    @property
    def mask_attention(self) -> Tensor:
        """The layer that masks are read from comes first in `attention`."""
        return next(iter(self.attention.values()))


@dataclass(frozen=True, eq=False)
class ObjectRuns:
    """All objects of a layout, in the order of `prompts.object_prompts`; `noise` [B, C, h, w] is the background's.

    `latent_format` and `sigmas`, the noise levels of the runs, tell whether another model can go on; "" and () if
    unknown.
    """

    layout: Layout
    settings: SamplingSettings
    options: LMDOptions
    noise: Tensor
    runs: tuple[ObjectRun, ...]
    latent_format: str = ""
    sigmas: tuple[float, ...] = ()

    @property
    def exact_steps(self) -> int:
        """For how many steps the objects ran on the composed image's own sigmas."""
        steps = min((r.steps for r in self.runs), default=0)
        return min(steps, self.options.exact_steps(self.settings.steps)) if self.options.fast_schedule else steps

    def with_masks(self, new: Sequence[Tensor]) -> ObjectRuns:
        """The same runs with other masks [B, h, w] or [h, w], one per object; an empty one becomes the box."""
        runs = []
        for run, mask in zip(self.runs, new):
            mask = mask.bool().expand(run.mask.shape).clone()
            runs.append(replace(run, mask=_never_empty(mask, run.box)))
        return replace(self, runs=tuple(runs))


def initial_noise(settings: SamplingSettings, shape: Sequence[int]) -> Tensor:
    """Unit background noise [B, C, h, w] for `shape` = (C, h, w), one seed per image."""
    return torch.cat([compose.seeded_noise(settings.background_seed(b), (1, *shape)) for b in range(settings.batch)])


def seed_numbers(items: Sequence[ObjectPrompt], by_order: bool) -> list[int]:
    """The number of each object that its seed follows from: its index, or one that depends on its own name alone."""
    if by_order:
        return list(range(len(items)))
    seen: Counter[str] = Counter()
    numbers = []
    for item in items:
        numbers.append(zlib.crc32(f"{item.phrase}#{seen[item.phrase]}".encode()))
        seen[item.phrase] += 1
    return numbers


def object_noise(
    settings: SamplingSettings, background: Tensor, number: int, box: Box, blending: float, own_seed: int | None = None
) -> Tensor:
    """Unit initial noise [B, C, h, w] of the object with this number, drawn at `box`.

    An object with a seed of its own has that one's noise in its box, whatever the background's seed is.
    """
    images = []
    for b in range(settings.batch):
        seed = compose.object_seed(settings.background_seed(b), settings.first_object_seed(b), number)
        if own_seed is not None:
            seed, blending = own_seed + b, 1.0
        own = compose.seeded_noise(seed % 2**64, background[b : b + 1].shape)
        images.append(compose.blended_noise(background[b : b + 1], own, box, blending))
    return torch.cat(images)


def box_mask(box: Box, height: int, width: int) -> Tensor:
    """The box on the latent grid, boolean [h, w]; at least one cell, however small the box."""
    y0, y1, x0, x1 = box.cells(height, width)
    y0, x0 = min(max(y0, 0), height - 1), min(max(x0, 0), width - 1)
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = True
    return mask


def attention_mask(attention: Tensor, box: Box, height: int, width: int, inside_box: bool, **options) -> Tensor:
    """The foreground [B, h, w] from word-token attention [N, B, heads, gh, gw] of one layer (5.6, steps 1 to 3)."""
    start = round(masks.AGGREGATE_FROM * len(attention))
    found = []
    for b in range(attention.shape[1]):
        smoothed = masks.smooth(masks.aggregate(attention[:, b], start), masks.POINT.sigma)
        coarse = masks.coarse_mask(smoothed, masks.MaskOptions(**options))
        found.append(masks.upsample(coarse, height, width))
    mask = torch.stack(found)
    if inside_box:
        mask = mask & box_mask(box, height, width)
    return _never_empty(mask, box)


def _never_empty(mask: Tensor, box: Box) -> Tensor:
    fallback = box_mask(box, *mask.shape[-2:])
    return torch.where(mask.flatten(1).any(1)[:, None, None], mask, fallback)


@dataclass(frozen=True, eq=False)
class Composition:
    """The start of the overall stage: `noise` [B, C, h, w] (unit), `latents` [N + 1, B, C, h, w] with entry 0 unused,
    `mask` [B, 1, h, w] (of videos' latents [B, C, 1, h, w] too: [B, 1, 1, h, w]), and per object the shifted attention of its layers, as in `ObjectRun.attention`.
    """

    noise: Tensor
    latents: Tensor
    mask: Tensor
    attention: tuple[dict[str, Tensor], ...]


def compose_runs(objects: ObjectRuns) -> Composition:
    """Shift every object to its box and paste them, image by image (docs/lmd.md, 6); `mask` is of those kept frozen."""
    batch = objects.settings.batch
    steps = objects.exact_steps
    noises, latents, frozen = [], [], []
    by_list = sorted(range(len(objects.runs)), key=lambda i: objects.runs[i].item.number)
    order = by_list if objects.layout.ordered else None
    kept = torch.tensor([i for i, run in enumerate(objects.runs, 1) if run.item.settings.frozen], dtype=torch.long)
    shifted: list[dict[str, list[Tensor]]] = [{k: [] for k in r.attention} for r in objects.runs]
    for b in range(batch):
        placed = []
        for i, run in enumerate(objects.runs):
            dx, dy = (0.0, 0.0)
            if objects.options.align:
                dx, dy = compose.alignment(run.mask[b], run.item.box, objects.options.align_horizontal_only)
            # Step 0 is composed as unit noise, which the sampler scales itself; later steps as the sampler's latents.
            own = torch.cat([run.noise[None, b], run.latents[1 : steps + 1, b]])
            placed.append(compose.Placed(compose.shift(own, dx, dy), compose.shift(run.mask[b], dx, dy)))
            for name, attention in run.attention.items():
                shifted[i][name].append(compose.shift(attention[:steps, b], dx, dy))
        composed, owner = compose.compose(objects.noise[b], placed, order=order)
        noises.append(composed[0])
        latents.append(composed)
        frozen.append(torch.isin(owner, kept))
    attention = tuple({k: torch.stack(v, dim=1) for k, v in per_object.items()} for per_object in shifted)
    mask = torch.stack(frozen)
    mask = mask.view(batch, *[1] * (objects.noise.ndim - 3), *mask.shape[-2:])
    return Composition(torch.stack(noises), torch.stack(latents, dim=1), mask, attention)
