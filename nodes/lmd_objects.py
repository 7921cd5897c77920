"""What one object of a layout has of its own, on the layout's way to the samplers."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from ..lmd.object_settings import Attached, ObjectLora, ObjectSettings
from ..lmd.prompts import object_prompts
from ..lmd.sampling.regions import numbers_of
from .host.lmd.attachments import digest
from .host.lora_files import lora_files
from .lmd_options import CATEGORY
from .types import LayoutType

NO_LORA = "none"


class LMDObjectSettings(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LMDObjectSettings",
            display_name="LMD Object Settings",
            category=CATEGORY,
            description="Gives one object of a layout a LoRA, words, a negative prompt, a seed or a conditioning of its "
            "own, for Box Grounded Sampler and Latent Composer. Put several behind each other.",
            search_aliases=["LoRA per object", "two characters", "object LoRA", "per-object prompt", "character settings"],
            inputs=[
                LayoutType.Input("layout", tooltip="From a planner or an editor, or another LMD Object Settings."),
                io.String.Input("object", default="1",
                                tooltip="Whose settings they are: a phrase of the layout, which means every object "
                                "called so, or one object's number, from 1."),
                io.Combo.Input("lora_name", options=[NO_LORA, *lora_files()],
                               tooltip="A LoRA for this object alone. More of them by more of these nodes."),
                io.Float.Input("strength_model", default=1.0, min=-20.0, max=20.0, step=0.01,
                               tooltip="How strongly the LoRA acts on the denoiser; 0 leaves it as it is."),
                io.Float.Input("strength_clip", default=1.0, min=-20.0, max=20.0, step=0.01,
                               tooltip="How strongly the LoRA acts on the text encoder; 0 leaves it as it is."),
                io.String.Input("words", default="",
                                tooltip="Words behind its phrase in its own prompt and in the whole image's, such as a "
                                "LoRA's trigger words."),
                io.String.Input("negative", default="",
                                tooltip="What it must not show: in front of the negative prompt of its own run."),
                io.Float.Input("guidance", default=1.0, min=0.0, max=20.0, step=0.05,
                               tooltip="Multiplies the guidance strength of its own run. 0: it is not guided."),
                io.Float.Input("start_percent", default=0.0, min=0.0, max=1.0, step=0.001, advanced=True,
                               tooltip="Where in its own run guidance begins."),
                io.Float.Input("end_percent", default=1.0, min=0.0, max=1.0, step=0.001, advanced=True,
                               tooltip="Where guidance of its own run ends at the latest."),
                io.Int.Input("seed", default=-1, min=-1, max=0x7FFFFFFFFFFFFFFF,
                             tooltip="The noise in its box, whatever the sampler's seed is. -1: it follows from that."),
                io.Boolean.Input("frozen", default=True,
                                 tooltip="Keep it in the composition's first steps as it was drawn alone. Off: the "
                                 "composition may redraw it from the start."),
                io.Conditioning.Input("conditioning", optional=True,
                                      tooltip="In place of its own prompt's: ControlNet, IPAdapter or ELLA on that prompt, "
                                      "which the output prompt of another LMD Object Settings gives. Not saved in JSON."),
            ],
            outputs=[
                LayoutType.Output(display_name="layout", tooltip="The layout with the object's settings."),
                io.String.Output(display_name="prompt", tooltip="The object's own prompt, for a text encoder."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, layout, object, lora_name, strength_model, strength_clip, words, negative, guidance, start_percent,
        end_percent, seed, frozen, conditioning=None,
    ) -> io.NodeOutput:  # fmt: skip
        lora = () if lora_name == NO_LORA else (ObjectLora(lora_name, strength_model, strength_clip),)
        own = ObjectSettings(
            lora, words, negative, guidance, start_percent, end_percent, None if seed < 0 else seed, frozen,
            digest(conditioning, object), Attached(conditioning),
        )  # fmt: skip
        numbers = numbers_of(layout, object)
        objects = tuple(
            replace(o, settings=o.settings.then(own)) if i in numbers else o for i, o in enumerate(layout.objects, 1)
        )
        changed = replace(layout, objects=objects)
        return io.NodeOutput(changed, next(p.prompt for p in object_prompts(changed) if p.number in numbers))


NODES = [LMDObjectSettings]
