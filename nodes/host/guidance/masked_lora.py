"""A LoRA that acts only where an object is, in the one pass that the sampler makes (docs/lmd.md, 13).

The host's bypass adapters give a layer's delta as an addition, y = f(x) + h(x); here h is multiplied by the object's
cells at the layer's own grid, or, for the keys and values of cross-attention, by the rows of the object's words. The
layers are hooked for the length of a call and are always put back, so the model is never changed.
Source: comfy/weight_adapter/bypass.py (ComfyUI 0.30).
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import functools
import logging
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import comfy.lora
import comfy.lora_convert
import comfy.model_patcher
import comfy.patcher_extension
import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, UNetModel
from comfy.weight_adapter import BypassForwardHook, LoHaAdapter, LoKrAdapter, LoRAAdapter, WeightAdapterBase
from torch import Tensor, nn

from ....lmd.layout import Layout
from ....lmd.prompts import overall_prompt
from ....lmd.sampling.regions import Region
from ....lmd.sampling.tokens import PhraseNotFound
from .. import lora_files, model_files
from .attention import COND
from .token_positions import encode, encoded_at, guided_objects, tokenizer

KEY = "lmd_masked_lora"
WORDS, TIME, CELLS = "words", "time", "cells"
SAME_ASPECT = 0.05  # of the canvas's width to its height; latents are rounded to whole cells
NODE = "Layout LoRA"
_KINDS = (LoRAAdapter, LoHaAdapter, LoKrAdapter)

log = logging.getLogger(__name__)
_ACTIVE: contextvars.ContextVar[_Call | None] = contextvars.ContextVar(KEY, default=None)


@dataclass(frozen=True)
class Words:
    """The prompt's own encoding [1, L, C], and the rows of it that are the object's words."""

    encoding: Tensor
    positions: tuple[int, ...]

    def rows(self, context: Tensor) -> Tensor:
        """Where the words stand in a call's context [B, T, C], boolean [B, T]; False where another text is encoded."""
        found = torch.zeros(context.shape[:2], dtype=torch.bool)
        for start, rows in encoded_at(context, self.encoding.to(context)):
            found[rows.cpu().nonzero(), torch.tensor(self.positions) + start] = True
        return found


class Delta(nn.Module):
    """One layer's additive part, its weights where the host's memory management sees them."""

    def __init__(self, adapter: WeightAdapterBase, layer: nn.Module, strength: float, dtype: torch.dtype):
        super().__init__()
        self.adapter = copy.copy(adapter)
        BypassForwardHook(layer, self.adapter, strength)  # tells the adapter its layer's kind and stride; hooks nothing
        self.fixed = tuple(None if isinstance(w, Tensor) else w for w in adapter.weights)
        with torch.inference_mode(False):  # guided passes need gradients through them
            self.stored = nn.ParameterDict(
                {
                    str(i): nn.Parameter(w.detach().to(dtype, copy=True), requires_grad=False)
                    for i, w in enumerate(adapter.weights)
                    if isinstance(w, Tensor)
                }
            )

    def forward(self, x: Tensor, out: Tensor) -> Tensor:
        """h(x), shaped as the layer's output `out`."""
        weights = list(self.fixed)
        for i, w in self.stored.items():
            weights[int(i)] = w.to(x.device)
        self.adapter.weights = tuple(weights)  # type: ignore[assignment]
        return self.adapter.h(x, out)

    def factors(self) -> tuple[Tensor, Tensor] | None:
        """(down [r, in, ...], up [out, r, ...], scaled) of a plain LoRA, shaped as its layer's weights; None of others."""
        adapter = cast(Any, self.adapter)  # its layer's kind was set on it
        if not isinstance(self.adapter, LoRAAdapter) or self.fixed[3] is not None or "3" in self.stored:
            return None
        up, down = self.stored["0"], self.stored["1"]
        alpha = self.stored["2"].item() if "2" in self.stored else self.fixed[2]
        scale = adapter.multiplier * (1.0 if alpha is None else alpha / down.shape[0])
        if adapter.is_conv:
            down = down.reshape(down.shape[0], -1, *adapter.kernel_size)
            up = up.reshape(up.shape[0], -1, *[1] * adapter.conv_dim)
        return down, up * scale


class Joint(nn.Module):
    """The plain LoRAs of one layer as one product of two matrices, each LoRA masked at its share of the rank."""

    def __init__(self, loras: Sequence[MaskedLora], factors: Sequence[tuple[Tensor, Tensor]], strides: dict[str, Any]):
        super().__init__()
        self.loras, self.strides = tuple(loras), strides
        self.ranks = tuple(len(down) for down, _ in factors)
        with torch.inference_mode(False):  # guided passes need gradients through them
            down, up = (torch.cat([f[i].detach().clone() for f in factors], i) for i in (0, 1))
            self.down, self.up = nn.Parameter(down, requires_grad=False), nn.Parameter(up, requires_grad=False)

    def forward(self, x: Tensor, out: Tensor, mask: Tensor) -> Tensor:
        """`out` with what the LoRAs add; `mask` broadcasts over the product's inner side, [B, n, R] or [B, R, h, w]."""
        down, up = self.down.to(x), self.up.to(x)
        if out.ndim == 4:
            inner = F.conv2d(x, down, **self.strides).mul(mask).flatten(2)
            return torch.baddbmm(out.flatten(2), up.flatten(1).expand(len(x), -1, -1), inner).view_as(out)
        inner = F.linear(x, down) * mask
        return torch.addmm(out.flatten(0, 1), inner.flatten(0, 1), up.T).view_as(out)


class MaskedLora:
    """A LoRA's deltas by the path of their layer in the U-Net, and where they act."""

    def __init__(self, name: str, deltas: dict[str, Delta], region: Region, words: Words | None):
        self.name, self.region, self.words = name, region, words
        self.deltas = deltas
        self._masks: dict[tuple, Tensor] = {}
        self._told: set[str] = set()

    def cells(self, height: int, width: int, like: Tensor) -> Tensor:
        """The region as 0 and 1, [h, w], in the dtype and on the device of `like`."""
        key = (height, width, like.device, like.dtype)
        if key not in self._masks:
            with torch.inference_mode(False):
                self._masks[key] = self.region.cells(height, width).to(like)
        return self._masks[key]

    def tell(self, what: str) -> None:
        """One line in the log, once per message."""
        if what not in self._told:
            self._told.add(what)
            log.warning("the LoRA %s: %s", self.name, what)


@dataclass(frozen=True)
class _Added:
    """What a layer's output gets: the plain LoRAs as one product, and what can't be joined with others."""

    joint: Joint | None = None
    deltas: tuple[tuple[MaskedLora, Delta], ...] = ()

    @property
    def modules(self) -> list[nn.Module]:
        return [*([] if self.joint is None else [self.joint]), *(delta for _, delta in self.deltas)]


@dataclass
class _Site:
    """A hooked layer: what is added to it, what its path says, and the block whose grid it shares or tells."""

    layer: nn.Module
    kind: str
    added: _Added
    block: nn.Module | None
    tells: bool = False


class _Call:
    """One call of the U-Net on x [B, C, h, w]: which layers are hooked, and the grids that its blocks run on.

    `loras` are those with cells in it; the others of a layer are left out.
    """

    def __init__(self, sites: Sequence[_Site], loras: Sequence[MaskedLora], x: Tensor, context: Any, options: dict):
        self.sites, self.batch = sites, len(x)
        self.context, self.options = context, options
        self.whole = {id(lora): bool(lora.region.cells(*x.shape[-2:]).all()) for lora in loras}
        self._grids: dict[int, tuple[int, int]] = {}
        self._rows: dict[int, Tensor | None] = {}
        self._joint_masks: dict[tuple, Tensor | None] = {}

    @contextlib.contextmanager
    def hooked(self) -> Iterator[None]:
        """The layers with their deltas; nothing in a call that is hooked already."""
        if _ACTIVE.get() is self:
            yield
            return
        before = [(s.layer, s.layer.__dict__.get("forward")) for s in self.sites]
        token = _ACTIVE.set(self)
        try:
            for site in self.sites:
                site.layer.__dict__["forward"] = functools.partial(self._forward, site, site.layer.forward)
            yield
        finally:
            _ACTIVE.reset(token)
            for layer, forward in before:
                layer.__dict__.pop("forward", None)
                if forward is not None:
                    layer.__dict__["forward"] = forward

    def _forward(self, site: _Site, original: Callable, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        out = original(x, *args, **kwargs)
        if site.tells:
            self._grids[id(site.block)] = (out.shape[-2], out.shape[-1])
        joint = site.added.joint
        if joint is not None and (mask := self._joint_mask(joint, site, out)) is not None:
            out = joint(x, out, mask)
        for lora, delta in site.added.deltas:
            if (mask := self._mask(lora, site, out)) is None:
                continue
            added = delta(x, out)
            if site.kind == TIME:  # a ResBlock adds it to its cells, so it may differ from cell to cell
                added = added[..., None, None]
                out = out if out.ndim == 4 else out[..., None, None]
            out = torch.addcmul(out, added, mask)
        return out

    def _joint_mask(self, joint: Joint, site: _Site, out: Tensor) -> Tensor | None:
        """The masks of a layer's LoRAs, each at its share of the rank; None if none acts in this layer."""
        where = tuple(out.shape[:2] if out.ndim == 3 else out.shape[-2:])
        key = (joint.ranks, joint.loras, site.kind, where, self._grids.get(id(site.block)), out.dtype)
        if key not in self._joint_masks:
            found = [self._mask(lora, site, out) for lora in joint.loras]
            self._joint_masks[key] = None
            if (like := next((m for m in found if m is not None), None)) is not None:
                axis = 1 if out.ndim == 4 else 2
                each = [like.new_zeros(()).expand_as(like) if m is None else m for m in found]
                parts = [m.expand(*m.shape[:axis], rank, *m.shape[axis + 1 :]) for m, rank in zip(each, joint.ranks)]
                self._joint_masks[key] = torch.cat(parts, axis)
        return self._joint_masks[key]

    def _mask(self, lora: MaskedLora, site: _Site, out: Tensor) -> Tensor | None:
        """What the delta is multiplied by, so that it broadcasts over the layer's output; None: leave it out."""
        if id(lora) not in self.whole:
            return None
        if site.kind == WORDS:
            rows = self._word_rows(lora)
            return None if rows is None or rows.shape != out.shape[:2] else rows.to(out)[..., None]
        grid = self._grids.get(id(site.block))
        if site.kind == CELLS and out.ndim == 4:
            return lora.cells(out.shape[-2], out.shape[-1], out)[None, None]
        if grid is not None and site.kind == TIME:
            return lora.cells(*grid, out)[None, None]
        if grid is None or out.ndim != 3 or len(out) != self.batch or out.shape[1] != grid[0] * grid[1]:
            lora.tell("layers whose cells another node merges or cuts into tiles go without it")
            return None
        return lora.cells(*grid, out).reshape(1, -1, 1)

    def _word_rows(self, lora: MaskedLora) -> Tensor | None:
        if id(lora) not in self._rows:
            self._rows[id(lora)] = self._find_rows(lora)
        return self._rows[id(lora)]

    def _find_rows(self, lora: MaskedLora) -> Tensor | None:
        if not isinstance(self.context, Tensor):
            return None
        if self.whole[id(lora)]:
            return torch.ones(self.context.shape[:2], dtype=torch.bool, device=self.context.device)
        if lora.words is None:
            return None
        rows = lora.words.rows(self.context)
        if rows.any():
            return rows.to(self.context.device)
        if COND in self.options.get("cond_or_uncond", ()):
            lora.tell(
                "the positive conditioning was not encoded from its prompt, so keys and values of cross-attention go "
                "without it: give Layout LoRA the sampler's own prompt"
            )
        return None


def recomputable(forward: Callable) -> Callable:
    """`forward` as it is in the call that runs now, also when gradient checkpointing runs it once more later on."""
    call = _ACTIVE.get()
    if call is None:
        return forward

    @functools.wraps(forward, updated=())
    def again(*args: Any, **kwargs: Any) -> Any:
        with call.hooked():
            return forward(*args, **kwargs)

    return again


class _Hooks:
    """The wrappers of a model: all its masked LoRAs, on whichever copy of the U-Net is called."""

    def __init__(self, loras: Sequence[MaskedLora], canvas: tuple[int, int]):
        self.loras, self.canvas = tuple(loras), canvas
        paths = dict.fromkeys(path for lora in loras for path in lora.deltas)
        self.added = {path: _joined(path, [(o, o.deltas[path]) for o in loras if path in o.deltas]) for path in paths}
        self._sites: weakref.WeakKeyDictionary[Any, list[_Site]] = weakref.WeakKeyDictionary()

    def outer_sample(self, executor: Callable, noise: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Around a sampler run: refuses a latent of another shape than the canvas; notes which one is the whole."""
        (wide, high), (height, width) = self.canvas, noise.shape[-2:]
        if abs(width * high / (height * wide) - 1) > SAME_ASPECT and min(height, width) > 8:
            raise ValueError(
                f"the layout of the LoRAs is for a canvas of {wide} x {high} pixels, the latent is {width * 8} x "
                f"{height * 8}: give planner and empty latent the same width and height"
            )
        executor.class_obj.model_options["transformer_options"][KEY] = (height, width)
        return executor(noise, *args, **kwargs)

    def call(
        self, executor: Callable, x: Tensor, timesteps: Tensor, context: Any = None, y: Any = None,
        control: Any = None, transformer_options: dict | None = None, **others: Any,
    ) -> Tensor:  # fmt: skip
        """Around the U-Net's forward pass."""
        options = transformer_options or {}
        loras = [o for o in self.loras if bool(o.region.cells(*x.shape[-2:]).any())]
        if options.get(KEY, tuple(x.shape[-2:])) != tuple(x.shape[-2:]):
            for lora in loras:
                lora.tell("calls on a part of the image (areas, tiles) go without it")
            loras = []
        if not loras:
            return executor(x, timesteps, context, y, control, options, **others)
        unet = executor.class_obj
        if unet not in self._sites:
            self._sites[unet] = _sites(unet, self.added)
        with _Call(self._sites[unet], loras, x, context, options).hooked():
            return executor(x, timesteps, context, y, control, options, **others)


def _joined(path: str, deltas: Sequence[tuple[MaskedLora, Delta]]) -> _Added:
    plain, others = [], []
    for lora, delta in deltas:
        factors = None if kind_of(path) == TIME else delta.factors()  # a TIME layer's cells are not its own
        plain += [] if factors is None else [(lora, factors, cast(Any, delta.adapter).kw_dict)]
        others += [(lora, delta)] if factors is None else []
    if not plain:
        return _Added(None, tuple(others))
    loras, factors, strides = zip(*plain)
    return _Added(Joint(loras, factors, strides[0]), tuple(others))


def _sites(unet: nn.Module, added: dict[str, _Added]) -> list[_Site]:
    modules = dict(unet.named_modules())
    blocks = {path: m for path, m in modules.items() if isinstance(m, (ResBlock, SpatialTransformer))}
    sites: dict[nn.Module, _Site] = {}
    for path, what in added.items():
        block = next((m for p, m in blocks.items() if path.startswith(p + ".")), None)
        sites[modules[path]] = _Site(modules[path], kind_of(path) or CELLS, what, block)
    for block in {s.block for s in sites.values() if s.block is not None}:
        told: Any = block.norm if isinstance(block, SpatialTransformer) else cast("nn.Sequential", block.in_layers)[-1]
        sites.setdefault(told, _Site(told, CELLS, _Added(), block)).tells = True
    return list(sites.values())


def kind_of(path: str) -> str | None:
    """What a layer's delta is masked by; None for the time embedding's and the label's, which have no cells."""
    if path.startswith(("time_embed.", "label_emb.")):
        return None
    if path.endswith((".attn2.to_k", ".attn2.to_v")):
        return WORDS
    return TIME if ".emb_layers." in path else CELLS


def load_deltas(model: Any, name: str, strength: float, node: str = NODE, required: bool = True) -> dict[str, Delta]:
    """The deltas in a file of models/loras by the path of their layer in the U-Net of this MODEL.

    Raises ValueError that names `node` for a model that is no U-Net, a file that can't be used, a format that can't be
    masked, and, if `required`, a file without a delta for this U-Net.
    """
    remedy = lora_files.remedy(node)
    unet = model.model.diffusion_model
    if not isinstance(unet, UNetModel):
        raise ValueError(
            f"{node} needs a U-Net (SD1.x, SD2.x, SDXL), got {type(unet).__name__}: load one of these checkpoints"
        )
    path, state = lora_files.read(name, node)
    if any(k.endswith(".dora_scale") for k in state):
        raise model_files.refused(path, "is a DoRA, whose norms can't be masked", remedy)
    keys = comfy.lora.model_lora_keys_unet(model.model, {})
    loaded = comfy.lora.load_lora(comfy.lora_convert.convert_lora(state), keys, log_missing=False)
    if not loaded and required:
        raise model_files.wrong_kind(path, state, "a LoRA for this model's U-Net", remedy)
    dtype = model.model.get_dtype_inference()
    return {
        layer: delta
        for key, patch in loaded.items()
        for layer in [str(key).removeprefix("diffusion_model.").removesuffix(".weight")]
        for delta in [_delta(path, unet, layer, patch, strength, dtype, remedy)]
        if kind_of(layer)
    }


def _delta(
    path: str, unet: nn.Module, name: str, patch: Any, strength: float, dtype: torch.dtype, remedy: str
) -> Delta:
    if not isinstance(patch, _KINDS):
        kind = f"a full '{patch[0]}' of weights" if isinstance(patch, tuple) else f"the format {patch.name}"
        raise model_files.refused(path, f"has {kind} for {name}, which can't be masked", remedy)
    layer: Any = unet.get_submodule(name)
    if patch.calculate_shape(name) is not None:
        raise model_files.refused(path, f"changes the shape of {name}, which can't be masked", remedy)
    delta = Delta(patch, layer, strength, dtype)
    if isinstance(layer, nn.Conv2d):
        x, shape = torch.zeros(1, layer.in_channels, 8, 8, dtype=dtype), (1, layer.out_channels)
    else:
        x, shape = torch.zeros(1, 1, layer.in_features, dtype=dtype), (1, 1, layer.out_features)
    try:
        fits = delta(x, x).shape[: len(shape)] == shape
    except RuntimeError:
        fits = False
    if not fits:
        raise model_files.refused(path, f"does not fit this model: its delta for {name} has another shape", remedy)
    return delta


def words_of(clip: Any, layout: Layout, prompt: str, numbers: Sequence[int], name: str) -> Words | None:
    """The objects' words in the prompt, by default the layout's own; None, and a line in the log, without them."""
    why = "no text encoder is connected to Layout LoRA"
    if clip is not None:
        own = overall_prompt(layout)
        text = prompt.strip() or own.prompt
        try:
            found = guided_objects(own.groups, text, tokenizer(clip))
        except PhraseNotFound as error:
            why = str(error)
        else:
            rows = {p for o in found if set(o.numbers) & set(numbers) for p in o.positions}
            return Words(encode(clip, text)[0][0].detach().cpu(), tuple(sorted(rows)))
    log.warning("the LoRA %s: keys and values of cross-attention go without it, for %s", name, why)
    return None


def patched(model: Any, new: Sequence[MaskedLora], canvas: tuple[int, int]) -> Any:
    """A clone of a MODEL with these masked LoRAs too; `canvas` is their layout's width and height in pixels."""
    kinds = comfy.patcher_extension.WrappersMP
    before = model.get_wrappers(kinds.DIFFUSION_MODEL, KEY)
    loras = [*(before[0].__self__.loras if before else ()), *new]
    out, hooks = model.clone(), _Hooks(loras, canvas)
    for kind, wrapper in ((kinds.DIFFUSION_MODEL, hooks.call), (kinds.OUTER_SAMPLE, hooks.outer_sample)):
        out.remove_wrappers_with_key(kind, KEY)
        out.add_wrapper_with_key(kind, KEY, wrapper)
    weights = nn.ModuleList(m for added in hooks.added.values() for m in added.modules)
    patcher = comfy.model_patcher.ModelPatcher(weights, model.load_device, model.offload_device)
    out.set_additional_models(KEY, [patcher])
    return out
