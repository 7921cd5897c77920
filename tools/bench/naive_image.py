"""A whole LMD image by the published schedule of work, in the host's own U-Net: what `bench image` compares with.

Objects one after the other, each with all its steps and the naive guided iterations of naive_guidance.py, then the
composed image the same way; nothing is batched, cached, stopped early or skipped (LLM-groundedDiffusion@cef2a90
generation/lmd.py). The layout, noise, masks, composition and energies are the pack's own pure functions. The sampler is
DDIM, written out below, so that nothing of the pack's way through the host's samplers is in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import comfy.sample
import comfy.samplers
import torch
from ella_lmd.lmd.layout import Layout
from ella_lmd.lmd.prompts import Group, object_negative, object_prompts, overall_negative, overall_prompt
from ella_lmd.lmd.sampling import schedule, stages
from ella_lmd.lmd.sampling.guidance import Guidance, GuidanceOptions, reference_index, step_scale
from ella_lmd.lmd.sampling.object_runs import (
    ObjectRun,
    ObjectRuns,
    attention_mask,
    compose_runs,
    initial_noise,
    object_noise,
    seed_numbers,
)
from ella_lmd.lmd.sampling.options import LMDOptions, SamplingSettings
from ella_lmd.nodes.host.guidance.attention import (
    COND,
    Layer,
    add_patches,
    mask_layer,
    resolve_layers,
    use_fused_on_cpu,
)
from ella_lmd.nodes.host.guidance.token_positions import encode, guided_objects, tokenizer
from ella_lmd.tools.bench.naive_guidance import Naive, attend
from torch import Tensor

VAE_FACTOR = 8


@dataclass
class Work:
    """What was computed: model passes with classifier-free guidance, and guided iterations."""

    passes: int = 0
    iterations: int = 0


@dataclass
class Saved:
    """Word-token attention of the positive rows at every step, as the published code saves it."""

    column: int
    steps: list[dict[Layer, Tensor]] = field(default_factory=list)

    def patch(self, layer: Layer, _previous: Any) -> Any:
        def replace(q, k, v, extra_options):
            probs, out = attend(q, k, v, extra_options["n_heads"])
            marks = extra_options["cond_or_uncond"]
            rows = [probs.chunk(len(marks))[i] for i, mark in enumerate(marks) if mark == COND]
            if rows:
                size = extra_options["activations_shape"][-2:]
                self.steps[-1][layer] = rows[0][..., self.column].float().unflatten(-1, size).cpu()
            return out

        return replace


def naive_image(
    model: Any, clip: Any, layout: Layout, settings: SamplingSettings, options: LMDOptions, sigmas: Tensor
) -> tuple[Tensor, Work]:
    """The latent of the whole image (before the VAE), and how much was computed for it."""
    work = Work()
    channels = model.get_model_object("latent_format").latent_channels
    background = initial_noise(settings, (channels, layout.height // VAE_FACTOR, layout.width // VAE_FACTOR))
    items = object_prompts(layout)
    negative = encode(clip, object_negative(layout))
    unet = model.model.diffusion_model
    layers = resolve_layers(options.layers, unet)
    runs = []
    for item, number in zip(items, seed_numbers(items, options.reference_seeds)):
        box = options.object_box(item.box)
        noise = object_noise(settings, background, number, box, options.blending_ratio)
        objects = guided_objects((Group(item.phrase, item.word, (box,), item.span),), item.prompt, tokenizer(clip))
        saved = Saved(objects[0].word)
        patched = model.clone()
        add_patches(patched.model_options["transformer_options"], (mask_layer(unet), *layers), saved.patch)
        stage = stages.ObjectStage(Guidance(options.guidance))
        sampler = _Sampler(stage, layers, objects, options.guidance, work, None, saved)
        result = sampler.sample(patched, noise, settings, sigmas, encode(clip, item.prompt), negative)
        attention = {str(layer): torch.stack([maps[layer] for maps in saved.steps]) for layer in saved.steps[0]}
        mask = attention_mask(attention[str(mask_layer(unet))], box, *noise.shape[-2:], inside_box=True)
        latents = torch.stack(stage.latents)
        runs.append(
            ObjectRun(
                item=item,
                box=box,
                noise=noise,
                latents=latents,
                attention=attention,
                result=result.cpu(),
                mask=mask,
                energies=(),
            )  # fmt: skip
        )
    whole = ObjectRuns(layout=layout, settings=settings, options=options, noise=background, runs=tuple(runs))
    composition = compose_runs(whole)
    overall = overall_prompt(layout)
    text = overall.prompt
    objects = guided_objects(overall.groups, text, tokenizer(clip))
    sizes = [len(o.boxes) for o in objects]

    def references(step: int) -> list:
        per_box = iter([[a[str(n)][step].flatten(-2) for n in layers] for a in composition.attention])
        return [[next(per_box) for _ in range(size)] for size in sizes]

    frozen = schedule.frozen_steps(settings.steps, 0.5)
    stage = stages.OverallStage(Guidance(options.guidance), composition.latents, composition.mask, frozen)
    sampler = _Sampler(stage, layers, objects, options.guidance, work, references, None)
    negative = encode(clip, overall_negative(layout))
    return sampler.sample(model.clone(), composition.noise, settings, sigmas, encode(clip, text), negative), work


@dataclass
class _Sampler:
    """DDIM with one stage's work before each step."""

    stage: Any
    layers: tuple[Layer, ...]
    objects: tuple
    options: GuidanceOptions
    work: Work
    references: Any
    saved: Saved | None

    def sample(self, model, noise, settings, sigmas, positive, negative) -> Tensor:
        use_fused_on_cpu(model)  # as the published passes without gradients do
        sampler = comfy.samplers.KSAMPLER(self._run)
        latent = torch.zeros_like(noise)
        return comfy.sample.sample_custom(
            model, noise, settings.cfg, sampler, sigmas, positive, negative, latent, disable_pbar=True,
            seed=settings.seed,
        )  # fmt: skip

    def _run(self, model, x, sigmas, extra_args=None, callback=None, disable=None, **_options) -> Tensor:
        guider, steps = model.inner_model, len(sigmas) - 1
        for i in range(steps):
            sigma = sigmas[i].expand(x.shape[0])
            x = self._before_step(guider, x, i, sigma, extra_args["model_options"])
            if self.saved is not None:
                self.saved.steps.append({})
            denoised = model(x, sigma, **extra_args)
            self.work.passes += 1
            x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
        return self.stage.finish(x, steps)

    def _before_step(self, guider, x: Tensor, step: int, sigma: Tensor, model_options: dict) -> Tensor:
        timestep = float(guider.inner_model.model_sampling.timestep(sigma[:1])[0])
        references = self.references(step) if self.references is not None else None
        unpatched = {**model_options, "transformer_options": {**model_options["transformer_options"]}}
        unpatched["transformer_options"].pop("patches_replace", None)  # nothing is saved in the guided iterations

        def evaluate(latent: Tensor) -> tuple[Tensor, Tensor]:
            self.work.iterations += 1
            return Naive().iteration(
                guider, latent, sigma, unpatched, self.layers, self.objects, self.options.energy, references
            )

        return self.stage.before_step(x, step, reference_index(timestep), evaluate, step_scale(1, float(sigma[0])))
