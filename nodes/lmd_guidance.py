"""Layout guidance for any graph: a patch on MODEL that works with the stock samplers."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from ..lmd.pictures.energy_plot import energy_plot
from ..lmd.sampling.options import BASELINES, PRESETS, REFINEMENT
from .host.guidance.guide import EnergyTrace, guidance_target, patch_guidance
from .host.lmd.overall_stage import grounded_model
from .lmd_options import CATEGORY
from .types import LayoutType, OptionsType, TraceType

CHOICES = {name: o for name, o in PRESETS.items() if not o.needs_gligen} | BASELINES
CHOICES["refinement"] = REFINEMENT


class LayoutGuidance(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LayoutGuidance",
            display_name="Layout Guidance",
            category=CATEGORY,
            description="Guides any sampler so that each phrase of the prompt appears in its boxes, by gradient "
            "descent on cross-attention. Put it between the model and a stock KSampler or SamplerCustom.",
            search_aliases=["attention guidance", "backward guidance", "box control", "BoxDiff", "LMD", "regional prompt"],
            inputs=[
                io.Model.Input("model", tooltip="SD1.x, SD2.x, SDXL, or a transformer such as Qwen-Image, Z-Image or Flux."),
                io.Clip.Input("clip", tooltip="The text encoder that encodes the positive prompt."),
                LayoutType.Input("layout", tooltip="Phrases and boxes, from LLM Layout Planner."),
                io.String.Input("prompt", default="", multiline=True,
                                tooltip="The positive prompt of your sampler, word for word; it must contain the "
                                "layout's phrases. Empty: the layout's own prompt, given out as conditioning."),
                io.Float.Input("strength", default=1.0, min=0.0, max=20.0, step=0.05,
                               tooltip="Multiplies the guidance strength. 0 leaves the model as it is."),
                io.Float.Input("start_percent", default=0.0, min=0.0, max=1.0, step=0.001,
                               tooltip="Where in the sampling range guidance begins."),
                io.Float.Input("end_percent", default=1.0, min=0.0, max=1.0, step=0.001,
                               tooltip="Where it ends at the latest; the published schedule itself ends at 0.6."),
                io.Combo.Input("preset", options=list(CHOICES), default="reference",
                               tooltip="Guidance schedule: reference (the published code), paper, fast (half the "
                               "guidance at twice the strength), few steps (for runs of 6 to 8 steps: more "
                               "guidance per step, for two to three times the time), or refinement (for a sampler "
                               "with low denoise: one iteration in every step to the end). Backward guidance and boxdiff are other "
                               "papers' methods, for comparisons. Ignored when options are connected."),
                OptionsType.Input("options", optional=True, tooltip="From LMD Options; replaces the preset."),
                io.Gligen.Input("gligen", optional=True,
                                tooltip="From GLIGENLoader, for SD1.x models: its adapter then sees the boxes too, for "
                                "the first steps of a run (gligen_share of the options). With strength 0 it works alone."),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The guided model, for any sampler node."),
                io.Conditioning.Output(display_name="positive", tooltip="The prompt, encoded: a positive conditioning "
                                       "that fits the guidance by construction."),
                TraceType.Output(display_name="trace", tooltip="For LMD Energy Plot."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, clip, layout, prompt, strength, start_percent, end_percent, preset, options=None, gligen=None
    ) -> io.NodeOutput:
        options = options or CHOICES[preset]
        guidance = replace(options.guidance, loss_scale=options.guidance.loss_scale * strength)
        target, positive = guidance_target(clip, layout, prompt, options.layers, start_percent, end_percent)
        trace = EnergyTrace()
        if gligen is not None:
            model = grounded_model(model, clip, layout, gligen, options.gligen_share)
        return io.NodeOutput(patch_guidance(model, target, guidance, trace), positive, trace)


class LMDEnergyPlot(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LMDEnergyPlot",
            display_name="LMD Energy Plot",
            category=CATEGORY,
            description="Draws the guidance energy of the last run of a guided model: does it fall, and does it reach "
            "the threshold? Connect the sampler's latent so that it draws after sampling.",
            search_aliases=["guidance curve", "why are my boxes ignored"],
            inputs=[
                TraceType.Input("trace", tooltip="From Layout Guidance."),
                io.Latent.Input("latent", tooltip="The sampler's result: makes this node wait for it."),
            ],
            outputs=[io.Image.Output(display_name="energy", tooltip="The plot.")],
        )

    @classmethod
    def execute(cls, trace, latent) -> io.NodeOutput:
        curves, numbers = trace.curves()
        return io.NodeOutput(energy_plot(curves, trace.threshold, numbers))


NODES = [LayoutGuidance, LMDEnergyPlot]
