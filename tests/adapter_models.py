"""A small random LLM adapter of SDXL's width and tiny text encoders, in the files that the loaders read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from ella_lmd.ella.adapter import AdapterConfig
from ella_lmd.ella.adapter_checkpoint import build_adapter
from ella_lmd.ella.jina_adapter import JinaAdapterConfig
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
JINA_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
STATES = {"gemma3": "gemma3_tiny_state", "t5gemma": "t5gemma_tiny_state", "jina": "jina_text_tiny_state"}
TEXT_WIDTH = 32  # of the tiny text encoders


def adapter_state(**sizes) -> dict[str, torch.Tensor]:
    """308 tokens of width 2048 with narrow MLPs, in half precision (about 160 MB)."""
    return _weights(
        AdapterConfig(**{"input_dim": TEXT_WIDTH, "positions": 64, "mlp": 32, "wide": 1, "narrow": 1, **sizes})
    )


def jina_adapter_state(**sizes) -> dict[str, torch.Tensor]:
    """A token of width 2048 for each of the text's, in half precision (about 80 MB)."""
    return _weights(JinaAdapterConfig(**{"input_dim": TEXT_WIDTH, "mlp": 32, "blocks": 1, **sizes}))


def _weights(config: AdapterConfig | JinaAdapterConfig) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    state = {}
    for key, meta in build_adapter(config, device="meta").state_dict().items():
        norm = meta.ndim == 1 and key.endswith("weight")  # of a LayerNorm, which is about 1
        spread = meta.shape[-1] ** -0.5 if meta.ndim > 1 else 0.1
        state[key] = (torch.randn(meta.shape, generator=generator) * spread + norm).half()
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
    shutil.copy(GOLDEN / f"{STATES[family]}.safetensors", folder / "model.safetensors")
    write_tokenizer(folder, JINA_SPECIALS if family == "jina" else SPECIALS)


def write_config(folder: Path, **sizes) -> None:
    (folder / "config.json").write_text(json.dumps(sizes))


def fused(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Separate q, k and v joined in one matrix, as most files have them."""
    out = {k: v for k, v in state.items() if not any(f".{n}_proj." in k for n in "qkv")}
    for key in (k for k in state if ".q_proj." in k):
        parts = [state[key.replace(".q_proj.", f".{n}_proj.")] for n in "qkv"]
        out[key.replace(".q_proj.", ".in_proj_")] = torch.cat(parts)
    return out


def flat(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The names of the variant that calls its layers without a dot before them."""
    return {k.replace("_attention.", "_").replace(".attn.", "."): v for k, v in state.items()}


NAMINGS = {"unfused": dict, "fused": fused, "turbo": flat}


def write_adapter(path: Path, naming: str = "unfused", **sizes) -> None:
    save_file(NAMINGS[naming](adapter_state(**sizes)), path)


def write_jina_adapter(path: Path, **sizes) -> None:
    save_file(jina_adapter_state(**sizes), path)
