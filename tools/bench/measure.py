"""Times, memory and arithmetic of a call, measured the same way for everything that is compared."""

from __future__ import annotations

import ctypes
import gc
import re
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Call = Callable[[], Any]


def seconds(call: Call, device: str = "cpu") -> float:
    """How long `call` takes: with one thread of a CPU the processor seconds of this process, so that other programs do
    not count; with several threads, or on a GPU, the time that passes until it is done.
    """
    import torch

    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    _finish(device)
    start = clock()
    call()
    _finish(device)
    return clock() - start


def _finish(device: str) -> None:
    if device != "cpu":
        import torch

        torch.cuda.synchronize()


def alternate(
    calls: Mapping[str, Call], rounds: int, device: str = "cpu", warm_up: bool = True
) -> dict[str, list[float]]:
    """{name: seconds in each round}; the calls take turns, after a first round that is not counted (`warm_up`)."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values() if warm_up else ():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds(call, device))
    return times


def ratio(times: Mapping[str, list[float]], name: str, base: str) -> tuple[float, float, float]:
    """(median, lowest, highest) of `name` over `base`, taken round by round."""
    ratios = [a / b for a, b in zip(times[name], times[base])]
    return statistics.median(ratios), min(ratios), max(ratios)


def flops(call: Call) -> int:
    """Floating point operations of all matrix products and convolutions in `call`, forward and backward.

    The fused attention of the CPU is not counted by PyTorch, so `call` should use plain attention.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def peak_bytes(call: Call, device: str = "cpu") -> int:
    """The most memory that `call` takes at any moment, beyond what the process held before.

    On a GPU it is the allocator's own count. On the CPU it is physical memory: Linux keeps the highest resident size of
    a process and forgets it on request (/proc/self/clear_refs), and unlike a count of tensors it includes the scratch
    memory inside operators. Freed memory is given back to the system first, so that it cannot hide a part of the peak.
    """
    gc.collect()
    if device != "cpu":
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    call()
    return _resident("VmHWM") - before


def resident_bytes() -> int:
    """The process's memory now."""
    return _resident("VmRSS")


def _resident(field: str) -> int:
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def mebibytes(size: float) -> str:
    return f"{size / 2**20:.0f} MiB"
