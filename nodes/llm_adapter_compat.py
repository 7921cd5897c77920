"""Nodes for graphs saved with ComfyUI_LLM_SDXL_Adapter or its Jina sibling: what stands in where they are absent."""

from __future__ import annotations

from comfy_api.latest import io

from .host.ella.adapter_compat import WEIGHTING, AdapterText, conditioning, jina_conditioning
from .host.ella.text_model import SYSTEM
from .llm_adapter import CATEGORY
from .types import AdapterTextType, AdapterType, TextModelType

SAVED = f"{CATEGORY}/saved with ComfyUI_LLM_SDXL_Adapter"
MOST_TOKENS = 4096


class LLMAdapterCompatTextEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LLMAdapterCompatTextEncode",
            display_name="LLM Text Encoder (LLM SDXL Adapter)",
            category=SAVED,
            description="Stands in for 'LLM Text Encoder' and 'T5Gemma Text Encoder' of ComfyUI_LLM_SDXL_Adapter. In "
            "new graphs use LLM Adapter Encode.",
            search_aliases=["LLMTextEncoder", "T5GEMMATextEncoder"],
            is_deprecated=True,
            inputs=[
                TextModelType.Input("text_encoder", tooltip="From Load LLM Adapter Text Encoder."),
                io.String.Input("text", multiline=True, dynamic_prompts=True, tooltip="The prompt."),
                io.String.Input(
                    "system_prompt",
                    multiline=True,
                    default=SYSTEM,
                    optional=True,
                    tooltip="What Gemma is told before the prompt. Its tokens are counted and left out.",
                ),
                io.Int.Input(
                    "max_length",
                    default=MOST_TOKENS,
                    min=8,
                    max=MOST_TOKENS,
                    optional=True,
                    tooltip="At most this many tokens of the text are used, and never more than the adapter reads.",
                ),
            ],
            outputs=[AdapterTextType.Output(display_name="hidden_states", tooltip="The text, for the adapter.")],
        )

    @classmethod
    def execute(cls, text_encoder, text, system_prompt=SYSTEM, max_length=MOST_TOKENS) -> io.NodeOutput:
        return io.NodeOutput(AdapterText(text_encoder, text, system_prompt, max_length))


def _pixels(name: str, least_step: int, about: str) -> io.Int.Input:
    return io.Int.Input(name, default=0, min=0, max=8192, step=least_step, optional=True, tooltip=about)


class LLMAdapterCompatApply(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LLMAdapterCompatApply",
            display_name="Apply LLM To SDXL Adapter (LLM SDXL Adapter)",
            category=SAVED,
            description="Stands in for 'Apply LLM To SDXL Adapter' and 'Apply T5Gemma LLM to Adapter' of "
            "ComfyUI_LLM_SDXL_Adapter. In new graphs use LLM Adapter Encode.",
            search_aliases=["ApplyLLMToSDXLAdapter", "t5gemmaApplyLLMToSDXLAdapter"],
            is_deprecated=True,
            inputs=[
                AdapterTextType.Input("text", tooltip="The text, from the text encoder node."),
                AdapterType.Input("adapter", tooltip="From Load LLM Adapter (SDXL)."),
                _pixels("width", 8, "Width that SDXL is told. 0: that of the latent."),
                _pixels("height", 8, "Height that SDXL is told. 0: that of the latent."),
                _pixels("target_width", 8, "Target width that SDXL is told. 0: the width."),
                _pixels("target_height", 8, "Target height that SDXL is told. 0: the height."),
                _pixels("crop_w", 1, "Where SDXL is told that the image was cropped, from the left."),
                _pixels("crop_h", 1, "Where SDXL is told that the image was cropped, from the top."),
            ],
            outputs=[io.Conditioning.Output(display_name="conditioning", tooltip="For any sampler.")],
        )

    @classmethod
    def execute(
        cls, text, adapter, width=0, height=0, target_width=0, target_height=0, crop_w=0, crop_h=0
    ) -> io.NodeOutput:
        sizes = {
            "width": width, "height": height, "target_width": target_width, "target_height": target_height,
            "crop_w": crop_w, "crop_h": crop_h,
        }  # fmt: skip
        return io.NodeOutput(conditioning(adapter, text, sizes))


class LLMAdapterCompatJinaEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LLMAdapterCompatJinaEncode",
            display_name="Jina Text Encode (Jina Adapter)",
            category=SAVED,
            description="Stands in for 'Jina Text Encode (SDXL)' and its advanced form of ComfyUI_JinaCLIP_SDXL_Adapter. "
            "In new graphs use LLM Adapter Encode.",
            search_aliases=["JinaTextEncoder", "JinaTextEncoderAdvanced"],
            is_deprecated=True,
            inputs=[
                TextModelType.Input("text_encoder", tooltip="From Load LLM Adapter Text Encoder."),
                AdapterType.Input("adapter", tooltip="From Load LLM Adapter (SDXL)."),
                io.String.Input(
                    "text", multiline=True, dynamic_prompts=True, tooltip="The prompt, with (weights:1.2)."
                ),
                io.Combo.Input(
                    "weighting_mode",
                    options=list(WEIGHTING),
                    default=WEIGHTING[0],
                    optional=True,
                    tooltip="How weights act on a word's tokens. 'comfy++' is done as 'comfy'; 'skip' leaves them out.",
                ),
                io.Boolean.Input(
                    "format_text", default=True, optional=True, tooltip="Moves @artist tags to the front of the prompt."
                ),
            ],
            outputs=[io.Conditioning.Output(display_name="conditioning", tooltip="For any sampler.")],
        )

    @classmethod
    def execute(cls, text_encoder, adapter, text, weighting_mode=WEIGHTING[0], format_text=True) -> io.NodeOutput:
        return io.NodeOutput(jina_conditioning(adapter, text_encoder, text, weighting_mode, format_text))


NODES = [LLMAdapterCompatTextEncode, LLMAdapterCompatApply, LLMAdapterCompatJinaEncode]
