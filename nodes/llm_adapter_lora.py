"""The node that puts a LoRA on an LLM adapter, and its U-Net part on the model."""

from __future__ import annotations

from comfy_api.latest import io

from .host.ella.adapter_lora import lora_files, with_lora
from .llm_adapter import CATEGORY
from .types import AdapterType


def _strength(name: str, of: str) -> io.Float.Input:
    return io.Float.Input(
        name, default=1.0, min=-20.0, max=20.0, step=0.01,
        tooltip=f"How strongly the LoRA acts on the {of}. 0 leaves it as it is.",
    )  # fmt: skip


class LLMAdapterLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LLMAdapterLoRA",
            display_name="Load LoRA (LLM Adapter)",
            category=CATEGORY,
            description="Applies a LoRA that was trained together with an LLM adapter: its text part to the adapter, the "
            "rest to the model. Put several behind each other for several LoRAs.",
            search_aliases=["adapter LoRA", "sd-scripts-T5", "Jina LoRA", "RouWei LoRA"],
            inputs=[
                io.Model.Input("model", tooltip="The SDXL model."),
                AdapterType.Input("adapter", tooltip="From Load LLM Adapter (SDXL)."),
                io.Combo.Input("lora_name", options=lora_files(), tooltip="A file in models/loras."),
                _strength("strength_model", "model"),
                _strength("strength_adapter", "adapter"),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model with the LoRA's U-Net part."),
                AdapterType.Output(display_name="adapter", tooltip="The adapter with the LoRA's text part."),
            ],
        )

    @classmethod
    def execute(cls, model, adapter, lora_name, strength_model=1.0, strength_adapter=1.0) -> io.NodeOutput:
        return io.NodeOutput(*with_lora(model, adapter, lora_name, strength_model, strength_adapter))


NODES = [LLMAdapterLoRA]
