"""A hook at the start of every sampling step, for any of the host's samplers, as a patch on a cloned MODEL."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ....lmd.sampling.stages import Stage
from .sampler_patch import wrap_sampler
from .sampler_run import SamplerRun, Step, StepHook
from .step_driver import drive

if TYPE_CHECKING:
    from .guide import Guide

log = logging.getLogger(__name__)


class RunHook:
    """One run's step hook: what a stage of LMD does before each step, with a guide's energies and gradients."""

    def __init__(self, guide: Guide, stage: Stage):
        self.guide, self.stage = guide, stage
        self._indices: list[int] = []

    def before_step(self, x: Tensor, step: Step) -> Tensor:
        """The latent [B, C, h, w] as the stage guides it; logs the energies."""
        index, evaluate, scale = self.guide.arguments(step)
        self._indices.append(index)
        moved = self.stage.before_step(x, step.index, index, evaluate, scale)
        self.guide.log_step(step)
        return moved

    def finish(self, x: Tensor) -> Tensor:
        """The stage's result [B, C, h, w]; warns if nothing was guided although it should have been."""
        out = self.stage.finish(x, self.guide.run.steps)
        if not self.guide.trace.rows and self.guide.guidance.options.guides:
            log.warning("layout guidance did nothing in this run: %s", self._why_idle())
        return out

    def _why_idle(self) -> str:
        run, guidance = self.guide.run, self.guide.guidance
        if not self._indices:
            return f"{run.sampler_name} took no step that can be guided"
        if any(guidance.iterations(i) for i in self._indices):
            return (
                "no step lies between start_percent and end_percent, or in the time range and the area of the positive "
                "conditioning"
            )
        sampling = type(run.guider.inner_model.model_sampling).__name__
        return (
            f"its {len(self._indices)} steps ({run.sampler_name}, {sampling}) begin at {min(self._indices)} fiftieths of "
            f"the noise schedule, and guidance ends at {guidance.options.max_index_step}: raise denoise, or "
            "last_guided_step in the LMD options"
        )


def add_step_hook(model: Any, key: str, make_hook: Callable[[SamplerRun], StepHook | None]) -> None:
    """Patch `model` (a clone that the caller owns) so that every sampler run gets the hook from `make_hook`.

    `make_hook` returns None for a run that needs no hook; then the run is bit-identical to an unpatched one.
    """

    def around(function: Callable, name: str, guider: Any) -> Callable:
        def hooked(model, x, sigmas, extra_args: Any = None, callback=None, disable=None, **options):
            run = SamplerRun(guider, model, sigmas, extra_args["model_options"], name)
            hook = make_hook(run)
            if hook is None:
                return function(model, x, sigmas, extra_args=extra_args, callback=callback, disable=disable, **options)
            return drive(function, hook, run, model, x, extra_args, callback, disable, options)

        return hooked

    wrap_sampler(model, key, around)
