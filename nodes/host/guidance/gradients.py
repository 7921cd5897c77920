"""Gradients of an attention energy through the host's U-Net, inside the executor's inference mode."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.patcher_extension
import comfy.samplers
import torch
from torch import Tensor

from ....lmd.sampling.energy import AttentionMap, Energies
from .attention import GUIDED_PASS, Capture, Layer, LayersDone, differentiable
from .foreign_patches import Way, differentiable_patches, patches_of, unnoticed, without_wrappers, wrappers_of
from .grad_weights import Aliases, OrdinaryTensors, grad_ready, normal
from .grounding import KEY
from .memory_plan import ADVICE, Economy, GuidanceOutOfMemory, is_out_of_memory, recomputed
from .rope_gradients import differentiable_pass
from .tiles import NotATile, Tiles, without_tiles
from .transformers import OVERRIDE, Blocks, TextCapture

log = logging.getLogger(__name__)
HALF_LOSS_SCALE = 1024.0  # keeps small gradients above half precision's smallest numbers
NO_GRADIENT = (
    "layout guidance found no gradient{where}: a patch on the model, or an attention or matrix multiplication that "
    "another node or a start-up option has put in, works without one. Take the node between the checkpoint loader and "
    "the guidance out (an attention or quantization node), or start ComfyUI without --fast. Patched into this model: "
    "{patches}"
)
# What PyTorch says where something cannot be differentiated.
_CUT_OFF = re.compile("nference tensor|autograd formula|does not require grad|modified by an inplace operation")


class NoGradient(ValueError):
    """The guided pass cannot be differentiated."""


@dataclass(frozen=True)
class GradientJob:
    """What one latent wants to know: the energy of one positive conditioning entry, and its gradient.

    `x` [B, C, h, w], `sigma` [B]. `energy(maps, rows)` gives the energies [rows] from the maps of those rows of the batch, with
    `columns` as their token axis; `rows` is a slice of the B images.
    """

    cond: dict
    x: Tensor
    sigma: Tensor
    columns: Sequence[int]
    energy: Callable[[list[AttentionMap], slice], Energies]


@dataclass(frozen=True)
class EnergyGradient:
    """`energy` [B], its `gradient` [B, C, h, w] with respect to the latent, and each object's own energy [O, B]."""

    energy: Tensor
    gradient: Tensor
    objects: Tensor


Found = EnergyGradient | None  # None: the entry takes no part at this sigma


def uncompiled() -> contextlib.AbstractContextManager:
    """Everything that torch.compile has made runs as it was written, whatever node compiled it and which part.

    Compiled code keeps the patches that it saw when it was compiled, so it would go on filling the maps of an earlier
    run. Where nothing is compiled this loads nothing and costs nothing.
    """
    if "torch._dynamo.eval_frame" not in sys.modules:
        return contextlib.nullcontext()
    return torch.compiler.set_stance("force_eager")


def energy_gradients(
    guider: Any, jobs: Sequence[GradientJob], model_options: dict, layers: Sequence[Layer], economy: Economy
) -> list[Found]:
    """The jobs' energies and gradients, in as few passes as the memory allows; equal to those of one pass per image.

    The jobs' entries must be alike but for their batch of tensors. Returns None for a job whose entry does not take
    part at this sigma (its time range or area). Gradients have the dtype of `x` and are ordinary tensors. Raises
    GuidanceOutOfMemory when not even the leanest way fits.
    """
    images = [(job, i) for job in jobs for i in range(len(job.x))]
    economy.plan(guider.inner_model, jobs[0].x)
    while True:
        failure = None
        try:
            found = _all_passes(guider, images, model_options, layers, economy)
            break
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            failure = str(error)
        # Outside the handler, whose exception keeps the failed pass alive.
        comfy.model_management.soft_empty_cache()
        if not economy.leaner(len(images)):
            raise GuidanceOutOfMemory(f"{ADVICE}\n{failure}")
        log.warning("layout guidance ran out of memory: trying again with %s", economy)
    result, start = [], 0
    for job in jobs:
        own = found[start : start + len(job.x)]
        start += len(own)
        result.append(_of_batch([f for f in own if f is not None]) if None not in own else None)
    return result


def _of_batch(images: Sequence[EnergyGradient]) -> EnergyGradient:
    return EnergyGradient(
        torch.cat([i.energy for i in images]),
        torch.cat([i.gradient for i in images]),
        torch.cat([i.objects for i in images], 1),
    )


def _all_passes(guider, images, model_options, layers, economy) -> list[Found]:
    """Per image its energies [1] and gradient [1, C, h, w], `economy.rows` images at a time."""
    found: list[Found] = []
    # A ControlNet's pictures belong to the images of the whole batch.
    rows = len(images) if images[0][0].cond.get("control") is not None else economy.rows
    for start in range(0, len(images), rows):
        found += _one_pass(guider, images[start : start + rows], model_options, layers, economy)
    return found


def _one_pass(guider, images, model_options, layers, economy: Economy) -> list[Found]:
    """The images' energies and gradients from one pass, in the first way that can be differentiated."""
    if getattr(model_options.get("context_handler"), "dim", None) == 0:
        # Windows of images, of which each is guided by itself.
        model_options = {k: v for k, v in model_options.items() if k != "context_handler"}
    while True:
        try:
            return _differentiated(guider, images, model_options, layers, economy)
        except NotATile:
            model_options, names = without_tiles(model_options)
            if not names:
                raise
            log.warning("%s gives the U-Net something else than parts of the latent: guiding without it", names)
        except (RuntimeError, NoGradient) as error:
            if is_out_of_memory(error):
                raise
            if _another_way(economy.way, model_options, str(error)):
                continue
            if not isinstance(error, NoGradient) and not _CUT_OFF.search(str(error)):
                raise
            where = str(error) if isinstance(error, NoGradient) else f" ({error})"
            found = "; ".join(patches_of(model_options)) or "nothing"
            raise NoGradient(NO_GRADIENT.format(where=where, patches=found)) from error


def _another_way(way: Way, model_options: dict, failure: str) -> bool:
    """Take the next way for the rest of the run; False if this was the last."""
    if not way.aliased and "nference tensor" in failure:
        way.aliased = True
        return True
    wrappers = wrappers_of(model_options)
    if way.bare or not wrappers:
        return False
    way.bare = True
    log.warning(
        "guiding without %s, which a guided pass does not get through (%s)",
        "; ".join(wrappers),
        failure.strip() or "no gradient",
    )
    return True


def _differentiated(guider, images, model_options, layers, economy: Economy) -> list[Found]:
    model, parts = guider.inner_model, _consecutive(images)
    cond = _joined([_rows_of(job.cond, rows, len(job.x)) for job, rows in parts])
    x = torch.cat([job.x[rows] for job, rows in parts])
    sigma = torch.cat([job.sigma[rows] for job, rows in parts])
    columns = sorted({c for job, _ in parts for c in job.columns})
    # Weights that hooks swap must be in place before they are aliased; the guided pass then finds nothing to swap.
    if cond.get("hooks") is not None:
        model.current_patcher.prepare_hook_patches_current_keyframe(sigma, cond["hooks"], model_options)
    model.current_patcher.apply_hooks(hooks=cond.get("hooks"))
    capture = TextCapture(layers, columns) if isinstance(layers, Blocks) else Capture(layers, columns)
    options = _guided_options(model_options, capture, economy.way, cond.get("control") is not None)
    with torch.inference_mode(False), torch.enable_grad(), uncompiled(), unnoticed(model_options):
        leaf = x.detach().clone().requires_grad_()
        # Hooks put other weights in between the passes, which must not be held.
        aliases = Aliases() if model.current_patcher.hook_patches else economy.aliases
        unet_layers = () if isinstance(layers, Blocks) else layers
        ready = grad_ready(model.diffusion_model, *_extra_modules(cond), layers=unet_layers, aliases=aliases)
        aliased = OrdinaryTensors(aliases) if economy.way.aliased else contextlib.nullcontext()
        tiles = Tiles(capture, _in_area(leaf, cond.get("area")))
        tiles.patch(options["transformer_options"])
        with ready, aliased, _leanly(economy.checkpoint, model, layers), _as_transformer(layers):
            with contextlib.suppress(LayersDone):
                comfy.samplers.calc_cond_batch(model, [[normal(cond)]], leaf, sigma.clone(), options)
            tiles.finish()
            if len(capture.maps) < len(layers):
                if comfy.samplers.get_area_and_mult(normal(cond), leaf.detach(), sigma.clone()) is None:
                    return [None] * len(images)
                raise NoGradient(" because not all guided layers were run")
            maps = [capture.maps[layer] for layer in layers]
            return _gradients(leaf, _energies(maps, parts, columns), model.get_dtype_inference())


def _energies(
    maps: Sequence[AttentionMap], parts: Sequence[tuple[GradientJob, slice]], columns: Sequence[int]
) -> list[Energies]:
    """Each part's energies, from its rows and its columns of the captured maps."""
    found, start = [], 0
    for job, rows in parts:
        end = start + rows.stop - rows.start
        own = [_part(m, slice(start, end), columns, job.columns) for m in maps]
        found.append(job.energy(own, rows))
        start = end
    return found


def _gradients(leaf: Tensor, found: Sequence[Energies], dtype: torch.dtype) -> list[Found]:
    """The backward pass: per image its energies and the gradient with respect to `leaf`."""
    value = torch.cat([f.total for f in found])
    if not value.requires_grad:
        raise NoGradient("")
    scale = HALF_LOSS_SCALE if dtype == torch.float16 else 1.0
    (gradient,) = torch.autograd.grad(value.sum() * scale, leaf)
    own = [part for f in found for part in f.objects.split(1, 1)]
    return [EnergyGradient(*one) for one in zip(value.detach().split(1), (gradient / scale).split(1), own)]


def _in_area(x: Tensor, area: Sequence[int] | None) -> Tensor:
    """What the host gives the U-Net of `x` for a conditioning entry of an area `(h, w, y, x)` in latent cells."""
    if area is None or len(area) != 4:
        return x
    height, width, top, left = area
    return x[..., top : top + height, left : left + width]


def _as_transformer(layers: Sequence[Layer] | Blocks) -> contextlib.AbstractContextManager:
    return differentiable_pass() if isinstance(layers, Blocks) else contextlib.nullcontext()


def _leanly(checkpoint: bool, model: Any, layers: Sequence[Layer] | Blocks) -> contextlib.AbstractContextManager:
    # Transformer blocks add to their inputs in place, which a second run of a block would see.
    if isinstance(layers, Blocks) or not checkpoint:
        return contextlib.nullcontext()
    return recomputed(model.diffusion_model, layers)


def _consecutive(images: Sequence[tuple[GradientJob, int]]) -> list[tuple[GradientJob, slice]]:
    """[(job, image)] -> [(job, slice of its images)], neighbours of one job joined."""
    parts: list[tuple[GradientJob, slice]] = []
    for job, i in images:
        if parts and parts[-1][0] is job:
            parts[-1] = job, slice(parts[-1][1].start, i + 1)
        else:
            parts.append((job, slice(i, i + 1)))
    return parts


def _rows_of(cond: dict, rows: slice, batch: int) -> dict:
    """The entry for some images of its batch; the host repeats tensors with fewer rows than images cyclically."""
    return cond if rows == slice(0, batch) else rows_of(cond, list(range(batch))[rows])


def rows_of(cond: dict, rows: Sequence[int]) -> dict:
    """A prepared conditioning entry with those rows of its batched tensors, in rising order; tensors of one row stay."""

    def pick(value: Any) -> Any:
        tensor = getattr(value, "cond", None)
        if not isinstance(tensor, Tensor) or tensor.ndim == 0 or len(tensor) == 1:
            return value
        if rows[-1] < len(tensor) and len(rows) == rows[-1] + 1 - rows[0]:
            return value._copy_with(tensor[rows[0] : rows[-1] + 1])
        return value._copy_with(tensor[[r % len(tensor) for r in rows]])

    return {**cond, "model_conds": {k: pick(v) for k, v in cond["model_conds"].items()}}


def _joined(conds: Sequence[dict]) -> dict:
    """One entry whose tensors hold the rows of all; each of `conds` has one row, or as many as its images."""
    if len(conds) == 1:
        return conds[0]

    def join(values: Sequence[Any]) -> Any:
        tensors: list[Any] = [getattr(v, "cond", None) for v in values]
        if not isinstance(tensors[0], Tensor) or tensors[0].ndim == 0 or all(t is tensors[0] for t in tensors):
            return values[0]
        return values[0]._copy_with(torch.cat(tensors))

    joined = {k: join([c["model_conds"][k] for c in conds]) for k in conds[0]["model_conds"]}
    return {**conds[0], "model_conds": joined}


def _part(found: AttentionMap, rows: slice, columns: Sequence[int], wanted: Sequence[int]) -> AttentionMap:
    probs = found.probs[rows]
    if list(wanted) != list(columns):
        probs = probs[..., [columns.index(c) for c in wanted]]
    return AttentionMap(probs, found.height, found.width)


def _guided_options(model_options: dict, capture: Capture | TextCapture, way: Way, control: bool) -> dict:
    """A copy of the run's model options for the guided pass, with the capture's patches in it."""
    options = comfy.model_patcher.create_model_options_clone(model_options)
    options.pop("multigpu_clones", None)  # that path runs in worker threads, where the gradient mode is not set
    to = options.setdefault("transformer_options", {})
    to[GUIDED_PASS] = True
    to["optimized_attention_override"] = differentiable
    without_wrappers(options, way.bare)
    if isinstance(capture, TextCapture):
        to[OVERRIDE] = capture.override
        return options
    patches = differentiable_patches(to.get("patches", {}))
    if control:
        # ControlNet adds to the skip tensors in place; a copy keeps what earlier layers saved for the backward pass.
        patches.setdefault("input_block_patch_after_skip", []).append(lambda h, _options: h.clone())
    for name in ("attn1_output_patch", "attn2_output_patch"):
        patches.setdefault(name, []).insert(0, _has_gradient)
    options["transformer_options"] = capture.reader.patched({**to, "patches": patches})
    return options


def _has_gradient(n: Tensor, extra_options: dict) -> Tensor:
    """A layer's attention, if it can be differentiated: what goes past it would give a gradient, but a wrong one."""
    if not n.requires_grad:
        raise NoGradient(f" in the attention of block {extra_options.get('block')}")
    return n


def _extra_modules(cond: dict) -> list[torch.nn.Module]:
    """The networks beside the U-Net that take part in the guided pass of a conditioning entry: ControlNets, GLIGEN."""
    modules, control = [], cond.get("control")
    while control is not None:
        modules.append(getattr(control, "control_model", None))
        control = getattr(control, "previous_controlnet", None)
    if "gligen" in cond:
        modules.append(cond["gligen"][1].model)
    if KEY in cond["model_conds"]:
        modules.append(cond["model_conds"][KEY].network)
    return [m for m in modules if isinstance(m, torch.nn.Module)]
