"""Small random transformers of the host's families, as MODELs: the host's own model classes with tiny widths."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import comfy.latent_formats
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import torch


@dataclass(frozen=True)
class Family:
    """`kind`: the host's configuration class; `config`: arguments of its network; `latent`: shape without the batch.

    `width`: of the conditioning; `extra`: what else the conditioning holds; `first`: where text rows start, counted
    from the end of the sequence if negative, None in cross-attention.
    """

    kind: str
    config: dict
    latent: tuple[int, ...] = (4, 16, 16)
    width: int = 32
    extra: dict = field(default_factory=dict)
    first: int | None = 0


_FLUX = {
    "in_channels": 4, "out_channels": 4, "context_in_dim": 32, "hidden_size": 64, "mlp_ratio": 2.0, "num_heads": 4,
    "depth": 2, "depth_single_blocks": 2, "theta": 10000, "patch_size": 2,
}  # fmt: skip
_NEXT = {
    "in_channels": 4, "n_layers": 3, "n_refiner_layers": 1, "n_heads": 4, "multiple_of": 16, "ffn_dim_multiplier": 1.0,
    "qk_norm": True, "cap_feat_dim": 32, "axes_lens": [64, 64, 64],
}  # fmt: skip
_QWEN = {
    "num_layers": 3, "attention_head_dim": 16, "num_attention_heads": 4, "joint_attention_dim": 32,
    "axes_dims_rope": (4, 6, 6), "out_channels": 4,
}  # fmt: skip
_OMNIGEN = {
    "in_channels": 4, "hidden_size": 48, "num_layers": 2, "num_refiner_layers": 1, "num_attention_heads": 4,
    "num_kv_heads": 2, "multiple_of": 16, "axes_dim_rope": (4, 4, 4),
}  # fmt: skip
_POOLED = {"pooled_output": torch.zeros(1, 16)}
_MASK = {"attention_mask": torch.ones(1, 12, dtype=torch.long)}

FAMILIES: dict[str, Family] = {
    "Flux": Family("Flux", {**_FLUX, "axes_dim": [4, 6, 6], "vec_in_dim": 16, "qkv_bias": True, "guidance_embed": True,
                            "txt_ids_dims": []}, extra=_POOLED),
    "Flux 2": Family("Flux2", {**_FLUX, "axes_dim": [4, 4, 4, 4], "vec_in_dim": None, "qkv_bias": False, "patch_size": 1,
                               "guidance_embed": True, "global_modulation": True, "mlp_silu_act": True,
                               "ops_bias": False, "txt_ids_dims": [3]}, (4, 8, 8)),
    "SD3": Family("SD3", {"input_size": None, "patch_size": 2, "in_channels": 4, "depth": 3, "pos_embed_max_size": 32,
                          "num_patches": 1024, "adm_in_channels": 16, "qk_norm": "rms", "x_block_self_attn_layers": [0],
                          "context_embedder_config": {"target": "torch.nn.Linear",
                                                      "params": {"in_features": 32, "out_features": 192}}},
                  extra=_POOLED),
    "AuraFlow": Family("AuraFlow", {"dim": 64, "n_layers": 3, "n_double_layers": 1, "n_heads": 4, "global_conddim": 64,
                                    "cond_seq_dim": 32, "max_seq": 256}, first=8),
    "Chroma": Family("Chroma", {**_FLUX, "axes_dim": [4, 6, 6], "vec_in_dim": None, "qkv_bias": True, "in_channels": 16,
                                "out_channels": 16, "in_dim": 64, "out_dim": 64, "hidden_dim": 32, "n_layers": 1,
                                "depth": 19, "depth_single_blocks": 38, "txt_ids_dims": []}),
    "HunyuanImage": Family("HunyuanImage21", {
        "in_channels": 4, "out_channels": 4, "vec_in_dim": None, "context_in_dim": 32, "hidden_size": 64,
        "mlp_ratio": 2.0, "num_heads": 4, "depth": 2, "depth_single_blocks": 2, "axes_dim": [8, 8], "theta": 256,
        "patch_size": [1, 1], "qkv_bias": True, "guidance_embed": False, "byt5": False, "meanflow": False,
        "use_cond_type_embedding": False, "vision_in_dim": None, "meanflow_sum": False}, (4, 8, 8)),
    "Qwen-Image": Family("QwenImage", {**_QWEN, "in_channels": 16}, (4, 1, 16, 16)),
    "Mage-Flow": Family("MageFlow", {**_QWEN, "in_channels": 4}, (4, 8, 8)),
    "Lumina 2": Family("Lumina2", {**_NEXT, "dim": 64, "n_kv_heads": 2, "axes_dims": [4, 6, 6]}),
    "Z-Image": Family("ZImage", {**_NEXT, "dim": 256, "n_kv_heads": 4, "axes_dims": [16, 24, 24],
                                 "z_image_modulation": True, "time_scale": 1000.0, "pad_tokens_multiple": 32}),
    "Krea 2": Family("Krea2", {"features": 64, "tdim": 32, "txtdim": 16, "heads": 4, "kvheads": 2, "multiplier": 2,
                               "layers": 3, "channels": 4, "txtlayers": 2, "txtheads": 2, "txtkvheads": 2}),
    "Ideogram 4": Family("Ideogram4", {"in_channels": 16, "num_layers": 2, "num_attention_heads": 2,
                                       "attention_head_dim": 16, "intermediate_size": 64, "adaln_dim": 16,
                                       "llm_features_dim": 32, "mrope_section": (4, 2, 2)}, (16, 8, 8)),
    "OmniGen2": Family("Omnigen2", {**_OMNIGEN, "text_feat_dim": 32}, extra=_MASK),
    "Boogu": Family("Boogu", {**_OMNIGEN, "num_double_stream_layers": 1, "instruction_feat_dim": 32},
                    extra=_MASK),
    "HiDream": Family("HiDream", {
        "patch_size": 2, "in_channels": 4, "out_channels": 4, "num_layers": 2, "num_single_layers": 2,
        "attention_head_dim": 16, "num_attention_heads": 4, "caption_channels": [32, 24], "text_emb_dim": 16,
        "num_routed_experts": 2, "num_activated_experts": 1, "axes_dims_rope": (4, 6, 6), "max_resolution": (32, 32),
        "llama_layers": [0, 1, 2, 3]}, extra={**_POOLED, "conditioning_llama3": torch.ones(1, 4, 9, 24)}, first=-30),
    "Lens": Family("Lens", {"in_channels": 8, "out_channels": 2, "num_layers": 2, "attention_head_dim": 16,
                            "num_attention_heads": 4, "enc_hidden_dim": 16, "axes_dims_rope": (4, 6, 6),
                            "selected_layer_index": (0, 1)}, (8, 8, 8), first=-12),
    "JoyImage": Family("JoyImage", {"in_channels": 4, "hidden_size": 64, "num_attention_heads": 4, "text_dim": 32,
                                    "num_layers": 2, "rope_dim_list": [4, 6, 6]}, (4, 1, 16, 16), first=-12),
    "PixelDiT": Family("PixelDiTT2I", {"num_groups": 4, "hidden_size": 64, "pixel_hidden_size": 8,
                                       "pixel_attn_hidden_size": 64, "pixel_num_groups": 4, "patch_depth": 2,
                                       "pixel_depth": 1, "patch_size": 4, "txt_embed_dim": 32, "txt_max_length": 64},
                       (3, 32, 32)),
    "Anima": Family("CosmosT2IPredict2", {
        "max_img_h": 64, "max_img_w": 64, "max_frames": 8, "in_channels": 4, "out_channels": 4, "patch_spatial": 2,
        "patch_temporal": 1, "concat_padding_mask": True, "model_channels": 64, "num_blocks": 2, "num_heads": 4,
        "crossattn_emb_channels": 32, "pos_emb_cls": "rope3d", "use_adaln_lora": True, "adaln_lora_dim": 16,
        "extra_per_block_abs_pos_emb": False}, (4, 1, 16, 16), first=None),
    "Wan": Family("WAN21_T2V", {"model_type": "t2v", "patch_size": (1, 2, 2), "text_len": 40, "in_dim": 4, "dim": 64,
                                "ffn_dim": 64, "freq_dim": 32, "text_dim": 32, "out_dim": 4, "num_heads": 2,
                                "num_layers": 2}, (4, 1, 16, 16), first=None),
    "Kandinsky 5": Family("Kandinsky5", {"in_visual_dim": 4, "out_visual_dim": 4, "in_text_dim": 32, "in_text_dim2": 16,
                                         "time_dim": 32, "model_dim": 64, "ff_dim": 64, "visual_embed_dim": 36,
                                         "num_text_blocks": 1, "num_visual_blocks": 2, "axes_dims": (4, 6, 6)},
                          (4, 1, 16, 16), extra=_POOLED, first=None),
}  # fmt: skip


class LatentFormat(comfy.latent_formats.LatentFormat):
    """Numbers as they are, so that few channels do."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.latent_channels, self.latent_dimensions = shape[0], len(shape) - 1


def model(family: Family, dtype: torch.dtype = torch.float32) -> Any:
    """A MODEL with random weights on the CPU. Call it in inference mode, as the host's loaders run."""
    config = getattr(comfy.supported_models, family.kind)(dict(family.config))
    config.unet_config.update(family.config)  # over the sizes that the host knows of the published model
    config.set_inference_dtype(dtype, None)
    config.latent_format = LatentFormat(family.latent)
    base = config.get_model({}, "", device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    for name, p in base.diffusion_model.named_parameters():
        p.copy_(torch.randn(p.shape, generator=generator) * 0.05)
        if ("norm" in name.lower() or ".ln_" in name) and name.endswith("weight"):
            p.add_(1)
    for name, b in base.diffusion_model.named_buffers():
        if name.endswith("pos_embed"):
            b.copy_(torch.randn(b.shape, generator=generator) * 0.05)
    return comfy.model_patcher.CoreModelPatcher(
        base, load_device=torch.device("cpu"), offload_device=torch.device("cpu")
    )


def conditioning(family: Family, rows: int = 12, seed: int = 1) -> list:
    """Random CONDITIONING of so many rows."""
    tokens = torch.randn(1, rows, family.width, generator=torch.Generator().manual_seed(seed))
    return [[tokens, dict(family.extra)]]
