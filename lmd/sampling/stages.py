"""What happens right before each denoising step in the stages of LMD (docs/lmd.md, 4.5, 5.4 and 7).

A sampler, any sampler, calls `before_step` with the latent it is about to denoise and `finish` with its result. Latents
are [B, C, h, w]; the same tensor is returned where nothing changed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from .compose import freeze
from .guidance import Guidance

Evaluate = Callable[[Tensor], tuple[Tensor, Tensor] | None]
Maps = dict[Hashable, Tensor]


class Stage(Protocol):
    """What is done in one run of a sampler.

    `step` counts the sampler's steps, `index` those of the reference; `evaluate` and `scale` are those of
    `Guidance.step`. `finish` gets the number of `steps` of the whole run.
    """

    def before_step(self, x: Tensor, step: int, index: int, evaluate: Evaluate, scale: float) -> Tensor:
        """The guided latent [B, C, h, w] for step `step`, whose reference index (0..49) is `index`."""
        ...

    def finish(self, x: Tensor, steps: int) -> Tensor:
        """The run's result [B, C, h, w] from its last latent `x`, after `steps` steps."""
        ...


class RunEnds(BaseException):
    """Raised in `before_step` by a stage that has all it needs: the run is over and its result is `latent`."""

    def __init__(self, latent: Tensor):
        self.latent = latent


@dataclass
class GuidanceStage:
    """Guidance alone: LMD's overall stage without objects."""

    guidance: Guidance

    def before_step(self, x: Tensor, step: int, index: int, evaluate: Evaluate, scale: float) -> Tensor:
        """The guided latent [B, C, h, w]."""
        return self.guidance.step(x, index, evaluate, scale)

    def finish(self, x: Tensor, steps: int) -> Tensor:
        """The latent as it is."""
        return x


@dataclass
class ObjectStage:
    """One object's own run: keep every latent, then guide. `latents[i]` is the one before step i, the last the result.

    With `latest`, which gives the attention maps of the model call that opened the step, `attention[i]` are those of
    step i. With `stop` the run ends before that step; its result is then the model's estimate of the finished latent.
    """

    guidance: Guidance
    latest: Callable[[], Maps] | None = None
    stop: int | None = None
    latents: list[Tensor] = field(default_factory=list)
    attention: list[Maps] = field(default_factory=list)
    estimate: Tensor | None = None

    def before_step(self, x: Tensor, step: int, index: int, evaluate: Evaluate, scale: float) -> Tensor:
        """Keeps the latent for the composition, then guides it; RunEnds once the composition needs no more."""
        del self.latents[step:]
        self._keep(x)
        if step == self.stop and self.estimate is not None:
            raise RunEnds(self.estimate)
        return self.guidance.step(x, index, evaluate, scale)

    def stepped(self, step: int, estimate: Tensor) -> None:
        """Hear of step `step` from the sampler, with the model's `estimate` of the finished latent."""
        if self.latest is not None:
            del self.attention[step:]
            self.attention.append(self.latest())
        self.estimate = estimate

    def finish(self, x: Tensor, steps: int) -> Tensor:
        """Keeps the last latent and returns it."""
        if x is not self.estimate:  # after `stop` the last latent is already there
            self._keep(x)
        return x

    def _keep(self, x: Tensor) -> None:
        self.latents.append(x.detach().float().cpu().clone())


@dataclass
class OverallStage:
    """The composed image's run: for `frozen_steps` steps put the objects' latents back, and guide.

    `composed` [steps + 1, B, C, h, w] and `mask` [B, 1, h, w] (boolean) come from `compose`.
    """

    guidance: Guidance
    composed: Tensor
    mask: Tensor
    frozen_steps: int

    def before_step(self, x: Tensor, step: int, index: int, evaluate: Evaluate, scale: float) -> Tensor:
        """Puts the frozen objects back into the latent, then guides it."""
        return self.guidance.step(self._frozen(x, step), index, evaluate, scale)

    def finish(self, x: Tensor, steps: int) -> Tensor:
        """The last latent, with the objects put back if they are frozen to the end."""
        return self._frozen(x, steps)

    def _frozen(self, x: Tensor, step: int) -> Tensor:
        # The latent before step k is the result of step k - 1, so steps 1..frozen_steps start from frozen objects.
        if not 0 < step <= self.frozen_steps:
            return x
        return freeze(x, self.composed[step].to(x.device), self.mask.to(x.device))
