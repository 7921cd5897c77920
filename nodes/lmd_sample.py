"""Stage 2a of LMD: each object alone in its box, and what can be done with the results."""

from __future__ import annotations

import comfy.samplers
import torch
from comfy_api.latest import io

from ..lmd.pictures.attention_record import numbers_by_name
from ..lmd.pictures.energy_plot import energy_plot
from ..lmd.sampling.options import PRESETS, SamplingSettings
from .host.ella.encode import conditioner
from .host.guidance.grounding import check_count
from .host.guidance.guide import threshold
from .host.lmd import sam
from .host.lmd.masks import ATTENTION_IN_BOX, SOURCES, decode, new_masks
from .host.lmd.object_stage import sample_objects
from .lmd_options import CATEGORY
from .types import ConnectorType, LayoutType, ObjectsType, OptionsType, SamType, TextEncoderType

sam.register_folder()


class BoxGroundedSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BoxGroundedSampler",
            display_name="Box Grounded Sampler",
            category=CATEGORY,
            description="First stage of LMD: generates every object of a layout alone, guided into its box. Give the "
            "result to Latent Composer. Objects that did not change since the last run are not computed again.",
            search_aliases=["LMD", "LLM-grounded diffusion", "layout to image", "bounding box sampler", "regional"],
            inputs=[
                io.Model.Input("model", tooltip="SD1.x, SD2.x, SDXL, or a transformer such as Qwen-Image, Z-Image or Flux, LoRAs included."),
                io.Clip.Input("clip", tooltip="The text encoder of the same checkpoint."),
                LayoutType.Input("layout", tooltip="From LLM Layout Planner."),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True,
                             tooltip="Seed of the shared background noise; the objects' own seeds follow from it."),
                io.Int.Input("steps", default=50, min=1, max=1000,
                             tooltip="Sampling steps per object and for the composition. LMD was published with 50."),
                io.Float.Input("cfg", default=7.5, min=0.0, max=100.0, step=0.1, round=0.01,
                               tooltip="Classifier-free guidance scale."),
                io.Combo.Input("sampler_name", options=comfy.samplers.KSampler.SAMPLERS, default="ddim",
                               tooltip="Any sampler with fixed steps, so not dpm_adaptive. ddim is the published one."),
                io.Combo.Input("scheduler", options=comfy.samplers.KSampler.SCHEDULERS, default="ddim_uniform",
                               tooltip="Noise schedule. ddim_uniform is the published one."),
                io.Combo.Input("preset", options=list(PRESETS), default="reference",
                               tooltip="Guidance schedule: reference (the published code), paper (5 iterations, one "
                               "less every five steps), fast (half the guidance at twice the strength; each object's "
                               "run ends once the composition no longer needs it), few steps (for runs of 6 to 8 "
                               "steps: more guidance per step, and slower) or lmd+ (the published LMD+: "
                               "GLIGEN places the objects, without guidance of their own). Ignored when options are connected."),
                io.Int.Input("batch_size", default=1, min=1, max=64, advanced=True,
                             tooltip="Images to make; each has its own noise and is guided on its own."),
                io.String.Input("negative", default="", multiline=True, optional=True, advanced=True,
                                tooltip="Negative prompt of the objects. Empty: the layout's own and the published list."),
                OptionsType.Input("options", optional=True, tooltip="From LMD Options; replaces the preset."),
                io.Gligen.Input("gligen", optional=True,
                                tooltip="From GLIGENLoader, for SD1.x models: the adapter then places the objects by "
                                "their boxes. The preset lmd+ needs it. Give it to Latent Composer too."),
                ConnectorType.Input("ella", optional=True,
                                    tooltip="From Load ELLA Model: each object is then drawn from ELLA's tokens and CLIP's. Connect "
                                    "text_encoder too, and a model from Timestep-Aware Conditioning. Unconnected: CLIP "
                                    "alone, also where ELLA conditions the composition."),
                TextEncoderType.Input("text_encoder", optional=True,
                                      tooltip="From Load ELLA Text Encoder; goes with ella."),
            ],
            outputs=[
                ObjectsType.Output(display_name="objects", tooltip="The finished objects, for Latent Composer."),
                io.Mask.Output(display_name="masks", tooltip="The objects' foreground masks, one per object image."),
                io.Image.Output(display_name="energy", tooltip="The guidance energy of every object over its run."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, clip, layout, seed, steps, cfg, sampler_name, scheduler, preset, batch_size=1, negative="",
        options=None, gligen=None, ella=None, text_encoder=None,
    ) -> io.NodeOutput:  # fmt: skip
        settings = SamplingSettings(seed, steps, cfg, sampler_name, scheduler, batch_size)
        options = options or PRESETS[preset]
        if gligen is not None:
            check_count(len(layout.objects))
        objects = sample_objects(
            model, clip, layout, settings, options, negative, gligen, conditioner(ella, text_encoder)
        )
        numbers = numbers_by_name(objects.layout)
        curves = [(f"{n} {run.item.phrase}", run.energies) for n, run in zip(numbers, objects.runs)]
        plot = energy_plot(curves, threshold(model, options.guidance), numbers)
        return io.NodeOutput(objects, mask_batch(objects), plot)


def mask_batch(objects) -> torch.Tensor:
    """MASK [N * B, H, W] in pixels, object by object; one empty mask if there are no objects."""
    size = (objects.layout.height, objects.layout.width)
    if not objects.runs:
        return torch.zeros(1, *size)
    cells = torch.cat([run.mask for run in objects.runs]).float()
    return torch.nn.functional.interpolate(cells[:, None], size=size, mode="nearest")[:, 0]


class LMDObjectImages(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LMDObjectImages",
            display_name="LMD Object Images",
            category=CATEGORY,
            description="Decodes every object's own image, to look at, or to make masks from with any segmentation "
            "node (then give them to LMD Object Masks).",
            search_aliases=["LMD preview objects", "per-object images"],
            inputs=[
                ObjectsType.Input("objects", tooltip="From Box Grounded Sampler."),
                io.Vae.Input("vae", tooltip="The VAE of the same checkpoint."),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="One image per object (and per batch image)."),
                io.Mask.Output(
                    display_name="masks", tooltip="The masks that the composer will use, in the same order."
                ),
            ],
        )

    @classmethod
    def execute(cls, objects, vae) -> io.NodeOutput:
        return io.NodeOutput(decode(objects, vae), mask_batch(objects))


class LMDObjectMasks(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LMDObjectMasks",
            display_name="LMD Object Masks",
            category=CATEGORY,
            description="Replaces the foreground masks of the objects: from attention, from SAM, the plain box, or "
            "masks that any other node made from the object images.",
            search_aliases=["SAM masks", "segment anything LMD", "foreground mask"],
            inputs=[
                ObjectsType.Input("objects", tooltip="From Box Grounded Sampler."),
                io.Combo.Input("source", options=list(SOURCES), default=ATTENTION_IN_BOX,
                               tooltip="Attention needs nothing else. SAM, point is the published way and needs "
                               "sam_model and vae; SAM, box prompts with the attention's bounding box; SAM, layout "
                               "box with the object's own box, as published for LMD+."),
                io.Float.Input("threshold", default=0.25, min=0.0, max=1.0, step=0.01,
                               tooltip="Attention above this share of its range counts as the object."),
                io.Float.Input("min_confidence", default=0.85, min=0.0, max=1.0, step=0.01, advanced=True,
                               tooltip="SAM proposals below this predicted quality are rejected."),
                io.Float.Input("min_iou", default=0.25, min=0.0, max=1.0, step=0.01, advanced=True,
                               tooltip="SAM proposals that overlap less with the attention are rejected."),
                SamType.Input("sam_model", optional=True, tooltip="From Load SAM Model, for the SAM sources."),
                io.Vae.Input("vae", optional=True, tooltip="Decodes the object images for the SAM sources."),
                io.Mask.Input("masks", optional=True,
                              tooltip="For the source masks input: one mask per object image, in their order."),
            ],
            outputs=[
                ObjectsType.Output(display_name="objects", tooltip="The same objects with the new masks."),
                io.Mask.Output(display_name="masks", tooltip="The new masks, one per object image."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, objects, source, threshold, min_confidence=0.85, min_iou=0.25, sam_model=None, vae=None, masks=None
    ) -> io.NodeOutput:
        changed = new_masks(objects, source, threshold, min_confidence, min_iou, sam_model, vae, masks)
        return io.NodeOutput(changed, mask_batch(changed))


class LMDSAMLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LMDSAMLoader",
            display_name="Load SAM Model (LMD)",
            category=CATEGORY,
            description=f"Loads Segment Anything for LMD Object Masks. Put {sam.FILES} into models/sams.",
            search_aliases=["SAMLoader", "segment anything loader"],
            inputs=[io.Combo.Input("sam_name", options=sam.names(), tooltip="A file in models/sams (.pth or .safetensors).")],
            outputs=[SamType.Output(display_name="sam_model", tooltip="For LMD Object Masks.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, sam_name) -> io.NodeOutput:
        return io.NodeOutput(sam.load(sam_name))


NODES = [BoxGroundedSampler, LMDObjectMasks, LMDObjectImages, LMDSAMLoader]
