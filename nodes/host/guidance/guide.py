"""Layout guidance of one sampler run: finds the phrases in the run's conditioning and moves the latent (LMD, 4.5)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import comfy.patcher_extension
import torch
from torch import Tensor

from ....lmd import checks
from ....lmd.layout import Box, Layout
from ....lmd.limits import MOST_CANVAS
from ....lmd.prompts import overall_prompt
from ....lmd.sampling.energy import AttentionMap, Energies, GuidedObject, References, energies
from ....lmd.sampling.guidance import Guidance, GuidanceOptions, reference_index
from ....lmd.sampling.stages import Evaluate, GuidanceStage
from .attention import Layer, heads_of, resolve_layers
from .gradients import EnergyGradient
from .own_encoding import own_entries
from .sampler_run import SamplerRun, Step
from .step_hooks import RunHook, add_step_hook
from .text_rows import phrase_objects
from .token_positions import encode, offset_in, shifted
from .transformers import Blocks, guided_blocks, is_transformer, transformer_options

log = logging.getLogger(__name__)
KEY = "lmd_layout_guidance"
CANVAS_TOLERANCE = 0.05  # of the aspect ratio: latents are rounded to whole cells


@dataclass(frozen=True)
class Target:
    """What to guide: the objects, with token positions in the prompt's own `conditioning`, as CLIPTextEncode gives it.

    That has one entry, or several with a time range each (the host's scheduled CLIP hooks), each of features [1, L, C].
    `layers` is "auto" or a list such as "middle.0, output.3". Guidance is active from `start_percent` to `end_percent`
    of the sampling range, each 0..1, as in the host's own nodes; nothing is guided where they are equal. `canvas` is the
    layout's (width, height) in pixels. Raises ValueError for what is out of range.
    """

    objects: tuple[GuidedObject, ...]
    conditioning: Sequence
    canvas: tuple[int, int]
    layers: str = "auto"
    start_percent: float = 0.0
    end_percent: float = 1.0

    def __post_init__(self) -> None:
        checks.kind(self, str, "layers")
        checks.wholes(self, "canvas", 1, MOST_CANVAS)
        checks.number(self, "start_percent", 0, 1)
        checks.number(self, "end_percent", 0, 1)
        if self.start_percent > self.end_percent:
            raise ValueError(
                f"Target: start_percent must not be above end_percent, got {self.start_percent:g} and "
                f"{self.end_percent:g}"
            )


@dataclass
class EnergyTrace:
    """What guidance measured in the latest run; filled while sampling, read by the energy plot.

    `rows` holds `(step, reference index, energy [B])`, before the loss scale; `parts` for each row the energy of every
    phrase [O, B], or None where not all of them took part. `numbers`: the phrases' numbers in the layout's picture.
    """

    title: str = "layout guidance"
    threshold: float = 0.0
    rows: list[tuple[int, int, Tensor]] = field(default_factory=list)
    phrases: tuple[str, ...] = ()
    parts: list[Tensor | None] = field(default_factory=list)
    numbers: tuple[tuple[int, ...], ...] = ()

    def begin(self, objects: Sequence[GuidedObject], threshold: float) -> None:
        """A run that guides these objects starts; what was measured in an earlier one goes."""
        self.rows.clear()
        self.parts.clear()
        self.threshold = threshold
        self.phrases = tuple(o.phrase for o in objects)
        self.numbers = tuple(o.numbers or (i + 1,) for i, o in enumerate(objects))

    def add(self, step: int, index: int, found: EnergyGradient) -> None:
        """An evaluation before sampler step `step`, reference step `index`."""
        self.rows.append((step, index, found.energy.float().cpu()))
        whole = len(found.objects) == len(self.phrases)
        self.parts.append(found.objects.float().cpu() if whole else None)

    def curves(self) -> tuple[list[tuple[str, list[tuple[int, int, Tensor]]]], list[int]]:
        """One curve per phrase and one of all together, as `(name, rows)`, and their numbers (0: all together)."""
        if len(self.phrases) < 2 or not self.parts or any(p is None for p in self.parts):
            return [(self.title, self.rows)], [0]
        curves = [("all objects", self.rows)]
        for i, (phrase, own) in enumerate(zip(self.phrases, self.numbers)):
            rows = [(step, index, p[i]) for (step, index, _), p in zip(self.rows, self.parts) if p is not None]
            curves.append((f"{', '.join(map(str, own))} {phrase}", rows))
        return curves, [0, *(own[0] for own in self.numbers)]


# A prepared positive conditioning entry, and the objects with their token positions in it.
Entry = tuple[dict, tuple[GuidedObject, ...]]
# References of one step for the attention transfer term: (step index, heads of each guided layer by its name) -> maps
# per object, box and layer.
ReferencesAt = Callable[[int, dict[str, int]], References | None]


class Guide:
    """One run's guidance. `move` is called before each step with the sampler's latent."""

    def __init__(
        self,
        run: SamplerRun,
        target: Target,
        options: GuidanceOptions,
        trace: EnergyTrace,
        references: ReferencesAt | None = None,
    ):
        self.run, self.target, self.trace = run, target, trace
        network = run.guider.inner_model.diffusion_model
        self.layers = None if is_transformer(network) else resolve_layers(target.layers, network, options.energy)
        options = transformer_options(options) if self.layers is None else options
        self.guidance = Guidance(options, run.visited() if options.catch_up else ())
        self.references = references
        self._blocks: dict[tuple, Blocks] = {}
        sampling = run.guider.inner_model.model_sampling
        self.sigmas = tuple(sampling.percent_to_sigma(p) for p in (target.start_percent, target.end_percent))
        self._entries: list[Entry] = []
        trace.begin(target.objects, options.loss_threshold)

    def arguments(self, step: Step) -> tuple[int, Evaluate, float]:
        """`(reference index, evaluate, step scale)` for `Guidance.step` at this step."""
        sigma = float(step.sigma.flatten()[0])
        index = reference_index(self.run.timestep(step.sigma))
        start, end = self.sigmas

        def evaluate(latent: Tensor) -> tuple[Tensor, Tensor] | None:
            self._check_canvas(latent)
            if not end <= sigma <= start:
                return None
            found = self._evaluate(latent, step)
            if found is None:
                return None
            self.trace.add(step.index, index, found)
            return found.energy, found.gradient

        return index, evaluate, self.run.step_scale(step.sigma, self.guidance.options.energy.kind)

    def _check_canvas(self, latent: Tensor) -> None:
        height, width = latent.shape[-2:]
        wide, high = self.target.canvas
        if abs(width / height - wide / high) > CANVAS_TOLERANCE * wide / high:
            raise ValueError(
                f"the layout is for a canvas of {wide} x {high} pixels, but the latent is {width} x {height} cells "
                f"({width * 8} x {height * 8} pixels), another shape: set width and height of the layout planner and "
                "of the empty latent to the same values"
            )

    def log_step(self, step: Step) -> None:
        """Logs the energies of a step, averaged over the batch."""
        seen = [energy for s, _, energy in self.trace.rows if s == step.index]
        if seen:
            values = " -> ".join(f"{float(e.mean()):.3f}" for e in seen)
            log.info("%s: step %d, energy %s", self.trace.title, step.index, values)

    def _evaluate(self, latent: Tensor, step: Step) -> EnergyGradient | None:
        """Energies and gradient, averaged over the positive entries that hold the prompt and apply at this step.

        None if none applies. Without the phrases' own energies where an entry's area leaves a phrase out.
        """
        view, mask = self.run.view(latent, step.sigma, step.denoise_mask)
        found: list[EnergyGradient] = []
        for cond, objects in self._conditionings(len(latent)):
            area = cond.get("area")
            objects = _in_area(objects, area, latent.shape[-2:])
            saved = self.references if area is None else None  # saved maps show the whole canvas
            one = self._gradient(cond, objects, view, step, saved) if objects else None
            if one is not None:
                found.append(one)
        if not found:
            return None
        energy = torch.stack([f.energy for f in found]).mean(0)
        gradient = torch.stack([f.gradient for f in found]).mean(0)
        complete = all(len(f.objects) == len(self.target.objects) for f in found)
        own = torch.stack([f.objects for f in found]).mean(0) if complete else energy.new_zeros(0, len(energy))
        return EnergyGradient(energy, gradient if mask is None else gradient * mask, own)

    def _gradient(self, cond, objects, view, step: Step, saved: ReferencesAt | None) -> EnergyGradient | None:
        columns = sorted({p for o in objects for p in (*o.positions, o.word)})
        if self.guidance.options.energy.all_words:
            columns = list(range(cond["model_conds"]["c_crossattn"].cond.shape[1]))
        place = {p: i for i, p in enumerate(columns)}
        local = [replace(o, positions=tuple(place[p] for p in o.positions), word=place[o.word]) for o in objects]

        layers = self.layers or self._blocks_for(cond, view, step.sigma)
        references = saved(step.index, self._heads(layers)) if saved is not None else None

        def energy(maps: list[AttentionMap], rows: slice) -> Energies:
            return energies(maps, local, self.guidance.options.energy, _rows(references, rows))

        return self.run.gradient(cond, view, step.sigma, layers, columns, energy)

    def _heads(self, layers: Sequence[Layer] | Blocks) -> dict[str, int]:
        if isinstance(layers, Blocks):
            return dict.fromkeys(layers.names, layers.calls.heads)
        return heads_of(self.run.guider.inner_model.diffusion_model, layers)

    def _blocks_for(self, cond: dict, latent: Tensor, sigma: Tensor) -> Blocks:
        """The guided blocks of a transformer for a conditioning entry, looked for once per shape of latent and text."""
        shape = latent.shape[1:], cond["model_conds"]["c_crossattn"].cond.shape[1]
        if shape not in self._blocks:
            calls = self.run.text_calls(cond, latent, sigma)
            found = self._blocks[shape] = guided_blocks(self.target.layers, calls)
            log.info("%s: guiding blocks %s of %d", self.trace.title, found.indices, len(calls.numbers))
        return self._blocks[shape]

    def _conditionings(self, batch: int) -> list[Entry]:
        """The entries to guide with: the positive ones that hold the prompt; if none does, its own encoding in them."""
        if not self._entries:
            positive = self.run.positive
            self._entries = holding(positive, self.target)
            source = "the positive conditioning, which holds the guided prompt"
            if positive and not self._entries:
                own = own_entries(self.run, positive, self.target.conditioning, batch)
                self._entries = [(cond, self.target.objects) for cond in own]
                source = (
                    "the guided prompt's own encoding: the positive conditioning does not hold it (another text or "
                    "encoder, or averaged), and goes on conditioning the image"
                )
            log.info("%s reads the attention of %s", self.trace.title, source)
        return self._entries


def holding(positive: Sequence[dict], target: Target) -> list[Entry]:
    """The prepared positive entries that hold one of the target's encodings by value."""
    found = []
    for cond in positive:
        for encoding, _ in target.conditioning:
            offset = offset_in(cond["model_conds"]["c_crossattn"].cond, encoding)
            if offset is not None:
                found.append((cond, shifted(target.objects, offset)))
                break
    return found


def _rows(references: References | None, rows: slice) -> References | None:
    """The saved maps of some images; a map of a single row serves them all."""
    if references is None:
        return None
    return [[[m[rows] if len(m) > 1 else m for m in box] for box in boxes] for boxes in references]


def _in_area(objects: Sequence[GuidedObject], area: Any, size: Sequence[int]) -> tuple[GuidedObject, ...]:
    """The objects seen from a conditioning's area `(h, w, y, x)` in latent cells: boxes move, outside ones go."""
    if area is None:
        return tuple(objects)
    h, w, top, left = (float(v) for v in area)
    height, width = size
    inside = []
    for o in objects:
        boxes = [
            Box((b.x * width - left) / w, (b.y * height - top) / h, b.w * width / w, b.h * height / h) for b in o.boxes
        ]
        boxes = [b for b in boxes if b.x < 1 and b.y < 1 and b.x + b.w > 0 and b.y + b.h > 0]
        if boxes:
            inside.append(replace(o, boxes=tuple(boxes)))
    return tuple(inside)


def guidance_target(
    clip: Any, layout: Layout, prompt: str, layers: str = "auto", start_percent: float = 0.0, end_percent: float = 1.0
) -> tuple[Target, list]:
    """The target of a layout in `prompt` (empty: the layout's own), and that prompt's conditioning.

    Raises PhraseNotFound (a ValueError) naming a phrase that is not in the prompt.
    """
    overall = overall_prompt(layout)
    text = prompt.strip() or overall.prompt
    positive = encode(clip, text)
    objects = phrase_objects(overall.groups, text, clip, positive[0][0])
    canvas = (layout.width, layout.height)
    return Target(objects, positive, canvas, layers, start_percent, end_percent), positive


def threshold(model: Any, options: GuidanceOptions) -> float:
    """The energy at which guidance of this MODEL ends, for plots; 0 where it never does."""
    if is_transformer(model.model.diffusion_model):
        options = transformer_options(options)
    return options.loss_threshold


def guides_anything(options: GuidanceOptions, target: Target) -> bool:
    """False when guidance could not change anything: then nothing is patched and results are bit-identical."""
    within = target.start_percent < target.end_percent
    return bool(target.objects) and within and options.guides


def reserve_memory(model: Any, key: str, factor: int = 3) -> None:
    """Have the host free room for the activations of a backward pass: as if the batch were `factor` times as large.

    The host counts two passes per image, so three times that is what SD1.5's backward pass takes, and SDXL's where it
    computes its blocks twice; room for more would push weights out of a small card (economy.py).
    """
    wrapper = comfy.patcher_extension.WrappersMP.PREPARE_SAMPLING

    def prepare(executor, model, noise_shape, *args, **kwargs):
        return executor(model, [noise_shape[0] * factor, *noise_shape[1:]], *args, **kwargs)

    model.remove_wrappers_with_key(wrapper, key)
    model.add_wrapper_with_key(wrapper, key, prepare)


def patch_guidance(model: Any, target: Target, options: GuidanceOptions, trace: EnergyTrace) -> Any:
    """A clone of MODEL that guides every sampler run; `model` itself when there is nothing to guide."""
    if not guides_anything(options, target):
        return model
    network = model.model.diffusion_model  # what does not fit fails here, not in the middle of sampling
    if is_transformer(network):
        transformer_options(options)
    else:
        resolve_layers(target.layers, network, options.energy)
    guided = model.clone()

    def make_hook(run: SamplerRun) -> RunHook:
        guide = Guide(run, target, options, trace)
        return RunHook(guide, GuidanceStage(guide.guidance))

    add_step_hook(guided, KEY, make_hook)
    reserve_memory(guided, KEY)
    return guided
