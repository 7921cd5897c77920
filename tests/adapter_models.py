"""A small random LLM adapter of SDXL's width and tiny text encoders, in the files that the loaders read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from ella_lmd.ella.adapter import AdapterConfig, LLMAdapter
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

GOLDEN = Path(__file__).resolve().parent / "data" / "golden" / "adapters"
WORDS = [
    "a",
    "red",
    "blue",
    "cat",
    "dog",
    "on",
    "the",
    "hill",
    "You",
    "draw",
    ".",
    "Create",
    "an",
    "image",
    "user",
    "model",
]
SPECIALS = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", "<unk>")
TEXT_WIDTH = 32  # of the tiny text encoders


def adapter_state(**sizes) -> dict[str, torch.Tensor]:
    """308 tokens of width 2048 with narrow MLPs, in half precision (about 160 MB)."""
    config = AdapterConfig(**{"input_dim": TEXT_WIDTH, "positions": 64, "mlp": 32, "wide": 1, "narrow": 1, **sizes})
    generator = torch.Generator().manual_seed(7)
    state = {}
    for key, meta in LLMAdapter(config, device="meta").state_dict().items():
        state[key] = torch.randn(meta.shape, generator=generator) * (meta.shape[-1] ** -0.5 if meta.ndim > 1 else 0.1)
        state[key] = (state[key] + (meta.ndim == 1 and "norm" in key and key.endswith("weight"))).half()
    return state


def write_tokenizer(folder: Path, specials=SPECIALS) -> None:
    vocabulary = {word: i for i, word in enumerate([*specials, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=specials[-1]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(specials))
    tokenizer.save(str(folder / "tokenizer.json"))


def write_encoder(folder: Path, family: str) -> None:
    """One file with its sizes in its metadata, and the tokenizer beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(GOLDEN / f"{family}_tiny_state.safetensors", folder / "model.safetensors")
    write_tokenizer(folder)


def write_config(folder: Path, **sizes) -> None:
    (folder / "config.json").write_text(json.dumps(sizes))


def write_adapter(path: Path, **sizes) -> None:
    save_file(adapter_state(**sizes), path)
