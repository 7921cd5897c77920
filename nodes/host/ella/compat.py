"""The embeds that the official ComfyUI-ELLA pack passes from node to node, and which of our nodes replace others'."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import torch
from comfy_api.latest import ComfyAPI, io

import nodes as host_nodes

from ..replacements import Replacement, same
from . import adapter_compat
from .connector import EllaConnector, EllaText
from .encode import encode_clip, join
from .recompute import with_own_hook
from .t5 import EllaTextEncoder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PromptEmbeds:
    """Features of one text for ELLA, one entry of CLIP conditioning, or both."""

    features: torch.Tensor | None = None
    clip: tuple[torch.Tensor, dict] | None = None

    def __or__(self, other: PromptEmbeds) -> PromptEmbeds:
        """Both together; where both have the same kind, that of `other` counts."""
        if (self.features is not None and other.features is not None) or (self.clip and other.clip):
            log.warning("ELLA: two embeds of the same kind were combined; only the second one is used.")
        return PromptEmbeds(self.features if other.features is None else other.features, other.clip or self.clip)


def text_embeds(text: str, encoder: EllaTextEncoder, embeds: PromptEmbeds | None) -> PromptEmbeds:
    """The embeds with T5's features of `text` [1, L, D] put in; new ones unless given."""
    return replace(embeds or PromptEmbeds(), features=encoder.features(text, encoder.default_length))


def clip_embeds(conditioning: list) -> PromptEmbeds:
    """Embeds that hold the first CLIP conditioning's tokens [1, L, D] and extras."""
    tokens, extra = conditioning[0]
    return PromptEmbeds(clip=(tokens, dict(extra)))


def conditioning(connector: EllaConnector, embeds: PromptEmbeds) -> list:
    """CONDITIONING that follows the timestep on any MODEL: ELLA's tokens, before CLIP's when the embeds have both."""
    if embeds.features is None:
        raise ValueError(
            "These embeds hold no text for ELLA, only CLIP's. Connect the output of 'T5 Text Encode' (or of a combine "
            "node that has it among its inputs) to this node."
        )
    tokens = EllaText(connector, embeds.features).conditioning_tokens()
    return with_own_hook([[tokens, {}]] if embeds.clip is None else join(tokens, [embeds.clip]))


def encode_text(connector: EllaConnector, encoder: EllaTextEncoder, text: str, clip, text_clip: str):
    """-> (ELLA or ELLA + CLIP conditioning, CLIP conditioning or None)."""
    if clip is None and text_clip:
        raise ValueError(
            "There is a text for CLIP, but no CLIP is connected. Connect the `clip` input, or empty `text_clip`."
        )
    tokens = EllaText(connector, encoder.features(text, encoder.default_length)).conditioning_tokens()
    read_by_clip = None if clip is None else encode_clip(clip, text_clip)
    joined = [[tokens, {}]] if read_by_clip is None else join(tokens, read_by_clip)
    return with_own_hook(joined), read_by_clip


REPLACEMENTS = {
    "ELLALoader": Replacement("ELLAModelLoader", ("name",), (("name", "ella_name"),)),
    "T5TextEncoderLoader #ELLA": Replacement(
        "ELLACompatTextEncoderLoader", ("name", "max_length", "dtype"), same("name", "max_length", "dtype")
    ),
    "T5TextEncode #ELLA": Replacement("ELLACompatTextEncode", ("text",), same("text", "text_encoder", "embeds")),
    "SetEllaTimesteps": Replacement(
        "ELLACompatSetTimesteps",
        ("scheduler", "steps", "denoise"),
        same("model", "ella", "scheduler", "steps", "denoise", "sigmas"),
    ),
    "EllaEncode": Replacement("ELLACompatEncode", (), same("ella", "embeds")),
    "EllaTextEncode": Replacement(
        "ELLACompatEncodeText", ("text", "text_clip"), same("ella", "text_encoder", "text", "clip", "text_clip"), 2
    ),
    "EllaApply": Replacement("ELLACompatApply", (), same("model", "ella", "positive", "negative", "sigmas"), 3),
    "EllaCombineEmbeds": Replacement("ELLACompatCombineEmbeds", (), same("embeds", "embeds_add")),
    "CombineClipEllaEmbeds": Replacement("ELLACompatCombineClip", (), same("cond", "embeds")),
    "ConcatConditionEllaEmbeds": Replacement("ELLACompatCombineClip", (), same("cond", "embeds")),
    "ConditionToEllaEmbeds": Replacement("ELLACompatFromConditioning", (), same("cond")),
    **adapter_compat.REPLACEMENTS,
}


async def register_replacements() -> None:
    """Register the replacements with the front end, and convert queued prompts."""
    api = ComfyAPI()
    for old, r in REPLACEMENTS.items():
        await api.node_replacement.register(
            io.NodeReplace(
                new_node_id=r.new,
                old_node_id=old,
                old_widget_ids=list(r.all_widgets or r.widgets),
                input_mapping=[{"new_id": ours, "old_id": theirs} for theirs, ours in r.inputs],
                output_mapping=[{"new_idx": i, "old_idx": i} for i in range(r.outputs)],
            )
        )
    from server import PromptServer

    if getattr(PromptServer, "instance", None) is not None:
        PromptServer.instance.add_on_prompt_handler(convert_prompt)


def convert_prompt(data: dict) -> dict:
    """Exchange the other packs' nodes in a queued prompt, where those packs are absent.

    The host's own exchange stops at an optional input that a prompt leaves out; this one takes what is there.
    """
    for node in (data.get("prompt") or {}).values():
        old = node.get("class_type") if isinstance(node, dict) else None
        if old in REPLACEMENTS and old not in host_nodes.NODE_CLASS_MAPPINGS:
            r, inputs = REPLACEMENTS[old], node.get("inputs", {})
            node["class_type"] = r.new
            node["inputs"] = {ours: inputs[theirs] for theirs, ours in r.inputs if theirs in inputs}
    return data
