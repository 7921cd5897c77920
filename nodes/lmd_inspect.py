"""Pictures that show what LMD did: every object's own run on a contact sheet, and attention over image and time."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..lmd.pictures.attention_record import AttentionRecord, record_of
from ..lmd.pictures.layout_picture import to_tensor
from ..lmd.pictures.sheets import attention_frame, attention_sheet, contact_sheet
from .host.guidance.attention_recorder import recorded
from .host.lmd.masks import decode
from .lmd_options import CATEGORY
from .types import AttentionType, LayoutType, ObjectsType

SHEET, FILM = "sheet", "film"


class LMDContactSheet(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LMDContactSheet",
            display_name="LMD Contact Sheet",
            category=CATEGORY,
            description="One picture of everything that the first stage made: each object alone with its box, its mask, "
            "where its word was attended to, and its guidance energy. Look here when an object is missing.",
            search_aliases=["LMD preview", "object sheet", "debug LMD", "why is my object missing"],
            inputs=[
                ObjectsType.Input("objects", tooltip="From Box Grounded Sampler, or LMD Object Masks."),
                io.Vae.Input("vae", tooltip="The VAE of the same checkpoint."),
                io.Image.Input("image", optional=True,
                               tooltip="The composed image, to show it at the top with all boxes."),
            ],
            outputs=[io.Image.Output(display_name="sheet", tooltip="One contact sheet per image of the batch.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, objects, vae, image=None) -> io.NodeOutput:
        own = decode(objects, vae) if objects.runs else None
        final = [None if image is None else image[min(b, len(image) - 1)] for b in range(objects.settings.batch)]
        return io.NodeOutput(_batch([contact_sheet(objects, own, b, f) for b, f in enumerate(final)]))


class LMDAttentionRecorder(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LMDAttentionRecorder",
            display_name="LMD Attention Recorder",
            category=CATEGORY,
            description="Records where each phrase of a layout is attended to while an image is sampled, for LMD Attention "
            "Overlay. Put it between the model and Latent Composer or any sampler; the image stays the same, bit for bit.",
            search_aliases=["attention maps", "DAAM", "cross attention", "prompt attribution"],
            inputs=[
                io.Model.Input("model", tooltip="SD1.x, SD2.x, SDXL, or a transformer such as Qwen-Image, Z-Image or Flux; guided or not."),
                io.Clip.Input("clip", tooltip="The text encoder of the same checkpoint."),
                LayoutType.Input("layout", tooltip="Phrases and boxes, from LLM Layout Planner."),
                io.String.Input("prompt", default="", multiline=True, optional=True,
                                tooltip="The positive prompt of your sampler, word for word. Empty: the layout's own, as "
                                "Latent Composer and Layout Guidance use it."),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model, for Latent Composer or any sampler."),
                io.Conditioning.Output(display_name="positive",
                                       tooltip="The prompt, encoded, for samplers that need a positive conditioning."),
                AttentionType.Output(display_name="attention", tooltip="For LMD Attention Overlay."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, model, clip, layout, prompt="") -> io.NodeOutput:
        return io.NodeOutput(*recorded(model, clip, layout, prompt))


class LMDAttentionOverlay(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LMDAttentionOverlay",
            display_name="LMD Attention Overlay",
            category=CATEGORY,
            description="Shows where each phrase was attended to, over the image and over the sampling steps, with its "
            "boxes and the share of attention inside them: are the boxes obeyed?",
            search_aliases=["attention map", "heat map", "DAAM", "are my boxes obeyed", "cross attention over time"],
            inputs=[
                io.MultiType.Input("attention", [AttentionType, ObjectsType],
                                   tooltip="From LMD Attention Recorder; or the objects of Box Grounded Sampler, which "
                                   "keep their attention anyway."),
                io.Image.Input("image", optional=True,
                               tooltip="The image that was sampled with the recording model: makes this node wait for it, "
                               "and lies below the attention. For objects: the images of LMD Object Images."),
                io.Combo.Input("show", options=[SHEET, FILM], default=SHEET,
                               tooltip="sheet: a row per phrase, some steps beside each other, one sheet per image. film: "
                               "every step as a frame, for a video node; of the first image."),
                io.Int.Input("columns", default=5, min=1, max=16,
                             tooltip="How many steps a sheet shows, the first and the last among them."),
            ],
            outputs=[io.Image.Output(display_name="overlay", tooltip="The sheets, or the film's frames.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, attention, show, columns, image=None) -> io.NodeOutput:
        record = attention if isinstance(attention, AttentionRecord) else record_of(attention)
        if show == FILM and record.looks:
            return io.NodeOutput(_batch([attention_frame(record, look, image, 0) for look in record.looks]))
        batch = len(record.looks[0].maps) if record.looks else 1
        return io.NodeOutput(_batch([attention_sheet(record, image, b, columns) for b in range(batch)]))


def _batch(pictures: list) -> torch.Tensor:
    """PIL pictures of one size as IMAGE [N, H, W, 3]."""
    return torch.cat([to_tensor(p) for p in pictures])


NODES = [LMDContactSheet, LMDAttentionRecorder, LMDAttentionOverlay]
