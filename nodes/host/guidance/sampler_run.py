"""What a hook knows of one run of a sampler and of its steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from ....lmd.sampling.energy import AttentionMap
from .attention import Layer
from .gradients import GradientJob, energy_gradients
from .memory_plan import Economy


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
