"""Benchmarks by name."""

from __future__ import annotations

from .base import Benchmark
from .demo import Demo
from .dpg import Dpg
from .geneval import GenEval
from .geneval2 import GenEval2
from .lmd import Lmd
from .seven import SevenBench

BENCHMARKS: dict[str, Benchmark] = {b.name: b for b in (Lmd(), Dpg(), GenEval(), GenEval2(), SevenBench(), Demo())}


def benchmark(name: str) -> Benchmark:
    """The benchmark of this name; ValueError that lists the names if there is none."""
    if name not in BENCHMARKS:
        raise ValueError(f"there is no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
