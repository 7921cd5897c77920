"""Recognises LLM adapters for SDXL and their text encoders by keys and shapes; brings all namings to one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from .adapter import AdapterConfig, LLMAdapter
from .checkpoint import _blocks, describe
from .jina_adapter import JinaAdapter, JinaAdapterConfig
from .jina_text import jina_text_config, jina_text_state

USUAL_HEADS = 16
USUAL_POOLER_HEADS = 8
_WRAPPERS = ("", "module.", "model.", "adapter.", "model.adapter.")
_REMEDY = "Choose an LLM adapter (a file in models/llm_adapters) in LLMAdapterLoader."
_RESAMPLER = ("compression_queries",)
_JINA = (
    "attention_blocks.0.attn.q_proj.weight",
    "attention_blocks.0.attn.in_proj_weight",
    "seq_projection.4.weight",
    "layer_fusion.channel_gate",
)
_TURBO = (
    (r"^(compression|pooling)_(q|k|v|out)_proj\.", r"\1_attention.\2_proj."),
    (r"^(wide|narrow)_attention_blocks\.(\d+)\.(q|k|v|out)_proj\.", r"\1_attention_blocks.\2.attn.\3_proj."),
)


def adapter_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An adapter's tensors with separate q, k and v, from any of the namings in use (fused, separate, flat, Jina's).

    Prefixes that a re-save has put before the names are cut. The tensors of another kind of file stay as they are.
    """
    prefix = next((p for p in _WRAPPERS for mark in _RESAMPLER + _JINA if p + mark in state), None)
    if prefix is None:
        return dict(state)
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.startswith(prefix):
            out |= _separate(_renamed(key[len(prefix) :]), value)
    return out


def _renamed(key: str) -> str:
    for pattern, name in _TURBO:
        key = re.sub(pattern, name, key)
    return key.replace(".o_proj.", ".out_proj.")


def _separate(key: str, value: Tensor) -> dict[str, Tensor]:
    stem, fused, kind = key.rpartition(".in_proj_")
    if not fused or value.ndim < 1 or value.shape[0] % 3:
        return {key: value}
    return {f"{stem}.{n}_proj.{kind}": part for n, part in zip("qkv", value.chunk(3))}


def adapter_config(
    state: Mapping[str, Tensor], heads: int | str | None = None, pooler_heads: int | str | None = None
) -> AdapterConfig | JinaAdapterConfig:
    """Sizes of the adapter whose weights these are (after `adapter_state`), read from the shapes.

    Args:
        state: the adapter's tensors.
        heads: the number of attention heads, which leaves no trace in the shapes, also as a file's metadata has it (a
            text); None means 16, as all released adapters have.
        pooler_heads: the same for the attention that pools a Jina adapter's rows; None means 8.

    Raises:
        ValueError: the tensors are not those of one whole adapter; the message says what they seem to be, or which
            tensor is missing, superfluous or of the wrong shape.
    """
    if any(key in state for key in _RESAMPLER):
        config = _resampler_config(state, heads)
    elif "layer_fusion.channel_gate" not in state and any(key in state for key in _JINA):
        config = _jina_config(state, heads, pooler_heads)
    else:
        raise ValueError(f"This file is not an LLM adapter for SDXL: it seems to be {describe(state)}. {_REMEDY}")
    wanted = {k: tuple(v.shape) for k, v in build_adapter(config, device="meta").state_dict().items()}
    complaints = differences(state, wanted)
    if complaints:
        raise ValueError(
            f"This file looks like an LLM adapter but is damaged or of another version: {complaints}. {_REMEDY}"
        )
    return config


def build_adapter(config: AdapterConfig | JinaAdapterConfig, **kw: Any) -> LLMAdapter | JinaAdapter:
    """The network with these sizes; `kw` as for either class."""
    return JinaAdapter(config, **kw) if isinstance(config, JinaAdapterConfig) else LLMAdapter(config, **kw)


def _resampler_config(state: Mapping[str, Tensor], heads: int | str | None) -> AdapterConfig:
    mlp, out = "narrow_attention_blocks.0.mlp.0.weight", "pooled_projection.4.weight"
    sized = {"compression_queries": 3, "input_position_embeddings": 3, out: 2, mlp: 2}
    sized |= {key: n for key, n in {"seq_projection.weight": 2, "input_norm.weight": 1}.items() if key in state}
    _check_sizes(state, sized)
    width = state["compression_queries"].shape[2]
    projection = "seq_projection.weight" in state
    return AdapterConfig(
        width=width,
        input_dim=state["seq_projection.weight"].shape[1] if projection else width,
        positions=state["input_position_embeddings"].shape[1],
        tokens=state["compression_queries"].shape[1],
        pooled=state[out].shape[0],
        mlp=state[mlp].shape[0],
        wide=max(1, _blocks(state, "wide_attention_blocks")),
        narrow=max(1, _blocks(state, "narrow_attention_blocks")),
        heads=_head_count(heads, width, USUAL_HEADS),
        projection=projection,
        input_norm="input_norm.weight" in state,
    )


def _jina_config(
    state: Mapping[str, Tensor], heads: int | str | None, pooler_heads: int | str | None
) -> JinaAdapterConfig:
    mlp, first, positions = "attention_blocks.0.mlp.0.weight", "seq_projection.0.weight", "positional_embedding.weight"
    pooler = "attention_pooler.query" in state or "pooled_projection.weight" in state
    out = "pooled_projection.weight" if pooler else "pooled_projection.4.weight"
    mean = [] if pooler else ["pooled_projection.0.weight"]
    _check_sizes(state, dict.fromkeys([first, mlp, out, *mean, *([positions] if positions in state else [])], 2))
    width = state[first].shape[0]
    return JinaAdapterConfig(
        width=width,
        input_dim=state[first].shape[1],
        pooled=state[out].shape[0],
        mlp=state[mlp].shape[0],
        blocks=max(1, _blocks(state, "attention_blocks")),
        heads=_head_count(heads, width, USUAL_HEADS),
        pooler_heads=_head_count(pooler_heads, width, USUAL_POOLER_HEADS) if pooler else USUAL_POOLER_HEADS,
        positions=state[positions].shape[0] if positions in state else 0,
        mean_pooled=0 if pooler else state[mean[0]].shape[0],
    )


def _check_sizes(state: Mapping[str, Tensor], sized: Mapping[str, int]) -> None:
    """The tensors that tell the sizes are there, with so many sizes each."""
    for key, sizes in sized.items():
        if key not in state:
            raise ValueError(f"This file looks like an LLM adapter but is damaged: {key} is missing. {_REMEDY}")
        shape = tuple(state[key].shape)
        if len(shape) != sizes or 0 in shape:
            raise ValueError(f"This adapter is damaged: {key} has shape {shape} instead of {sizes} sizes. {_REMEDY}")


def _head_count(heads: int | str | None, width: int, usual: int) -> int:
    text = str(usual if heads is None else heads)
    number = int(text) if re.fullmatch(r"[1-9]\d{0,3}", text) else 0
    if number == 0 or width % number:
        raise ValueError(f"An adapter of width {width} can't have {text[:20]} attention heads. {_REMEDY}")
    return number


def differences(state: Mapping[str, Tensor], wanted: Mapping[str, Iterable[int]]) -> str:
    """What a file lacks, has too many of, or has in another shape, in words; empty when it fits."""
    found = [f"{k} is missing" for k in wanted if k not in state]
    found += [f"{k} does not belong there" for k in state if k not in wanted]
    found += [
        f"{k} has shape {tuple(state[k].shape)} instead of {tuple(shape)}"
        for k, shape in wanted.items()
        if k in state and tuple(state[k].shape) != tuple(shape)
    ]
    more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
    return "; ".join(found[:5]) + more


def text_model_state(
    state: Mapping[str, Tensor], given: Mapping[str, Any] | None = None
) -> tuple[str, dict[str, Tensor]]:
    """Which text model a file holds ("gemma3", "t5gemma" or "jina"), and its tensors under the names of the release.

    An output head, an image tower and a decoder are left out; prefixes of re-saved files are cut. `given` is what a
    config.json says; only a Jina text encoder with several tasks needs it.

    Raises:
        ValueError: none of them; the message says what it seems to be.
    """
    jina = jina_text_state(state, given or {})
    if jina is not None:
        return "jina", jina
    for family, mark, own in (
        ("t5gemma", "layers.0.pre_self_attn_layernorm.weight", "model.encoder."),
        ("gemma3", "layers.0.self_attn.q_norm.weight", "model."),
    ):
        prefixes = [k[: -len(mark)] for k in state if k.endswith(mark) and "vision" not in k and "decoder" not in k]
        for prefix in prefixes[:1]:
            found = {own + k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
            if family == "t5gemma" or own + "layers.0.pre_feedforward_layernorm.weight" in found:
                return family, {k: v for k, v in found.items() if not k.startswith("model.lm_head.")}
    raise ValueError(
        f"This is no text encoder of an LLM adapter: it seems to be {describe(state)}. Choose Gemma-3-1b, the encoder "
        "of T5Gemma-2b or Jina CLIP v2, whichever the adapter was trained with, in LLMAdapterTextEncoderLoader."
    )


def text_model_config(family: str, state: Mapping[str, Tensor], given: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes of a text model under the names that its config.json has, from the shapes.

    Args:
        family: as `text_model_state` gives it.
        state: its tensors, as `text_model_state` gives them.
        given: what a config.json says; needed for heads of another width than the release's in T5Gemma and Jina.

    Raises:
        ValueError: a tensor that tells a size is missing or has another shape.
    """
    if family == "jina":
        return jina_text_config(state, given)
    root = "model." if family == "gemma3" else "model.encoder."
    layer = root + "layers.0."
    keys = [root + "embed_tokens.weight", layer + "mlp.gate_proj.weight"]
    keys += [layer + f"self_attn.{n}_proj.weight" for n in "qk"]
    for key in keys:
        if key not in state or state[key].ndim != 2 or 0 in state[key].shape:
            raise ValueError(f"This text encoder is damaged: {key} is missing or no matrix. Get the file again.")
    embed, gate, query, key_rows = (state[k] for k in keys)
    norm = state.get(layer + "self_attn.q_norm.weight")
    head = given.get("head_dim", 256) if norm is None else norm.shape[0]
    if not isinstance(head, int) or head < 1 or query.shape[0] % head or key_rows.shape[0] % head:
        raise ValueError(f"This text encoder can't have heads of width {head!r}. Choose the folder with config.json.")
    large = embed.shape[1] >= 2560  # Gemma 3 of 4 billion parameters and more: longer window, scaled rotation
    return {
        "vocab_size": embed.shape[0],
        "hidden_size": embed.shape[1],
        "intermediate_size": gate.shape[0],
        "num_hidden_layers": _blocks(state, root + "layers"),
        "num_attention_heads": query.shape[0] // head,
        "num_key_value_heads": key_rows.shape[0] // head,
        "head_dim": head,
        "sliding_window": given.get("sliding_window") or (4096 if family == "t5gemma" else 1024 if large else 512),
        "attn_logit_softcapping": given.get("attn_logit_softcapping") or 50.0,
        "query_pre_attn_scalar": given.get("query_pre_attn_scalar") or head,
        "rope_scale": 8.0 if large and family == "gemma3" else 1.0,
    }
