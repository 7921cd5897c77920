"""The socket types that the nodes of this pack hand to each other."""

from __future__ import annotations

from comfy_api.latest import io

LayoutType = io.Custom("LMD_LAYOUT")  # lmd.layout.Layout
OptionsType = io.Custom("LMD_OPTIONS")  # lmd.options.LMDOptions
ObjectsType = io.Custom("LMD_OBJECTS")  # lmd.objects.ObjectRuns
TraceType = io.Custom("LMD_TRACE")  # nodes.host.guide.EnergyTrace, filled while sampling
SamType = io.Custom("LMD_SAM")  # nodes.host.sam.SamModel
