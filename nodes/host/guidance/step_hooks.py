"""A hook at the start of every sampling step, for any of the host's samplers, as a patch on a cloned MODEL."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ....lmd.sampling.stages import Stage
from .sampler_patch import wrap_sampler
from .sampler_run import SamplerRun, Step, StepHook
from .step_driver import drive

if TYPE_CHECKING:
    from .guide import Guide


class RunHook:
    """One run's step hook: what a stage of LMD does before each step, with a guide's energies and gradients."""

    def __init__(self, guide: Guide, stage: Stage):
        self.guide, self.stage = guide, stage

    def before_step(self, x: Tensor, step: Step) -> Tensor:
        moved = self.stage.before_step(x, step.index, *self.guide.arguments(step))
        self.guide.log_step(step)
        return moved

    def finish(self, x: Tensor) -> Tensor:
        return self.stage.finish(x, self.guide.run.steps)


def add_step_hook(model: Any, key: str, make_hook: Callable[[SamplerRun], StepHook | None]) -> None:
    """Patch `model` (a clone that the caller owns) so that every sampler run gets the hook from `make_hook`.

    `make_hook` returns None for a run that needs no hook; then the run is bit-identical to an unpatched one.
    """

    def around(function: Callable, name: str, guider: Any) -> Callable:
        def hooked(model, x, sigmas, extra_args=None, callback=None, disable=None, **options):
            run = SamplerRun(guider, model, sigmas, extra_args["model_options"], name)
            hook = make_hook(run)
            if hook is None:
                return function(model, x, sigmas, extra_args=extra_args, callback=callback, disable=disable, **options)
            return drive(function, hook, run, model, x, extra_args, callback, disable, options)

        return hooked

    wrap_sampler(model, key, around)
