"""A hook at the start of every sampling step, for any of the host's samplers, as a patch on a cloned MODEL.

The sampler's own latent is changed in place right before the first model call of a step. Wrappers deeper in the host
see copies of it (concatenated, rescaled, blended with an inpainting mask), so this is the only place that works.
"""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import comfy.model_management
import comfy.patcher_extension
import torch
from torch import Tensor

from ....lmd.sampling.energy import AttentionMap
from .attention import Layer
from .gradients import Economy, GradientJob, energy_gradients

log = logging.getLogger(__name__)

# These throw the latent away between two model calls, so nothing that is done to it lasts.
UNGUIDABLE = {"sample_lcm": "lcm", "sample_sa_solver": "sa_solver", "sample_sa_solver_pece": "sa_solver_pece"}
# UniPC calls the model on a temporary; its own latent, divided by sqrt(sigma^2+1), is reachable in the callback only.
IN_CALLBACK = {"sample_unipc", "sample_unipc_bh2"}
ADAPTIVE = "dpm_adaptive_function"
MAX_DRY_RUN_CALLS = 4000


class UnsupportedSampler(ValueError):
    """The sampler cannot be guided step by step."""


class RunEnds(BaseException):
    """Raised by a hook that has all it needs: the run is over and its result is `latent`."""

    def __init__(self, latent: Tensor):
        self.latent = latent


@dataclass(frozen=True)
class SamplerRun:
    """One run of a sampler: the host's guider, its inner model wrapper, the sigmas and the model options of the run."""

    guider: Any
    model: Any  # KSamplerX0Inpaint
    sigmas: Tensor
    model_options: dict
    sampler_name: str
    economy: Economy = field(default_factory=Economy)

    @property
    def positive(self) -> list[dict]:
        """The positive conditioning entries, as the host's guider has prepared them."""
        return self.guider.conds.get("positive") or []

    def gradient(
        self, cond: dict, x: Tensor, sigma: Tensor, layers: Sequence[Layer], columns: Sequence[int],
        energy: Callable[[list[AttentionMap], slice], Tensor],
    ) -> tuple[Tensor, Tensor] | None:  # fmt: skip
        """Energy [B] and gradient for an entry of `positive`; see gradients.GradientJob and energy_gradients."""
        job = GradientJob(cond, x, sigma, columns, energy)
        return energy_gradients(self.guider, [job], self.model_options, layers, self.economy)[0]

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1

    def timestep(self, sigma: Tensor) -> float:
        """The model's timestep (0..999) for a sigma."""
        return float(self.guider.inner_model.model_sampling.timestep(sigma.flatten()[:1])[0])

    def view(self, x: Tensor, sigma: Tensor, denoise_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """`x` as the model will see it (the kept region of an inpainting mask put back), and the mask to write with."""
        if denoise_mask is None:
            return x, None
        function = self.model_options.get("denoise_mask_function")
        if function is not None:
            extra = {"model": self.guider, "sigmas": self.sigmas}
            denoise_mask = function(sigma, denoise_mask, extra_options=extra)
        known = self.guider.inner_model.scale_latent_inpaint(
            x=x, sigma=sigma, noise=self.model.noise, latent_image=self.model.latent_image
        )
        return x * denoise_mask + known * (1 - denoise_mask), denoise_mask


@dataclass(frozen=True)
class Step:
    """Step `index` of the run, at `sigma` [B]; `denoise_mask` is the inpainting mask or None."""

    run: SamplerRun
    index: int
    sigma: Tensor
    denoise_mask: Tensor | None = None


class StepHook(Protocol):
    """What a run's hook does. Both return the latent to go on with: the same tensor if nothing changed."""

    def before_step(self, x: Tensor, step: Step) -> Tensor: ...

    def finish(self, x: Tensor) -> Tensor: ...


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


def wrap_sampler(model: Any, key: str, around: Callable[[Callable, str, Any], Callable]) -> None:
    """Patch `model` so that sampler functions are replaced by `around(function, its name, the host's guider)`."""
    kind = comfy.patcher_extension.WrappersMP.SAMPLER_SAMPLE
    model.remove_wrappers_with_key(kind, key)
    model.add_wrapper_with_key(kind, key, functools.partial(_sampler_sample, around))


def _sampler_sample(around, executor, guider, *args, **kwargs):
    """The wrapper around KSAMPLER.sample: swap in a shallow copy with another sampler function."""
    sampler = executor.class_obj
    function = getattr(sampler, "sampler_function", None)
    if function is None:
        raise UnsupportedSampler(
            f"the sampler {type(sampler).__name__} has no sampler function that can be guided step by step: "
            "use one of the samplers that KSampler lists, for example euler, ddim or dpmpp_2m"
        )
    name = getattr(function, "__name__", type(sampler).__name__)
    replacement = copy.copy(sampler)  # SAMPLER objects are cached and shared between nodes: never change them
    replacement.sampler_function = functools.wraps(function)(around(function, name, guider))
    executor.original, executor.class_obj = replacement.sample, replacement
    return executor(guider, *args, **kwargs)


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


def call_plan(function, model, sigmas: Tensor, extra_args: dict, options: dict, device) -> dict[int, int]:
    """{number of a model call: index of the step that it opens}, found by a dry run on a tiny analytic denoiser.

    Sigmas alone do not tell: heun and others call the model at the next step's sigma within a step. The call right
    before the callback of step i opens it. The global random state is left as it was.
    """
    calls: list[int | None] = []
    own = list(extra_args["model_options"].get("sampler_post_cfg_function", []))

    class Toy:
        def __getattr__(self, name):
            return getattr(model, name)

        def __call__(self, x, sigma, **kwargs):
            if len(calls) > MAX_DRY_RUN_CALLS:
                raise RuntimeError("the dry run does not end")
            calls.append(None)
            denoised = x / (1 + sigma.view(-1, *[1] * (x.ndim - 1)) ** 2)
            for post in kwargs["model_options"].get("sampler_post_cfg_function", []):
                if post not in own:  # added by a CFG++ sampler, which needs its answer
                    denoised = post(
                        {"denoised": denoised, "uncond_denoised": denoised, "cond_denoised": denoised, "input": x,
                         "sigma": sigma, "model": None, "model_options": {}, "cond": None, "uncond": None,
                         "cond_scale": 1.0}
                    )  # fmt: skip
            return denoised

    def callback(d: dict) -> None:
        if calls:
            calls[-1] = d["i"]

    with torch.random.fork_rng(devices=[] if torch.device(device).type == "cpu" else [device]):
        x = torch.ones(1, 4, 2, 2, device=device) * float(sigmas[0])
        args = {**extra_args, "denoise_mask": None}
        function(Toy(), x, sigmas.clone(), extra_args=args, callback=callback, disable=True, **options)
    return {call: index for call, index in enumerate(calls) if index is not None}
