"""Nodes for LLM adapters: adapters of ELLA's idea for SDXL, which read a language model's features."""

from __future__ import annotations

from comfy_api.latest import io

from .host.choices import one_of
from .host.ella import files
from .host.ella.adapter import encode, load_adapter
from .host.ella.text_model import SYSTEM, load_text_model
from .types import AdapterType, TextModelType

CATEGORY = "ELLA/SDXL"
WEIGHTS = ("off", "(word:1.2)")


class LLMAdapterLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LLMAdapterLoader",
            display_name="Load LLM Adapter (SDXL)",
            category=CATEGORY,
            description="Loads an adapter that turns a language model's features into conditioning for SDXL models, "
            "such as RouWei-Gemma, RouWei-T5Gemma and Jina CLIP v2 adapters.",
            search_aliases=["RouWei-Gemma", "RouWei-T5Gemma", "Jina CLIP", "ELLA SDXL", "LLM to SDXL adapter"],
            inputs=[
                io.Combo.Input("adapter_name", options=files.adapter_names(), tooltip="A file in models/llm_adapters."),
            ],
            outputs=[AdapterType.Output(display_name="adapter", tooltip="For LLM Adapter Encode.")],
        )

    @classmethod
    def validate_inputs(cls, adapter_name: str) -> bool | str:
        return files.missing(adapter_name, "adapter") or True

    @classmethod
    def execute(cls, adapter_name: str) -> io.NodeOutput:
        return io.NodeOutput(load_adapter(adapter_name))


class LLMAdapterTextEncoderLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LLMAdapterTextEncoderLoader",
            display_name="Load LLM Adapter Text Encoder",
            category=CATEGORY,
            description="Loads the language model that reads the prompt for an LLM adapter: Gemma-3-1b, the encoder "
            "of T5Gemma-2b or Jina CLIP v2. Nothing is downloaded.",
            search_aliases=["gemma 3", "T5Gemma", "Jina CLIP", "RouWei-Gemma", "RouWei-T5Gemma"],
            inputs=[
                io.Combo.Input(
                    "encoder_name",
                    options=files.text_model_names(),
                    tooltip="A folder or a .safetensors file in models/text_encoders, models/llm or models/LLM, with "
                    "the tokenizer (such as tokenizer.json) beside the weights.",
                ),
            ],
            outputs=[TextModelType.Output(display_name="text_encoder", tooltip="For LLM Adapter Encode.")],
        )

    @classmethod
    def validate_inputs(cls, encoder_name: str) -> bool | str:
        return files.missing(encoder_name, "text model") or True

    @classmethod
    def execute(cls, encoder_name: str) -> io.NodeOutput:
        return io.NodeOutput(load_text_model(encoder_name))


class LLMAdapterEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LLMAdapterEncode",
            display_name="LLM Adapter Encode",
            category=CATEGORY,
            description="Encodes a prompt through a language model and an LLM adapter. The result is ordinary "
            "conditioning for an SDXL model.",
            search_aliases=["RouWei-Gemma", "RouWei-T5Gemma", "ELLA SDXL", "long prompt", "prompt"],
            inputs=[
                AdapterType.Input("adapter", tooltip="From Load LLM Adapter."),
                TextModelType.Input("text_encoder", tooltip="From Load LLM Adapter Text Encoder."),
                io.String.Input(
                    "text",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="The prompt: sentences, tags or both. Parentheses are text, unless weights says otherwise.",
                ),
                io.String.Input(
                    "system_prompt",
                    multiline=True,
                    default=SYSTEM,
                    optional=True,
                    advanced=True,
                    tooltip="What Gemma is told before the prompt. Keep it: the adapters were trained with it. T5Gemma "
                    "and Jina CLIP v2 read the prompt alone.",
                ),
                io.Combo.Input(
                    "weights",
                    options=list(WEIGHTS),
                    default=WEIGHTS[0],
                    optional=True,
                    tooltip="'off' reads parentheses as text, as the adapters were trained. '(word:1.2)' takes them as "
                    "prompt weights; write \\( and \\) for literal ones.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="conditioning", tooltip="For a sampler's positive or negative.")
            ],
        )

    @classmethod
    def execute(cls, adapter, text_encoder, text, system_prompt=SYSTEM, weights=WEIGHTS[0]) -> io.NodeOutput:
        one_of(weights, WEIGHTS, "weights", "LLMAdapterEncode")
        return io.NodeOutput(encode(adapter, text_encoder, text, system_prompt, weights=weights != WEIGHTS[0]))


NODES = [LLMAdapterLoader, LLMAdapterTextEncoderLoader, LLMAdapterEncode]
