"""The guidance loop: gradient descent of the noisy latent on an energy, before each denoising step (4.5)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .. import checks
from .energy import EnergyOptions

REFERENCE_STEPS = 50  # iteration counts are written for the 50 DDIM steps of the reference
TRAIN_TIMESTEPS = 1000
MOST_ITERATIONS = 100  # at one step
FAR_ABOVE_THRESHOLD = 10000.0


@dataclass(frozen=True)
class GuidanceOptions:
    """How strongly, how often and how long to guide (docs/lmd.md, 4.5 and 7.2: LMD's defaults).

    `loss_scale` and `loss_threshold` are 0 or more, `max_index_step` is 0..50, `max_iter` a tuple of 0..100.
    `max_iter[i]` is the number of iterations at reference step i (the last entry serves all later ones),
    `max_index_step` the reference step at which guidance ends. `loss_threshold` is compared with the energy before
    `loss_scale`; once it is met, guidance is over for that image. With `catch_up` a step also does the iterations of
    the reference steps between it and the next one, which a run of few steps would leave out.
    """

    loss_scale: float = 5.0
    loss_threshold: float = 5.0
    max_index_step: int = 30
    max_iter: tuple[int, ...] = (4,) * 5 + (3,) * 5 + (2,) * 10 + (1,) * 10
    energy: EnergyOptions = field(default_factory=EnergyOptions)
    catch_up: bool = False

    def __post_init__(self) -> None:
        checks.number(self, "loss_scale", 0)
        checks.number(self, "loss_threshold", 0)
        checks.whole(self, "max_index_step", 0, REFERENCE_STEPS)
        checks.wholes(self, "max_iter", 0, MOST_ITERATIONS)
        checks.kind(self, EnergyOptions, "energy")
        checks.kind(self, bool, "catch_up")

    @property
    def guides(self) -> bool:
        """Whether there is anything to do at any step."""
        return bool(self.loss_scale) and any(map(self.iterations, range(REFERENCE_STEPS)))

    def iterations(self, index: int) -> int:
        """Iterations allowed at reference step `index`."""
        if index >= self.max_index_step or not self.max_iter:
            return 0
        return self.max_iter[min(index, len(self.max_iter) - 1)]


def parse_iterations(text: str) -> tuple[int, ...]:
    """ "4x5, 3x5, 2x10, 1x10" -> four iterations for five reference steps, three for five, and so on.

    Raises ValueError naming the part that is not `iterations` or `iterations x steps`.
    """
    counts: list[int] = []
    for part in filter(None, (p.strip() for p in text.lower().replace(";", ",").split(","))):
        count, _, steps = part.partition("x")
        try:
            n, k = int(count), int(steps or 1)
        except ValueError:
            n = k = -1
        if not (0 <= n <= MOST_ITERATIONS and 0 <= k <= REFERENCE_STEPS):
            raise ValueError(f'iterations are written like "4x5, 3x5, 2x10, 1x10" (count x steps), got {part!r}')
        counts += [n] * k
    return tuple(counts)


def reference_index(timestep: float) -> int:
    """The reference's step index (0..49) for a model timestep (0..999); its 50 DDIM steps are t = 981, 961, ..., 1.

    Going by the timestep keeps the schedule right for any sampler, scheduler, step count and denoise; for a model with
    another schedule it is the one of the same noise level (schedule.timestep_at).
    """
    per_step = TRAIN_TIMESTEPS // REFERENCE_STEPS
    return max(0, min(REFERENCE_STEPS - 1, int((TRAIN_TIMESTEPS - 1 - timestep) // per_step)))


def step_scale(signal: float, noise: float) -> float:
    """The same update for latents x = signal * x0 + noise * n: noise * sqrt(signal^2 + noise^2) (docs/lmd.md, 4.5).

    Divided by s = sqrt(signal^2 + noise^2) they are the reference's latents z, with sqrt(1 - a) = noise / s; one factor
    s comes from x = s z, another one from the gradient. ComfyUI's latents of a U-Net have a signal of 1.
    """
    return noise * math.sqrt(signal * signal + noise * noise)


def boxdiff_scale(signal: float, noise: float, index: int) -> float:
    """BoxDiff's update at reference step `index`: sqrt(1 - index / 98) of the reference's latents z, whatever the noise.

    As in `step_scale`, x = s z brings s^2. It falls from 1 to sqrt(1/2) over the 50 steps.
    """
    return (signal * signal + noise * noise) * math.sqrt(1 - 0.5 * index / (REFERENCE_STEPS - 1))


class NonFiniteEnergy(ValueError):
    """The model returned NaN or infinity, so there is no direction to go."""


@dataclass
class Guidance:
    """One run's guidance: the options, and the state that the stop rule carries from step to step.

    `visited` are the reference steps (0..49) of the run's own steps, which `catch_up` needs to know what lies between.
    `trace` lists `(index, energy [B])` for every evaluation, in order, energies before `loss_scale`.
    """

    options: GuidanceOptions
    visited: tuple[int, ...] = ()
    trace: list[tuple[int, Tensor]] = field(default_factory=list)
    _loss: Tensor | None = None

    def iterations(self, index: int) -> int:
        """Iterations allowed at reference step `index` of this run."""
        if not self.options.catch_up:
            return self.options.iterations(index)
        following = min((i for i in self.visited if i > index), default=REFERENCE_STEPS)
        return sum(self.options.iterations(i) for i in range(index, following))

    def wants(self, index: int) -> bool:
        """Whether the step would evaluate anything (False once every image is below the threshold)."""
        if not self.options.loss_scale or not self.iterations(index):
            return False
        return self._loss is None or bool(self._active().any())

    def step(
        self, x: Tensor, index: int, evaluate: Callable[[Tensor], tuple[Tensor, Tensor] | None], step_scale: float
    ) -> Tensor:
        """Move `x` [B, ...] at reference step `index`; returns the moved latent, or `x` itself if nothing was done.

        `evaluate(x)` returns the energy [B] and its gradient with respect to x, or None to leave this step out. The
        threshold is tested before each evaluation only: the update is applied even when the fresh energy is already
        below it, and an image that has met it is never evaluated again (4.5).
        """
        for _ in range(self.iterations(index)):
            if not self.wants(index):
                break
            found = evaluate(x)
            if found is None:
                break
            energy, gradient = found
            energy = energy.detach().float().cpu()
            if self._loss is None:
                self._loss = torch.full_like(energy, FAR_ABOVE_THRESHOLD)
            active = self._active()
            self._check(energy, gradient, active, index)
            self._loss = torch.where(active, energy * self.options.loss_scale, self._loss)
            self.trace.append((index, energy))
            delta = gradient * (self.options.loss_scale * step_scale)
            keep = active.to(x.device).view(-1, *[1] * (x.ndim - 1))
            x = torch.where(keep, x - delta.to(x), x)
        return x

    def _active(self) -> Tensor:
        assert self._loss is not None, "set before the first evaluation"
        return self._loss / self.options.loss_scale > self.options.loss_threshold

    def _check(self, energy: Tensor, gradient: Tensor, active: Tensor, index: int) -> None:
        finite = torch.isfinite(energy) & torch.isfinite(gradient).flatten(1).all(1).cpu()
        if not finite[active].all():
            bad = [i for i, ok in enumerate(finite.tolist()) if not ok]
            raise NonFiniteEnergy(
                f"layout guidance got NaN or infinity from the model at guided step {index}, image {bad} of the batch: "
                "the latent or the weights are broken, or half precision overflowed. Lower loss_scale in the guidance "
                "options, or start ComfyUI with --force-fp32 to see which"
            )
