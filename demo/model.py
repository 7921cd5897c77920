"""The demo model's shape: plain data, no host imports. `nodes/host/demo_model.py` builds the host's classes from it.

Everything that the file of weights cannot say about itself is here, so a change here needs a new training run.
"""

from __future__ import annotations

from pathlib import Path

IMAGE_SIZE = 128
"""Side of the training pictures in pixels; latents are an eighth of it, with four channels, as in SD1.5."""

WEIGHTS = Path(__file__).parent / "weights" / "demo.safetensors"

GLIGEN_WEIGHTS = WEIGHTS.with_name("gligen.safetensors")

TRANSFORMER_WEIGHTS = WEIGHTS.with_name("transformer.safetensors")

LORAS = {mark: WEIGHTS.parent / "loras" / f"lmd_demo_{mark}.safetensors" for mark in ("band", "pink")}
"""Two LoRAs, by the mark that they give circles (`evaluation/demo_marks.py`); ComfyUI lists this folder's files."""

CONTEXT = 128
"""Width of the text features."""

UNET = {
    "image_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 64,
    "channel_mult": [1, 2],
    "num_res_blocks": [1, 1],
    # Cross-attention on the 8x8 grid (of a 128-pixel picture): one input block, the middle, both output blocks; and on
    # the 16x16 grid in the last output block. LMD's rule for SD1.5, the middle block and the deepest output blocks that
    # have cross-attention, gives ("middle", 0), ("output", 0) and ("output", 1).
    "transformer_depth": [0, 1],
    "transformer_depth_output": [1, 0, 1, 1],
    "transformer_depth_middle": 1,
    "use_spatial_transformer": True,
    "context_dim": CONTEXT,
    # 8 heads in the guided layers, as in SD1.5: LMD's thresholds belong to sums over 8 heads.
    "num_heads": -1,
    "num_head_channels": 16,
    "legacy": False,
    "adm_in_channels": None,
    "use_linear_in_transformer": False,
}
"""Arguments of the host's UNetModel, the class of SD1.5."""

TRANSFORMER = {
    "patch_size": 2,
    "in_channels": 4,
    "dim": 192,
    "n_layers": 6,
    "n_refiner_layers": 1,
    "n_heads": 6,
    "n_kv_heads": 6,
    "multiple_of": 32,
    "ffn_dim_multiplier": 1.0,
    "qk_norm": True,
    "cap_feat_dim": CONTEXT,
    "axes_dims": [8, 12, 12],
    "axes_lens": [128, 64, 64],
}
"""Arguments of the host's NextDiT, the class of Lumina 2 and Z-Image; its image rows are an 8x8 grid at 128 pixels."""

TEXT = {
    "hidden_size": CONTEXT,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "hidden_act": "quick_gelu",
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}
"""Configuration of the host's CLIPTextModel behind the tokenizer of SD1.5."""

VAE = {
    "embed_dim": 4,
    "ddconfig": {
        "double_z": True,
        "z_channels": 4,
        "resolution": IMAGE_SIZE,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32,
        "ch_mult": [1, 1, 2, 2],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "dropout": 0.0,
    },
}
"""Arguments of the host's AutoencoderKL, the class of SD1.5's VAE."""

LATENT_SCALE = 0.18215
"""SD1.5's factor between the VAE's latents and the denoiser's, which have a variance of about one."""
