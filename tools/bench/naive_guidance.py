"""Layout guidance as the published code computes it, in the host's own U-Net: what the engine is measured against.

One iteration is a whole U-Net forward with gradients, with plain matrix products and softmax in every attention layer
and every cross-attention map kept, then the backward pass (LLM-groundedDiffusion@cef2a90 models/pipelines.py,
models/attention_processor.py). The energy and the loop are the pack's own, so both sides do the same mathematics.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import comfy.model_patcher
import comfy.samplers
import torch
from ella_lmd.lmd.sampling.energy import AttentionMap, EnergyOptions, GuidedObject, References, energies
from ella_lmd.nodes.host.guidance.attention import Layer, add_patches, fused
from ella_lmd.nodes.host.guidance.grad_weights import grad_ready, normal
from torch import Tensor, nn


class FarEnough(BaseException):
    """The last guided layer has been computed."""


@dataclass(frozen=True)
class Naive:
    """How an iteration is computed. The published way is the default.

    `fused`: PyTorch's fused attention in all unguided layers, and only the guided maps' token columns kept.
    `early_exit`: stop the forward pass after the last guided layer; with plain attention this gives the arithmetic that
    no method can go below.
    """

    fused: bool = False
    early_exit: bool = False

    def iteration(
        self,
        guider: Any,
        x: Tensor,
        sigma: Tensor,
        model_options: dict,
        layers: tuple[Layer, ...],
        objects: tuple[GuidedObject, ...],
        energy: EnergyOptions,
        references: References | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Energy [B] of the latent `x` [B, C, h, w] under the guider's one positive prompt, and its gradient."""
        model = guider.inner_model
        (cond,) = guider.conds["positive"]
        maps: dict[Layer, AttentionMap] = {}
        options = comfy.model_patcher.create_model_options_clone(model_options)
        to = options.setdefault("transformer_options", {})
        to["optimized_attention_override"] = fused if self.fused else _plain
        kept = layers if self.fused else cross_attention_layers(model.diffusion_model)
        columns = sorted({p for o in objects for p in (*o.positions, o.word)}) if self.fused else None

        def make(layer: Layer, _previous: Any) -> Any:
            def replace(q, k, v, extra_options):
                probs, out = attend(q, k, v, extra_options["n_heads"])
                height, width = extra_options["activations_shape"][-2:]
                maps[layer] = AttentionMap(probs if columns is None else probs[..., columns], height, width)
                if self.early_exit and all(wanted in maps for wanted in layers):
                    raise FarEnough
                return out

            return replace

        add_patches(to, kept, make)
        if columns is not None:
            place = {p: i for i, p in enumerate(columns)}
            objects = tuple(
                GuidedObject(o.phrase, o.boxes, tuple(place[p] for p in o.positions), place[o.word]) for o in objects
            )
        with torch.inference_mode(False), torch.enable_grad(), grad_ready(model.diffusion_model):
            leaf = x.detach().clone().requires_grad_()
            with contextlib.suppress(FarEnough):
                comfy.samplers.calc_cond_batch(model, [[normal(cond)]], leaf, sigma.clone(), options)
            found = [AttentionMap(maps[n].probs.float(), maps[n].height, maps[n].width) for n in layers]
            value = energies(found, objects, energy, references).total
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach(), gradient


def plain_forward(guider: Any, x: Tensor, sigma: Tensor, model_options: dict) -> None:
    """One ordinary pass of the positive prompt without gradients, with plain attention."""
    options = comfy.model_patcher.create_model_options_clone(model_options)
    options.setdefault("transformer_options", {})["optimized_attention_override"] = _plain
    with torch.inference_mode():
        comfy.samplers.calc_cond_batch(guider.inner_model, [guider.conds["positive"]], x, sigma, options)


def cross_attention_layers(unet: nn.Module) -> tuple[Layer, ...]:
    """Every cross-attention layer of the U-Net, all transformer blocks included."""
    parts = [("input", i, block) for i, block in enumerate(unet.input_blocks)]
    parts += [("middle", 0, unet.middle_block)]
    parts += [("output", i, block) for i, block in enumerate(unet.output_blocks)]
    return tuple(
        Layer(part, number, depth)
        for part, number, block in parts
        for module in block
        for depth, _ in enumerate(getattr(module, "transformer_blocks", ()))
    )


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Probabilities [B, heads, S, T] and result [B, S, C] from projected q [B, S, C], k and v [B, T, C]."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    probs = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1)
    return probs, (probs @ v).transpose(1, 2).flatten(2)


def _plain(_function: Any, q: Tensor, k: Tensor, v: Tensor, heads: int, *_args: Any, **_kwargs: Any) -> Tensor:
    return attend(q, k, v, heads)[1]
