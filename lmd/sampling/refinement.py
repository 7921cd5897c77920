"""Refinement of a finished picture by SDXL's refiner: what it is run with (docs/lmd.md, 14).

Source: LLM-groundedDiffusion@cef2a90 generation/sdxl_refinement.py; diffusers 0.18.0's EulerDiscreteScheduler.
"""

from __future__ import annotations

from dataclasses import dataclass

from .. import checks
from ..prompts import with_negative
from .guidance import REFERENCE_STEPS, TRAIN_TIMESTEPS
from .schedule import alphas_cumprod

NEGATIVE = "drawing, painting, crayon, sketch, graphite, impressionist, noisy, blurry, soft, deformed, ugly"
SEED_OFFSET = 7890
SIDE = 1024  # of the picture that the refiner gets, and of the original and target sizes that it is told
CFG, SAMPLER, SCHEDULER, RESAMPLE = 5.0, "euler", "ddim_uniform", "lanczos"
ASCORE, NEGATIVE_ASCORE = 6.0, 2.5
STRIDE = TRAIN_TIMESTEPS // REFERENCE_STEPS


def refinement_negative(extra: str, exact: bool = False) -> str:
    """The negative prompt: the layout's own in front of `NEGATIVE`; `exact` keeps the comma in front of an absent one."""
    return f"{extra}, {NEGATIVE}" if exact else with_negative(extra, NEGATIVE)


def refinement_seed(seed: int) -> int:
    """The refinement's seed from the one of the composed picture."""
    return (seed + SEED_OFFSET) % 2**64


@dataclass(frozen=True)
class Refinement:
    """How far a picture is noised and denoised again: `strength`, 0..1, of 50 steps (published: 0.1 weak, 0.5 strong)."""

    strength: float = 0.3

    def __post_init__(self) -> None:
        checks.number(self, "strength", 0, 1)

    @property
    def steps(self) -> int:
        """How many of the 50 planned steps are run."""
        return int(REFERENCE_STEPS * self.strength)

    @property
    def timesteps(self) -> tuple[int, ...]:
        """The model's timesteps, falling: every twentieth, the last one 1."""
        return tuple(i * STRIDE + 1 for i in reversed(range(self.steps)))

    @property
    def sigmas(self) -> tuple[float, ...]:
        """The sampler's noise levels: those of `timesteps`, then 0."""
        a = alphas_cumprod()
        return (*(float(((1 - a[t]) / a[t]) ** 0.5) for t in self.timesteps), 0.0)

    @property
    def one_ksampler(self) -> bool:
        """Whether a KSampler with these steps, "ddim_uniform" and a denoise of `strength` has exactly these sigmas.

        It plans `int(steps / denoise)` steps and strides over the timesteps by whole numbers; where it would not stride
        by 20, BasicScheduler for 50 steps and SplitSigmas at `50 - steps` have them.
        """
        planned = int(self.steps / self.strength) if self.steps else 0
        return planned > 0 and TRAIN_TIMESTEPS // planned == STRIDE
