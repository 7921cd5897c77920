"""The socket types that the nodes of this pack hand to each other."""

from __future__ import annotations

from comfy_api.latest import io

LayoutType = io.Custom("LMD_LAYOUT")  # lmd.layout.Layout
OptionsType = io.Custom("LMD_OPTIONS")  # lmd.options.LMDOptions
ObjectsType = io.Custom("LMD_OBJECTS")  # lmd.objects.ObjectRuns
TraceType = io.Custom("LMD_TRACE")  # nodes.host.guide.EnergyTrace, filled while sampling
AttentionType = io.Custom("LMD_ATTENTION")  # lmd.looking.AttentionRecord, filled while sampling
SamType = io.Custom("LMD_SAM")  # nodes.host.sam.SamModel
ConnectorType = io.Custom("ELLA_CONNECTOR")  # nodes.host.ella_connector.EllaConnector
TextEncoderType = io.Custom("ELLA_TEXT_ENCODER")  # nodes.host.ella_t5.EllaTextEncoder
EmbedsType = io.Custom("ELLA_PROMPT_EMBEDS")  # nodes.host.ella_official.PromptEmbeds
