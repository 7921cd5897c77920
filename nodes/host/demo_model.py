"""The demo model in the host's own classes: UNetModel or NextDiT, CLIPTextModel, AutoencoderKL; see `demo/model.py`.

The file of weights is small because its text encoder knows only the tokens of the training captions: a table of their
ids and one row each, row 0 standing for every other token. Loading spreads the rows over the host's full table, so the
CLIP that users get is an ordinary one with SD1's tokenizer and 77 positions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.clip_model
import comfy.gligen
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.utils
import folder_paths
import torch
from comfy.ldm.lumina.model import NextDiT
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, UNetModel
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer, SDClipModel
from comfy.supported_models_base import BASE, ClipTarget

from ...demo import latents, model
from . import model_files
from .choices import one_of

UNET, TEXT, VAE, VOCABULARY = "model.diffusion_model.", "cond_stage_model.", "first_stage_model.", "vocabulary"
"""Prefixes of the weights in the file, named as in SD1.5's checkpoints, and the key of the table of token ids."""
REMEDY = "It comes with this pack: install the pack again."
UNET_MODEL, TRANSFORMER_MODEL = MODELS = ("U-Net", "transformer")


class LatentFormat(comfy.latent_formats.SD15):
    """SD1.5's latent scale, with previews in the demo model's own colours."""

    def __init__(self) -> None:
        super().__init__(model.LATENT_SCALE)
        factors, bias = latents.rgb_factors()
        self.latent_rgb_factors, self.latent_rgb_factors_bias = factors.tolist(), bias.tolist()
        self.taesd_decoder_name = None


class ModelConfig(BASE):
    """What the host's BaseModel asks about a model: noise prediction with SD's schedule, which are its defaults."""

    unet_extra_config = {}
    latent_format = LatentFormat
    memory_usage_factor = 1.0


class TransformerConfig(ModelConfig):
    """The same about the transformer: a straight flow, as Lumina 2's, with times that are not shifted."""

    sampling_settings = {"multiplier": 1.0, "shift": 1.0}

    def get_model(self, state_dict, prefix="", device=None):  # noqa: ARG002 (the host's signature)
        """The host's wrapper of NextDiT."""
        return comfy.model_base.Lumina2(self, device=device)


class TextModel(SD1ClipModel):
    """SD1ClipModel around the small text encoder."""

    def __init__(self, device="cpu", dtype=None, model_options={}):  # noqa: B006 (the host's signature)
        encoder: Any = functools.partial(
            SDClipModel, textmodel_json_config=dict(model.TEXT), return_projected_pooled=False
        )
        super().__init__(device=device, dtype=dtype, model_options=model_options, clip_model=encoder)


def load(
    path: Path | None = None, kind: str = UNET_MODEL
) -> tuple[comfy.model_patcher.ModelPatcher, comfy.sd.CLIP, comfy.sd.VAE]:
    """MODEL, CLIP and VAE of the demo model, as a checkpoint loader gives them; `kind` is one of MODELS.

    Both denoisers share the text encoder and the autoencoder of `path` (by default the shipped file).

    Raises:
        FileNotFoundError: there is no file of weights.
        ValueError: the file is damaged or another one, or there is no such kind.
    """
    kind = one_of(kind, MODELS, "architecture", "LMD Demo Model")
    path = path or model.WEIGHTS
    state = _read(path, VOCABULARY)
    vae = comfy.sd.VAE(sd=_part(state, VAE), config={"params": model.VAE})
    denoiser = state if kind == UNET_MODEL else _read(model.TRANSFORMER_WEIGHTS, f"{UNET}x_embedder.weight")
    return _load_denoiser(_part(denoiser, UNET), kind), _load_text(_part(state, TEXT), state[VOCABULARY]), vae


def load_gligen(path: Path | None = None) -> comfy.model_patcher.ModelPatcher:
    """The GLIGEN adapter of the demo model's U-Net, as GLIGENLoader gives one.

    Raises:
        FileNotFoundError: there is no file of weights.
        ValueError: the file is damaged or another one.
    """
    state = _read(path or model.GLIGEN_WEIGHTS, "position_net.null_positive_feature")
    network = comfy.gligen.load_gligen({k: v.float() for k, v in state.items()})
    device, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    return comfy.model_patcher.CoreModelPatcher(network, load_device=device, offload_device=offload)


def _read(path: Path, wanted: str) -> dict[str, torch.Tensor]:
    """The tensors of one of this model's files, which must hold the key `wanted`."""
    if not path.exists():
        raise FileNotFoundError(
            f"The demo model's weights are missing: no file {path}. They come with the repository; to train them again, "
            "see demo/README.md."
        )
    state, _ = model_files.load(str(path), REMEDY)
    if wanted not in state:
        raise model_files.wrong_kind(str(path), state, "the demo model", REMEDY)
    model_files.check_numbers(str(path), state, [k for k in state if k != VOCABULARY], REMEDY)
    return state


def _part(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return comfy.utils.state_dict_prefix_replace(dict(state), {prefix: ""}, filter_keys=True)


def _load_denoiser(state: dict[str, torch.Tensor], kind: str) -> comfy.model_patcher.ModelPatcher:
    unet = kind == UNET_MODEL
    config = (
        ModelConfig({**model.UNET, "use_temporal_attention": False}) if unet else TransformerConfig(model.TRANSFORMER)
    )
    config.set_inference_dtype(torch.float32, None)  # on every device: at this size half precision gains nothing
    base = config.get_model(state)
    device, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    patcher = comfy.model_patcher.CoreModelPatcher(base, load_device=device, offload_device=offload)
    base.to(offload)
    base.load_model_weights({k: v.float() for k, v in state.items()}, "", assign=patcher.is_dynamic())
    return patcher


def _load_text(state: dict[str, torch.Tensor], vocabulary: torch.Tensor) -> comfy.sd.CLIP:
    key = "text_model.embeddings.token_embedding.weight"
    rows = state[key]
    table = rows[:1].expand(49408, -1).clone()
    table[vocabulary.long()] = rows[1:]
    state = {**state, key: table, "text_projection.weight": torch.eye(model.CONTEXT, dtype=rows.dtype)}
    return comfy.sd.CLIP(
        ClipTarget(SD1Tokenizer, TextModel),
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        parameters=comfy.utils.calculate_parameters(state),
        state_dict=[state],
    )


# ---------------------------------------------------------------------------------------------- for the training


def empty_vae() -> AutoencoderKL:
    """The autoencoder without meaningful weights; call `initialise` or load a state dict."""
    return AutoencoderKL(**model.VAE)


def empty_unet() -> UNetModel:
    """The denoiser without meaningful weights, in float32."""
    return UNetModel(**model.UNET, dtype=torch.float32, device="cpu", operations=comfy.ops.disable_weight_init)


def empty_transformer() -> NextDiT:
    """The transformer without meaningful weights, in float32."""
    return NextDiT(**model.TRANSFORMER, dtype=torch.float32, device="cpu", operations=comfy.ops.disable_weight_init)


def text_state() -> dict[str, torch.Tensor]:
    """The shipped text encoder's weights as they lie in the file, with its `VOCABULARY` of token ids."""
    state, _ = model_files.load(str(model.WEIGHTS), REMEDY)
    text = comfy.utils.state_dict_prefix_replace(dict(state), {TEXT: ""}, filter_keys=True)
    return {**text, VOCABULARY: state[VOCABULARY]}


def empty_text(vocabulary: int) -> comfy.clip_model.CLIPTextModel:
    """The text encoder without meaningful weights; its embeddings are the unknown token and `vocabulary` known ones."""
    text = comfy.clip_model.CLIPTextModel(model.TEXT, torch.float32, "cpu", comfy.ops.disable_weight_init)
    text.set_input_embeddings(comfy.ops.disable_weight_init.Embedding(vocabulary + 1, model.CONTEXT))
    return text


def initialise(module: torch.nn.Module) -> None:
    """Random starting weights for training: the host's layers leave theirs uninitialised.

    Residual branches of the denoiser start at zero, as in the original latent diffusion code.
    """
    for layer in module.modules():
        for kind in (torch.nn.Conv2d, torch.nn.Linear, torch.nn.GroupNorm, torch.nn.LayerNorm):
            if isinstance(layer, kind):
                reset: Callable = kind.reset_parameters  # PyTorch's own: the host's layers do nothing when asked
                reset(layer)
        if isinstance(layer, torch.nn.Embedding):
            torch.nn.init.normal_(layer.weight, std=0.02 if layer.weight.shape[0] == 77 else 0.5)
    last = {
        ResBlock: lambda m: m.out_layers[-1],
        SpatialTransformer: lambda m: m.proj_out,
        UNetModel: lambda m: m.out[-1],
    }
    for layer in module.modules():
        for kind, part in last.items():
            if isinstance(layer, kind):
                torch.nn.init.zeros_(part(layer).weight)
                torch.nn.init.zeros_(part(layer).bias)


def tokenise() -> Callable[[str], list[int]]:
    """A function from text to the 77 token ids that the host's SD1 tokenizer gives it."""
    tokenizer = SD1Tokenizer()

    def ids(text: str) -> list[int]:
        return [token for token, _ in tokenizer.tokenize_with_weights(text)["l"][0]]

    return ids
