"""What a hook knows of one run of a sampler and of its steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast
from weakref import WeakKeyDictionary

import comfy.model_patcher
import comfy.samplers
import torch
from torch import Tensor

from ....lmd.sampling.energy import AttentionMap, Energies
from ....lmd.sampling.guidance import boxdiff_scale, reference_index, step_scale
from ....lmd.sampling.schedule import timestep_at
from .foreign_patches import without_wrappers
from .gradients import EnergyGradient, GradientJob, energy_gradients, rows_of
from .memory_plan import Economy
from .transformers import TextCalls, find_text_calls


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
        self, cond: dict, x: Tensor, sigma: Tensor, layers: Any, columns: Sequence[int],
        energy: Callable[[list[AttentionMap], slice], Energies],
    ) -> EnergyGradient | None:  # fmt: skip
        """Energies and gradient for an entry of `positive`; see gradients.GradientJob and energy_gradients."""
        job = GradientJob(cond, x, sigma, columns, energy)
        return energy_gradients(self.guider, [job], self.model_options, layers, self.economy)[0]

    def text_calls(self, cond: dict, x: Tensor, sigma: Tensor) -> TextCalls:
        """How this transformer's attention reads the conditioning entry; see transformers.find_text_calls."""
        return text_calls(self.guider, self.model_options, cond, x, sigma)

    @property
    def steps(self) -> int:
        """The number of sampling steps: one less than sigmas."""
        return len(self.sigmas) - 1

    def frame(self, sigma: Tensor) -> tuple[float, float]:
        """`(a, b)` of this model's latents x = a x0 + b noise at a sigma, x0 in Stable Diffusion's units.

        Asked of the host's own noise scaling, so it holds for every parametrization: 1 and sigma for U-Nets, 1 - sigma
        and sigma for flow models, and the standard deviation of x0 in place of 1 for EDM's.
        """
        sampling = self.guider.inner_model.model_sampling
        first = sigma.detach().flatten()[:1].float()
        nothing, one = (torch.full((1, 1, 1, 1), v, device=first.device) for v in (0.0, 1.0))
        signal = sampling.noise_scaling(first, nothing.clone(), one.clone())
        noise = sampling.noise_scaling(first, one, nothing)
        return float(signal) * float(getattr(sampling, "sigma_data", 1.0)), float(noise)

    def timestep(self, sigma: Tensor) -> float:
        """Stable Diffusion's timestep (0..999) with the noise level of this model's latents at a sigma."""
        signal, noise = self.frame(sigma)
        return timestep_at(noise / signal if signal > 0 else math.inf)

    def step_scale(self, sigma: Tensor, energy: str) -> float:
        """What a gradient of this kind of energy is multiplied with at a sigma; see guidance.step_scale."""
        if energy == "boxdiff":
            return boxdiff_scale(*self.frame(sigma), reference_index(self.timestep(sigma)))
        return step_scale(*self.frame(sigma))

    def visited(self) -> tuple[int, ...]:
        """The reference's step index (0..49) of each step of this run."""
        return tuple(reference_index(self.timestep(s)) for s in self.sigmas[:-1].split(1))

    def view(self, x: Tensor, sigma: Tensor, denoise_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """`x` as the model will see it (the kept region of an inpainting mask put back), and the mask to write with."""
        if denoise_mask is None:
            return x, None
        function = self.model_options.get("denoise_mask_function")
        if function is not None:
            extra = {"model": self.guider, "sigmas": self.sigmas}
            denoise_mask = cast(Tensor, function(sigma, denoise_mask, extra_options=extra))
        known = self.guider.inner_model.scale_latent_inpaint(
            x=x, sigma=sigma, noise=self.model.noise, latent_image=self.model.latent_image
        )
        return x * denoise_mask + known * (1 - denoise_mask), denoise_mask


_FOUND: WeakKeyDictionary[Any, dict[tuple, TextCalls]] = WeakKeyDictionary()  # per guider, which lives for one run


def text_calls(guider: Any, model_options: dict, cond: dict, x: Tensor, sigma: Tensor) -> TextCalls:
    """How a transformer's attention reads a prepared conditioning entry, looked for once per shape and run.

    `x` [B, C, ..., h, w] is a latent at `sigma` [B]; see transformers.find_text_calls.
    """
    tokens = cond["model_conds"]["c_crossattn"].cond[:1]
    known = _FOUND.setdefault(guider, {})
    shape = x.shape[1:], tokens.shape[1], tuple(sorted(cond["model_conds"]))
    if shape not in known:
        model, cond = guider.inner_model, rows_of(cond, [0])

        def forward(latent: Tensor, tokens: Tensor, transformer_options: dict) -> None:
            options = comfy.model_patcher.create_model_options_clone(model_options)
            options["transformer_options"] = {**options.get("transformer_options", {}), **transformer_options}
            without_wrappers(options, bare=False)
            conds = {**cond["model_conds"], "c_crossattn": cond["model_conds"]["c_crossattn"]._copy_with(tokens)}
            entry = {**cond, "model_conds": conds}
            comfy.samplers.calc_cond_batch(model, [[entry]], latent, sigma[:1].clone(), options)

        known[shape] = find_text_calls(forward, x[:1], tokens, type(model.diffusion_model).__name__)
    return known[shape]


@dataclass(frozen=True)
class Step:
    """Step `index` of the run, at `sigma` [B]; `denoise_mask` is the inpainting mask or None."""

    run: SamplerRun
    index: int
    sigma: Tensor
    denoise_mask: Tensor | None = None


class StepHook(Protocol):
    """What a run's hook does. Both return the latent to go on with: the same tensor if nothing changed."""

    def before_step(self, x: Tensor, step: Step) -> Tensor:
        """Changes the latent `x` [B, C, h, w] before a step; returns it."""
        ...

    def finish(self, x: Tensor) -> Tensor:
        """Changes the run's last latent `x` [B, C, h, w]; returns it."""
        ...
