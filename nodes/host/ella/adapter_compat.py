"""What stands in for the nodes of ComfyUI_LLM_SDXL_Adapter, of its additions and of its Jina sibling in saved graphs.

That pack passes a text's features from node to node. Here the text itself is passed on, and read when the adapter is
known, because the adapter says how many tokens it takes. Its LLMAdapterLoader has the ID of ours and needs no exchange;
tokenizer, attention mask, device, dtype and padding have no counterpart: the host and our loaders see to them. The
sizes of 1024 x 1024 that one of its nodes always writes are left out: they were a mistake, which its authors removed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ..choices import one_of
from ..replacements import Replacement, same
from .adapter import HostedAdapter, encode
from .places import weights_of
from .text_model import TextModel

log = logging.getLogger(__name__)

_SIZES = ("width", "height", "target_width", "target_height", "crop_w", "crop_h")
_LOADED = Replacement("LLMAdapterTextEncoderLoader", ("model_name",), (("model_name", "encoder_name"),))
_ADAPTER = Replacement("LLMAdapterLoader", ("adapter_name",), same("adapter_name"))
_JINA = (("jina_model", "text_encoder"), ("jina_adapter", "adapter"), *same("text"))
_AT_ONCE = Replacement(
    "LLMAdapterEncode", ("text",), (("llm_model", "text_encoder"), ("llm_adapter", "adapter"), *same("text"))
)
WEIGHTING = ("comfy", "A1111", "comfy++", "skip")
REPLACEMENTS = {
    "LLMModelLoader": _LOADED,
    "LLMGGUFModelLoader": _LOADED,  # refused with the hint to take the folder
    "T5GEMMALoader": _LOADED,
    "T5GEMMALoaderS": _LOADED,
    "JinaClipLoader": _LOADED,
    "LLMAdapterLoaderCustom": _ADAPTER,
    "LLMAdapterLoaderUnfused": _ADAPTER,
    "JinaAdapterLoader": _ADAPTER,
    "JinaAdapterLoaderAdvanced": _ADAPTER,
    "T5GEMMATextEncoderV2": _AT_ONCE,
    "T5GEMMATextEncoder++": _AT_ONCE,
    "JinaTextEncoder": Replacement("LLMAdapterCompatJinaEncode", ("text",), _JINA),
    "JinaTextEncoderAdvanced": Replacement(
        "LLMAdapterCompatJinaEncode",
        ("text", "weighting_mode", "format_text"),
        (*_JINA, *same("weighting_mode", "format_text")),
        all_widgets=("text", "weighting_mode", "custom_dtype", "Padding_Mode", "format_text"),
    ),
    "JinaAdapterLoRALoader": Replacement(
        "LLMAdapterLoRA",
        ("lora_name", "model_weight", "adapter_weight"),
        (
            *same("model", "lora_name"),
            ("jina_adapter", "adapter"),
            ("model_weight", "strength_model"),
            ("adapter_weight", "strength_adapter"),
        ),
        2,
    ),
    "T5GEMMALORALOADER": Replacement(
        "LLMAdapterLoRA",
        ("lora_name", "strength_model", "strength_adapter"),
        (*same("model", "lora_name", "strength_model", "strength_adapter"), ("llm_adapter", "adapter")),
        2,
    ),
    "LLMTextEncoder": Replacement(
        "LLMAdapterCompatTextEncode",
        ("text", "system_prompt"),
        (("model", "text_encoder"), *same("text", "system_prompt")),
    ),
    "T5GEMMATextEncoder": Replacement(
        "LLMAdapterCompatTextEncode",
        ("text", "max_length"),
        (("llm_model", "text_encoder"), *same("text", "max_length")),
    ),
    "ApplyLLMToSDXLAdapter": Replacement(
        "LLMAdapterCompatApply", (), (("llm_hidden_states", "text"), ("llm_adapter", "adapter"))
    ),
    "t5gemmaApplyLLMToSDXLAdapter": Replacement(
        "LLMAdapterCompatApply", _SIZES, (("llm_hidden_states", "text"), ("llm_adapter", "adapter"), *same(*_SIZES))
    ),
}


@dataclass(frozen=True)
class AdapterText:
    """A text for an adapter, and who reads it: at most `limit` tokens of it."""

    encoder: TextModel
    text: str
    system: str
    limit: int


def conditioning(adapter: HostedAdapter, text: AdapterText, sizes: dict[str, int]) -> list:
    """CONDITIONING for SDXL; `sizes` in pixels, as in CLIPTextEncodeSDXL: those of a side that is 0 are left to the host."""
    [[tokens, extra]] = encode(adapter, text.encoder, text.text, text.system, text.limit)
    if not (sizes["width"] and sizes["height"]):
        return [[tokens, extra]]
    wide, high = sizes["target_width"] or sizes["width"], sizes["target_height"] or sizes["height"]
    return [[tokens, {**extra, **sizes, "target_width": wide, "target_height": high}]]


def jina_conditioning(adapter: HostedAdapter, encoder: TextModel, text: str, weighting: str, tags_first: bool) -> list:
    """CONDITIONING as the Jina pack's text encoder means it: with prompt weights, and @tags in front if `tags_first`.

    `weighting` is one of `WEIGHTING`: "A1111" multiplies a token's row by its weight, "skip" leaves weights out, and
    "comfy++", which measures every weighted part against the text without it, is done as "comfy".
    """
    one_of(weighting, WEIGHTING, "weighting_mode", "LLMAdapterCompatJinaEncode")
    text = with_tags_first(text) if tags_first else text
    if weighting == "comfy++":
        log.warning("LLM adapter: weighting_mode 'comfy++' is not offered; 'comfy' is used in its place.")
    if weighting.startswith("comfy"):
        return encode(adapter, encoder, text, weights=True)
    plain, weights = weights_of(encoder, text, adapter.config.longest)
    [[tokens, extra]] = encode(adapter, encoder, plain)
    if weighting == "A1111" and weights is not None:
        tokens = tokens * weights[..., None].to(tokens)
    return [[tokens, extra]]


def with_tags_first(text: str) -> str:
    """The text with what begins with @ between commas, as "@artist", moved to its front, written "@ artist".

    A tag ends at a comma, a full stop or the end of its line. Without one the text stays as it is.
    """
    tags: list[str] = []
    lines = [_without_tags(line, tags) for line in text.split("\n")]
    if not tags:
        return text
    rest = "\n".join(lines)
    return ", ".join([*tags, rest] if rest else tags)


def _without_tags(line: str, tags: list[str]) -> str:
    kept: list[str] = []
    for part in line.split(","):
        tag, stop, behind = part.strip().partition(".")
        if not (tag.startswith("@") and tag[1:].strip()):
            if part.strip():
                kept.append(part)
            continue
        tags.append("@ " + " ".join(tag[1:].split()))
        if stop:
            kept.append(kept.pop() + stop + behind if kept else stop + behind)
    return ",".join(kept).strip(" \t,")
