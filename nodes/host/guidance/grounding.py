"""GLIGEN's box adapter in the host's U-Net: which image sees which boxes, and for how long (docs/lmd.md, 12).

The host's own way gives a conditioning's boxes to a model call of its own, in steps of 8 pixels. Here every row of a
batch carries its own grounding tokens, so that positive, negative and several objects share one call, boxes are exact,
and guided passes see none. Source: LLM-groundedDiffusion@cef2a90 models/attention.py, generation/lmd_plus.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.conds
import comfy.gligen
import comfy.ops
import comfy.patcher_extension
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from torch import Tensor

from ....lmd.layout import Box
from ....lmd.sampling.schedule import grounding_steps
from .attention import GUIDED_PASS, attention_output

KEY = "lmd_grounding"
MOST_BOXES = 30  # slots of the adapter; all of them take part in the attention, unused ones as null tokens
SAME_SIGMA = 1e-4  # relative: samplers compute the sigma at which the adapter goes off again
FILES = "gligen_sd14_textbox_pruned.safetensors or gligen_sd14_textbox_pruned_fp16.safetensors"
ADVICE = f"LMD+ works with SD1.x models and the adapter {FILES}, in models/gligen, from the stock node GLIGENLoader"


class GroundingTokens(comfy.conds.CONDRegular):
    """The grounding tokens [B, 30, C] of a conditioning entry, and the adapter's network that they are for."""

    def __init__(self, cond: Tensor, network: torch.nn.Module):
        super().__init__(cond)
        self.network = network

    def _copy_with(self, cond: Tensor) -> GroundingTokens:
        return GroundingTokens(cond, self.network)


@dataclass(frozen=True)
class Slot:
    """One box with what is in it: `embedding` [1, C] is the pooled, unprojected feature of its phrase."""

    box: Box
    embedding: Tensor


def check_count(boxes: int) -> None:
    """Raise ValueError if a layout has more boxes than the adapter has slots."""
    if boxes > MOST_BOXES:
        raise ValueError(
            f"GLIGEN takes at most {MOST_BOXES} boxes, the layout has {boxes}: use fewer objects, or take the gligen "
            "connection out of the LMD nodes"
        )


def phrase_embedding(clip: Any, phrase: str) -> Tensor:
    """CLIP's end-token state [1, C] of a phrase after the last layer norm, without projection."""
    return clip.encode_from_tokens(clip.tokenize(phrase), return_pooled="unprojected")[1].float()


class Adapter:
    """A host GLIGEN that fits the model: `null` [1, 30, C] are the tokens of a grounding without boxes."""

    def __init__(self, patcher: Any):
        self.patcher = patcher
        self.network = patcher.model
        self.null = self.tokens(())

    def tokens(self, slots: Sequence[Slot]) -> Tensor:
        """The grounding tokens [1, 30, C] in float32; boxes beyond the 30th have none, as in the reference."""
        net = self.network.position_net
        boxes, mask = torch.zeros(1, MOST_BOXES, 4), torch.zeros(1, MOST_BOXES)
        embeddings = torch.zeros(1, MOST_BOXES, net.in_dim)
        for i, slot in enumerate(slots[:MOST_BOXES]):
            b = slot.box
            boxes[0, i] = torch.tensor((b.x, b.y, b.x + b.w, b.y + b.h))
            mask[0, i], embeddings[0, i] = 1.0, slot.embedding[0]
        device = net.null_positive_feature.device
        return net(boxes.to(device), mask.to(device), embeddings.to(device)).cpu()

    def ground(self, conditioning: list, slots: Sequence[Slot] = ()) -> list:
        """A CONDITIONING whose entries carry these boxes; entries for an area, which see a part only, carry none.

        Raises ValueError for an entry that the host's GLIGENTextBoxApply has grounded already.
        """
        refuse_grounded(extra for _, extra in conditioning)
        tokens = self.tokens(slots)
        found = []
        for features, extra in conditioning:
            own = GroundingTokens(self.null if "area" in extra else tokens, self.network)
            found.append([features, {**extra, "model_conds": {**extra.get("model_conds", {}), KEY: own}}])
        return found

    def patch(self, model: Any, share: float) -> None:
        """Have `model` (a clone that the caller owns) use the adapter for that share of a run's steps."""
        kind = comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL
        model.remove_wrappers_with_key(kind, KEY)
        model.add_wrapper_with_key(kind, KEY, functools.partial(_forward, self, share))
        model.set_additional_models(KEY, [self.patcher])

    def ground_runs(self, model: Any, slots: Sequence[Slot], share: float) -> None:
        """Have `model` (a clone that the caller owns) be grounded in every sampler run, whatever conditions it.

        Positive entries for the whole canvas get these boxes, all others null tokens, so that they share a call;
        entries that carry tokens already keep theirs. The run raises ValueError as `ground` does.
        """
        boxes, null = (GroundingTokens(t, self.network) for t in (self.tokens(slots), self.null))

        def grounded(entry: dict, part: str) -> dict:
            own = boxes if part == "positive" and entry.get("area") is None else null
            return {**entry, "model_conds": {KEY: own, **entry["model_conds"]}}

        def sampler_sample(executor: Callable, guider: Any, *args: Any, **kwargs: Any) -> Tensor:
            before = guider.conds
            refuse_grounded(entry for entries in before.values() for entry in entries or ())
            guider.conds = {part: [grounded(e, part) for e in entries or ()] for part, entries in before.items()}
            try:
                return executor(guider, *args, **kwargs)
            finally:
                guider.conds = before

        kind = comfy.patcher_extension.WrappersMP.SAMPLER_SAMPLE
        model.remove_wrappers_with_key(kind, KEY)
        model.add_wrapper_with_key(kind, KEY, sampler_sample)
        self.patch(model, share)


def refuse_grounded(entries: Iterable[dict]) -> None:
    """Raise ValueError for a conditioning entry that the host's own node has given boxes to."""
    if any("gligen" in entry for entry in entries):
        raise ValueError(
            "the conditioning already has boxes from GLIGENTextBoxApply, which would ground it twice: take that "
            "node out, or the gligen connection of the LMD node"
        )


def adapter_for(model: Any, gligen: Any, width: int) -> Adapter:
    """The adapter of a GLIGEN input for this MODEL, whose CLIP gives pooled features of `width`.

    Raises ValueError, before anything is sampled, if it is not one, or one for another family.
    """
    network = getattr(gligen, "model", None)
    if not isinstance(network, comfy.gligen.Gligen):
        raise ValueError(f"the input gligen got a {type(gligen).__name__}, which is not a GLIGEN adapter: {ADVICE}")
    fusers: Any = network.module_list
    have = [m.linear.out_features for m in fusers]
    if not have:
        raise ValueError(
            "the GLIGEN file has no layers that ComfyUI knows (a folder of diffusers has other names): " + ADVICE
        )
    transformers = [m for m in model.model.diffusion_model.modules() if isinstance(m, SpatialTransformer)]
    deep = max((len(t.transformer_blocks) for t in transformers), default=0)
    need = [int(t.norm.num_channels) for t in transformers]
    if deep != 1 or have != need or network.position_net.in_dim != width:
        raise ValueError(
            f"the GLIGEN adapter does not fit this model: it has {len(have)} layers of widths {_widths(have)} for text "
            f"of width {network.position_net.in_dim}, the model has {len(need)} transformers of widths {_widths(need)} "
            f"(blocks in each: {deep}) and text of width {width}. {ADVICE}"
        )
    return Adapter(gligen)


def _widths(values: Sequence[int]) -> str:
    return ", ".join(map(str, sorted(set(values)))) or "none"


def is_on(share: float, transformer_options: dict) -> bool:
    """Whether the adapter takes part in a model call: in the first `share` of the run's steps, by the noise level.

    Going by the sigma keeps the second call of a step that ends where the adapter goes off on the right side.
    """
    sigmas = transformer_options["sample_sigmas"]
    steps = len(sigmas) - 1
    on = grounding_steps(steps, min(max(share, 0.0), 1.0))
    if on in (0, steps):
        return on > 0
    return float(transformer_options["sigmas"][0]) > float(sigmas[on]) * (1 + SAME_SIGMA)


def _forward(
    adapter: Adapter, share: float, executor: Callable, x: Tensor, timesteps: Tensor, context: Any = None, y: Any = None,
    control: Any = None, transformer_options: dict | None = None, **others: Any,
) -> Tensor:  # fmt: skip
    """The wrapper around the U-Net's forward pass: takes the tokens, and puts the fusers in while they are on."""
    tokens, options = others.pop(KEY, None), transformer_options or {}
    if tokens is not None and is_on(share, options):
        if options.get(GUIDED_PASS):  # guidance sees no boxes, yet the adapter with its null tokens
            tokens = adapter.null.to(x).expand(len(x), -1, -1)
        patches = dict(options.get("patches", {}))
        patches["middle_patch"] = [*patches.get("middle_patch", ()), functools.partial(_fuse, adapter.network, tokens)]
        options = {**options, "patches": patches}
    return executor(x, timesteps, context, y, control, options, **others)


def _fuse(network: Any, tokens: Tensor, x: Tensor, extra_options: dict) -> Tensor:
    """One gated self-attention over cells [B, N, C] and grounding tokens [B, 30, T], between the host's two attentions.

    Only the cells ask, for what the tokens would hear is thrown away. Weights are cast to the cells' dtype.
    """
    fuser = network.module_list[extra_options["transformer_index"]]
    tokens = tokens.clone() if tokens.is_inference() and not torch.is_inference_mode_enabled() else tokens
    both = fuser.norm1(torch.cat([x, fuser.linear(tokens.to(x))], dim=1))
    attn = fuser.attn
    q, k, v = attn.to_q(both[:, : x.shape[1]]), attn.to_k(both), attn.to_v(both)
    options = {**extra_options, "n_heads": attn.heads}
    found = attn.to_out(attention_output(None, q, k, v, options))
    x = x + torch.tanh(comfy.ops.cast_to_input(fuser.alpha_attn, x)) * found
    wide = fuser.ff.net[-1].weight.dtype  # the host does not cast this part
    found = fuser.ff(fuser.norm2(x).to(wide)).to(x.dtype)
    return x + torch.tanh(comfy.ops.cast_to_input(fuser.alpha_dense, x)) * found
