"""Where the steps of a sampler can be guided, found by two dry runs on a denoiser that ignores its input.

A move of the latent counts if it reaches the sampler's own state: some samplers call the model on copies, or at points
within a step that they throw away. One dry run is plain, the other moves the latent a little, at another cell for every
model call and every callback; what is left of each move at the following calls tells which of them hold the state.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

MAX_DRY_RUN_CALLS = 4000
TINY = (1, 4, 8, 8)
SAME_SIGMA = 1e-3  # relative
LASTS = 0.02  # of a move, at the following calls: what is below has been thrown away


class CannotForesee(Exception):
    """The sampler does not run on a stand-in for its model."""


@dataclass(frozen=True)
class Plan:
    """The sigma of every model call of a run, and where its steps are opened.

    `calls`: {number of a model call: index of the step that it opens}. `callbacks`: {number of a callback: (index of the
    step that begins after it, its sigma)}, where the state is reached there only; -1 stands for the start of the run.
    """

    sigmas: tuple[float, ...]
    calls: dict[int, int]
    callbacks: dict[int, tuple[int, float]]


def step_plan(
    function: Callable, model: Any, sigmas: Tensor, extra_args: dict, options: dict, shape: tuple[int, ...] = TINY
) -> Plan:
    """The plan of `function(model, x, sigmas, ...)`, a sampler function; `shape` is that of the dry runs' latent.

    The global random state is left as it was. Raises CannotForesee if the sampler raises anything, or does not end.
    """
    cpu = sigmas.device.type == "cpu"
    runs = []
    with torch.random.fork_rng(devices=[] if cpu else [sigmas.device]):
        for moving in (False, True):
            torch.manual_seed(0)
            run = _DryRun(moving)
            x = torch.ones(shape, device=sigmas.device) * float(sigmas[0])
            args = {**extra_args, "denoise_mask": None}
            toy = _toy(model, run, list(extra_args["model_options"].get("sampler_post_cfg_function", [])))
            try:
                function(toy, x, sigmas.clone(), extra_args=args, callback=run.callback, disable=True, **options)
            except Exception as error:  # a sampler of another pack may raise anything; this module is not in the try
                raise CannotForesee(f"{type(error).__name__}: {error}") from error
            runs.append(run)
    return _plan(runs[0], runs[1], sigmas)


@dataclass
class _Seen:
    """A latent [numel] as a model call or a callback got it, its sigma, and for a callback the calls before it."""

    x: Tensor
    sigma: float
    step: int = 0
    before: int = 0
    cell: int = 0
    size: float = 0.0


@dataclass
class _DryRun:
    moving: bool
    calls: list[_Seen] = field(default_factory=list)
    callbacks: list[_Seen] = field(default_factory=list)

    def call(self, x: Tensor, sigma: Tensor) -> None:
        if len(self.calls) > MAX_DRY_RUN_CALLS:
            raise CannotForesee("the dry run does not end")
        half = x.numel() // 2
        self.calls.append(self._see(x, float(sigma.flatten()[0]), len(self.calls) % half))

    def callback(self, d: dict) -> None:
        sigma = d.get("sigma_hat", d.get("sigma"))
        half = d["x"].numel() // 2
        seen = self._see(d["x"], math.nan if sigma is None else float(sigma), half + len(self.callbacks) % half)
        seen.step, seen.before = int(d["i"]), len(self.calls)
        self.callbacks.append(seen)

    def _see(self, x: Tensor, sigma: float, cell: int) -> _Seen:
        seen = _Seen(x.detach().clone().flatten().double(), sigma, cell=cell, size=max(1.0, float(x.abs().max())))
        if self.moving and x.is_contiguous():
            x.view(-1)[cell] += seen.size
        return seen


def _toy(model: Any, run: _DryRun, own: list[Callable]) -> Any:
    class Toy:
        """A denoiser whose answer is always 0; anything else that a sampler asks of it goes to the real model."""

        def __getattr__(self, name: str) -> Any:
            return getattr(model, name)

        def __call__(self, x: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
            run.call(x, sigma)
            denoised = torch.zeros_like(x)
            for post in kwargs.get("model_options", {}).get("sampler_post_cfg_function", []):
                if post not in own:  # added by a CFG++ sampler, which needs its answer
                    denoised = post(
                        {"denoised": denoised, "uncond_denoised": denoised, "cond_denoised": denoised, "input": x,
                         "sigma": sigma, "model": None, "model_options": {}, "cond": None, "uncond": None,
                         "cond_scale": 1.0}
                    )  # fmt: skip
            return denoised

    return Toy()


def _plan(still: _DryRun, moved: _DryRun, sigmas: Tensor) -> Plan:
    steps = _steps(still, sigmas)
    lasting = [[k for k in opening if _lasts(still, moved, moved.calls[k], k + 1)] for _, _, opening in steps]
    calls: dict[int, int] = {}
    callbacks: dict[int, tuple[int, float]] = {}
    for (j, step, opening), own in zip(steps, lasting):
        if own:
            calls[own[-1]] = step
        elif not any(lasting) and _holds_the_state(still, moved, j - 1, opening[0]):
            callbacks[j - 1] = step, still.calls[opening[0]].sigma
        else:  # the state is out of reach, but moving what the model sees moves its answer
            calls[opening[-1]] = step
    if list(callbacks) == [-1]:  # a sampler that keeps no state: the first call is as good
        calls[0] = callbacks.pop(-1)[0]
    return Plan(tuple(c.sigma for c in still.calls), calls, callbacks)


def _steps(run: _DryRun, sigmas: Tensor) -> list[tuple[int, int, list[int]]]:
    """`(number of its callback, index, the model calls at its own sigma)` of every step."""
    steps, known = [], set()
    for j, told in enumerate(run.callbacks):
        sigma = float(sigmas[min(told.step, len(sigmas) - 1)]) if math.isnan(told.sigma) else told.sigma
        begin = run.callbacks[j - 1].before if j else 0
        if told.before > begin:
            opening = [k for k in _of_step(run, begin, told.before, sigma) if k not in known] or [told.before - 1]
            known.update(opening)
            steps.append((j, told.step, opening))
    return steps


def _of_step(run: _DryRun, begin: int, end: int, sigma: float) -> list[int]:
    """The calls at a step's own sigma: up to its callback, and right after it."""
    found = [k for k in range(begin, end) if _same(run.calls[k].sigma, sigma)]
    while end < len(run.calls) and _same(run.calls[end].sigma, sigma):
        found.append(end)
        end += 1
    return found


def _same(a: float, b: float) -> bool:
    return abs(a - b) <= SAME_SIGMA * abs(b)


def _lasts(still: _DryRun, moved: _DryRun, move: _Seen, first: int) -> bool:
    """Whether a move is there, in its own direction, in one of the two model calls from number `first` on."""
    for a, b in list(zip(still.calls, moved.calls))[first : first + 2]:
        if a.x.shape == b.x.shape and float(b.x[move.cell] - a.x[move.cell]) > LASTS * move.size:
            return True
    return False


def _holds_the_state(still: _DryRun, moved: _DryRun, j: int, call: int) -> bool:
    """Whether callback j hears of the very latent that the model is called on next, and moving it lasts."""
    seen = still.calls[call]
    if j < 0:  # the latent that the sampler is given
        return call == 0 and bool((seen.x == seen.x[0]).all()) and _same(float(seen.x[0]), seen.sigma)
    told = still.callbacks[j]
    if told.before != call or told.x.shape != seen.x.shape:
        return False
    alike = torch.allclose(told.x, seen.x, rtol=1e-4, atol=1e-4 * told.size)
    return alike and _lasts(still, moved, moved.callbacks[j], call)
