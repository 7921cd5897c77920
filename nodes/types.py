"""The socket types that the nodes of this pack hand to each other, and the inputs that several of them have."""

from __future__ import annotations

from comfy_api.latest import io

from ..lmd.limits import CANVAS_MULTIPLE, LEAST_CANVAS, MOST_CANVAS

LayoutType = io.Custom("LMD_LAYOUT")  # lmd.layout.Layout
OptionsType = io.Custom("LMD_OPTIONS")  # lmd.sampling.options.LMDOptions
ObjectsType = io.Custom("LMD_OBJECTS")  # lmd.sampling.object_runs.ObjectRuns
TraceType = io.Custom("LMD_TRACE")  # nodes.host.guidance.guide.EnergyTrace, filled while sampling
AttentionType = io.Custom("LMD_ATTENTION")  # lmd.pictures.attention_record.AttentionRecord, filled while sampling
SamType = io.Custom("LMD_SAM")  # nodes.host.lmd.sam.SamModel
ConnectorType = io.Custom("ELLA_CONNECTOR")  # nodes.host.ella.connector.EllaConnector
TextEncoderType = io.Custom("ELLA_TEXT_ENCODER")  # nodes.host.ella.t5.EllaTextEncoder
EmbedsType = io.Custom("ELLA_PROMPT_EMBEDS")  # nodes.host.ella.compat.PromptEmbeds
AdapterType = io.Custom("LLM_ADAPTER")  # nodes.host.ella.adapter.HostedAdapter
AdapterTextType = io.Custom("LLM_HIDDEN_STATES")  # nodes.host.ella.adapter_compat.AdapterText
TextModelType = io.Custom("LLM_ADAPTER_TEXT_ENCODER")  # nodes.host.ella.text_model.TextModel


def canvas_side(name: str, about: str) -> io.Int.Input:
    """The canvas's width or height; `about` ends its tooltip."""
    return io.Int.Input(
        name, default=512, min=LEAST_CANVAS, max=MOST_CANVAS, step=CANVAS_MULTIPLE,
        tooltip=f"Canvas {name} in pixels, {about}",
    )  # fmt: skip
