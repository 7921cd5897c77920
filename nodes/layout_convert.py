"""Layouts from and to what other nodes speak: bounding boxes, box elements, text, masks and regional conditioning."""

from __future__ import annotations

from comfy_api.latest import io

from ..lmd.convert.boxes import canvas_for, layout_from, layout_of
from ..lmd.convert.masks import regions_of_masks, to_masks
from ..lmd.convert.regions import only, to_captions, to_elements, to_json_text, to_reply
from ..lmd.pictures.layout_picture import as_image
from ..lmd.prompts import overall_negative, overall_prompt
from .host.lmd import regional_conditioning
from .host.ui import view
from .lmd_options import CATEGORY
from .types import LayoutType, canvas_side

_LAYOUT = "A layout, for instance from LLM Layout Planner."
_CANVAS = "on which the boxes are counted. Ignored when an image is connected."


def _text_inputs() -> list:
    return [
        io.String.Input("background", default="", multiline=True, optional=True,
                        tooltip="The place and the style, such as: A watercolor painting of a park."),
        io.String.Input("negative", default="", multiline=True, optional=True, advanced=True,
                        tooltip="What must not appear."),
    ]  # fmt: skip


def _layout_outputs() -> list:
    return [
        LayoutType.Output(display_name="layout", tooltip="For the LMD and layout guidance nodes."),
        io.Image.Output(display_name="picture", tooltip="The layout drawn as numbered boxes."),
    ]


def _shown(cls, layout) -> io.NodeOutput:
    picture = as_image(layout)
    return io.NodeOutput(layout, picture, ui=view(cls, picture, layout.notes))


class LMDLayoutFromBoxes(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LMDLayoutFromBoxes",
            display_name="LMD Layout from Boxes",
            category=CATEGORY,
            description="Makes a layout from boxes of other nodes: detections (RT-DETR, SAM 3, faces), Create Bounding "
            "Boxes, box elements, or their text. So an image becomes a layout that you can edit and draw again.",
            search_aliases=["bounding box to layout", "bbox", "detection to layout", "image to layout", "elements"],
            inputs=[
                io.MultiType.Input("boxes", [io.BoundingBox, io.Array, io.String],
                                   tooltip="Bounding boxes in pixels, the elements of Create Bounding Boxes (0 to 1000, "
                                   "which carry the descriptions), or text: JSON of either, layout JSON, or a language "
                                   "model's reply."),
                io.String.Input("captions", default="", multiline=True, optional=True,
                                tooltip="One line per box, in the boxes' order, or one line for all of them. Empty: the "
                                "boxes' own labels and descriptions."),
                canvas_side("width", _CANVAS),
                canvas_side("height", _CANVAS),
                *_text_inputs(),
                io.Int.Input("frame", default=0, min=0, max=4096, optional=True, advanced=True,
                             tooltip="Which image's boxes, when they are of a batch of images; counted from 0."),
                io.Image.Input("image", optional=True,
                               tooltip="The image that the boxes were found in; the canvas takes its size, rounded to "
                               "multiples of 8."),
            ],
            outputs=_layout_outputs(),
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, boxes, width, height, captions="", background="", negative="", frame=0, image=None
    ) -> io.NodeOutput:
        pixels = (width, height) if image is None else (image.shape[2], image.shape[1])
        canvas = pixels if image is None else canvas_for(*pixels)
        layout = layout_from(boxes, *canvas, captions, background, negative, frame, pixels)
        return _shown(cls, layout)


class LMDLayoutFromMasks(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LMDLayoutFromMasks",
            display_name="LMD Layout from Masks",
            category=CATEGORY,
            description="Makes a layout from a batch of masks: the smallest box around each, with a caption per mask.",
            search_aliases=["mask to bounding box", "mask to layout", "segmentation to layout", "regions"],
            inputs=[
                io.Mask.Input("masks", tooltip="One mask per object, in the order of the captions."),
                io.String.Input("captions", default="", multiline=True,
                                tooltip="One line per mask, in their order, or one line for all of them."),
                *_text_inputs(),
                io.Float.Input("threshold", default=0.5, min=0.0, max=1.0, step=0.01, optional=True, advanced=True,
                               tooltip="Pixels above this belong to the object."),
            ],
            outputs=_layout_outputs(),
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def execute(cls, masks, captions, background="", negative="", threshold=0.5) -> io.NodeOutput:
        canvas = canvas_for(masks.shape[-1], masks.shape[-2])
        found = regions_of_masks(masks, threshold)
        return _shown(cls, layout_of(found, *canvas, captions, background, negative))


class LMDLayoutToBoxes(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LMDLayoutToBoxes",
            display_name="LMD Layout to Boxes",
            category=CATEGORY,
            description="A layout's boxes for other nodes: Create Bounding Boxes, Draw BBoxes, Crop By Bounding Boxes, "
            "SAM, and models that take box elements in their prompt.",
            search_aliases=["layout to bounding box", "bbox", "elements", "Create Bounding Boxes"],
            inputs=[LayoutType.Input("layout", tooltip=_LAYOUT)],
            outputs=[
                io.BoundingBox.Output(
                    display_name="bboxes", tooltip="Boxes in pixels of the canvas, phrases as labels and descriptions."
                ),
                io.Array.Output(
                    display_name="elements", tooltip="Boxes [ymin, xmin, ymax, xmax] from 0 to 1000, with descriptions."
                ),
                io.String.Output(display_name="captions", tooltip="The phrases, one per line, in the boxes' order."),
                io.Int.Output(display_name="width", tooltip="Canvas width in pixels."),
                io.Int.Output(display_name="height", tooltip="Canvas height in pixels."),
            ],
        )

    @classmethod
    def execute(cls, layout) -> io.NodeOutput:
        return io.NodeOutput(
            layout.to_bounding_boxes(), to_elements(layout), to_captions(layout), layout.width,
            layout.height,
        )  # fmt: skip


class LMDLayoutToText(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LMDLayoutToText",
            display_name="LMD Layout to Text",
            category=CATEGORY,
            description="A layout as text: JSON to keep or edit, LMD's reply form, and the prompts that it stands for. "
            "LLM Layout Planner (source: reply text) and LMD Layout from Boxes read both forms back.",
            search_aliases=["layout to JSON", "export layout", "save layout", "layout to prompt"],
            inputs=[LayoutType.Input("layout", tooltip=_LAYOUT)],
            outputs=[
                io.String.Output(display_name="json", tooltip="The whole layout; boxes [x, y, width, height] in 0..1."),
                io.String.Output(
                    display_name="reply", tooltip="As a language model would answer; boxes in pixels of the canvas."
                ),
                io.String.Output(
                    display_name="overall_prompt", tooltip="Background and all objects, for the positive text encoder."
                ),
                io.String.Output(display_name="background_prompt", tooltip="The place and the style alone."),
                io.String.Output(
                    display_name="negative_prompt",
                    tooltip="The layout's negative prompt, followed by LMD's own list, for the negative text encoder.",
                ),
            ],
        )

    @classmethod
    def execute(cls, layout) -> io.NodeOutput:
        negative = overall_negative(layout)
        return io.NodeOutput(
            to_json_text(layout), to_reply(layout), overall_prompt(layout).prompt, layout.background,
            negative,
        )  # fmt: skip


class LMDLayoutToMasks(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LMDLayoutToMasks",
            display_name="LMD Layout to Masks",
            category=CATEGORY,
            description="A layout's boxes as masks, one per object, and the background that no box covers: for regional "
            "prompting and inpainting nodes of any pack.",
            search_aliases=["box to mask", "layout to mask", "regional mask", "bbox mask"],
            inputs=[
                LayoutType.Input("layout", tooltip=_LAYOUT),
                io.Int.Input("object", default=0, min=0, max=50,
                             tooltip="0: every object, one mask each. Another number: this object's mask alone, by its "
                             "number in the layout's picture."),
                io.Int.Input("soften", default=0, min=0, max=512,
                             tooltip="Pixels over which a mask fades towards the edge of its box; 0 is sharp."),
            ],
            outputs=[
                io.Mask.Output(display_name="masks", tooltip="One mask per object, in the size of the canvas."),
                io.Mask.Output(display_name="background", tooltip="What no box covers."),
                io.String.Output(display_name="captions", tooltip="The masks' phrases, one per line."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, layout, object, soften) -> io.NodeOutput:
        masks, background = to_masks(layout, soften)
        chosen = only(layout, object)
        masks = masks[object - 1 : object] if object else masks
        empty = background.new_zeros(background.shape)
        return io.NodeOutput(masks if len(masks) else empty, background, to_captions(chosen))


class LMDLayoutToConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        def strengths() -> list:
            return [
                io.Float.Input("strength", default=1.0, min=0.0, max=10.0, step=0.01,
                               tooltip="How much each object counts in its region."),
                io.Float.Input("base_strength", default=1.0, min=0.0, max=10.0, step=0.01,
                               tooltip="How much the prompt of the whole image counts everywhere."),
            ]  # fmt: skip

        return io.Schema(
            node_id="LMDLayoutToConditioning",
            display_name="LMD Layout to Conditioning",
            category=CATEGORY,
            description="A layout as ComfyUI's own regional conditioning, for any model and the stock KSampler: one "
            "prompt per box by area, by mask, or by GLIGEN. One node in place of a text encoder and an area node per "
            "object; LMD itself and Layout Guidance obey boxes more closely.",
            search_aliases=["regional prompt", "area conditioning", "GLIGEN", "ConditioningSetArea", "mask conditioning"],
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder of your checkpoint."),
                LayoutType.Input("layout", tooltip=_LAYOUT),
                io.DynamicCombo.Input(
                    "method",
                    options=[
                        io.DynamicCombo.Option(regional_conditioning.AREA, strengths()),
                        io.DynamicCombo.Option(regional_conditioning.MASK, [
                            *strengths(),
                            io.Int.Input("soften", default=16, min=0, max=512,
                                         tooltip="Pixels over which a mask fades towards the edge of its box."),
                            io.Boolean.Input("crop_to_mask", default=False,
                                             tooltip="Each object is drawn in the rectangle of its box alone, as with "
                                             "areas, instead of seeing the whole image."),
                        ]),
                        io.DynamicCombo.Option(regional_conditioning.GLIGEN, [
                            io.Gligen.Input("gligen_textbox_model",
                                            tooltip="From GLIGENLoader; its files are for SD1.x checkpoints."),
                        ]),
                    ],
                    tooltip="area: each prompt in its rectangle. mask: the same with soft edges. GLIGEN: one pass with "
                    "boxes that the model was trained for (SD1.x).",
                ),
                io.String.Input("prompt", default="", multiline=True, optional=True,
                                tooltip="Prompt of the whole image. Empty: background and objects of the layout."),
                io.Combo.Input("object_text", options=[regional_conditioning.PHRASE, regional_conditioning.IN_SCENE], default=regional_conditioning.PHRASE,
                               optional=True, advanced=True,
                               tooltip='What is encoded for each box: its phrase, or the phrase with the background, as '
                               "LMD does for its objects."),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="The prompt and every object in its region."),
                io.Conditioning.Output(display_name="negative",
                                       tooltip="The layout's negative prompt, followed by LMD's own list."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, clip, layout, method, prompt="", object_text=regional_conditioning.PHRASE) -> io.NodeOutput:
        positive = regional_conditioning.conditioning(clip, layout, prompt, object_text, method)
        return io.NodeOutput(positive, regional_conditioning.negative_conditioning(clip, layout))


NODES = [
    LMDLayoutFromBoxes,
    LMDLayoutFromMasks,
    LMDLayoutToBoxes,
    LMDLayoutToText,
    LMDLayoutToMasks,
    LMDLayoutToConditioning,
]
