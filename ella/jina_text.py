"""Jina CLIP v2's text encoder (XLM-RoBERTa with rotary positions): its tensors, its sizes, and its task's LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .checkpoint import _blocks

_MARK = "encoder.layers.0.mixer.Wqkv."
_ORIGINAL = ".parametrizations.weight.original"
_LORA = ".parametrizations.weight.0.lora_"
_HEAD_WIDTH = 64
_ROWS_AT_ONCE = 16384  # the token table has 250,002


def jina_text_state(state: Mapping[str, Tensor], given: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """The text encoder's tensors, under names that start `model.embeddings`, `model.emb_ln` and `model.encoder`.

    Prefixes, the image tower and a pooling layer are left out. The release keeps the LoRA of a task beside each matrix
    and always applies that of its default task, which is added here.

    Args:
        state: a file's tensors.
        given: what its config.json says; needed where there are the LoRAs of several tasks.

    Returns:
        None for a file of another kind.

    Raises:
        ValueError: several tasks, and nothing says which; or a LoRA that does not fit its matrix.
    """
    key = next((k for k in state if _MARK in k and "vision" not in k), None)
    if key is None:
        return None
    prefix = key[: key.index(_MARK)]
    own = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
    own = {"model." + k: v for k, v in own.items() if k.startswith(("embeddings.", "emb_ln.", "encoder."))}
    merged = {k: v for k, v in own.items() if ".parametrizations." not in k}
    for key, weight in own.items():
        if key.endswith(_ORIGINAL):
            layer = key[: -len(_ORIGINAL)]
            merged[layer + ".weight"] = _with_task(layer, weight, own, given)
    return merged


def _with_task(layer: str, weight: Tensor, state: Mapping[str, Tensor], given: Mapping[str, Any]) -> Tensor:
    """A matrix plus the default task's LoRA; embeddings keep the two factors the other way round."""
    a, b = state.get(layer + _LORA + "A"), state.get(layer + _LORA + "B")
    if a is None or b is None or a.ndim != 3 or b.ndim != 3 or len(a) != len(b):
        raise ValueError(f"This Jina text encoder is damaged: the LoRA of {layer} is missing or of another shape.")
    facts = {**given, **(given.get("hf_model_config_kwargs") or {})}
    task = _task(len(a), facts)
    left, right = (b[task], a[task]) if b.shape[2] == a.shape[1] else (a[task], b[task])
    if left.shape[1] != right.shape[0] or (left.shape[0], right.shape[1]) != weight.shape:
        raise ValueError(f"This Jina text encoder is damaged: the LoRA of {layer} does not fit its matrix.")
    rank = right.shape[0]
    scale = _number(facts.get("lora_alpha"), rank) / rank  # 4 / 4 in the release
    parts = zip(weight.split(_ROWS_AT_ONCE), left.split(_ROWS_AT_ONCE))
    return torch.cat([(w.float() + scale * (x.float() @ right.float())).to(weight.dtype) for w, x in parts])


def _task(count: int, facts: Mapping[str, Any]) -> int:
    if count == 1:
        return 0
    names, default = facts.get("lora_adaptations"), facts.get("default_lora_task")
    if not isinstance(names, list) or len(names) != count or default not in names:
        raise ValueError(
            f"This Jina text encoder has LoRAs of {count} tasks and nothing says which belongs to the prompts. Take "
            "jina-clip-v2 (with its config.json), which has one task, or a file with the LoRA merged in."
        )
    return names.index(default)


def _number(value: Any, otherwise: float) -> float:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0 else otherwise


def jina_text_config(state: Mapping[str, Tensor], given: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes of the text encoder whose tensors these are (after `jina_text_state`), from the shapes.

    The number of heads leaves no trace there: that of `given` (a config.json), or heads of width 64 as in the release.

    Raises:
        ValueError: a tensor that tells a size is missing or has another shape, or the heads don't divide the width.
    """
    keys = ("model.embeddings.word_embeddings.weight", "model.embeddings.token_type_embeddings.weight")
    keys += ("model.encoder.layers.0.mlp.fc1.weight",)
    for key in keys:
        if key not in state or state[key].ndim != 2 or 0 in state[key].shape:
            raise ValueError(f"This text encoder is damaged: {key} is missing or no matrix. Get the file again.")
    words, types, mlp = (state[k].shape for k in keys)
    heads = given.get("num_attention_heads", words[1] // _HEAD_WIDTH)
    if isinstance(heads, bool) or not isinstance(heads, int) or heads < 1 or words[1] % heads or words[1] // heads % 2:
        raise ValueError(
            f"This text encoder of width {words[1]} can't have {heads!r} heads. Choose the folder with config.json."
        )
    base = given.get("rotary_emb_base", given.get("rotary_base"))
    return {
        "vocab_size": words[0],
        "type_vocab_size": types[0],
        "hidden_size": words[1],
        "num_hidden_layers": _blocks(state, "model.encoder.layers"),
        "num_attention_heads": heads,
        "rotary_emb_base": float(_number(base, 20000.0)),
        "intermediate_size": mlp[0],
        "layer_norm_eps": _number(given.get("layer_norm_eps"), 1e-5),
    }
