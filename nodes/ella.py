"""ELLA's nodes: two loaders, text to conditioning, and the model patch that makes it follow the timestep."""

from __future__ import annotations

from comfy_api.latest import io

from ..ella.schedule import SCHEDULES, RecomputeOptions
from .host.choices import one_of
from .host.ella import files
from .host.ella.connector import load_connector
from .host.ella.encode import LENGTHS, MODES, TOGETHER, encode, encode_clip
from .host.ella.recompute import patch_model
from .host.ella.t5 import PRECISIONS, load_text_encoder
from .types import ConnectorType, TextEncoderType

CATEGORY = "ELLA"

files.register_folders()


class ELLAModelLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ELLAModelLoader",
            display_name="Load ELLA Model",
            category=CATEGORY,
            description="Loads ELLA's connector, which turns the text encoder's features into conditioning for a "
            "Stable Diffusion 1.5 model, differently at every timestep.",
            search_aliases=["ELLALoader", "timestep-aware semantic connector", "TSC"],
            inputs=[
                io.Combo.Input(
                    "ella_name",
                    options=files.connector_names(),
                    tooltip=f"A file in models/ella, usually {files.CONNECTOR_FILE}.",
                ),
            ],
            outputs=[ConnectorType.Output(display_name="ella", tooltip="For ELLAEncode.")],
        )

    @classmethod
    def validate_inputs(cls, ella_name: str) -> bool | str:
        return files.missing(ella_name, "connector") or True

    @classmethod
    def execute(cls, ella_name: str) -> io.NodeOutput:
        return io.NodeOutput(load_connector(ella_name))


class ELLATextEncoderLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ELLATextEncoderLoader",
            display_name="Load ELLA Text Encoder",
            category=CATEGORY,
            description="Loads the encoder of FLAN-T5-XL, which reads the prompt for ELLA. The tokenizer comes with "
            "ComfyUI; nothing is downloaded.",
            search_aliases=["T5TextEncoderLoader #ELLA", "flan-t5-xl", "T5 encoder"],
            inputs=[
                io.Combo.Input(
                    "encoder_name",
                    options=files.encoder_names(),
                    tooltip="A folder or a file in models/ella_encoder, or a file in models/text_encoders: FLAN-T5-XL, "
                    "whole or encoder only, in fp32, fp16, bf16 or fp8.",
                ),
                io.Combo.Input(
                    "precision",
                    options=list(PRECISIONS),
                    default=PRECISIONS[0],
                    advanced=True,
                    tooltip="'as trained' computes like the half-precision encoder that ELLA was trained with, "
                    "including its limited range. 'float32' is slower and gives slightly different images.",
                ),
            ],
            outputs=[TextEncoderType.Output(display_name="text_encoder", tooltip="For ELLAEncode.")],
        )

    @classmethod
    def validate_inputs(cls, encoder_name: str) -> bool | str:
        return files.missing(encoder_name, "encoder") or True

    @classmethod
    def execute(cls, encoder_name: str, precision: str = PRECISIONS[0]) -> io.NodeOutput:
        return io.NodeOutput(load_text_encoder(encoder_name, precision))


class ELLAEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ELLAEncode",
            display_name="ELLA Encode",
            category=CATEGORY,
            description="Encodes a prompt with ELLA, so that long descriptions are understood. The result goes into "
            "any sampler; put TimestepAwareConditioning on the model, so that it follows the timestep.",
            search_aliases=["EllaEncode", "EllaTextEncode", "T5TextEncode #ELLA", "long prompt", "prompt"],
            inputs=[
                ConnectorType.Input("ella", tooltip="From Load ELLA Model."),
                TextEncoderType.Input("text_encoder", tooltip="From Load ELLA Text Encoder."),
                io.String.Input(
                    "text",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="The prompt, best as whole sentences that name colours, shapes and positions. (word:1.2) "
                    "gives a weight; write \\( and \\) for literal parentheses.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="The checkpoint's CLIP, after any LoRA. Needed in the mode 'ELLA + CLIP'.",
                ),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default=TOGETHER,
                    tooltip="'ELLA + CLIP' gives the model ELLA's tokens followed by CLIP's: trigger words, embeddings "
                    "and styles keep working. 'ELLA only' gives ELLA's tokens alone. Use the same for both prompts.",
                ),
                io.String.Input(
                    "clip_text",
                    multiline=True,
                    dynamic_prompts=True,
                    default="",
                    optional=True,
                    tooltip="What CLIP reads: trigger words, embeddings, tags. Left empty, CLIP reads the prompt.",
                ),
                io.Combo.Input(
                    "length",
                    options=list(LENGTHS),
                    default=next(iter(LENGTHS)),
                    optional=True,
                    advanced=True,
                    tooltip="'flexible' uses exactly the tokens of the text, as long as it may be. 'fixed 128' pads to "
                    "128 tokens as in training, and cuts what is longer with a warning in the log.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="conditioning", tooltip="For a sampler's positive or negative.")
            ],
        )

    @classmethod
    def execute(cls, ella, text_encoder, text, clip=None, mode=TOGETHER, clip_text="", length="flexible"):
        one_of(mode, MODES, "mode", "ELLAEncode")
        one_of(length, LENGTHS, "length", "ELLAEncode")
        read_by_clip = encode_clip(clip, clip_text or text) if mode == TOGETHER else None
        return io.NodeOutput(encode(ella, text_encoder, text, LENGTHS[length], read_by_clip))


class TimestepAwareConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="TimestepAwareConditioning",
            display_name="Timestep-Aware Conditioning",
            category=CATEGORY,
            description="Makes ELLA conditioning follow the timestep: it is computed again for the sigma of every model "
            "call, with any sampler, scheduler and denoise, on the positive side, the negative side or both. "
            "Conditioning without ELLA is not touched.",
            search_aliases=["SetEllaTimesteps", "EllaApply", "ELLA timesteps"],
            inputs=[
                io.Model.Input("model", tooltip="A Stable Diffusion 1.5 model, with LoRAs and other patches."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="1: the conditioning of each timestep. 0: that of one middle timestep throughout, as "
                    "without this node. Between them: a blend.",
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    advanced=True,
                    tooltip="Where in the diffusion process (0 = pure noise) the conditioning begins to follow.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    advanced=True,
                    tooltip="Where in the diffusion process (1 = finished image) it stops following.",
                ),
                io.Combo.Input(
                    "schedule",
                    options=list(SCHEDULES),
                    default=SCHEDULES[0],
                    advanced=True,
                    tooltip="How the strength runs between start and end: the same throughout, rising from 0, or "
                    "falling to 0.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="For the sampler.")],
        )

    @classmethod
    def execute(cls, model, strength=1.0, start_percent=0.0, end_percent=1.0, schedule=SCHEDULES[0]) -> io.NodeOutput:
        return io.NodeOutput(patch_model(model, RecomputeOptions(strength, start_percent, end_percent, schedule)))


NODES = [ELLAModelLoader, ELLATextEncoderLoader, ELLAEncode, TimestepAwareConditioning]
