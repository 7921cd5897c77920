"""What happens right before each denoising step in the two stages of LMD (docs/lmd.md, 5.4 and 7.1).

A sampler, any sampler, calls `before_step` with the latent it is about to denoise and `finish` with its result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from .compose import freeze
from .guidance import Guidance

Evaluate = Callable[[Tensor], tuple[Tensor, Tensor] | None]


@dataclass
class ObjectStage:
    """One object's own run: keep every latent, then guide. `latents[i]` is the one before step i, the last the result."""

    guidance: Guidance
    latents: list[Tensor] = field(default_factory=list)

    def before_step(self, x: Tensor, step: int, index: int, evaluate: Evaluate, scale: float) -> Tensor:
        del self.latents[step:]
        self.latents.append(x.detach().float().cpu().clone())
        return self.guidance.step(x, index, evaluate, scale)

    def finish(self, x: Tensor) -> Tensor:
        self.latents.append(x.detach().float().cpu().clone())
        return x


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
        return self.guidance.step(self._frozen(x, step), index, evaluate, scale)

    def finish(self, x: Tensor, steps: int) -> Tensor:
        return self._frozen(x, steps)

    def _frozen(self, x: Tensor, step: int) -> Tensor:
        # The latent before step k is the result of step k - 1, so steps 1..frozen_steps start from frozen objects.
        if not 0 < step <= self.frozen_steps:
            return x
        return freeze(x, self.composed[step].to(x.device), self.mask.to(x.device))
