"""The layout editor: a planner's layout, or an empty canvas, corrected by hand before it is sampled."""

from __future__ import annotations

from comfy_api.latest import io

from ..lmd.convert import user_edits
from ..lmd.pictures.layout_picture import as_image
from ..lmd.prompts import overall_negative, overall_prompt
from .host.ui import editor_view
from .types import LayoutType


class LayoutEditor(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LayoutEditor",
            display_name="LMD Layout Editor",
            category="LMD",
            description="Shows a layout on a canvas and lets you move, resize, add, delete, rename and reorder its boxes "
            "before they are sampled. Your edits win until a new layout arrives. Without a layout it draws one from "
            "scratch.",
            search_aliases=[
                "edit boxes",
                "draw bounding boxes",
                "box editor",
                "bbox canvas",
                "regional prompt editor",
                "nudge boxes",
            ],
            inputs=[
                LayoutType.Input(
                    "layout",
                    optional=True,
                    tooltip="The layout to edit, for instance from LLMLayoutPlanner. A new one replaces the canvas; "
                    "until then your edits win. Unconnected, you draw on an empty canvas.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="A picture to lay behind the boxes. It is only shown. The last result of this graph can "
                    "be chosen in the node, without a connection.",
                ),
                io.String.Input(
                    "edits",
                    multiline=True,
                    default="",
                    optional=True,
                    socketless=True,
                    tooltip='Your edits as JSON, written by the canvas: {"upstream": fingerprint of the edited layout, '
                    '"layout": {"canvas": [w, h], "objects": [{"phrase": text, "box": [x, y, w, h] in 0..1}], '
                    '"background": text, "negative": text}}. Without "upstream" they always win. Empty: no edits.',
                ),
            ],
            outputs=[
                LayoutType.Output(
                    display_name="layout", tooltip="The layout as you see it on the canvas, for the samplers."
                ),
                io.String.Output(
                    display_name="overall_prompt",
                    tooltip="Background and all objects with their numbers, for the positive text encoder.",
                ),
                io.String.Output(
                    display_name="negative_prompt",
                    tooltip="The layout's negative prompt, followed by LMD's own list, for the negative text encoder.",
                ),
                io.Image.Output(display_name="picture", tooltip="The edited layout drawn as numbered boxes."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,  # so that the graph can be run up to here, before anything is sampled
            has_intermediate_output=True,
        )

    @classmethod
    def validate_inputs(cls, edits=None):
        """Edits that can't be read are refused before anything runs; the message stands at the input."""
        try:
            user_edits.read(edits or "")
        except ValueError as error:
            return _unreadable(error)
        return True

    @classmethod
    def execute(cls, layout=None, image=None, edits: str = "") -> io.NodeOutput:
        try:
            edited = user_edits.apply(layout, edits)
        except ValueError as error:
            raise ValueError(f"LMD Layout Editor: {_unreadable(error)}") from None
        overall = overall_prompt(edited.layout).prompt
        negative = overall_negative(edited.layout)
        view = editor_view(cls, layout, edited, image)
        return io.NodeOutput(edited.layout, overall, negative, as_image(edited.layout), ui=view)


def _unreadable(error: ValueError) -> str:
    return (
        f"the edits can't be used: {error}. Correct the text of the input edits (the button JSON in the node shows "
        "it), or empty it to take the layout as it comes"
    )


NODES = [LayoutEditor]
