"""Runs a sampler function with a hook at the start of each of its steps.

The sampler's own latent is changed in place right before the first model call of a step. Wrappers deeper in the host
see copies of it (concatenated, rescaled, blended with an inpainting mask), so this is the only place that works.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import comfy.model_management
from torch import Tensor

from ....lmd.sampling.stages import RunEnds
from .sampler_patch import UnsupportedSampler
from .sampler_run import SamplerRun, Step, StepHook
from .step_plan import call_plan

log = logging.getLogger(__name__)

# These throw the latent away between two model calls, so nothing that is done to it lasts.
UNGUIDABLE = {"sample_lcm": "lcm", "sample_sa_solver": "sa_solver", "sample_sa_solver_pece": "sa_solver_pece"}
# UniPC calls the model on a temporary; its own latent, divided by sqrt(sigma^2+1), is reachable in the callback only.
IN_CALLBACK = {"sample_unipc", "sample_unipc_bh2"}
ADAPTIVE = "dpm_adaptive_function"


def drive(
    function: Callable, hook: StepHook, run: SamplerRun, model: Any, x: Tensor, extra_args: dict,
    callback: Callable | None, disable: Any, options: dict,
) -> Tensor:  # fmt: skip
    """Run the sampler function with the hook at the start of each of its steps."""
    refuse(run.sampler_name)
    driver = _Driver(run, hook, extra_args.get("denoise_mask"))
    if run.sampler_name in IN_CALLBACK:
        callback = driver.callback(callback)
    else:
        model = driver.model(function, model, x, extra_args, options)
    try:
        out = function(model, x, run.sigmas, extra_args=extra_args, callback=callback, disable=disable, **options)
    except RunEnds as end:
        out = end.latent
    finally:
        run.economy.aliases.clear()
    return driver.finish(out)


def refuse(name: str) -> None:
    """Raise UnsupportedSampler for a sampler function whose latent does not carry an update to the next step."""
    if name in UNGUIDABLE:
        raise UnsupportedSampler(
            f'the sampler "{UNGUIDABLE[name]}" replaces the latent between steps, so layout guidance would be lost: '
            'choose "ddim", "euler", "dpmpp_2m" or another sampler in the sampling node'
        )


class _Driver:
    """Calls the hook at the right model calls of one run and writes its result into the sampler's latent."""

    def __init__(self, run: SamplerRun, hook: StepHook, denoise_mask: Tensor | None):
        self.run, self.hook, self.denoise_mask = run, hook, denoise_mask

    def apply(self, x: Tensor, index: int, sigma: Tensor) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        moved = self.hook.before_step(x, Step(self.run, index, sigma, self.denoise_mask))
        if moved is not x:
            x.copy_(moved)

    def finish(self, x: Tensor) -> Tensor:
        return self.hook.finish(x)

    def callback(self, inner: Callable | None) -> Callable:
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

    def model(self, function, model, x: Tensor, extra_args: dict, options: dict) -> Any:
        first = self.first_calls(function, model, extra_args, options, x.device)
        driver, count = self, [0]

        class Hooked:
            """The model wrapper that samplers call; anything else they ask of it goes to the original."""

            def __getattr__(self, name):
                return getattr(model, name)

            def __call__(self, x, sigma, **kwargs):
                call, count[0] = count[0], count[0] + 1
                index = first(call, x, sigma)
                if index is not None:
                    driver.apply(x, index, sigma)
                return model(x, sigma, **kwargs)

        return Hooked()

    def first_calls(self, function, model, extra_args: dict, options: dict, device) -> Callable:
        """A function (call number, x, sigma) -> step index if this call opens a step, else None."""
        if self.run.sampler_name != ADAPTIVE:
            try:
                plan = call_plan(function, model, self.run.sigmas, extra_args, options, device)
                return lambda call, x, sigma: plan.get(call)
            except Exception as error:
                log.warning(
                    "could not foresee the steps of %s (%s): guiding at every new sigma", self.run.sampler_name, error
                )
        state = {"sigma": float("inf"), "index": -1, "x": None}

        def opens(call: int, x: Tensor, sigma: Tensor) -> int | None:
            now = float(sigma.flatten()[0])
            if x is state["x"] or now >= state["sigma"]:
                return None
            state.update(sigma=now, index=state["index"] + 1, x=x)
            return state["index"]

        return opens
