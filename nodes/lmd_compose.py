"""Stage 2b of LMD: the objects pasted together and denoised as one image."""

from __future__ import annotations

from comfy_api.latest import io

from ..lmd.pictures.energy_plot import energy_plot
from .host.guidance.grounding import check_count
from .host.guidance.guide import threshold
from .host.lmd.overall_stage import compose_and_sample
from .lmd_options import CATEGORY
from .types import ObjectsType


class LatentComposer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentComposer",
            display_name="Latent Composer",
            category=CATEGORY,
            description="Second stage of LMD: shifts the objects into their boxes, composes their latents and denoises "
            "the whole image, with the objects frozen at first. Seed, steps, sampler and options come from the objects.",
            search_aliases=["LMD", "LLM-grounded diffusion", "compose objects", "layout to image"],
            inputs=[
                io.Model.Input("model", tooltip="The model that made the objects."),
                io.Clip.Input("clip", tooltip="The text encoder of the same checkpoint."),
                ObjectsType.Input("objects", tooltip="From Box Grounded Sampler, or LMD Object Masks."),
                io.Float.Input("frozen_ratio", default=0.5, min=0.0, max=1.0, step=0.01,
                               tooltip="For which share of the steps the objects stay as they were generated. Higher: "
                               "objects obey more; lower: the picture blends better."),
                io.String.Input("prompt", default="", multiline=True, optional=True,
                                tooltip="Prompt of the whole image. Empty: background and objects of the layout. "
                                "Phrases of the layout that it lacks are appended."),
                io.String.Input("negative", default="", multiline=True, optional=True, advanced=True,
                                tooltip="Negative prompt. Empty: the layout's own and the published list."),
                io.Conditioning.Input("positive_override", optional=True, advanced=True,
                                      tooltip="Use this conditioning (ControlNet, IPAdapter, ELLA and the like) of the "
                                      "same prompt instead of encoding it here."),
                io.Conditioning.Input("negative_override", optional=True, advanced=True,
                                      tooltip="Use this conditioning as the negative one."),
                io.Gligen.Input("gligen", optional=True,
                                tooltip="From GLIGENLoader, the one that Box Grounded Sampler has: every box is "
                                "grounded in the composition too. Objects of the preset lmd+ need it."),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="For the stock VAE Decode."),
                io.Image.Output(display_name="energy", tooltip="The guidance energy over the run."),
                io.String.Output(display_name="prompt", tooltip="The prompt that was used."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        model,
        clip,
        objects,
        frozen_ratio,
        prompt="",
        negative="",
        positive_override=None,
        negative_override=None,
        gligen=None,
    ) -> io.NodeOutput:
        if gligen is not None:
            check_count(len(objects.layout.objects))
        samples, trace, text = compose_and_sample(
            model, clip, objects, prompt, negative, frozen_ratio, positive_override, negative_override, gligen
        )
        curves, numbers = trace.curves()
        plot = energy_plot(curves, threshold(model, objects.options.guidance), numbers)
        return io.NodeOutput({"samples": samples}, plot, text)


NODES = [LatentComposer]
