"""Cross-attention of the host's U-Net: which layers exist, and patches that read their probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
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

from ....lmd.sampling.energy import AttentionMap

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


def modules_after(unet: Any, layer: Layer) -> list[torch.nn.Module]:
    """What runs only when the block of `layer` is done, from the U-Net's next output block on."""
    first = layer.number + 1 if layer.part == "output" else 0
    return [*unet.output_blocks[first:], unet.out] if layer.part != "input" else []


def resolve_layers(text: str, unet: torch.nn.Module) -> tuple[Layer, ...]:
    """ "auto", or "middle.0, output.3, output.4" -> layers in running order; ValueError names what the model has."""
    if text.strip().lower() in ("", "auto"):
        return guided_layers(unet)
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
            "checkpoints. On transformers use Layout Guidance with a stock sampler"
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


class LayersDone(BaseException):
    """Every guided layer has been seen; the rest of the forward pass is not needed."""


class Capture:
    """Collects the chosen token columns of the guided layers during one forward pass with gradients.

    The pass ends after the last layer by LayersDone, so the deeper half of the U-Net is never computed.
    """

    def __init__(self, layers: Sequence[Layer], columns: Sequence[int]):
        self.layers, self.columns = layers, columns
        self.maps: dict[Layer, AttentionMap] = {}

    def patch(self, layer: Layer, previous: Callable | None) -> Callable:
        def replace(q, k, v, extra_options):
            heads = extra_options["n_heads"]
            probs = probabilities(q, k, heads)[..., self.columns]
            height, width = extra_options["activations_shape"][-2:]
            self.maps[layer] = AttentionMap(probs, height, width)
            if len(self.maps) == len(self.layers):
                raise LayersDone
            return attention_output(previous, q, k, v, extra_options)

        return replace


class Observer:
    """Reads token columns of some layers in ordinary passes, for the positive rows only, while `record` is set.

    The positive rows are those of `len(columns)` parts of equal size; each has its own column. The layers' results are
    what they would be without it, bit for bit.
    """

    def __init__(self, columns: Sequence[int]):
        self.columns = columns
        self.record: Callable[[Layer, AttentionMap], None] | None = None

    def patch(self, layer: Layer, previous: Callable | None) -> Callable:
        def replace(q, k, v, extra_options):
            if self.record is not None and not extra_options.get(GUIDED_PASS):
                marks = extra_options["cond_or_uncond"]
                rows = [q.chunk(len(marks))[i] for i, mark in enumerate(marks) if mark == COND]
                keys = [k.chunk(len(marks))[i] for i, mark in enumerate(marks) if mark == COND]
                if rows:
                    probs = probabilities(rows[0], keys[0], extra_options["n_heads"])
                    parts = zip(probs.chunk(len(self.columns)), self.columns)
                    height, width = extra_options["activations_shape"][-2:]
                    self.record(layer, AttentionMap(torch.cat([p[..., c] for p, c in parts]), height, width))
            return attention_output(previous, q, k, v, extra_options)

        return replace


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
