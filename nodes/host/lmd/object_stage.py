"""LMD's first stage on the host's own samplers: each object of a layout alone, as many of them at once as fit."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import comfy.conds
import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
import torch.nn.functional as F
from torch import Tensor

from ....lmd.layout import Box, Layout
from ....lmd.object_settings import ObjectLora, ObjectSettings
from ....lmd.prompts import Group, ObjectPrompt, object_negative, object_prompts, with_negative
from ....lmd.sampling import schedule, stages
from ....lmd.sampling.object_runs import (
    ObjectRun,
    ObjectRuns,
    attention_mask,
    box_mask,
    initial_noise,
    object_noise,
    seed_numbers,
)
from ....lmd.sampling.options import LMDOptions, SamplingSettings
from ..guidance.attention import UnsupportedModel, WordAttention, mask_layer, resolve_layers, use_fused_on_cpu
from ..guidance.grounding import ADVICE, Adapter, Slot, adapter_for, phrase_embedding
from ..guidance.guide import EnergyTrace, Guide, Target, reserve_memory
from ..guidance.memory_plan import images_that_fit, is_out_of_memory
from ..guidance.parallel_runs import OutOfStep, add_lanes
from ..guidance.sampler_run import SamplerRun
from ..guidance.step_hooks import RunHook
from ..guidance.text_attention import TextWordAttention
from ..guidance.text_rows import phrase_objects
from ..guidance.tiles import refuse_tiles
from ..guidance.token_positions import encode, offset_in
from ..guidance.transformers import is_transformer
from .independence import hooks_per_image, not_per_image
from .object_loras import with_loras
from .run_cache import OBJECT_RUNS, Same, model_signature, signature

log = logging.getLogger(__name__)
KEY = "lmd_stage"
# (text, CLIP's conditioning of it) -> the conditioning to sample with, which still holds CLIP's tokens.
Conditioner = Callable[[str, list], list]
MOST_OBJECTS = 8  # at once, when the number is not given: more brings little even where there is room


class Bar:
    """One progress bar over the whole job: `runs` sampler runs of `steps` steps, this node starting at run `first`."""

    def __init__(self, model: Any, runs: int, steps: int, first: int = 0):
        self.steps, self.total, self.done = steps, runs * steps, first * steps
        self.together = 1
        self.bar = comfy.utils.ProgressBar(self.total)
        self.previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)

    def callback(self, step: int, x0: Tensor, x: Tensor, total_steps: int) -> None:
        """Shows the progress and a preview after a step."""
        preview = self.previewer.decode_latent_to_preview_image("JPEG", x0) if self.previewer else None
        now = self.done + self.together * (step + 1) * self.steps // total_steps
        self.bar.update_absolute(now, self.total, preview)

    def run_done(self) -> None:
        """Counts a run as done."""
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


def sampler_of(settings: SamplingSettings) -> Any:
    """The host's SAMPLER."""
    return comfy.samplers.sampler_object(settings.sampler)


def sample_latent(
    model: Any, noise: Tensor, settings: SamplingSettings, sampler: Any, sigmas: Tensor, positive: list, negative: list,
    callback: Callable,
) -> Tensor:  # fmt: skip
    """Unit noise [B, C, h, w] -> the sampled latent, through the host."""
    latent = torch.zeros_like(noise)
    return comfy.sample.sample_custom(
        model, noise, settings.cfg, sampler, sigmas, positive, negative, latent, callback=callback, seed=settings.seed
    )


@dataclass(frozen=True, eq=False)
class ObjectJob:
    """One object that is to be sampled: its place in the layout, where it is drawn, and what its run starts from."""

    index: int
    item: ObjectPrompt
    box: Box
    noise: Tensor
    encoding: list  # CLIP's, where the phrase has its tokens
    positive: list  # holds that encoding
    negative: list
    model: Any  # with the object's LoRAs
    clip: Any  # likewise
    group: Hashable  # equal for objects of one model and one negative prompt
    key: Hashable

    @property
    def kind(self) -> Hashable:
        """Objects of one kind can be sampled at once: their conditionings differ in the numbers of tensors only."""
        own = self.item.settings.conditioning or len(self.positive) != 1
        if own or not hooks_per_image(self.positive[0][1].get("hooks")):
            return id(self)
        features, extra = self.positive[0]
        return self.group, tuple(features.shape), tuple((k, _shape(extra[k])) for k in sorted(extra))


def _shape(value: Any) -> Hashable:
    """What a value of a conditioning must share with others to be joined with them: tensors their shape only."""
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, comfy.conds.CONDRegular):
        return type(value), tuple(value.cond.shape)
    if isinstance(value, dict):
        return tuple((k, _shape(v)) for k, v in value.items())
    return signature(value)


def sample_objects(
    model: Any, clip: Any, layout: Layout, settings: SamplingSettings, options: LMDOptions, negative: str = "",
    gligen: Any = None, conditioner: Conditioner | None = None,
) -> ObjectRuns:  # fmt: skip
    """Stage 2a: generate each object of the layout alone in its box (docs/lmd.md, 5; with a host GLIGEN, 12).

    A `conditioner` adds to what CLIP reads of each prompt and of the negative one.

    Raises ValueError for a GLIGEN that does not fit the model, or is missing where the options need one.
    """
    background = initial_noise(settings, latent_shape(model, layout.width, layout.height))
    items = object_prompts(layout if options.use_background else replace(layout, background=""))
    bar = Bar(model, len(items) + 1, settings.steps)
    stage = ObjectStage(
        model, clip, layout, settings, options, negative, bar, boxes_adapter(model, clip, options, gligen), conditioner
    )
    numbers = seed_numbers(items, options.reference_seeds)
    jobs = []
    for index, item in enumerate(items):
        box = options.object_box(item.box)
        noise = object_noise(settings, background, numbers[index], box, options.blending_ratio, item.settings.seed)
        jobs.append(stage.job(index, item, box, noise))
    runs = stage.run(jobs)
    return ObjectRuns(
        layout, settings, options, background, tuple(runs[job.index] for job in jobs), latent_format_of(model),
        tuple(stage.sigmas.tolist()),
    )  # fmt: skip


def latent_shape(model: Any, width: int, height: int) -> tuple[int, ...]:
    """The shape of one image's latent [C, h, w], or [C, 1, h, w] of models of videos, for a canvas in pixels."""
    kind = model.get_model_object("latent_format")
    if kind.latent_dimensions not in (2, 3):
        raise UnsupportedModel(f"layouts need a model of pictures, got latents of {kind.latent_dimensions} dimensions")
    factor = kind.spacial_downscale_ratio
    frames = (1,) * (kind.latent_dimensions - 2)
    return (kind.latent_channels, *frames, height // factor, width // factor)


def latent_format_of(model: Any) -> str:
    """The name of the kind of latents that a MODEL works on, which objects and composition must share."""
    return type(model.get_model_object("latent_format")).__name__


def boxes_adapter(model: Any, clip: Any, options: LMDOptions, gligen: Any) -> Adapter | None:
    """The adapter of a GLIGEN input, None without one; ValueError if it does not fit, or is missing and needed."""
    if gligen is not None:
        return adapter_for(model, gligen, phrase_embedding(clip, "a").shape[-1])
    if options.needs_gligen:
        raise ValueError(f"the preset lmd+ needs the input gligen, which is not connected: {ADVICE}")
    return None


def object_sigmas(model: Any, settings: SamplingSettings, options: LMDOptions) -> Tensor:
    """The sigmas of an object's run: the host's, thinned where `fast_schedule` asks for it."""
    sigmas = sigmas_of(model, settings)
    if not options.fast_schedule or options.stop_early:
        return sigmas
    # One step more than is needed, because the last one before the stride doubles lands on another sigma.
    return torch.tensor(schedule.fast_sigmas(sigmas.tolist(), options.exact_steps(settings.steps) + 1))


class Means:
    """What an object is sampled with: the MODEL and the CLIP with its LoRAs, and a value that is equal for equal ones."""

    def __init__(self, model: Any, clip: Any, lora_signature: Hashable):
        self.model, self.clip, self.signature = model, clip, lora_signature
        self.encoded = functools.cache(functools.partial(encode, clip))  # objects of one name share their prompt


class ObjectStage:
    """What all objects of a layout share; `bar` hears of the progress."""

    def __init__(
        self, model: Any, clip: Any, layout: Layout, settings: SamplingSettings, options: LMDOptions, negative: str,
        bar: Bar, adapter: Adapter | None = None, conditioner: Conditioner | None = None,
    ):  # fmt: skip
        self.model, self.clip, self.settings, self.options, self.bar = model, clip, settings, options, bar
        self.adapter, self.conditioner = adapter, conditioner
        self.sampler, self.sigmas = sampler_of(settings), object_sigmas(model, settings, options)
        self.canvas = (layout.width, layout.height)
        self.negative = negative or object_negative(layout, options.use_negative)
        self._means: dict[tuple[ObjectLora, ...], Means] = {(): Means(model, clip, ())}
        self.network = model.model.diffusion_model
        if not is_transformer(self.network):
            resolve_layers(
                options.layers, self.network, options.guidance.energy
            )  # fail here, not in the middle of sampling
        self.stop = options.exact_steps(settings.steps) if options.stop_early else None
        self.short_of_memory = False  # once memory has run out, batches are smaller and last digits differ
        # How many objects are computed at once changes nothing about them: what might runs them one at a time.
        same = replace(options, objects_at_once=0)
        weights = Same(adapter.network) if adapter else None
        self.signature = (model_signature(model), weights, signature(self.sigmas), settings, same)

    def job(self, index: int, item: ObjectPrompt, box: Box, noise: Tensor) -> ObjectJob:
        """All that one object's run needs, and the key that its result is kept under."""
        own, means = item.settings, self._means_of(item.settings)
        encoding = means.encoded(item.prompt)
        positive, negative = (
            self._positive(item, encoding),
            self._negative(with_negative(own.negative, self.negative), means),
        )
        if self.adapter is not None:
            positive = self.adapter.ground(positive, [Slot(box, phrase_embedding(self.clip, item.phrase))])
        group = (means.signature, signature(negative))
        key = (
            *self.signature, group, signature(positive), item.phrase, box, signature(noise),
            own.guidance, own.start, own.end,
        )  # fmt: skip
        return ObjectJob(index, item, box, noise, encoding, positive, negative, means.model, means.clip, group, key)

    def _means_of(self, own: ObjectSettings) -> Means:
        if own.loras not in self._means:
            self._means[own.loras] = Means(*with_loras(self.model, self.clip, own.loras))
        return self._means[own.loras]

    def _positive(self, item: ObjectPrompt, encoding: list) -> list:
        if item.settings.missing:
            raise ValueError(
                f"object {item.number}, \"{item.phrase}\", has a conditioning of its own, which a layout's JSON can't hold: "
                "connect it in LMD Object Settings again, behind what reads the JSON"
            )
        own = item.settings.attached.conditioning
        if own is None:
            return self._conditioned(item.prompt, encoding)
        if not own or offset_in(own[0][0], encoding[0][0]) is None:
            raise ValueError(
                f'the conditioning of object {item.number}, "{item.phrase}", was not made from its own prompt: encode '
                f'"{item.prompt}" with the text encoder that Box Grounded Sampler has, with the object\'s LoRAs'
            )
        return own

    def _conditioned(self, text: str, encoding: list) -> list:
        return encoding if self.conditioner is None else self.conditioner(text, encoding)

    def _negative(self, text: str, means: Means) -> list:
        found = self._conditioned(text, means.encoded(text))
        return self.adapter.ground(found) if self.adapter else found

    def run(self, jobs: Sequence[ObjectJob]) -> dict[int, ObjectRun]:
        """{index: run} of all jobs: from the cache, or sampled, as many at once as fit; fewer when memory runs out."""
        runs: dict[int, ObjectRun] = {}
        for job in jobs:
            found = OBJECT_RUNS.get(job.key)
            if found is not None:
                # The layout's own box may have moved without changing the object's run.
                runs[job.index] = replace(found, item=job.item)
                self.bar.run_done()
        left = [job for job in jobs if job.index not in runs]
        limit = self.at_once() if len(left) > 1 else 1
        while left:
            together = [j for j in left if j.kind == left[0].kind][:limit]
            log.info("%d of %d objects left, now: %s", len(left), len(jobs), ", ".join(j.item.phrase for j in together))
            found = self._tried(together)
            if found is None:
                limit = len(together) // 2
                continue
            for job, run in zip(together, found):
                self._remember(job, run)
                runs[job.index] = run
                left.remove(job)
                self.bar.run_done()
        return runs

    def at_once(self) -> int:
        """How many objects are sampled at once: the option's number, or by the host's figures of free memory."""
        if self.options.objects_at_once == 1:
            return 1
        unknown = not_per_image(self.model)
        if unknown is not None:
            log.info("the objects run one at a time: %s might mix the images of a batch", unknown)
            return 1
        if self.options.objects_at_once:
            return self.options.objects_at_once
        size = latent_shape(self.model, *self.canvas)
        return max(1, min(MOST_OBJECTS, images_that_fit(self.model, (1, *size)) // self.settings.batch))

    def _remember(self, job: ObjectJob, run: ObjectRun) -> None:
        """Keep a run for the next time, unless it was computed in other batches than the next time would take."""
        if not self.short_of_memory:
            tensors = [run.latents, run.noise, run.result, run.mask, *run.attention.values()]
            OBJECT_RUNS.put(job.key, run, tensors, self.model.model)

    def _tried(self, jobs: Sequence[ObjectJob]) -> list[ObjectRun] | None:
        """The jobs' runs, or None if several at once do not work but fewer may."""
        try:
            return self._together(jobs)
        except OutOfStep as error:
            log.warning("%s does not sample several objects at once (%s)", self.settings.sampler, error)
        except Exception as error:
            if len(jobs) == 1 or not is_out_of_memory(error):
                raise
            self.short_of_memory = True
            log.warning("%d objects at once ran out of memory: trying fewer", len(jobs))
        comfy.model_management.soft_empty_cache()
        return None

    def _together(self, jobs: Sequence[ObjectJob]) -> list[ObjectRun]:
        targets = [self._target(job) for job in jobs]
        patched = jobs[0].model.clone()
        words = self._words([_column(*pair) for pair in zip(jobs, targets)])
        words.reader.read(patched, f"{KEY}_attention")
        use_fused_on_cpu(patched)
        height, width = jobs[0].noise.shape[-2:]
        refuse_tiles(patched, height, width, "Box Grounded Sampler")
        if self.adapter is not None:
            self.adapter.patch(patched, self.options.gligen_share)
        guides: dict[int, Guide] = {}
        own: dict[int, stages.ObjectStage] = {}

        def make_hook(i: int, run: SamplerRun) -> RunHook:
            guidance = self.options.object_guidance or self.options.guidance
            guidance = replace(guidance, loss_scale=guidance.loss_scale * jobs[i].item.settings.guidance)
            guides[i] = Guide(run, targets[i], guidance, EnergyTrace(jobs[i].item.phrase))
            own[i] = stages.ObjectStage(guides[i].guidance, cast(Any, functools.partial(words.latest_of, i)), self.stop)
            return RunHook(guides[i], own[i])

        add_lanes(patched, KEY, len(jobs), make_hook, lambda i, heard: own[i].stepped(heard["i"], heard["denoised"]))
        reserve_memory(patched, KEY)
        self.bar.together = len(jobs)
        results = sample_latent(
            patched, torch.cat([job.noise for job in jobs]), self.settings, self.sampler, self.sigmas,
            _joined([job.positive for job in jobs], self.settings.batch), jobs[0].negative, self.bar.callback,
        ).cpu()  # fmt: skip
        self.short_of_memory |= any(guide.run.economy.retried for guide in guides.values())
        return [
            self._finished(job, own[i], guides[i].trace, result, words.layers)
            for i, (job, result) in enumerate(zip(jobs, results.chunk(len(jobs))))
        ]

    def _words(self, columns: Sequence[int]) -> WordAttention:
        options = self.options
        if is_transformer(self.network):
            guided = options.guidance.guides or (options.object_guidance or options.guidance).guides
            return TextWordAttention(options.layers, columns, needed=guided)
        guided = resolve_layers(options.layers, self.network, options.guidance.energy)
        return WordAttention(tuple(dict.fromkeys((mask_layer(self.network), *guided))), columns)

    def _target(self, job: ObjectJob) -> Target:
        groups = (Group(job.item.phrase, job.item.word, (job.box,), job.item.span),)
        objects = phrase_objects(groups, job.item.prompt, job.clip, job.encoding[0][0])
        own = job.item.settings
        return Target(objects, job.encoding, self.canvas, self.options.layers, own.start, own.end)

    def _finished(
        self, job: ObjectJob, stage: stages.ObjectStage, trace: EnergyTrace, result: Tensor, layers: Sequence
    ) -> ObjectRun:
        latents = stage.latents
        latents = torch.stack(latents + latents[-1:] * (len(stage.attention) + 1 - len(latents)))
        attention = {str(k): _stacked([maps[k] for maps in stage.attention]) for k in layers}
        if not attention:  # of a model whose attention cannot be read
            attention = {"box": _as_attention(job, len(stage.attention))}
        mask = attention_mask(next(iter(attention.values())), job.box, *job.noise.shape[-2:], inside_box=True)
        return ObjectRun(job.item, job.box, job.noise, latents, attention, result.clone(), mask, tuple(trace.rows))


def _column(job: ObjectJob, target: Target) -> int:
    """Where the object's word stands in what its run is conditioned by."""
    offset = offset_in(job.positive[0][0], job.encoding[0][0])
    assert offset is not None, "a conditioner keeps CLIP's tokens"
    return target.objects[0].word + offset


def _as_attention(job: ObjectJob, steps: int) -> Tensor:
    """The object's box in the place of attention [N, B, heads, gh, gw]."""
    box = box_mask(job.box, *job.noise.shape[-2:]).float()
    return box.expand(steps, len(job.noise), 1, *box.shape)


def _stacked(maps: Sequence[Tensor]) -> Tensor:
    """Attention [N, B, heads, gh, gw] of a run's steps, all on the finest grid that occurs.

    A patch can have the U-Net work on a coarser grid for a part of the run; what such a cell holds, its parts hold.
    """
    size = max(m.shape[-2:] for m in maps)
    return torch.stack([m if m.shape[-2:] == size else F.interpolate(m, size=size, mode="nearest") for m in maps])


def _joined(conditionings: Sequence[list], batch: int) -> list:
    """One CONDITIONING with `batch` rows for each of several that are of one kind."""
    if len(conditionings) == 1:
        return conditionings[0]

    def join(values: Sequence[Any]) -> Any:
        first = values[0]
        if isinstance(first, dict):
            return {k: join([v[k] for v in values]) for k in first}
        if isinstance(first, comfy.conds.CONDRegular):
            return first._copy_with(join([v.cond for v in values]))
        if not isinstance(first, Tensor):
            return first
        return torch.cat([v.expand(batch, *v.shape[1:]) for v in values])

    entries = [c[0] for c in conditionings]
    return [[join([e[0] for e in entries]), join([e[1] for e in entries])]]
