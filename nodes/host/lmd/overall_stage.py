"""LMD's second stage on the host's own samplers: the objects composed and denoised as one image."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from ....lmd.prompts import OVERALL_NEGATIVE, overall_prompt, with_negative
from ....lmd.sampling import schedule, stages
from ....lmd.sampling.energy import GuidedObject, References
from ....lmd.sampling.object_runs import ObjectRuns, compose_runs
from ....lmd.sampling.tokens import extend
from ..guidance.attention import resolve_layers, use_fused_on_cpu
from ..guidance.guide import EnergyTrace, Guide, Target, reserve_memory
from ..guidance.step_hooks import RunHook, add_step_hook
from ..guidance.token_positions import encode, guided_objects, tokenizer
from .object_stage import KEY, Bar, sample_latent, sample_objects, sampler_of, sigmas_of

__all__ = ["compose_and_sample", "sample_objects", "sigmas_of"]


def compose_and_sample(
    model: Any,
    clip: Any,
    objects: ObjectRuns,
    prompt: str = "",
    negative: str = "",
    frozen_ratio: float = 0.5,
    positive_cond: list | None = None,
    negative_cond: list | None = None,
) -> tuple[Tensor, EnergyTrace, str]:
    """Stage 2b: paste the objects and denoise the whole image with them frozen at first (docs/lmd.md, 6 and 7).

    Returns the latent for the VAE, the energies and the prompt that was used.
    """
    layout, settings, options = objects.layout, objects.settings, objects.options
    composition = compose_runs(objects)
    overall = overall_prompt(layout)
    tokenize = tokenizer(clip)
    text = extend(prompt, [g.phrase for g in overall.groups], tokenize) if prompt else overall.prompt
    encoding = encode(clip, text)
    canvas = (layout.width, layout.height)
    target = Target(guided_objects(overall.groups, text, tokenize), encoding, canvas, options.layers)
    extra_negative = layout.negative if options.use_negative else ""
    negative_cond = negative_cond or encode(clip, negative or with_negative(extra_negative, OVERALL_NEGATIVE))
    sigmas = sigmas_of(model, settings)
    steps = objects.exact_steps
    frozen = schedule.frozen_steps(len(sigmas) - 1, frozen_ratio)
    if objects.runs and frozen > steps:
        raise ValueError(
            f"the objects were sampled with {steps} steps, too few to stay frozen for {frozen}: lower frozen_ratio, or "
            "switch fast_schedule and stop_early off in the LMD options (the preset fast has stop_early on)"
        )
    trace = EnergyTrace("composition")
    hook_factory = functools.partial(_overall_hook, target, options, trace, composition, objects, frozen)
    patched = model.clone()
    add_step_hook(patched, KEY, hook_factory)
    reserve_memory(patched, KEY)
    if objects.runs:  # without any it is the host's own run, bit for bit
        use_fused_on_cpu(patched)
    bar = Bar(model, len(objects.runs) + 1, settings.steps, first=len(objects.runs))
    latent = sample_latent(
        patched, composition.noise, settings, sampler_of(settings), sigmas, positive_cond or encoding, negative_cond,
        bar.callback,
    )  # fmt: skip
    return latent, trace, text


def _overall_hook(target, options, trace, composition, objects, frozen, run):
    if not objects.runs:
        return None
    layers = resolve_layers(target.layers, run.guider.inner_model.diffusion_model)
    references = _references([str(layer) for layer in layers], target.objects, composition)
    guide = Guide(run, target, options.guidance, trace, references)
    stage = stages.OverallStage(guide.guidance, composition.latents, composition.mask, frozen)
    return RunHook(guide, stage)


def _references(names: list[str], guided: Sequence[GuidedObject], composition) -> Callable[[int], References | None]:
    """The saved maps of a step, grouped as the guided objects group the boxes (the same order, flattened)."""
    sizes = [len(o.boxes) for o in guided]

    def at(step: int) -> References | None:
        if any(step >= len(a[names[0]]) for a in composition.attention):
            return None
        per_box = iter([[a[n][step] for n in names] for a in composition.attention])
        return [[next(per_box) for _ in range(size)] for size in sizes]

    return at
