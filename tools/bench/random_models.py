"""Models for the measurements: the host's own classes at any width, with random weights, on the CPU or a GPU."""

from __future__ import annotations

from typing import Any

from ella_lmd.tools.host_setup import prepare_host

_COMMON = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "use_spatial_transformer": True, "legacy": False,
    "use_temporal_attention": False,
}  # fmt: skip
_SD15 = {
    **_COMMON, "num_res_blocks": [2, 2, 2, 2], "channel_mult": (1, 2, 4, 4),
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1, "context_dim": 768, "num_heads": 8, "num_head_channels": -1,
    "use_linear_in_transformer": False, "adm_in_channels": None,
}  # fmt: skip
_SDXL = {
    **_COMMON, "num_res_blocks": [2, 2, 2], "channel_mult": (1, 2, 4), "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10], "transformer_depth_middle": 10, "context_dim": 2048,
    "num_heads": -1, "num_head_channels": 64, "use_linear_in_transformer": True, "num_classes": "sequential",
    "adm_in_channels": 2816,
}  # fmt: skip
FULL_WIDTH = 320
SD15, SDXL = "sd15", "sdxl"
FLUX, Z_IMAGE = "flux", "z-image"
TRANSFORMERS = (FLUX, Z_IMAGE)
TEXT_WIDTH = 512
TEXT_ROWS = {FLUX: 256, Z_IMAGE: 128}


def add_device_options(parser: Any) -> None:
    """The options that every measurement of a model takes."""
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--dtype", choices=("fp32", "bf16", "fp16"), help="by default what ComfyUI takes: fp32 on the CPU, else fp16"
    )
    parser.add_argument("--threads", type=int, default=1, help="processor threads")
    parser.add_argument("--reserve-vram", type=float, help="GiB that ComfyUI must leave free, to play a smaller card")


def find_host(args: Any) -> None:
    """Make ComfyUI and this pack importable, as the options say; call it before any module of theirs is imported."""
    args.dtype = args.dtype or ("fp32" if args.device == "cpu" else "fp16")
    reserve = [] if args.reserve_vram is None else ["--reserve-vram", str(args.reserve_vram)]
    prepare_host(*reserve, device=args.device, threads=args.threads)


def dtype_of(name: str) -> Any:
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def unet_config(family: str, width: int = FULL_WIDTH) -> dict:
    """The U-Net of a family; `width` is the channels of its first level (320 in the published models)."""
    return {**(_SD15 if family == SD15 else _SDXL), "model_channels": width}


def transformer_config(family: str, width: int = FULL_WIDTH) -> dict:
    """A transformer of the layout of a family: its blocks in the published proportion, heads of 128, twice `width` wide.

    FLUX.1 has 19 double and 38 single blocks of 3072, Z-Image 30 of 3840: too much for a processor, so ratios count.
    """
    wide = 2 * width // 128 * 128
    if family == FLUX:
        return {
            "in_channels": 16, "out_channels": 16, "patch_size": 2, "context_in_dim": TEXT_WIDTH, "vec_in_dim": 768,
            "hidden_size": wide, "mlp_ratio": 4.0, "num_heads": wide // 128, "depth": 4, "depth_single_blocks": 8,
            "axes_dim": [16, 56, 56], "theta": 10000, "qkv_bias": True, "guidance_embed": True, "txt_ids_dims": [],
        }  # fmt: skip
    return {
        "in_channels": 16, "patch_size": 2, "dim": wide, "n_layers": 12, "n_refiner_layers": 2, "n_heads": wide // 128,
        "n_kv_heads": wide // 128, "multiple_of": 256, "ffn_dim_multiplier": 8 / 3, "qk_norm": True,
        "cap_feat_dim": TEXT_WIDTH, "axes_dims": [32, 48, 48], "axes_lens": [1536, 512, 512], "z_image_modulation": True,
        "time_scale": 1000.0, "pad_tokens_multiple": 32,
    }  # fmt: skip


def transformer(family: str, dtype: Any, width: int = FULL_WIDTH) -> Any:
    """A MODEL of the layout of FLUX or Z_IMAGE with random weights. Call it in inference mode, as the loaders run."""
    import comfy.supported_models

    kind = comfy.supported_models.Flux if family == FLUX else comfy.supported_models.ZImage
    own = transformer_config(family, width)
    config = kind(dict(own))
    config.unet_config.update(own)  # over the sizes that the host knows of the published model
    return _patcher(config, dtype)


def unet(family: str, dtype: Any, width: int = FULL_WIDTH) -> Any:
    """A MODEL with random weights, on the host's own device. Call it in inference mode, as the host's loaders run."""
    import comfy.supported_models

    kind = comfy.supported_models.SD15 if family == SD15 else comfy.supported_models.SDXL
    return _patcher(kind(unet_config(family, width)), dtype)


def _patcher(config: Any, dtype: Any) -> Any:
    import comfy.model_management
    import comfy.model_patcher

    config.set_inference_dtype(dtype, None)
    offload = comfy.model_management.unet_offload_device()
    model = config.get_model({}, "", device=offload).eval()
    randomise(model.diffusion_model)
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.CoreModelPatcher(model, load_device=device, offload_device=offload)


def clip_l() -> Any:
    """A CLIP of SD1.5's kind with random weights: the host's tokenizer and text encoder, 123 million parameters."""
    import comfy.sd
    from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer
    from comfy.supported_models_base import ClipTarget

    clip = comfy.sd.CLIP(ClipTarget(SD1Tokenizer, SD1ClipModel), parameters=123_000_000)
    randomise(clip.cond_stage_model)
    return clip


def randomise(module: Any) -> None:
    """Fill every weight from one fixed row of normal numbers, scaled so that activations stay of order one."""
    import torch

    numbers = torch.randn(2**24, generator=torch.Generator().manual_seed(0))
    start = 0
    for name, p in module.named_parameters():
        p.requires_grad_(False)
        if p.ndim < 2:
            p.fill_(float(name.endswith("weight")))
            continue
        # Residual branches are kept small, queries and keys large enough for attention that is not flat.
        gain = (
            0.25 if name.endswith((".to_out.0.weight", "proj_out.weight", "net.2.weight", "out_layers.3.weight")) else 1
        )
        gain = 2 if ".attn2.to_q" in name or ".attn2.to_k" in name else gain
        scale = 0.5 if "embedding" in name else gain * p[0].numel() ** -0.5
        flat = p.view(-1)
        for part in flat.split(len(numbers) // 2):
            part.copy_(numbers[start : start + len(part)]).mul_(scale)
            start = (start + len(part)) % (len(numbers) // 2)
