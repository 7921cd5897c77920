"""The two stages of LMD on the host's own samplers: every object alone, then the composed image."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from torch import Tensor

from ...lmd import schedule, stages
from ...lmd.energy import References
from ...lmd.layout import Layout
from ...lmd.objects import (
    ObjectRun,
    ObjectRuns,
    attention_mask,
    compose_runs,
    initial_noise,
    object_noise,
    object_numbers,
)
from ...lmd.options import LMDOptions, SamplingSettings
from ...lmd.prompts import (
    OBJECT_NEGATIVE,
    OVERALL_NEGATIVE,
    Group,
    ObjectPrompt,
    object_prompts,
    overall_prompt,
    with_negative,
)
from ...lmd.tokens import extend
from .attention import Layer, Observer, add_patches, mask_layer, resolve_layers
from .cache import OBJECT_RUNS, model_signature, signature
from .guide import EnergyTrace, Guide, Target, reserve_memory
from .steps import Step, add_step_hook, refuse
from .text import encode, guided_objects, tokenizer

log = logging.getLogger(__name__)
KEY = "lmd_stage"
VAE_FACTOR = 8


class Bar:
    """One progress bar over the whole job: `runs` sampler runs of `steps` steps, this node starting at run `first`."""

    def __init__(self, model: Any, runs: int, steps: int, first: int = 0):
        self.steps, self.total, self.done = steps, runs * steps, first * steps
        self.bar = comfy.utils.ProgressBar(self.total)
        self.previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)

    def callback(self, step: int, x0: Tensor, x: Tensor, total_steps: int) -> None:
        preview = self.previewer.decode_latent_to_preview_image("JPEG", x0) if self.previewer else None
        self.bar.update_absolute(self.done + (step + 1) * self.steps // total_steps, self.total, preview)

    def run_done(self) -> None:
        self.done += self.steps
        self.bar.update_absolute(self.done, self.total)


def sigmas_of(model: Any, settings: SamplingSettings) -> Tensor:
    """The sigmas that the host's KSampler would use."""
    if settings.sampler == "dpm_adaptive":
        raise ValueError(
            "dpm_adaptive chooses its steps while it runs, so objects and composition cannot be matched step by step: "
            'choose "ddim", "euler", "dpmpp_2m" or another sampler with fixed steps'
        )
    return comfy.samplers.KSampler(
        model,
        settings.steps,
        model.load_device,
        settings.sampler,
        settings.scheduler,
        model_options=model.model_options,
    ).sigmas.cpu()


def _sampler(settings: SamplingSettings) -> Any:
    sampler = comfy.samplers.sampler_object(settings.sampler)
    refuse(getattr(sampler.sampler_function, "__name__", ""))
    return sampler


def sample_objects(
    model: Any, clip: Any, layout: Layout, settings: SamplingSettings, options: LMDOptions, negative: str = ""
) -> ObjectRuns:
    """Stage 2a: generate each object of the layout alone in its centred box (docs/lmd.md, 5)."""
    channels = model.get_model_object("latent_format").latent_channels
    shape = (channels, layout.height // VAE_FACTOR, layout.width // VAE_FACTOR)
    background = initial_noise(settings, shape)
    sigmas = sigmas_of(model, settings)
    if options.fast_schedule:
        # One step more than is needed, because the last one before the stride doubles lands on another sigma.
        sigmas = torch.tensor(schedule.fast_sigmas(sigmas.tolist(), options.exact_steps(settings.steps) + 1))
    sampler = _sampler(settings)
    extra_negative = layout.negative if options.use_negative else ""
    negative_text = negative or with_negative(extra_negative, OBJECT_NEGATIVE)
    items = object_prompts(layout if options.use_background else replace(layout, background=""))
    bar = Bar(model, len(items) + 1, settings.steps)
    negative_cond = encode(clip, negative_text)
    runs = []
    numbers = object_numbers(items, options.reference_seeds)
    for index, item in enumerate(items):
        box = options.object_box(item.box)
        noise = object_noise(settings, background, numbers[index], box, options.blending_ratio)
        positive_cond = encode(clip, item.prompt)
        key = (
            model_signature(model), signature([positive_cond, negative_cond]), item.phrase, box, signature(noise),
            signature(sigmas), settings, options,
        )  # fmt: skip
        run = OBJECT_RUNS.get(key)
        if run is None:
            log.info("object %d of %d: %s", index + 1, len(items), item.prompt)
            groups = (Group(item.phrase, item.word, (box,)),)
            objects = guided_objects(groups, item.prompt, tokenizer(clip))
            target = Target(objects, positive_cond[0][0], (layout.width, layout.height), options.layers)
            sample = functools.partial(
                _sample, noise=noise, settings=settings, sampler=sampler, sigmas=sigmas, positive=positive_cond,
                negative=negative_cond, bar=bar,
            )  # fmt: skip
            run = _sample_object(model, item, target, options, noise, sample)
            OBJECT_RUNS.put(key, run, [run.latents, run.noise, run.result, *run.attention.values()])
        # The layout's own box may have moved without changing the object's run.
        runs.append(ObjectRun(**{**vars(run), "item": item}))
        bar.run_done()
    return ObjectRuns(layout, settings, options, background, tuple(runs))


def _sample(
    model, noise, settings, sampler, sigmas, positive, negative, bar, observe: Callable | None = None
) -> Tensor:
    def callback(step, x0, x, total_steps):
        if observe is not None:
            observe(step)
        bar.callback(step, x0, x, total_steps)

    latent = torch.zeros_like(noise)
    return comfy.sample.sample_custom(
        model, noise, settings.cfg, sampler, sigmas, positive, negative, latent, callback=callback, seed=settings.seed
    )


def _sample_object(model, item: ObjectPrompt, target: Target, options: LMDOptions, noise: Tensor, sample) -> ObjectRun:
    unet = model.model.diffusion_model
    layers = (mask_layer(unet), *resolve_layers(options.layers, unet))
    (guided,) = target.objects
    patched = model.clone()
    observer = _StepObserver(guided.word)
    add_patches(patched.model_options["transformer_options"], layers, observer.patch)
    hook = None

    def make_hook(run):
        nonlocal hook
        hook = _ObjectHook(Guide(run, target, options.guidance, EnergyTrace(item.phrase)), observer)
        return hook

    add_step_hook(patched, KEY, make_hook)
    reserve_memory(patched, KEY)
    result = sample(patched, observe=observer.commit)
    latents = hook.stage.latents
    latents = torch.stack(latents + latents[-1:] * (len(observer.steps) + 1 - len(latents)))
    attention = {str(layer): torch.stack([maps[layer] for maps in observer.steps]) for layer in layers}
    box = target.objects[0].boxes[0]
    mask = attention_mask(attention[str(layers[0])], box, *noise.shape[-2:], inside_box=True)
    trace = tuple(hook.guide.trace.rows)
    return ObjectRun(item, box, noise, latents, attention, result.cpu(), mask, trace)


class _StepObserver(Observer):
    """Keeps the attention of the model call that opens each step: the last one before the sampler's callback."""

    def __init__(self, column: int):
        super().__init__(column)
        self.steps: list[dict[Layer, Tensor]] = []
        self.latest: dict[Layer, Tensor] = {}
        self.record = self._keep

    def _keep(self, layer: Layer, found) -> None:
        self.latest[layer] = found.probs.unflatten(-1, (found.height, found.width)).cpu()

    def pause(self) -> None:
        self.record = None

    def resume(self) -> None:
        self.record = self._keep

    def commit(self, step: int) -> None:
        del self.steps[step:]
        self.steps.append(dict(self.latest))


class _ObjectHook:
    def __init__(self, guide: Guide, observer: _StepObserver):
        self.guide, self.observer = guide, observer
        self.stage = stages.ObjectStage(guide.guidance)

    def before_step(self, x: Tensor, step: Step) -> Tensor:
        self.observer.pause()
        try:
            moved = self.stage.before_step(x, step.index, *self.guide.arguments(step))
        finally:
            self.observer.resume()
        self.guide.log_step(step)
        return moved

    def finish(self, x: Tensor) -> Tensor:
        return self.stage.finish(x)


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
    text = extend(prompt or overall.prompt, [g.phrase for g in overall.groups], tokenize)
    encoding = encode(clip, text)
    canvas = (layout.width, layout.height)
    target = Target(guided_objects(overall.groups, text, tokenize), encoding[0][0], canvas, options.layers)
    extra_negative = layout.negative if options.use_negative else ""
    negative_cond = negative_cond or encode(clip, negative or with_negative(extra_negative, OVERALL_NEGATIVE))
    sigmas = sigmas_of(model, settings)
    steps = objects.exact_steps
    frozen = schedule.frozen_steps(len(sigmas) - 1, frozen_ratio)
    if objects.runs and frozen > steps:
        raise ValueError(
            f"the objects were sampled with {steps} steps, too few to stay frozen for {frozen}: lower frozen_ratio, or "
            "switch fast_schedule off in the LMD options"
        )
    trace = EnergyTrace("composition")
    hook_factory = functools.partial(_overall_hook, target, options, trace, composition, objects, frozen)
    patched = model.clone()
    add_step_hook(patched, KEY, hook_factory)
    reserve_memory(patched, KEY)
    bar = Bar(model, len(objects.runs) + 1, settings.steps, first=len(objects.runs))
    latent = _sample(
        patched, composition.noise, settings, _sampler(settings), sigmas, positive_cond or encoding, negative_cond, bar
    )  # fmt: skip
    return latent, trace, text


def _overall_hook(target, options, trace, composition, objects, frozen, run):
    if not objects.runs:
        return None
    guide = Guide(run, target, options.guidance, trace)
    guide.references = _references([str(layer) for layer in guide.layers], objects, composition)
    return _OverallHook(guide, composition, frozen)


def _references(names: list[str], objects: ObjectRuns, composition) -> Callable[[int], References | None]:
    """The saved maps of a step, grouped as the overall prompt groups the boxes (the same order, flattened)."""
    sizes = [len(g.boxes) for g in overall_prompt(objects.layout).groups]

    def at(step: int) -> References | None:
        if any(step >= len(a[names[0]]) for a in composition.attention):
            return None
        per_box = iter([[a[n][step].flatten(-2) for n in names] for a in composition.attention])
        return [[next(per_box) for _ in range(size)] for size in sizes]

    return at


class _OverallHook:
    def __init__(self, guide: Guide, composition, frozen: int):
        self.guide, self.steps = guide, guide.run.steps
        self.stage = stages.OverallStage(guide.guidance, composition.latents, composition.mask, frozen)

    def before_step(self, x: Tensor, step: Step) -> Tensor:
        moved = self.stage.before_step(x, step.index, *self.guide.arguments(step))
        self.guide.log_step(step)
        return moved

    def finish(self, x: Tensor) -> Tensor:
        return self.stage.finish(x, self.steps)
