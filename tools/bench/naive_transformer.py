"""Layout guidance computed plainly in the host's own transformer: what the engine is measured against, as naive_guidance.

One iteration is a whole forward with gradients, with plain matrix products and softmax in every attention call, and the
attention of the image to every row of the text kept in every block; then the backward pass.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import Any

import comfy.model_patcher
import comfy.samplers
import torch
from comfy.ldm.modules.attention import attention_pytorch
from ella_lmd.lmd.sampling.energy import AttentionMap, EnergyOptions, GuidedObject, energies
from ella_lmd.nodes.host.guidance.grad_weights import grad_ready, normal
from ella_lmd.nodes.host.guidance.rope_gradients import differentiable_pass
from ella_lmd.nodes.host.guidance.transformers import OVERRIDE, Blocks, by_heads, text_probabilities
from ella_lmd.tools.bench.naive_guidance import FarEnough
from torch import Tensor


@dataclass(frozen=True)
class NaiveText:
    """How an iteration is computed. The plain way is the default; `fused` and `early_exit` as for Naive."""

    fused: bool = False
    early_exit: bool = False

    def iteration(
        self, guider: Any, x: Tensor, sigma: Tensor, model_options: dict, blocks: Blocks,
        objects: tuple[GuidedObject, ...], energy: EnergyOptions,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Energy [B] of the latent `x` [B, C, h, w] under the guider's one positive prompt, and its gradient."""
        model, (cond,) = guider.inner_model, guider.conds["positive"]
        columns = list(range(cond["model_conds"]["c_crossattn"].cond.shape[1]))
        if self.fused:
            columns = sorted({p for o in objects for p in (*o.positions, o.word)})
        reader = _Reader(self, blocks, columns)
        options = comfy.model_patcher.create_model_options_clone(model_options)
        options.setdefault("transformer_options", {})[OVERRIDE] = reader.override
        place = {p: i for i, p in enumerate(columns)}
        local = [replace(o, positions=tuple(place[p] for p in o.positions), word=place[o.word]) for o in objects]
        with torch.inference_mode(False), torch.enable_grad(), grad_ready(model.diffusion_model), differentiable_pass():
            leaf = x.detach().clone().requires_grad_()
            with contextlib.suppress(FarEnough):
                comfy.samplers.calc_cond_batch(model, [[normal(cond)]], leaf, sigma.clone(), options)
            grid = blocks.calls.height, blocks.calls.width
            found = [AttentionMap(reader.maps[blocks.calls.numbers[b]], *grid) for b in blocks]
            value = energies(found, local, energy).total
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach(), gradient


class _Reader:
    def __init__(self, how: NaiveText, blocks: Blocks, columns: list[int]):
        self.how, self.blocks, self.columns = how, blocks, columns
        self.maps: dict[int, Tensor] = {}
        self.number = -1

    def override(self, _function: Any, q: Tensor, k: Tensor, v: Tensor, heads: int, *args: Any, **kwargs: Any):
        self.number += 1
        call = {"mask": args[0] if args else None, **kwargs}
        guided = self.blocks.block_at(self.number) is not None
        if guided or (self.number in self.blocks.calls.numbers and not self.how.fused):
            whole = bool(call.get("skip_reshape"))
            own = by_heads(q, heads, whole), by_heads(k, heads, whole)
            self.maps[self.number] = text_probabilities(self.blocks, *own, call, self.columns)
        if self.how.early_exit and all(self.blocks.calls.numbers[b] in self.maps for b in self.blocks):
            raise FarEnough
        return attention_pytorch(q, k, v, heads, *args, **kwargs) if self.how.fused else plain(q, k, v, heads, call)


def plain(q: Tensor, k: Tensor, v: Tensor, heads: int, call: dict) -> Tensor:
    """The result of an attention call by plain products, in the layout that the call asks for."""
    q, k, v = (by_heads(x, heads, bool(call.get("skip_reshape"))) for x in (q, k, v))
    if k.shape[1] != q.shape[1]:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = q @ k.transpose(-1, -2) * call.get("scale", q.shape[-1] ** -0.5)
    if call.get("mask") is not None:
        scores = scores + call["mask"]
    out = scores.softmax(-1) @ v
    return out if call.get("skip_output_reshape") else out.transpose(1, 2).flatten(2)


def plain_forward(guider: Any, x: Tensor, sigma: Tensor, model_options: dict) -> None:
    """One ordinary pass of the positive prompt without gradients."""
    with torch.inference_mode():
        comfy.samplers.calc_cond_batch(guider.inner_model, [guider.conds["positive"]], x, sigma, model_options)
