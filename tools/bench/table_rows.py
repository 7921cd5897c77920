"""The rows of the paper's table (`bench_table.py`): plain sampling, the parts of LMD, Backward Guidance, and full LMD."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ella_lmd.evaluation.run import Job
from ella_lmd.tools.host_setup import prepare_host

CFG, SAMPLER, SCHEDULER = 7.5, "ddim", "ddim_uniform"
PLAIN = "plain"
UNET, TRANSFORMER = MODELS = ("unet", "transformer")


@dataclass
class Case:
    """One prompt with its layout and seed. Rows with the same object stage share it; each is charged for it."""

    model: Any
    clip: Any
    layout: Any
    seed: int
    steps: int
    cfg: float = CFG
    sampler: str = SAMPLER
    scheduler: str = SCHEDULER
    gligen: Any = None
    shared_seconds: float = 0.0
    _objects: dict[Any, tuple[Any, float]] = field(default_factory=dict)

    @property
    def how(self) -> tuple[int, float, str, str]:
        return self.steps, self.cfg, self.sampler, self.scheduler

    def objects(self, options: Any):
        """LMD's first stage with these options."""
        from ella_lmd.nodes.lmd_sample import BoxGroundedSampler

        if options in self._objects:
            self.shared_seconds += self._objects[options][1]
        else:
            start = time.process_time()
            arguments = (self.model, self.clip, self.layout, self.seed, *self.how, "reference")
            gligen = self.gligen if options.needs_gligen else None
            runs = BoxGroundedSampler.execute(*arguments, options=options, gligen=gligen).args[0]
            self._objects[options] = runs, time.process_time() - start
        return self._objects[options][0]

    def encode(self, text: str):
        import nodes

        return nodes.CLIPTextEncode().encode(self.clip, text)[0]

    def ksampler(self, model, positive, negative: str):
        return self.sampled(model, positive, self.encode(negative))

    def sampled(self, model, positive, negative):
        """The stock sampler's LATENT for two conditionings."""
        import nodes

        latent = nodes.EmptyLatentImage().generate(self.layout.width, self.layout.height, 1)[0]
        inputs = (model, self.seed, *self.how, positive, negative, latent)
        return nodes.KSampler().sample(*inputs, denoise=1.0)[0]


def options(preset: str = "reference", guided: bool = True, **changes: Any):
    """LMD's options: a preset's, perhaps without energy guidance, or with other changes."""
    from ella_lmd.lmd.sampling.options import PRESETS

    found = replace(PRESETS[preset], **changes)
    return found if guided else replace(found, guidance=replace(found.guidance, loss_scale=0.0))


def without_transfer(options: Any):
    energy = replace(options.guidance.energy, reference_weight=0.0)
    return replace(options, guidance=replace(options.guidance, energy=energy))


def baseline(name: str):
    """The energy and schedule of another paper, as LMD's authors ran it for their comparison (docs/lmd.md, 8)."""
    from ella_lmd.lmd.sampling.options import BASELINES

    return BASELINES[name]


def plain(case: Case):
    """The stock graph: the prompt alone, CLIPTextEncode and KSampler, with LMD's negative prompt."""
    from ella_lmd.lmd.prompts import OVERALL_NEGATIVE

    return case.ksampler(case.model, case.encode(case.layout.prompt), OVERALL_NEGATIVE)


def one_run(guidance: Callable) -> Callable:
    """One guided run of the layout's prompts, positive and negative: no objects of their own, nothing pasted."""

    def row(case: Case):
        from ella_lmd.lmd.prompts import overall_negative
        from ella_lmd.nodes.lmd_guidance import LayoutGuidance

        patched = LayoutGuidance.execute(case.model, case.clip, case.layout, "", 1.0, 0.0, 1.0, "reference", guidance())
        return case.ksampler(*patched.args[:2], overall_negative(case.layout))

    return row


def regions(method: str, **inputs: Any) -> Callable:
    """The host's own regional conditioning and KSampler, as LMD Layout to Conditioning writes it: a prompt per box."""

    def row(case: Case):
        from ella_lmd.nodes.layout_convert import LMDLayoutToConditioning

        how = {"method": method, "strength": 1.0, "base_strength": 1.0, **inputs}
        return case.sampled(case.model, *LMDLayoutToConditioning.execute(case.clip, case.layout, how).args)

    return row


def gligen(case: Case):
    """GLIGEN alone, as LMD's authors ran it: one run, every box with its own name, for LMD+'s share of the steps."""
    from ella_lmd.nodes.host.guidance.grounding import Slot, phrase_embedding
    from ella_lmd.nodes.host.lmd.object_stage import boxes_adapter
    from ella_lmd.nodes.host.lmd.regional_conditioning import base_conditioning, negative_conditioning

    plus, model = options("lmd+"), case.model.clone()
    adapter = boxes_adapter(model, case.clip, plus, case.gligen)
    adapter.patch(model, plus.gligen_share)
    slots = [Slot(o.box, phrase_embedding(case.clip, o.phrase)) for o in case.layout.objects]
    positive = adapter.ground(base_conditioning(case.clip, case.layout), slots)
    return case.sampled(model, positive, adapter.ground(negative_conditioning(case.clip, case.layout)))


def lmd(how: Callable = options, frozen: float = 0.5, mask: str = "", transfer: bool = True) -> Callable:
    """Both stages; `how()` gives the options, `mask` is another mask source, `transfer` that of attention."""

    def row(case: Case):
        from ella_lmd.nodes.lmd_compose import LatentComposer
        from ella_lmd.nodes.lmd_sample import LMDObjectMasks

        objects = case.objects(how())
        if not transfer:
            objects = replace(objects, options=without_transfer(objects.options))
        if mask and objects.runs:
            objects = LMDObjectMasks.execute(objects, mask, 0.25).args[0]
        gligen = case.gligen if objects.options.needs_gligen else None
        return LatentComposer.execute(case.model, case.clip, objects, frozen, gligen=gligen).args[0]

    return row


IN_PLACE = partial(options, centre=False, align=False)  # objects drawn where they belong, and never shifted
ROWS: dict[str, Callable] = {
    PLAIN: plain,
    "energy only": one_run(options),
    "energy only, catch up": one_run(partial(options, "few steps")),
    "backward guidance": one_run(partial(baseline, "backward guidance")),
    "boxdiff": one_run(partial(baseline, "boxdiff")),
    "area": regions("area"),
    "region masks": regions("mask", soften=16, crop_to_mask=False),
    "gligen": gligen,
    "composition only": lmd(partial(options, guided=False)),
    "no transfer": lmd(transfer=False),
    "attention masks": lmd(mask="attention"),
    "box masks": lmd(mask="box"),
    "frozen 0": lmd(frozen=0.0),
    "frozen 0.25": lmd(frozen=0.25),
    "in place": lmd(IN_PLACE),
    "in place, no transfer": lmd(IN_PLACE, transfer=False),
    "stop early": lmd(partial(options, stop_early=True)),
    "fast": lmd(partial(options, "fast")),
    "few steps": lmd(partial(options, "few steps")),
    "lmd+": lmd(partial(options, "lmd+")),
    "full": lmd(),
}


STRENGTH = 3.0  # of transformers, times the published one: nodes/host/guidance/transformers.py


def times(strength: float, **changes: Any) -> Callable:
    """The reference's options at so many times the published strength on a transformer."""

    def how():
        found = options(**changes)
        scale = found.guidance.loss_scale * strength / STRENGTH
        return replace(found, guidance=replace(found.guidance, loss_scale=scale))

    return how


TRANSFORMER_ROWS: dict[str, Callable] = {
    **{f"strength {s:g}": one_run(times(s)) for s in (1, 2, 6)},
    "all blocks": one_run(partial(options, layers="0, 1, 2, 3, 4, 5")),
    "earlier half": one_run(partial(options, layers="0, 1, 2")),
    "last block": one_run(partial(options, layers="5")),
    "joint softmax": one_run(partial(options, layers="auto joint")),
    "energy only, fast": one_run(partial(options, "fast")),
    **{f"full, strength {s:g}": lmd(times(s)) for s in (1, 2)},
}
"""Rows by which the guidance of transformers was chosen; layers are those of the demo transformer."""
ALL_ROWS = {**ROWS, **TRANSFORMER_ROWS}


def layout_of(kind: str, prompt: str):
    """The layout of a benchmark prompt: by the built-in planner, or one that is right."""
    from ella_lmd.demo import model
    from ella_lmd.evaluation import demo_benchmark
    from ella_lmd.lmd.planner.offline import plan

    size = model.IMAGE_SIZE
    return replace(plan(prompt, size, size), prompt=prompt) if kind == "planner" else demo_benchmark.true_layout(prompt)


class Worker:
    """Draws the jobs of one prompt and seed together, so that rows share their object stage (evaluation/lanes.py)."""

    def __init__(self, threads: int = 1) -> None:
        """ComfyUI's modules and the demo model, once per process."""
        prepare_host(threads=threads)

        import comfy.k_diffusion.sampling

        comfy.k_diffusion.sampling.trange = lambda steps, **_: range(steps)  # thousands of bars, one per sampler run
        self._loaded: dict[str, tuple] = {}

    def do(self, jobs: list[Job]) -> list[tuple[str, Any, dict]]:
        """Per job its key, its picture, and the processor seconds that it took."""
        import torch
        from ella_lmd.nodes.host import demo_model
        from ella_lmd.nodes.host.lmd.run_cache import OBJECT_RUNS

        OBJECT_RUNS.clear()
        with torch.inference_mode():
            kind = jobs[0].settings.get("model", UNET)
            if kind not in self._loaded:
                loaded = demo_model.load(kind=dict(zip(MODELS, demo_model.MODELS))[kind])
                self._loaded[kind] = (*loaded, demo_model.load_gligen())
            self._models = self._loaded[kind]
            case = self._case(jobs)
            return [(job.key, *self._draw(case, job.row)) for job in jobs]

    def _case(self, jobs: list[Job]) -> Case:
        from ella_lmd.demo import model
        from ella_lmd.lmd.layout import Layout

        layouts = [Layout.from_json(job.layout) for job in jobs if job.layout]
        blank = Layout(model.IMAGE_SIZE, model.IMAGE_SIZE, prompt=jobs[0].prompt)
        how = (jobs[0].settings[name] for name in ("steps", "cfg", "sampler", "scheduler"))
        return Case(*self._models[:2], (layouts or [blank])[0], jobs[0].seed, *how, self._models[3])

    def _draw(self, case: Case, row: str) -> tuple[Any, dict]:
        import numpy
        from PIL import Image

        case.shared_seconds, start = 0.0, time.process_time()
        latent = ALL_ROWS[row](case)
        seconds = time.process_time() - start + case.shared_seconds
        picture = (self._models[2].decode(latent["samples"])[0].numpy() * 255).round().astype(numpy.uint8)
        return Image.fromarray(picture), {"seconds": round(seconds, 3)}
