"""LMD stage 1: the layout planner, the request for a language model of the user's own, and the layout as a picture."""

from __future__ import annotations

from comfy_api.latest import io

from ..lmd import instruct
from ..lmd.parse import parse, parse_strict, to_layout
from ..lmd.picture import as_image
from ..lmd.prompts import OVERALL_NEGATIVE, overall_prompt, with_negative
from ..lmd.quality import tidy
from .host.layout_view import view
from .types import LayoutType

CATEGORY = "LMD"
OFFLINE, REPLY = "offline planner", "reply text"
TOLERANT, STRICT = "tolerant", "strict"


def _size(name: str) -> io.Int.Input:
    return io.Int.Input(
        name, default=512, min=64, max=16384, step=8, tooltip=f"Canvas {name} in pixels, the size of the final image."
    )


def _layout_of(prompt: str, width: int, height: int, source: dict):
    if source["source"] == OFFLINE:
        from ..lmd.offline import plan

        return plan(prompt, width, height)
    strict = source.get("parser") == STRICT
    reply = (parse_strict if strict else parse)(source.get("reply") or "")
    layout = to_layout(reply, width, height, prompt.strip(), exact=strict)
    return layout if strict else tidy(layout)


class LLMLayoutPlanner(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LLMLayoutPlanner",
            display_name="LLM Layout Planner",
            category=CATEGORY,
            description="Turns a prompt into a layout: one captioned box per object, a background prompt and a "
            "negative "
            "prompt. The offline planner needs no language model; a reply of any language model can be used instead.",
            search_aliases=[
                "LMD",
                "layout",
                "bounding boxes",
                "LLM-grounded diffusion",
                "regional prompt",
                "scene graph",
            ],
            inputs=[
                io.String.Input(
                    "prompt",
                    multiline=True,
                    default="A watercolor painting of two cats on a wooden table next to a window",
                    tooltip="What the image should show, in English sentences: things, how many, what they look like, "
                    "where they are, the place, the style, and what must not appear.",
                ),
                _size("width"),
                _size("height"),
                io.DynamicCombo.Input(
                    "source",
                    options=[
                        io.DynamicCombo.Option(OFFLINE, []),
                        io.DynamicCombo.Option(
                            REPLY,
                            [
                                io.String.Input(
                                    "reply",
                                    multiline=True,
                                    default="",
                                    tooltip="A language model's whole answer, connected from any node that gives "
                                    "text or "
                                    "pasted from a chat. LMDLayoutInstruction builds the question. JSON works as well.",
                                ),
                                io.Combo.Input(
                                    "parser",
                                    options=[TOLERANT, STRICT],
                                    default=TOLERANT,
                                    advanced=True,
                                    tooltip="tolerant understands code fences, talk around the answer and JSON, and "
                                    "mends "
                                    "boxes; strict is the published grammar and box filter (512 x 512 boxes), for "
                                    "comparing.",
                                ),
                            ],
                        ),
                    ],
                    tooltip="offline planner: built in, needs nothing. reply text: the answer of a language model.",
                ),
            ],
            outputs=[
                LayoutType.Output(
                    display_name="layout", tooltip="Boxes and prompts for the LMD and layout guidance nodes."
                ),
                io.String.Output(
                    display_name="overall_prompt",
                    tooltip="Background and all objects with their numbers, for the positive text encoder.",
                ),
                io.String.Output(display_name="background_prompt", tooltip="The place and the style alone."),
                io.String.Output(
                    display_name="negative_prompt",
                    tooltip="What the prompt rules out, followed by LMD's own list, for the negative text encoder.",
                ),
                io.BoundingBox.Output(
                    display_name="bboxes",
                    tooltip="The boxes in pixels, phrases in label and metadata, for other box nodes.",
                ),
                io.Image.Output(display_name="picture", tooltip="The layout drawn as numbered boxes."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, prompt: str, width: int, height: int, source: dict) -> io.NodeOutput:
        layout = _layout_of(prompt, width, height, source)
        overall = overall_prompt(layout).prompt
        negative = with_negative(layout.negative, OVERALL_NEGATIVE)
        picture = as_image(layout)
        boxes = layout.to_bounding_boxes()
        return io.NodeOutput(
            layout, overall, layout.background, negative, boxes, picture, ui=view(cls, picture, layout.notes)
        )


class LMDLayoutInstruction(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LMDLayoutInstruction",
            display_name="LMD Layout Instruction",
            category=CATEGORY,
            description="Builds the question that makes a language model write a layout. Give it to any text node or "
            "paste "
            "it into a chat, then bring the answer to LLMLayoutPlanner as reply text.",
            search_aliases=["LMD prompt template", "layout prompt", "LLM instruction", "in-context examples"],
            inputs=[
                io.String.Input("prompt", multiline=True, default="", tooltip="What the image should show."),
                _size("width"),
                _size("height"),
                io.Int.Input(
                    "examples",
                    default=len(instruct.EXAMPLES),
                    min=0,
                    max=len(instruct.EXAMPLES),
                    tooltip="Worked examples in the question. Small models need all of them; strong ones do with 1.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="instruction", tooltip='The whole question; it ends in "Objects:".'),
            ],
        )

    @classmethod
    def execute(cls, prompt: str, width: int, height: int, examples: int) -> io.NodeOutput:
        return io.NodeOutput(instruct.text(prompt, width, height, examples))


class LMDLayoutPreview(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LMDLayoutPreview",
            display_name="LMD Layout Preview",
            category=CATEGORY,
            description="Draws a layout as numbered boxes with its background and negative prompt.",
            search_aliases=["show layout", "draw bounding boxes", "layout picture"],
            inputs=[LayoutType.Input("layout", tooltip="A layout, for instance from LLMLayoutPlanner.")],
            outputs=[io.Image.Output(display_name="picture", tooltip="The layout drawn as numbered boxes.")],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, layout) -> io.NodeOutput:
        picture = as_image(layout)
        return io.NodeOutput(picture, ui=view(cls, picture, layout.notes))


NODES = [LLMLayoutPlanner, LMDLayoutInstruction, LMDLayoutPreview]
