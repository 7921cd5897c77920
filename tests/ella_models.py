"""A small random connector and T5 encoder with the key layout of the released ones, for tests and demonstrations.

The connector writes 64 tokens of width 768, as SD1.5 reads them; the T5 knows the real tokenizer's vocabulary. Weights
come from a seed; they are large enough that another timestep or word gives visibly other tokens.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import torch
from ella_lmd.ella import ConnectorConfig, TimestepAwareConnector
from safetensors.torch import save_file

T5_WIDTH = 64
CONNECTOR = "ella-test.safetensors"
ENCODER = "flan-t5-test"


def filled(shapes: dict[str, tuple[int, ...]], gain: float = 1.0) -> dict[str, torch.Tensor]:
    """Uniform weights of unit gain (biases within 0.1), each tensor from a generator seeded by its own key."""
    state = {}
    for key, shape in shapes.items():
        generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
        spread = gain * math.sqrt(3 / shape[1]) if len(shape) > 1 else 0.1
        state[key] = (torch.rand(shape, generator=generator) * 2 - 1) * spread
        if key.endswith("layer_norm.weight"):
            state[key] += 1
    return state


def connector_state(layers: int = 1, input_dim: int = T5_WIDTH, **sizes: int) -> dict[str, torch.Tensor]:
    config = ConnectorConfig(layers=layers, input_dim=input_dim, **sizes)
    module = TimestepAwareConnector(config, device="meta")
    return filled({k: tuple(v.shape) for k, v in module.state_dict().items()})


def t5_state(width: int = T5_WIDTH, layers: int = 2, heads: int = 4, vocab: int = 32128) -> dict[str, torch.Tensor]:
    shapes = {"shared.weight": (vocab, width), "encoder.final_layer_norm.weight": (width,)}
    for i in range(layers):
        attention, ff = f"encoder.block.{i}.layer.0.", f"encoder.block.{i}.layer.1."
        shapes |= {f"{attention}SelfAttention.{n}.weight": (width, width) for n in "qkvo"}
        shapes |= {attention + "layer_norm.weight": (width,), ff + "layer_norm.weight": (width,)}
        shapes |= {f"{ff}DenseReluDense.{n}.weight": (2 * width, width) for n in ("wi_0", "wi_1")}
        shapes[ff + "DenseReluDense.wo.weight"] = (width, 2 * width)
    shapes["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = (32, heads)
    return filled(shapes)


def write(models: Path, connector: str = CONNECTOR, encoder: str = ENCODER, **sizes: int) -> Path:
    """Write both into the `ella` and `ella_encoder` folders under `models`; returns `models`."""
    (models / "ella").mkdir(parents=True, exist_ok=True)
    folder = models / "ella_encoder" / encoder
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.half() for k, v in connector_state(**sizes).items()}, models / "ella" / connector)
    width = sizes.get("input_dim", T5_WIDTH)
    save_file({k: v.half() for k, v in t5_state(width).items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(f'{{"d_model": {width}, "model_type": "t5"}}')
    return models
