"""Intervals and tests for tables of scores."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

Interval = tuple[float, float]


def wilson(successes: float, trials: int, z: float = 1.96) -> Interval:
    """Wilson score interval of a success rate, as shares; 95 % for the default `z`."""
    if not trials:
        return 0.0, 1.0
    p = successes / trials
    centre, spread = p + z * z / (2 * trials), z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    low, high = ((centre + sign * spread) / (1 + z * z / trials) for sign in (-1, 1))
    return low, high


def bootstrap(values: Sequence[float], samples: int = 2000, level: float = 0.95) -> Interval:
    """Percentile bootstrap interval of the mean, always the same for the same values."""
    if not values:
        return 0.0, 1.0
    rng, n = random.Random(len(values)), len(values)
    means = sorted(sum(rng.choices(values, k=n)) / n for _ in range(samples))
    cut = (1 - level) / 2
    return means[int(cut * samples)], means[min(int((1 - cut) * samples), samples - 1)]


def interval(values: Sequence[float]) -> tuple[Interval, str]:
    """The interval of a mean and its kind: Wilson's for successes and failures, else by bootstrap."""
    if all(v in (0.0, 1.0) for v in values):
        return wilson(sum(values), len(values)), "Wilson"
    return bootstrap(values), "bootstrap"


def sign_test(pairs: Sequence[tuple[float, float]]) -> tuple[int, int, float]:
    """`(better, worse, p)`: how often the first of a pair beats the second, and the exact two-sided probability."""
    better, worse = sum(a > b for a, b in pairs), sum(a < b for a, b in pairs)
    n = better + worse
    tail = sum(math.comb(n, k) for k in range(min(better, worse) + 1))
    return better, worse, min(1.0, 2 * tail / 2**n)
