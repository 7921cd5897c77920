"""Several sampler runs at once: each keeps its own noise, history and guidance, and they share the model's calls.

The host samples one batch that holds the images of all runs, one run after the other. Its sampler function is replaced
by as many copies of itself as there are runs, in lockstep, each on its own rows; a model call or a gradient that they
ask for is computed for all of them together. So every sampler gives what it gives in a run of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ....lmd.sampling.energy import AttentionMap, Energies
from .gradients import EnergyGradient, GradientJob, energy_gradients, rows_of, uncompiled
from .lockstep import Ask, run_lanes
from .memory_plan import Economy
from .sampler_patch import wrap_sampler
from .sampler_run import SamplerRun, StepHook
from .step_driver import drive


class OutOfStep(RuntimeError):
    """The runs of this sampler do not make their model calls at the same places, so that they cannot share them."""


def add_lanes(
    model: Any,
    key: str,
    count: int,
    make_hook: Callable[[int, SamplerRun], StepHook],
    on_step: Callable[[int, dict], None],
) -> None:
    """Patch `model` (a clone that the caller owns) so that a batch is sampled as `count` runs of equal size.

    `make_hook(i, run)` gives run i's step hook; `on_step(i, heard)` hears of its steps, with what a sampler tells its
    callback. The callback of the host's sampling call gets those of the first run.
    """

    def around(function: Callable, name: str, guider: Any) -> Callable:
        def together(model, x, sigmas, extra_args: Any = None, callback=None, disable=None, **options):
            server = _Server(guider, model, extra_args["model_options"], count, len(x))

            def lane(i: int, latent: Tensor, ask: Ask) -> Tensor:
                own = _LaneModel(model, ask)
                # A sampler may write into its sigmas and its arguments.
                run = LaneRun(
                    guider, own, sigmas.clone(), extra_args["model_options"], name, server.economy, i, count, ask
                )
                hook = make_hook(i, run)

                def heard(d: dict) -> None:
                    on_step(i, d)
                    if i == 0 and callback is not None:
                        callback(d)

                return drive(
                    function, hook, run, own, latent.clone(), dict(extra_args), heard, disable or i > 0, options
                )

            lanes = [functools.partial(lane, i, latent) for i, latent in enumerate(x.chunk(count))]
            try:
                return torch.cat(run_lanes(lanes, server.serve))
            finally:
                server.economy.aliases.clear()

        return together

    wrap_sampler(model, key, around)


@dataclass(frozen=True)
class _ModelCall:
    x: Tensor
    sigma: Tensor
    options: dict
    others: dict


@dataclass(frozen=True)
class LaneRun(SamplerRun):
    """One of `lanes` runs that share a guider, whose conditioning holds the rows of all of them."""

    lane: int = 0
    lanes: int = 1
    ask: Ask | None = None

    @property
    def positive(self) -> list[dict]:
        entries = self.guider.conds.get("positive") or []
        return entries if self.lanes == 1 else [rows_of(cond, self._rows(cond)) for cond in entries]

    def _rows(self, cond: dict) -> Sequence[int]:
        batch = len(cond["model_conds"]["c_crossattn"].cond) // self.lanes
        return range(self.lane * batch, (self.lane + 1) * batch)

    def gradient(
        self, cond: dict, x: Tensor, sigma: Tensor, layers: Any, columns: Sequence[int],
        energy: Callable[[list[AttentionMap], slice], Energies],
    ) -> EnergyGradient | None:  # fmt: skip
        assert self.ask is not None, "every lane has its own"
        return self.ask((layers, GradientJob(cond, x, sigma, columns, energy)))


class _LaneModel:
    """What one run's sampler takes for the model; anything but a call goes to the real one."""

    def __init__(self, model: Any, ask: Ask):
        self._model, self._ask = model, ask

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, x: Tensor, sigma: Tensor, model_options: dict, **others: Any) -> Tensor:
        return self._ask(_ModelCall(x, sigma, model_options, others))


class _Server:
    """Answers the runs: gradients first, together for those that want one, then the model call that all wait for."""

    def __init__(self, guider: Any, model: Any, model_options: dict, count: int, rows: int):
        self.guider, self.model, self.model_options = guider, model, model_options
        self.count, self.rows = count, rows
        self.economy = Economy()

    def serve(self, waiting: dict[int, Any]) -> dict[int, Any]:
        wanted = {i: request for i, request in waiting.items() if not isinstance(request, _ModelCall)}
        if wanted:
            jobs = [job for _, job in wanted.values()]
            layers = next(iter(wanted.values()))[0]
            found = energy_gradients(self.guider, jobs, self.model_options, layers, self.economy)
            return dict(zip(wanted, found))
        calls = [waiting[i] for i in sorted(waiting)]
        if len(calls) < self.count:
            raise OutOfStep("some runs ended before the others")
        x, sigma = torch.cat([c.x for c in calls]), torch.cat([c.sigma for c in calls])
        with torch.no_grad(), uncompiled():  # the runs' attention is read
            out = self.model(x, sigma, model_options=self._options(calls), **calls[0].others)
        return dict(enumerate(out.chunk(self.count)))

    def _options(self, calls: Sequence[_ModelCall]) -> dict:
        """The model options of the calls as one: the functions that CFG++ samplers add see their own rows only."""
        name = "sampler_post_cfg_function"
        common = self.model_options.get(name, [])
        added = [[f for f in c.options.get(name, []) if f not in common] for c in calls]
        if not any(added):
            return calls[0].options

        def apart(args: dict) -> Tensor:
            denoised = []
            for i, functions in enumerate(added):
                own = {k: self._own(v, i) for k, v in args.items()}
                for function in functions:
                    own["denoised"] = function(own)
                denoised.append(own["denoised"])
            return torch.cat(denoised)

        return {**calls[0].options, name: [*common, apart]}

    def _own(self, value: Any, i: int) -> Any:
        whole = isinstance(value, Tensor) and value.ndim > 0 and len(value) == self.rows
        return value.chunk(self.count)[i] if whole else value
