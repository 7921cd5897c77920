"""LMD's second stage on the host's own samplers: the objects composed and denoised as one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ....lmd.layout import Layout
from ....lmd.prompts import overall_negative, overall_prompt
from ....lmd.sampling import schedule, stages
from ....lmd.sampling.energy import GuidedObject, References
from ....lmd.sampling.object_runs import Composition, ObjectRuns, compose_runs
from ....lmd.sampling.tokens import extend
from ..guidance.attention import heads_of, resolve_layers, use_fused_on_cpu
from ..guidance.grounding import Slot, adapter_for, check_count, phrase_embedding
from ..guidance.guide import EnergyTrace, Guide, ReferencesAt, Target, reserve_memory
from ..guidance.sampler_run import SamplerRun
from ..guidance.step_hooks import RunHook, add_step_hook
from ..guidance.text_rows import phrase_objects, phrase_tokenizer
from ..guidance.token_positions import encode
from ..guidance.transformers import is_transformer
from .object_loras import in_composition
from .object_stage import (
    KEY,
    Bar,
    boxes_adapter,
    latent_format_of,
    sample_latent,
    sample_objects,
    sampler_of,
    sigmas_of,
)

ADVICE = "connect to Latent Composer the model that Box Grounded Sampler has, with the same patches"

__all__ = ["compose_and_sample", "sample_objects", "sigmas_of"]


@dataclass(frozen=True)
class OverallTexts:
    """What the composition says: its prompt, the phrases guided in it, and the conditionings, each for all images."""

    prompt: str
    target: Target
    positive: list
    negative: list


def overall_texts(clip: Any, objects: ObjectRuns, prompt: str = "", negative: str = "") -> OverallTexts:
    """The texts of a layout's composition; a given prompt gets the phrases that it lacks appended."""
    layout, options = objects.layout, objects.options
    overall = overall_prompt(layout)
    phrases = [g.phrase for g in overall.groups]
    text = extend(prompt, phrases, phrase_tokenizer(clip)) if prompt else overall.prompt
    positive = encode(clip, text)
    canvas = (layout.width, layout.height)
    target = Target(phrase_objects(overall.groups, text, clip, positive[0][0]), positive, canvas, options.layers)
    return OverallTexts(
        text, target, positive, encode(clip, negative or overall_negative(layout, options.use_negative))
    )


def compose_and_sample(
    model: Any,
    clip: Any,
    objects: ObjectRuns,
    prompt: str = "",
    negative: str = "",
    frozen_ratio: float = 0.5,
    positive_cond: list | None = None,
    negative_cond: list | None = None,
    gligen: Any = None,
) -> tuple[Tensor, EnergyTrace, str]:
    """Stage 2b: paste the objects and denoise the whole image with them frozen at first (docs/lmd.md, 6 and 7).

    With a host GLIGEN, every box is grounded too (docs/lmd.md, 12). Returns the latent for the VAE, the energies and the
    prompt that was used. Raises ValueError for a model that the objects cannot have been made with, and for a GLIGEN
    that does not fit it.
    """
    layout, settings = objects.layout, objects.settings
    sigmas = sigmas_of(model, settings)
    check_model(model, objects, sigmas)
    frozen = frozen_steps(objects, len(sigmas) - 1, frozen_ratio)
    texts = overall_texts(clip, objects, prompt, negative)
    composition = compose_runs(objects)
    target = texts.target
    patched, own_positive = in_composition(model, clip, layout, texts.prompt, texts.positive, target.objects)
    target = replace(target, conditioning=own_positive)
    positive, negative_cond = positive_cond or own_positive, negative_cond or texts.negative
    trace = EnergyTrace("composition")
    adapter = boxes_adapter(model, clip, objects.options, gligen)
    if adapter is not None:
        positive, negative_cond = adapter.ground(positive, box_slots(clip, layout)), adapter.ground(negative_cond)
        adapter.patch(patched, objects.options.gligen_share)
    if objects.runs:  # without any it is the host's own run, bit for bit
        add_step_hook(patched, KEY, lambda run: _overall_hook(run, target, objects, composition, frozen, trace))
        reserve_memory(patched, KEY)
        use_fused_on_cpu(patched)
    bar = Bar(model, len(objects.runs) + 1, settings.steps, first=len(objects.runs))
    latent = sample_latent(
        patched, composition.noise, settings, sampler_of(settings), sigmas, positive, negative_cond, bar.callback,
    )  # fmt: skip
    return latent, trace, texts.prompt


def box_slots(clip: Any, layout: Layout) -> list[Slot]:
    """One grounding slot per box, in the order of the groups; each box of a group has the group's phrase."""
    groups = overall_prompt(layout).groups
    embeddings = [phrase_embedding(clip, g.phrase) for g in groups]
    return [Slot(box, embedding) for g, embedding in zip(groups, embeddings) for box in g.boxes]


def grounded_model(model: Any, clip: Any, layout: Layout, gligen: Any, share: float) -> Any:
    """A clone of MODEL whose sampler runs see the layout's boxes through a host GLIGEN, for that share of their steps.

    `model` itself if nothing would change. Raises ValueError for a GLIGEN that does not fit, or too many boxes.
    """
    adapter = adapter_for(model, gligen, phrase_embedding(clip, "a").shape[-1])
    check_count(len(layout.objects))
    if not layout.objects or not share:
        return model
    grounded = model.clone()
    adapter.ground_runs(grounded, box_slots(clip, layout), share)
    return grounded


def frozen_steps(objects: ObjectRuns, steps: int, ratio: float) -> int:
    """For how many of `steps` the objects stay frozen; ValueError if they were sampled for fewer."""
    frozen, sampled = schedule.frozen_steps(steps, ratio), objects.exact_steps
    if objects.runs and frozen > sampled:
        raise ValueError(
            f"the objects were sampled with {sampled} steps, too few to stay frozen for {frozen}: lower frozen_ratio, "
            "or switch fast_schedule and stop_early off in the LMD options (the preset fast has stop_early on)"
        )
    return frozen


def check_model(model: Any, objects: ObjectRuns, sigmas: Tensor) -> None:
    """Raise ValueError if `model` has other latents, layers or noise levels than the model that made the objects."""
    ours, theirs = latent_format_of(model), objects.latent_format
    if theirs and ours != theirs:
        raise ValueError(f"the objects have latents of another kind ({theirs}) than this model ({ours}): {ADVICE}")
    if not objects.runs:
        return
    network, options = model.model.diffusion_model, objects.options
    if not is_transformer(network):  # a transformer's blocks are found once it runs
        layers = resolve_layers(options.layers, network, options.guidance.energy)
        check_structure(objects.runs[0].attention, heads_of(network, layers))
    exact = min(len(objects.sigmas), objects.exact_steps + 1)
    if exact and not torch.allclose(torch.tensor(objects.sigmas[:exact]), sigmas[:exact].float(), rtol=1e-3):
        raise ValueError(
            "the objects were sampled on other noise levels than this model's (a model sampling patch on one of the "
            f"two models, perhaps): {ADVICE}"
        )


def check_structure(attention: Mapping[str, Tensor], heads: Mapping[str, int]) -> None:
    """Raise ValueError unless saved attention [N, B, heads, gh, gw] has these layers with so many heads."""
    saved = {name: maps.shape[2] for name, maps in attention.items()}
    if not heads.items() <= saved.items():
        raise ValueError(
            "the objects were made with a model of another structure (attention layers and heads "
            f"{_listed(saved)}; this model is guided at {_listed(heads)}): {ADVICE}"
        )


def _listed(heads: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in heads.items())


def _overall_hook(
    run: SamplerRun, target: Target, objects: ObjectRuns, composition: Composition, frozen: int, trace: EnergyTrace
) -> RunHook:
    guide = Guide(run, target, objects.options.guidance, trace, _references(target.objects, composition))
    return RunHook(guide, stages.OverallStage(guide.guidance, composition.latents, composition.mask, frozen))


def _references(guided: Sequence[GuidedObject], composition: Composition) -> ReferencesAt:
    """The saved maps of a step, grouped as the guided objects group the boxes (the same order, flattened)."""
    sizes = [len(o.boxes) for o in guided]

    def at(step: int, heads: dict[str, int]) -> References | None:
        for saved in composition.attention:
            check_structure(saved, heads)
            if any(step >= len(saved[name]) for name in heads):
                return None
        per_box = iter([[a[n][step] for n in heads] for a in composition.attention])
        return [[next(per_box) for _ in range(size)] for size in sizes]

    return at
