"""A LoRA for one object of a layout, as a patch on MODEL for the stock samplers."""

from __future__ import annotations

from comfy_api.latest import io

from ..lmd.sampling.regions import numbers_of, region_of
from .host.guidance.masked_lora import MaskedLora, load_deltas, patched, words_of
from .host.lora_files import lora_files
from .lmd_options import CATEGORY
from .types import LayoutType


class LayoutLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LayoutLoRA",
            display_name="Layout LoRA",
            category=CATEGORY,
            description="Applies a LoRA only where one object of the layout is, in the sampler's one pass. Put several "
            "behind each other for several objects.",
            search_aliases=["regional LoRA", "masked LoRA", "LoRA per character", "two characters"],
            inputs=[
                io.Model.Input("model", tooltip="SD1.x, SD2.x or SDXL."),
                LayoutType.Input("layout", tooltip="Phrases and boxes. Where boxes overlap, the smaller one is in front."),
                io.String.Input("object", default="1",
                                tooltip="Whose LoRA it is: a phrase of the layout, or the object's number, from 1."),
                io.Combo.Input("lora_name", options=lora_files(),
                               tooltip="A LoRA, LoHa or LoKr for this model. DoRA and full differences can't be masked."),
                io.Float.Input("strength", default=1.0, min=-20.0, max=20.0, step=0.01,
                               tooltip="How strongly it acts. 0 leaves the model as it is."),
                io.String.Input("prompt", default="", multiline=True,
                                tooltip="The positive prompt of your sampler, word for word. Empty: the layout's own "
                                "prompt, as Layout Guidance gives it out."),
                io.Clip.Input("clip", optional=True,
                              tooltip="The text encoder of the positive prompt, to find the object's words in it. Without "
                              "it the LoRA leaves the keys and values of cross-attention alone."),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The model with the LoRA in the object's box.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, model, layout, object, lora_name, strength, prompt, clip=None) -> io.NodeOutput:
        numbers = numbers_of(layout, object)
        deltas = load_deltas(model, lora_name, strength)
        if strength == 0:
            return io.NodeOutput(model)
        words = words_of(clip, layout, prompt, numbers, lora_name)
        lora = MaskedLora(lora_name, deltas, region_of(layout, numbers), words)
        return io.NodeOutput(patched(model, [lora], (layout.width, layout.height)))


NODES = [LayoutLoRA]
