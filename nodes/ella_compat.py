"""Nodes for graphs saved with the official ComfyUI-ELLA pack: what stands in for its nodes when that pack is absent.

They keep that pack's way of wiring (a list of embeds, an encoder with a fixed length, steps typed a second time), but
recompute at every model call like the rest of this pack: the typed steps are not needed and not used. Conditioning
made here brings the recomputation along, because in those graphs the MODEL passes no node of ELLA.
"""

from __future__ import annotations

from comfy_api.latest import io

from ..ella.schedule import RecomputeOptions
from .ella import CATEGORY
from .host.choices import one_of
from .host.ella import compat, files
from .host.ella.recompute import patch_model
from .host.ella.t5 import TRAINED_LENGTH, load_text_encoder
from .types import ConnectorType, EmbedsType, TextEncoderType

OFFICIAL = f"{CATEGORY}/saved with ComfyUI-ELLA"
DTYPES = {"auto": "as trained", "FP16": "as trained", "FP32": "float32"}


class ELLACompatTextEncoderLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ELLACompatTextEncoderLoader",
            display_name="Load T5 Text Encoder (ComfyUI-ELLA)",
            category=OFFICIAL,
            description="Stands in for 'Load T5 TextEncoder #ELLA' of the official pack. In new graphs use Load ELLA "
            "Text Encoder.",
            search_aliases=["T5TextEncoderLoader #ELLA"],
            is_deprecated=True,
            inputs=[
                io.Combo.Input(
                    "name",
                    options=files.encoder_names(),
                    tooltip="A folder or a file in models/ella_encoder, or a file in models/text_encoders.",
                ),
                io.Int.Input(
                    "max_length",
                    default=0,
                    min=0,
                    max=TRAINED_LENGTH,
                    step=16,
                    optional=True,
                    tooltip="0: exactly the tokens of the text. Otherwise: padded or cut to this many tokens.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=list(DTYPES),
                    default="auto",
                    optional=True,
                    tooltip="auto and FP16: as ELLA was trained. FP32: single precision.",
                ),
            ],
            outputs=[TextEncoderType.Output(display_name="T5_TEXT_ENCODER", tooltip="The text encoder.")],
        )

    @classmethod
    def validate_inputs(cls, name: str) -> bool | str:
        return files.missing(name, "encoder") or True

    @classmethod
    def execute(cls, name: str, max_length: int = 0, dtype: str = "auto") -> io.NodeOutput:
        one_of(dtype, DTYPES, "dtype", "ELLACompatTextEncoderLoader")
        return io.NodeOutput(load_text_encoder(name, DTYPES[dtype], max_length))


class ELLACompatTextEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ELLACompatTextEncode",
            display_name="T5 Text Encode (ComfyUI-ELLA)",
            category=OFFICIAL,
            description="Stands in for 'T5 Text Encode #ELLA' of the official pack. In new graphs use ELLA Encode.",
            search_aliases=["T5TextEncode #ELLA"],
            is_deprecated=True,
            inputs=[
                io.String.Input("text", multiline=True, dynamic_prompts=True, tooltip="The prompt."),
                TextEncoderType.Input("text_encoder", tooltip="The T5 text encoder."),
                EmbedsType.Input("embeds", optional=True, tooltip="Embeds to which this text is added."),
            ],
            outputs=[EmbedsType.Output(display_name="ELLA_EMBEDS", tooltip="The text's features.")],
        )

    @classmethod
    def execute(cls, text, text_encoder, embeds=None) -> io.NodeOutput:
        return io.NodeOutput(compat.text_embeds(text, text_encoder, embeds))


class ELLACompatSetTimesteps(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ELLACompatSetTimesteps",
            display_name="Set ELLA Timesteps (ComfyUI-ELLA)",
            category=OFFICIAL,
            description="Stands in for 'Set ELLA Timesteps' of the official pack. The timesteps are found at every "
            "model call by themselves, so nothing that is set here is used.",
            search_aliases=["SetEllaTimesteps"],
            is_deprecated=True,
            inputs=[
                io.Model.Input("model", optional=True, tooltip="Not used."),
                ConnectorType.Input("ella", tooltip="Passed on as it is."),
                io.String.Input("scheduler", default="normal", optional=True, tooltip="Not used."),
                io.Int.Input("steps", default=20, min=1, max=10000, optional=True, tooltip="Not used."),
                io.Float.Input("denoise", default=1.0, min=0.0, max=1.0, step=0.01, optional=True, tooltip="Not used."),
                io.Sigmas.Input("sigmas", optional=True, tooltip="Not used."),
            ],
            outputs=[ConnectorType.Output(display_name="ELLA", tooltip="The connector, as it came in.")],
        )

    @classmethod
    def execute(cls, ella, model=None, scheduler="normal", steps=20, denoise=1.0, sigmas=None) -> io.NodeOutput:
        return io.NodeOutput(ella)


class ELLACompatEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ELLACompatEncode",
            display_name="ELLA Encode Embeds (ComfyUI-ELLA)",
            category=OFFICIAL,
            description="Stands in for 'ELLA Encode' of the official pack. In new graphs use ELLA Encode.",
            search_aliases=["EllaEncode"],
            is_deprecated=True,
            inputs=[
                ConnectorType.Input("ella", tooltip="The connector."),
                EmbedsType.Input("embeds", tooltip="The text's features."),
            ],
            outputs=[io.Conditioning.Output(display_name="CONDITIONING", tooltip="For any sampler.")],
        )

    @classmethod
    def execute(cls, ella, embeds) -> io.NodeOutput:
        return io.NodeOutput(compat.conditioning(ella, embeds))


class ELLACompatEncodeText(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ELLACompatEncodeText",
            display_name="ELLA Text Encode (ComfyUI-ELLA)",
            category=OFFICIAL,
            description="Stands in for 'ELLA Text Encode' of the official pack. In new graphs use ELLA Encode.",
            search_aliases=["EllaTextEncode"],
            is_deprecated=True,
            inputs=[
                ConnectorType.Input("ella", tooltip="The connector."),
                TextEncoderType.Input("text_encoder", tooltip="The T5 text encoder."),
                io.String.Input("text", multiline=True, dynamic_prompts=True, tooltip="The prompt for ELLA."),
                io.Clip.Input("clip", optional=True, tooltip="Connected: CLIP's tokens follow ELLA's."),
                io.String.Input(
                    "text_clip",
                    default="",
                    multiline=True,
                    dynamic_prompts=True,
                    optional=True,
                    tooltip="The prompt for CLIP.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="CONDITIONING", tooltip="ELLA, or ELLA + CLIP."),
                io.Conditioning.Output(display_name="CLIP CONDITIONING", tooltip="CLIP alone, if it is connected."),
            ],
        )

    @classmethod
    def execute(cls, ella, text_encoder, text, clip=None, text_clip="") -> io.NodeOutput:
        return io.NodeOutput(*compat.encode_text(ella, text_encoder, text, clip, text_clip))


class ELLACompatApply(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ELLACompatApply",
            display_name="Apply ELLA (ComfyUI-ELLA)",
            category=OFFICIAL,
            description="Stands in for 'Apply ELLA' of the official pack. In new graphs use ELLA Encode and "
            "Timestep-Aware Conditioning.",
            search_aliases=["EllaApply"],
            is_deprecated=True,
            inputs=[
                io.Model.Input("model", tooltip="A Stable Diffusion 1.5 model."),
                ConnectorType.Input("ella", tooltip="The connector."),
                EmbedsType.Input("positive", tooltip="Features of the prompt."),
                EmbedsType.Input("negative", tooltip="Features of the negative prompt."),
                io.Sigmas.Input("sigmas", optional=True, tooltip="Not used: the sampler's own sigmas count."),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="For the sampler."),
                io.Conditioning.Output(display_name="positive", tooltip="For the sampler."),
                io.Conditioning.Output(display_name="negative", tooltip="For the sampler."),
            ],
        )

    @classmethod
    def execute(cls, model, ella, positive, negative, sigmas=None) -> io.NodeOutput:
        sides = (compat.conditioning(ella, embeds) for embeds in (positive, negative))
        return io.NodeOutput(patch_model(model, RecomputeOptions()), *sides)


class ELLACompatCombineEmbeds(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ELLACompatCombineEmbeds",
            display_name="ELLA Combine Embeds (ComfyUI-ELLA)",
            category=OFFICIAL,
            description="Stands in for 'ELLA Combine Embeds' of the official pack: puts embeds of different kinds "
            "together; of one kind, the added one counts.",
            search_aliases=["EllaCombineEmbeds"],
            is_deprecated=True,
            inputs=[
                EmbedsType.Input("embeds", tooltip="Embeds."),
                EmbedsType.Input("embeds_add", tooltip="Embeds to add."),
            ],
            outputs=[EmbedsType.Output(display_name="ELLA_EMBEDS", tooltip="Both together.")],
        )

    @classmethod
    def execute(cls, embeds, embeds_add) -> io.NodeOutput:
        return io.NodeOutput(embeds | embeds_add)


class ELLACompatCombineClip(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ELLACompatCombineClip",
            display_name="Combine CLIP & ELLA Embeds (ComfyUI-ELLA)",
            category=OFFICIAL,
            description="Stands in for 'Combine CLIP & ELLA Embeds' of the official pack. In new graphs connect CLIP "
            "to ELLA Encode.",
            search_aliases=["CombineClipEllaEmbeds", "ConcatConditionEllaEmbeds"],
            is_deprecated=True,
            inputs=[
                io.Conditioning.Input("cond", tooltip="CLIP's conditioning; its first entry is used."),
                EmbedsType.Input("embeds", tooltip="Embeds to which it is added."),
            ],
            outputs=[EmbedsType.Output(display_name="ELLA_EMBEDS", tooltip="Both together.")],
        )

    @classmethod
    def execute(cls, cond, embeds) -> io.NodeOutput:
        return io.NodeOutput(compat.clip_embeds(cond) | embeds)


class ELLACompatFromConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ELLACompatFromConditioning",
            display_name="Condition to ELLA Embeds (ComfyUI-ELLA)",
            category=OFFICIAL,
            description="Stands in for 'Convert Condition to ELLA Embeds' of the official pack. In new graphs connect "
            "CLIP to ELLA Encode.",
            search_aliases=["ConditionToEllaEmbeds"],
            is_deprecated=True,
            inputs=[io.Conditioning.Input("cond", tooltip="CLIP's conditioning; its first entry is used.")],
            outputs=[EmbedsType.Output(display_name="ELLA_EMBEDS", tooltip="The same as embeds.")],
        )

    @classmethod
    def execute(cls, cond) -> io.NodeOutput:
        return io.NodeOutput(compat.clip_embeds(cond))


NODES = [
    ELLACompatTextEncoderLoader,
    ELLACompatTextEncode,
    ELLACompatSetTimesteps,
    ELLACompatEncode,
    ELLACompatEncodeText,
    ELLACompatApply,
    ELLACompatCombineEmbeds,
    ELLACompatCombineClip,
    ELLACompatFromConditioning,
]
