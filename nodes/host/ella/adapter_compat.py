"""What stands in for the nodes of ComfyUI_LLM_SDXL_Adapter in saved graphs.

That pack passes a text's features from node to node. Here the text itself is passed on, and read when the adapter is
known, because the adapter says how many tokens it takes. Its LLMAdapterLoader has the ID of ours and needs no exchange;
tokenizer, attention mask, device and dtype have no counterpart: the host and our loaders see to them.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..replacements import Replacement, same
from .adapter import HostedAdapter, encode
from .text_model import TextModel

_SIZES = ("width", "height", "target_width", "target_height", "crop_w", "crop_h")
_LOADED = Replacement("LLMAdapterTextEncoderLoader", ("model_name",), (("model_name", "encoder_name"),))
REPLACEMENTS = {
    "LLMModelLoader": _LOADED,
    "LLMGGUFModelLoader": _LOADED,  # refused with the hint to take the folder
    "T5GEMMALoader": _LOADED,
    "LLMAdapterLoaderCustom": Replacement("LLMAdapterLoader", ("adapter_name",), same("adapter_name")),
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
