"""Small test models with the key layout of real checkpoints, filled from a seed through the host's own classes.

The host's ordinary loaders detect them: SD1.5 by its context width 768 and 320 model channels, SDXL by its transformer
depths, and so on. Channels do not grow with depth (1x320 instead of 1, 2, 4, 4) and the VAE is a tiny autoencoder.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import comfy.ops
import comfy.sd1_clip
import comfy.taesd.taesd
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from safetensors.torch import save_file

VERSION = 4  # part of every file name: raise it when the recipe below changes
SD15, SD2, SDXL, REFINER = "sd15", "sd2", "sdxl", "refiner"

_COMMON = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "use_spatial_transformer": True,
    "legacy": False,
}
_FOUR_LEVELS = {
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": (1, 1, 1, 1),
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
}
UNETS = {
    SD15: {**_COMMON, **_FOUR_LEVELS, "context_dim": 768, "num_heads": 8, "use_linear_in_transformer": False},
    SD2: {**_COMMON, **_FOUR_LEVELS, "context_dim": 1024, "num_head_channels": 64, "use_linear_in_transformer": True},
    SDXL: {
        **_COMMON,
        "num_res_blocks": [2, 2, 2],
        "channel_mult": (1, 1, 1),
        "transformer_depth": [0, 0, 2, 2, 10, 10],
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
        "transformer_depth_middle": 10,
        "context_dim": 2048,
        "num_head_channels": 64,
        "use_linear_in_transformer": True,
        "num_classes": "sequential",
        "adm_in_channels": 2816,
    },
    REFINER: {
        **_COMMON,
        **_FOUR_LEVELS,
        "model_channels": 384,
        "transformer_depth": [0, 0, 4, 4, 4, 4, 0, 0],
        "transformer_depth_output": [0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0],
        "transformer_depth_middle": 4,
        "context_dim": 1280,
        "num_head_channels": 64,
        "use_linear_in_transformer": True,
        "num_classes": "sequential",
        "adm_in_channels": 2560,
    },
}


def folder() -> Path:
    home = os.environ.get("ELLA_LMD_HOME") or Path.home() / ".cache" / "ella-lmd"
    path = Path(home) / "test-models"
    path.mkdir(parents=True, exist_ok=True)
    return path


def fill(module: torch.nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    """A state dict for a `module` on the meta device: each tensor from a generator seeded by its own key."""
    state = {}
    for key, meta in module.state_dict().items():
        name = prefix + key
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        shape = tuple(meta.shape)
        if not meta.dtype.is_floating_point:
            continue
        if len(shape) <= 1:
            bias = key.endswith("bias") or key.endswith("shift")
            value = torch.zeros(shape) if bias else torch.ones(shape)
        else:
            fan_in = meta[0].numel()
            gain = (
                0.25
                if key.endswith(
                    ("to_out.0.weight", "proj_out.weight", "net.2.weight", "out_layers.3.weight", "out.2.weight")
                )
                else 1.0
            )
            gain = 2.0 if ".attn2.to_q" in key or ".attn2.to_k" in key else gain
            value = torch.randn(shape, generator=generator) * (gain * fan_in**-0.5)
            if "embedding" in key:
                value = torch.randn(shape, generator=generator) * 0.5
        state[name] = value.half().contiguous()
    return state


def unet_state(family: str, prefix: str = "model.diffusion_model.") -> dict[str, torch.Tensor]:
    unet = UNetModel(**UNETS[family], device="meta", dtype=torch.float32, operations=comfy.ops.disable_weight_init)
    return fill(unet, prefix)


def _write(path: Path, state: dict[str, torch.Tensor]) -> Path:
    if not path.exists():
        partial = path.with_suffix(f".{os.getpid()}.tmp")
        save_file(state, partial)
        partial.rename(path)
    return path


def sd15_checkpoint() -> Path:
    """A whole SD1.5-layout checkpoint (U-Net, CLIP-L, autoencoder); about 420 MB in half precision, built once."""
    path = folder() / f"test-sd15-v{VERSION}.safetensors"
    if path.exists():
        return path
    state = unet_state(SD15)
    config = Path(comfy.sd1_clip.__file__).with_name("sd1_clip_config.json")
    clip = comfy.sd1_clip.SDClipModel(device="meta", dtype=torch.float32, textmodel_json_config=str(config))
    state |= fill(clip.transformer, "cond_stage_model.transformer.")
    return _write(path, state | _vae_state())


def _vae_state() -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        vae = comfy.taesd.taesd.TAESD()
    return fill(vae, "first_stage_model.")


def sdxl_checkpoint() -> Path:
    """A checkpoint of SDXL's layout without text encoders, for graphs that use none; built once."""
    path = folder() / f"test-sdxl-v{VERSION}.safetensors"
    return path if path.exists() else _write(path, unet_state(SDXL) | _vae_state())


def refiner_clip() -> object:
    """The CLIP of SDXL's refiner, G alone behind the tokenizer of two, with 3 narrow layers in the place of 32."""
    import comfy.sd
    import comfy.sdxl_clip
    from comfy.supported_models_base import ClipTarget

    small = {"clip_g_model_config": {"num_hidden_layers": 3, "intermediate_size": 320}}
    target = ClipTarget(comfy.sdxl_clip.SDXLTokenizer, comfy.sdxl_clip.SDXLRefinerClipModel)
    clip = comfy.sd.CLIP(target, model_options=small)
    own = clip.cond_stage_model.clip_g.transformer
    own.load_state_dict(fill(own, ""), strict=False)
    return clip


def diffusion_model(family: str) -> Path:
    """A U-Net alone, for UNETLoader."""
    path = folder() / f"test-{family}-unet-v{VERSION}.safetensors"
    return path if path.exists() else _write(path, unet_state(family, prefix=""))
