"""Cross-attention of the host's U-Net: which layers exist, and patches that read their probabilities."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.patcher_extension
import torch
from comfy.cli_args import args
from comfy.ldm.modules.attention import (
    SpatialTransformer,
    attention_basic,
    attention_pytorch,
    attention_sub_quad,
    optimized_attention,
)
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, Upsample
from torch import Tensor

from ....lmd.sampling.energy import AttentionMap, EnergyOptions

GUIDED_PASS = "lmd_guided_pass"  # marks the transformer options of passes that are made for a gradient
FEW_KEYS = 256  # up to here plain products are faster backward than fused attention on a CPU (docs/performance.md)
COND = 0  # in the host's cond_or_uncond lists, 0 marks rows of the positive conditioning


@dataclass(frozen=True, order=True)
class Layer:
    """One cross-attention layer: `part` is input, middle or output, `depth` the transformer inside block `number`."""

    part: str
    number: int
    depth: int = 0

    @property
    def key(self) -> tuple[str, int, int]:
        """(part, number, depth), by which layers are sorted and named."""
        return self.part, self.number, self.depth

    def __str__(self) -> str:
        return f"{self.part}.{self.number}" + (f".{self.depth}" if self.depth else "")


class UnsupportedModel(ValueError):
    """The model is not a U-Net with cross-attention."""


def guided_layers(unet: Any) -> tuple[Layer, ...]:
    """LMD's layers by the model's structure, in running order: the middle, and the deepest output blocks that attend.

    SD1.x and 2.x: middle 0, output 3, 4, 5; SDXL: middle 0, output 0, 1, 2; the first transformer block of each.
    """
    levels = _cross_attention_levels(unet)
    outputs = {number: level for (part, number), level in levels.items() if part == "output"}
    if not outputs:
        raise UnsupportedModel("this U-Net has no cross-attention in its output blocks, so there is nothing to guide")
    deepest = max(outputs.values())
    middle = [Layer("middle", 0)] if ("middle", 0) in levels else []
    return (*middle, *(Layer("output", n) for n, level in sorted(outputs.items()) if level == deepest))


def mask_layer(unet: Any) -> Layer:
    """The layer whose attention shows the object best: the last of the deepest input blocks that attend (5.6)."""
    inputs = {number: level for (part, number), level in _cross_attention_levels(unet).items() if part == "input"}
    if not inputs:
        raise UnsupportedModel("this U-Net has no cross-attention in its input blocks, so no mask can be read from it")
    deepest = max(inputs.values())
    return Layer("input", max(n for n, level in inputs.items() if level == deepest))


def transformer_of(unet: Any, layer: Layer) -> torch.nn.Module:
    """The transformer block that holds a layer."""
    block = unet.middle_block if layer.part == "middle" else getattr(unet, f"{layer.part}_blocks")[layer.number]
    found = next(m for m in block if isinstance(m, SpatialTransformer)).transformer_blocks[layer.depth]
    return getattr(found, "_orig_mod", found)  # the block itself where a node has put a compiled one in its place


def heads_of(unet: torch.nn.Module, layers: Sequence[Layer]) -> dict[str, int]:
    """The number of heads of each layer, by its name."""
    blocks: list[Any] = [transformer_of(unet, x) for x in layers]
    return {str(x): block.attn2.heads for x, block in zip(layers, blocks)}


def modules_after(unet: Any, layer: Layer) -> list[torch.nn.Module]:
    """What runs only when the block of `layer` is done, from the U-Net's next output block on."""
    first = layer.number + 1 if layer.part == "output" else 0
    return [*unet.output_blocks[first:], unet.out] if layer.part != "input" else []


def layers_of_one_grid(unet: Any) -> tuple[Layer, ...]:
    """All layers on the grid of the deepest output blocks that attend, in running order: BoxDiff's (docs/lmd.md, 8.2).

    SD1.x and 2.x: input 7, 8, output 3, 4, 5, a sixteenth of the latent's cells each.
    """
    deepest = max(guided_layers(unet), key=lambda x: x.part == "output")
    levels = _cross_attention_levels(unet)
    return tuple(Layer(*key) for key, level in levels.items() if level == levels[deepest.key[:2]])


def resolve_layers(text: str, unet: torch.nn.Module, energy: EnergyOptions | None = None) -> tuple[Layer, ...]:
    """ "auto", or "middle.0, output.3, output.4" -> layers in running order; ValueError names what the model has.

    "auto" is what the energy was published with; LMD's without one.
    """
    if text.strip().lower() in ("", "auto"):
        return layers_of_one_grid(unet) if energy is not None and energy.all_words else guided_layers(unet)
    known = _cross_attention_levels(unet)
    layers = []
    for part in filter(None, (p.strip() for p in text.lower().split(","))):
        name, *numbers = part.split(".")
        try:
            layer = Layer(name, *(int(n) for n in numbers))
        except (TypeError, ValueError):
            layer = None
        if layer is None or (layer.part, layer.number) not in known:
            have = ", ".join(f"{p}.{n}" for p, n in known)
            raise ValueError(f'guided layer {part!r} does not exist in this model: write "auto" or some of {have}')
        layers.append(layer)
    order = {"input": 0, "middle": 1, "output": 2}
    return tuple(sorted(set(layers), key=lambda x: (order[x.part], x.number, x.depth)))


def _cross_attention_levels(unet: Any) -> dict[tuple[str, int], int]:
    """{(part, block number): downsampling level} of every block with text cross-attention, in running order."""
    if not all(hasattr(unet, name) for name in ("input_blocks", "middle_block", "output_blocks")):
        raise UnsupportedModel(
            f"this needs a U-Net with cross-attention (SD1.x, SD2.x, SDXL), got {type(unet).__name__}: load one of these "
            "checkpoints"
        )
    found: dict[tuple[str, int], int] = {}
    level = 0
    for number, block in enumerate(unet.input_blocks):
        if any(isinstance(m, Downsample) for m in block):
            level += 1
        if _attends(block):
            found["input", number] = level
    if unet.middle_block is not None and _attends(unet.middle_block):
        found["middle", 0] = level
    for number, block in enumerate(unet.output_blocks):
        if _attends(block):
            found["output", number] = level
        if any(isinstance(m, Upsample) for m in block):
            level -= 1
    return found


def _attends(block: Any) -> bool:
    transformers = [m for m in block if isinstance(m, SpatialTransformer)]
    return any(t.transformer_blocks[0].attn2 is not None for t in transformers)


def probabilities(q: Tensor, k: Tensor, heads: int) -> Tensor:
    """Softmax attention [B, heads, S, T] in float32 from projected q [B, S, C] and k [B, T, C]."""
    q, k = (x.unflatten(-1, (heads, -1)).transpose(1, 2).float() for x in (q, k))
    return torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1)


class RowsUnknown(ValueError):
    """Another node has changed the rows of a layer's attention, and the conditioning's own are not among them."""


@dataclass(frozen=True)
class Reading:
    """What one layer computes attention from in one call of the U-Net: a chunk of rows per conditioning entry.

    `q` [N, S, C] and `k` [N, T, C] are projected; `options` are the host's transformer options of the call.
    """

    layer: Layer
    q: Tensor
    k: Tensor
    options: dict

    @property
    def grid(self) -> tuple[int, int]:
        """(height, width); their product is S."""
        height, width = self.options["activations_shape"][-2:]
        return height, width

    def positive(self) -> list[int]:
        """The chunks of positive conditioning entries."""
        return [i for i, mark in enumerate(self.options["cond_or_uncond"]) if mark == COND]

    def entry(self, chunk: int) -> Any:
        """The uuid of a chunk's conditioning entry."""
        return self.options["uuids"][chunk]

    def probabilities(self, chunk: int) -> Tensor:
        """A chunk's softmax attention [B, heads, S, T] in float32."""
        count = len(self.options["cond_or_uncond"])
        return probabilities(self.q.chunk(count)[chunk], self.k.chunk(count)[chunk], self.options["n_heads"])


class AttentionReader:
    """Hands every attention of some layers to `see`; the layers' results are what they would be without it.

    `guided`: of passes that are made for a gradient, instead of the ordinary ones. `see` may raise to end the pass, and
    gets RowsUnknown in the place of a reading whose rows cannot be told.
    """

    def __init__(self, layers: Sequence[Layer], see: Callable[[Reading | RowsUnknown], None], guided: bool = False):
        self.layers, self.guided, self._see = tuple(layers), guided, see

    def patched(self, transformer_options: dict) -> dict:
        """A copy of transformer options that reads. Other nodes' patches, whole and as they are now, stay below it."""
        options = dict(transformer_options)
        rows = _Rows()
        others = options.get("patches", {}).get("attn2_patch", [])
        if others:  # only these can change the rows before they are projected
            options["patches"] = {**options["patches"], "attn2_patch": [rows.before, *others, rows.after]}
        add_patches(options, self.layers, functools.partial(self._patch, rows))
        return options

    def read(self, model: Any, key: str) -> None:
        """Patch `model` (a clone that the caller owns) to read in every run, from the moment when sampling starts."""

        def sampler_sample(executor, guider, sigmas, extra_args, *args, **kwargs):
            options = extra_args["model_options"]
            options = {**options, "transformer_options": self.patched(options["transformer_options"])}
            return executor(guider, sigmas, {**extra_args, "model_options": options}, *args, **kwargs)

        kind = comfy.patcher_extension.WrappersMP.SAMPLER_SAMPLE
        model.remove_wrappers_with_key(kind, key)
        model.add_wrapper_with_key(kind, key, sampler_sample)

    def _patch(self, rows: _Rows, layer: Layer, previous: Callable | None) -> Callable:
        def replace(q, k, v, extra_options):
            if self.guided == bool(extra_options.get(GUIDED_PASS)):
                self._see(rows.reading(layer, q, k, extra_options))
            return attention_output(previous, q, k, v, extra_options)

        return replace


class _Rows:
    """Finds the rows of the conditioning's own among those that other nodes make of them (attention couples)."""

    _given: tuple[Tensor, Tensor]  # the conditioning's own rows and text, as `before` saw them

    def __init__(self) -> None:
        self._kept: list[int] | None = None  # None: the rows are as they were
        self._missing = False

    def before(self, n: Tensor, context: Tensor, value: Tensor, _options: dict) -> tuple[Tensor, Tensor, Tensor]:
        self._given = n, context
        return n, context, value

    def after(self, n: Tensor, context: Tensor, value: Tensor, _options: dict) -> tuple[Tensor, Tensor, Tensor]:
        own, text = self._given
        self._kept, self._missing = None, False
        if len(n) != len(own):
            found = [self._row(i, n, context) for i in range(len(own))]
            self._missing = None in found
            self._kept = [i for i in found if i is not None]
        return n, context, value

    def _row(self, i: int, n: Tensor, context: Tensor) -> int | None:
        own, text = self._given
        length = text.shape[1]
        same = (j for j in range(len(n)) if torch.equal(n[j], own[i]) and torch.equal(context[j, :length], text[i]))
        return next(same, None)

    def reading(self, layer: Layer, q: Tensor, k: Tensor, extra_options: dict) -> Reading | RowsUnknown:
        if self._missing:
            return RowsUnknown(
                f"attention in {layer} cannot be read: another node (an attention couple?) changes the rows of the "
                "batch there, and none of its rows attends to the positive conditioning. Take that node out, or put "
                "the prompt of the layout into its base conditioning"
            )
        if self._kept is not None:
            q, k = q[self._kept], k[self._kept, : self._given[1].shape[1]]
        return Reading(layer, q, k, extra_options)


class LayersDone(BaseException):
    """Every guided layer has been seen; the rest of the forward pass is not needed."""


class Capture:
    """Collects the chosen token columns of the guided layers during one forward pass with gradients.

    The pass ends after the last layer by LayersDone, so the deeper half of the U-Net is never computed.
    """

    def __init__(self, layers: Sequence[Layer], columns: Sequence[int]):
        self.layers, self.columns = layers, columns
        self.maps: dict[Any, AttentionMap] = {}
        self.reader = AttentionReader(layers, self._see, guided=True)

    def _see(self, reading: Reading | RowsUnknown) -> None:
        if isinstance(reading, RowsUnknown):
            raise reading
        self.maps[reading.layer] = AttentionMap(reading.probabilities(0)[..., self.columns], *reading.grid)
        if len(self.maps) == len(self.layers):
            raise LayersDone


class WordAttention:
    """Keeps the attention of the latest ordinary call to one column per part of the positive rows, head by head.

    The parts are of equal size, one for each of `columns`.
    """

    def __init__(self, layers: Sequence[Layer], columns: Sequence[int]):
        self.layers: Sequence[Any] = layers  # those of the latest run, in the order in which maps are kept
        self.columns = columns
        self.latest: dict[Any, Tensor] = {}
        self.reader: Any = AttentionReader(layers, self._see)

    def _see(self, reading: Reading | RowsUnknown) -> None:
        if isinstance(reading, RowsUnknown):
            raise reading
        for chunk in reading.positive()[:1]:
            parts = zip(reading.probabilities(chunk).chunk(len(self.columns)), self.columns)
            self.latest[reading.layer] = torch.cat([p[..., c] for p, c in parts]).unflatten(-1, reading.grid)

    def latest_of(self, i: int) -> dict[Any, Tensor]:
        """Part i's maps [B, heads, gh, gw] per layer, on the CPU."""
        for layer, maps in self.latest.items():
            self.latest[layer] = maps.cpu()  # for all parts in one go, and not layer by layer within the pass
        return {layer: maps.chunk(len(self.columns))[i].clone() for layer, maps in self.latest.items()}


def attention_output(previous: Callable | None, q: Tensor, k: Tensor, v: Tensor, extra_options: dict) -> Tensor:
    """What the layer gives without a patch of ours: the patch that was there before, or the host's attention."""
    if previous is not None:
        return previous(q, k, v, extra_options)
    return optimized_attention(
        q, k, v, heads=extra_options["n_heads"], attn_precision=extra_options["attn_precision"],
        transformer_options=extra_options,
    )  # fmt: skip


def fused(_function: Callable, *args: Any, **kwargs: Any) -> Tensor:
    """PyTorch's fused attention in the place of the host's, as an override in the host's transformer options."""
    return attention_pytorch(*args, **kwargs)


def differentiable(_function: Callable, q: Tensor, k: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The host's attention for a guided pass, as an override: fused, but plain products where a CPU sees few keys.

    `k` is [B, T, C], or [B, heads, T, C / heads]. Of the host's attention functions only these two have a gradient in
    every case.
    """
    few = k.device.type == "cpu" and k.shape[-2] <= FEW_KEYS
    return (attention_basic if few else attention_pytorch)(q, k, *args, **kwargs)


def use_fused_on_cpu(model: Any) -> None:
    """Patch `model` (a clone that the caller owns) so that a CPU uses PyTorch's fused attention.

    The host means it for GPUs and falls back to attention in slices, which takes more time and three times the memory
    (docs/performance.md). An attention that a start-up option or another node has chosen is left alone.
    """
    fallback = optimized_attention is attention_sub_quad and not args.use_quad_cross_attention
    if fallback and comfy.model_management.is_device_cpu(model.load_device):
        model.model_options["transformer_options"].setdefault("optimized_attention_override", fused)


def add_patches(transformer_options: dict, layers: Sequence[Layer], make: Callable[[Layer, Any], Callable]) -> None:
    """Put `make(layer, previous patch)` into the attn2 replace slot of each layer, chaining what is there.

    `transformer_options` must be the caller's own copy; the nested dicts on the way are copied here.
    """
    slots = dict(transformer_options.get("patches_replace", {}))
    slots["attn2"] = dict(slots.get("attn2", {}))
    for layer in layers:
        # The host looks up the full key first, then the block's: a patch on the whole block counts as the previous one.
        previous = slots["attn2"].get(layer.key, slots["attn2"].get(layer.key[:2]))
        slots["attn2"][layer.key] = make(layer, previous)
    transformer_options["patches_replace"] = slots
