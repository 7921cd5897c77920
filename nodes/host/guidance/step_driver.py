"""Runs a sampler function with a hook at the start of each of its steps.

The sampler's own latent is changed in place right before the model call that opens a step. Wrappers deeper in the host
see copies of it (concatenated, rescaled, blended with an inpainting mask), so this is the only place that works.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from ....lmd.sampling.stages import RunEnds
from .sampler_run import SamplerRun, Step, StepHook
from .step_plan import SAME_SIGMA, CannotForesee, Plan, step_plan

log = logging.getLogger(__name__)

# UniPC calls the model on a temporary; its own latent, divided by sqrt(sigma^2+1), is reachable in the callback only.
SCALED_IN_CALLBACK = {"sample_unipc", "sample_unipc_bh2"}
ADAPTIVE = {"dpm_adaptive_function", "sample_dpm_adaptive"}  # their steps are not known beforehand


def drive(
    function: Callable, hook: StepHook, run: SamplerRun, model: Any, x: Tensor, extra_args: dict,
    callback: Callable | None, disable: Any, options: dict,
) -> Tensor:  # fmt: skip
    """Run the sampler function with the hook at the start of each of its steps; returns the hook's last word on it."""
    driver = _Driver(run, hook, extra_args.get("denoise_mask"))
    if run.sampler_name in SCALED_IN_CALLBACK:
        callback = driver.scaled_callback(callback)
    else:
        steps = (
            _Announced(x) if run.sampler_name in ADAPTIVE else _planned(function, run, model, x, extra_args, options)
        )
        model, callback = driver.model(model, steps), driver.callback(callback, steps)
    try:
        if run.sampler_name not in SCALED_IN_CALLBACK:
            driver.start(x, steps)
        out = function(model, x, run.sigmas, extra_args=extra_args, callback=callback, disable=disable, **options)
    except RunEnds as end:
        out = end.latent
    finally:
        run.economy.aliases.clear()
    return hook.finish(out)


class _Driver:
    """Calls the hook where a step begins and writes its result into the sampler's latent."""

    def __init__(self, run: SamplerRun, hook: StepHook, denoise_mask: Tensor | None):
        self.run, self.hook, self.denoise_mask = run, hook, denoise_mask

    def apply(self, x: Tensor, index: int, sigma: Tensor) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        moved = self.hook.before_step(x, Step(self.run, index, sigma, self.denoise_mask))
        if moved is not x:
            x.copy_(moved)

    def start(self, x: Tensor, steps: _Steps) -> None:
        self._after_callback(x, steps, -1)

    def scaled_callback(self, inner: Callable | None) -> Callable:
        def callback(d: dict) -> None:
            i, x = d["i"], d["x"]
            if i < self.run.steps - 1:
                sigma = self.run.sigmas[i]
                scale = (sigma**2 + 1).sqrt()
                latent = x * scale
                self.apply(latent, i, sigma.expand(x.shape[0]))
                x.copy_(latent / scale)
            if inner is not None:
                inner(d)

        return callback

    def callback(self, inner: Callable | None, steps: _Steps) -> Callable:
        count = -1

        def callback(d: dict) -> None:
            nonlocal count
            count += 1
            if inner is not None:
                inner(d)
            steps.heard(d["x"])
            self._after_callback(d["x"], steps, count)

        return callback

    def _after_callback(self, x: Tensor, steps: _Steps, number: int) -> None:
        begins = steps.begins_after(number)
        if begins is not None:
            index, sigma = begins
            latent = x.to(self.run.sigmas.dtype)  # some samplers keep theirs in double precision
            self.apply(latent, index, torch.full((len(x),), sigma, device=x.device, dtype=latent.dtype))
            if latent is not x:
                x.copy_(latent)

    def model(self, model: Any, steps: _Steps) -> Any:
        driver, count = self, 0

        class Hooked:
            """The model wrapper that samplers call; anything else they ask of it goes to the original."""

            def __getattr__(self, name: str) -> Any:
                return getattr(model, name)

            def __call__(self, x: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
                nonlocal count
                index = steps.opens(count, x, sigma)
                count += 1
                if index is not None:
                    driver.apply(x, index, sigma)
                return model(x, sigma, **kwargs)

        return Hooked()


class _Steps:
    """Which model call, or which callback, opens which step of a run."""

    def opens(self, call: int, x: Tensor, sigma: Tensor) -> int | None:
        """The index of the step that this call opens, or None."""
        raise NotImplementedError

    def heard(self, x: Tensor) -> None:
        """The sampler has told its callback of this latent."""

    def begins_after(self, callback: int) -> tuple[int, float] | None:
        """`(index, sigma)` of the step that begins right after a callback (-1: at the start), if one does."""
        return None


class _Announced(_Steps):
    """An adaptive sampler: it tells its callback of the latent that it goes on with, and tries some steps again."""

    def __init__(self, x: Tensor):
        self._state: Tensor | None = x
        self._index = -1
        self._guided: Tensor | None = None

    def heard(self, x: Tensor) -> None:
        self._state = x

    def opens(self, call: int, x: Tensor, sigma: Tensor) -> int | None:
        if x is not self._state or x is self._guided:
            return None
        self._guided, self._index = x, self._index + 1
        return self._index


class _AtSigmas(_Steps):
    """A sampler that nothing is known of: a step begins where the model is first called at one of the run's sigmas."""

    def __init__(self, sigmas: Tensor, first: int = 0):
        self._sigmas = sigmas.tolist()[:-1]
        self._next = first

    def opens(self, call: int, x: Tensor, sigma: Tensor) -> int | None:
        now = float(sigma.flatten()[0])
        for index in range(self._next, len(self._sigmas)):
            if abs(now - self._sigmas[index]) <= SAME_SIGMA * self._sigmas[index]:
                self._next = index + 1
                return index
        return None


class _Planned(_Steps):
    """A sampler whose calls are known beforehand; one that does not keep to the plan goes on by its sigmas."""

    def __init__(self, plan: Plan, run: SamplerRun):
        self._plan, self._run = plan, run
        self._otherwise: _AtSigmas | None = None
        self._next = 0

    def opens(self, call: int, x: Tensor, sigma: Tensor) -> int | None:
        if self._otherwise is None and not self._keeps_to_plan(call, float(sigma.flatten()[0])):
            log.warning("%s calls the model at other points than foreseen: %s", self._run.sampler_name, AT_SIGMAS)
            self._otherwise = _AtSigmas(self._run.sigmas, self._next)
        if self._otherwise is not None:
            return self._otherwise.opens(call, x, sigma)
        index = self._plan.calls.get(call)
        self._next = self._next if index is None else index + 1
        return index

    def begins_after(self, callback: int) -> tuple[int, float] | None:
        found = None if self._otherwise else self._plan.callbacks.get(callback)
        self._next = self._next if found is None else found[0] + 1
        return found

    def _keeps_to_plan(self, call: int, sigma: float) -> bool:
        expected = self._plan.sigmas[call] if call < len(self._plan.sigmas) else float("nan")
        return abs(sigma - expected) <= SAME_SIGMA * abs(expected)


AT_SIGMAS = (
    "layout guidance acts where it is called at a sigma of the schedule, which may be less effective; ddim, euler and "
    "dpmpp_2m are guided as published"
)


def _planned(function: Callable, run: SamplerRun, model: Any, x: Tensor, extra_args: dict, options: dict) -> _Steps:
    errors = []
    for shape in ((1, *x.shape[1:-2], 8, 8), (1, *x.shape[1:])):
        try:
            return _Planned(step_plan(function, model, run.sigmas, extra_args, options, shape), run)
        except CannotForesee as error:
            errors.append(str(error))
    log.warning("the steps of %s cannot be foreseen (%s): %s", run.sampler_name, errors[-1], AT_SIGMAS)
    return _AtSigmas(run.sigmas)
