"""Stable Diffusion's noise schedule as plain numbers, and the reference's step tables (docs/lmd.md, 4.5, 5.5, 7.1)."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch

BETA_START, BETA_END, TRAIN_TIMESTEPS = 0.00085, 0.012, 1000


def alphas_cumprod(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """[1000]: the scaled-linear schedule of SD1.x, SD2.x and SDXL."""
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, TRAIN_TIMESTEPS, dtype=dtype) ** 2
    return torch.cumprod(1 - betas, dim=0)


@functools.cache
def _log_noise_levels() -> torch.Tensor:
    # Rounded after the logarithm, as ComfyUI does, so that a level between two timesteps falls to the same one.
    a = alphas_cumprod(torch.float64)
    return ((1 - a) / a).sqrt().log().float()


def timestep_at(noise_level: float) -> int:
    """The timestep (0..999) whose noise over signal, sqrt((1 - a) / a), is nearest to `noise_level` (0..inf), in logs.

    Noise levels beyond the schedule's ends, 0.029 and 14.6, are taken for its ends. Raises ValueError for a negative
    level and for one that is not a number.
    """
    if not noise_level >= 0:
        raise ValueError(f"a noise level is at least 0, got {noise_level}: the schedule that made it is broken")
    if math.isinf(noise_level):
        return TRAIN_TIMESTEPS - 1
    level = torch.tensor(noise_level, dtype=torch.float32).log()
    return int((level - _log_noise_levels()).abs().argmin())


def fast_indices(steps: int, fast_after: int, rate: int = 2) -> list[int]:
    """Indices of the visited steps: all up to `fast_after`, then every `rate`-th, starting one later (5.5)."""
    if fast_after >= steps - 1:
        return list(range(steps))
    return [*range(fast_after), *range(fast_after + rate - 1, steps, rate)]


def frozen_steps(steps: int, ratio: float) -> int:
    """How many steps keep the objects frozen: the ratio, clamped to 0..1, of the steps, truncated."""
    return int(steps * min(max(ratio, 0.0), 1.0))


def grounding_steps(visited_steps: int, beta: float) -> int:
    """For how many steps GLIGEN's layers stay on (7.4)."""
    return int(beta * visited_steps)


def fast_sigmas(sigmas: Sequence[float], fast_after: int) -> list[float]:
    """A sampler's sigmas (one more than steps, the last the target) thinned by `fast_indices`."""
    return [sigmas[i] for i in fast_indices(len(sigmas) - 1, fast_after)] + [sigmas[-1]]
