"""A node that shows where the model looks for words that ELLA or an LLM adapter has read: an estimate."""

from __future__ import annotations

from comfy_api.latest import io

from .ella import CATEGORY
from .host.ella.look import phrases_of, recorded
from .host.ella.text_model import SYSTEM
from .types import AdapterType, AttentionType, ConnectorType, LayoutType, TextEncoderType, TextModelType


class ELLAAttentionRecorder(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ELLAAttentionRecorder",
            display_name="ELLA Attention Recorder (estimate)",
            category=CATEGORY,
            description="Estimates where in the image each phrase of a text that ELLA or an LLM adapter reads is attended "
            "to, for LMD Attention Overlay. The image stays the same, bit for bit, and nothing is guided by it.",
            search_aliases=["attention rollout", "attention maps ELLA", "DAAM", "cross attention"],
            inputs=[
                io.Model.Input("model", tooltip="For ELLA, from Timestep-Aware Conditioning. A U-Net: SD1.5 or SDXL."),
                io.MultiType.Input("connector", [ConnectorType, AdapterType],
                                   tooltip="From Load ELLA Model, or Load LLM Adapter."),
                io.MultiType.Input("text_encoder", [TextEncoderType, TextModelType],
                                   tooltip="From Load ELLA Text Encoder, or Load LLM Adapter Text Encoder."),
                io.String.Input("text", multiline=True, tooltip="The text of the encode node, word for word."),
                io.String.Input("phrases", default="", multiline=True, optional=True,
                                tooltip="What to look for, one phrase a line, as in the text. Empty: the layout's phrases."),
                LayoutType.Input("layout", optional=True,
                                 tooltip="Where phrases is empty: its phrases are looked for, and its boxes drawn."),
                io.String.Input("system_prompt", default=SYSTEM, multiline=True, optional=True, advanced=True,
                                tooltip="For an LLM adapter: as in LLM Adapter Encode."),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="For the sampler."),
                AttentionType.Output(display_name="attention", tooltip="For LMD Attention Overlay."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, connector, text_encoder, text, phrases="", layout=None, system_prompt=SYSTEM
    ) -> io.NodeOutput:
        canvas = (0, 0) if layout is None else (layout.width, layout.height)
        groups = phrases_of(phrases, layout)
        return io.NodeOutput(*recorded(model, connector, text_encoder, text, groups, canvas, system_prompt))


NODES = [ELLAAttentionRecorder]
