"""Recognises weight files by keys and shapes: ELLA connectors, T5 encoders, and what a wrong file seems to be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from .connector import ConnectorConfig, TimestepAwareConnector

RELEASED_HEADS = 8
_WRAPPERS = ("module.", "model.", "ella.", "model.ella.")

# The first match tells what a file is; each entry is (regular expression for some key, description).
_FAMILIES = (
    (r"^connector\.perceiver_blocks\.", "an ELLA connector; it belongs in models/ella"),
    (r"(^|\.)compression_queries$", "an LLM adapter for SDXL; it belongs in models/llm_adapters, for LLMAdapterLoader"),
    (
        r"(^|\.)layer_fusion\.channel_gate$",
        "a Jina CLIP adapter V3, of which no weights were known when this pack was written: V2 is read, V3 is not",
    ),
    (
        r"(^|\.)attention_blocks\.0\.attn\.(q_proj\.|in_proj_)",
        "a Jina CLIP adapter for SDXL; it belongs in models/llm_adapters, for LLMAdapterLoader",
    ),
    (
        r"layers\.0\.pre_self_attn_layernorm\.",
        "T5Gemma; it belongs in models/text_encoders, for LLMAdapterTextEncoderLoader",
    ),
    (
        r"encoder\.layers\.0\.mixer\.Wqkv\.",
        "Jina CLIP v2; it belongs in models/text_encoders, for LLMAdapterTextEncoderLoader",
    ),
    (r"^model\.diffusion_model\.", "a whole Stable Diffusion checkpoint; it belongs in models/checkpoints"),
    (r"(^|\.)lora_(up|down|A|B)\.|\.(lokr_w\d|hada_w\d)", "a LoRA; it belongs in models/loras"),
    (
        r"^(control_model\.|controlnet_|input_hint_block\.|zero_convs\.)",
        "a ControlNet; it belongs in models/controlnet",
    ),
    (r"^(image_proj|ip_adapter)\.", "an IPAdapter; it belongs in models/ipadapter"),
    (r"^(input_blocks|down_blocks)\.", "a diffusion U-Net; it belongs in models/diffusion_models"),
    (
        r"^(double_blocks|joint_blocks|transformer_blocks)\.",
        "a diffusion transformer; it belongs in models/diffusion_models",
    ),
    (r"^image_encoder\.blocks\.", "a Segment Anything model; it belongs in models/sams"),
    (r"^vision_model\.", "a CLIP vision model; it belongs in models/clip_vision"),
    (r"text_model\.encoder\.|transformer\.resblocks\.", "a CLIP text encoder; it belongs in models/text_encoders"),
    (r"SelfAttention\.relative_attention_bias", "a T5 model; it belongs in models/ella_encoder"),
    (
        r"layers\.0\.pre_feedforward_layernorm\.",
        "a Gemma language model; it belongs in models/text_encoders, for LLMAdapterTextEncoderLoader",
    ),
    (r"^(model\.)?layers\.\d+\.self_attn\.", "a language model; it belongs in models/text_encoders"),
    (r"^(first_stage_model\.|decoder\.conv_in|encoder\.conv_in)", "a VAE; it belongs in models/vae"),
    (r"position_net\.|fuser\.", "a GLIGEN model; it belongs in models/gligen"),
)


def describe(keys: Iterable[str]) -> str:
    """What a file with these keys seems to be, in words that can end a sentence."""
    keys = list(keys)
    if not keys:
        return "an empty file"
    for pattern, name in _FAMILIES:
        if any(re.search(pattern, key) for key in keys):
            return name
    return f"a file of an unknown kind ({len(keys)} tensors, the first is '{keys[0]}')"


def connector_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The connector's tensors under the names of the released file, whatever prefix a re-save has put before them."""
    for prefix in ("", *_WRAPPERS):
        if prefix + "connector.latents" in state:
            return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
    return dict(state)


def connector_config(state: Mapping[str, Tensor], heads: int | str | None = None) -> ConnectorConfig:
    """Sizes of the connector whose weights these are, read from the shapes.

    Args:
        state: the connector's tensors (after `connector_state`).
        heads: the number of attention heads, which leaves no trace in the shapes, also as a file's metadata has it (a
            text); None means that of the release, 8.

    Raises:
        ValueError: the tensors are not those of one whole connector; the message says what they seem to be,
            or which tensor is missing, superfluous or of the wrong shape.
    """
    needed = ("connector.latents", "connector.proj_in.weight", "time_embedding.linear_1.weight")
    if any(key not in state for key in needed):
        seems = describe(state)
        lacks = ", ".join(key for key in needed if key not in state)
        raise ValueError(
            f"This file is not an ELLA connector: it seems to be {seems}. It lacks {lacks}. "
            "Choose ella-sd1.5-tsc-t5xl.safetensors (in models/ella) in ELLAModelLoader."
        )
    _check_matrices(state, ("connector.latents", *needed[1:]), "ella-sd1.5-tsc-t5xl.safetensors")
    latents, width = state["connector.latents"].shape
    time_dim, time_channels = state["time_embedding.linear_1.weight"].shape
    config = ConnectorConfig(
        width=width,
        layers=_blocks(state, "connector.perceiver_blocks"),
        heads=_heads(heads, width),
        latents=latents,
        input_dim=state["connector.proj_in.weight"].shape[1],
        time_channels=time_channels,
        time_dim=time_dim,
    )
    wanted = {k: v.shape for k, v in TimestepAwareConnector(config, device="meta").state_dict().items()}
    complaints = [f"{k} is missing" for k in wanted if k not in state]
    complaints += [f"{k} does not belong there" for k in state if k not in wanted]
    complaints += [
        f"{k} has shape {tuple(state[k].shape)} instead of {tuple(wanted[k])}"
        for k in wanted
        if k in state and state[k].shape != wanted[k]
    ]
    if complaints:
        raise ValueError(
            "This file looks like an ELLA connector but is damaged or of another version: "
            + "; ".join(complaints[:5])
            + (f"; and {len(complaints) - 5} more" if len(complaints) > 5 else "")
            + ". Download it again and choose it in ELLAModelLoader."
        )
    return config


def _check_matrices(state: Mapping[str, Tensor], keys: Iterable[str], file: str) -> None:
    for key in keys:
        shape = tuple(state[key].shape)
        if len(shape) != 2 or 0 in shape:
            raise ValueError(f"This file is damaged: {key} has shape {shape} instead of two sizes. Get {file} again.")


def _blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many blocks are there, 0, 1, ... without a gap: a single odd key must not make millions of layers."""
    found = {m[1] for m in (re.match(re.escape(prefix) + r"\.(\d+)\.", k) for k in state) if m}
    count = 0
    while str(count) in found:
        count += 1
    return count


def _heads(heads: int | str | None, width: int) -> int:
    text = str(RELEASED_HEADS if heads is None else heads)
    number = int(text) if re.fullmatch(r"[1-9]\d{0,3}", text) else 0
    if number == 0 or width % number:
        raise ValueError(
            f"This file says that its connector has {text[:20]} attention heads, which its width of {width} can't be "
            "divided into. Get ella-sd1.5-tsc-t5xl.safetensors again."
        )
    return number


@dataclass(frozen=True)
class T5Config:
    """Sizes of a T5 v1.1 encoder (gated GELU, relative attention bias in the first block only)."""

    d_model: int
    d_ff: int
    d_kv: int
    num_heads: int
    num_layers: int
    vocab_size: int

    def __post_init__(self) -> None:
        for size in fields(self):
            value = getattr(self, size.name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"T5Config: {size.name} must be a whole number of at least 1, got {value!r}")

    def as_dict(self) -> dict[str, Any]:
        """In the words of a transformers configuration, as hosts read it."""
        return {
            "d_model": self.d_model,
            "d_ff": self.d_ff,
            "d_kv": self.d_kv,
            "num_heads": self.num_heads,
            "num_layers": self.num_layers,
            "vocab_size": self.vocab_size,
            "dense_act_fn": "gelu_pytorch_tanh",
            "is_gated_act": True,
            "model_type": "t5",
        }


def t5_encoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's tensors of a T5 file, encoder-only or whole, under the usual names (`shared.`, `encoder.`).

    Decoder, output head and a second copy of the token embedding are left out; prefixes of re-saved files are cut.
    """
    norm = "encoder.final_layer_norm.weight"
    prefix = next((k[: -len(norm)] for k in state if k.endswith(norm)), "")
    out = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
    twin = out.pop("encoder.embed_tokens.weight", None)
    if twin is not None:
        out.setdefault("shared.weight", twin)
    return {k: v for k, v in out.items() if k.startswith(("encoder.", "shared.", "scaled_fp8"))}


def t5_config(state: Mapping[str, Tensor]) -> T5Config:
    """Sizes of the T5 encoder whose weights these are (after `t5_encoder_state`).

    Raises:
        ValueError: not a T5 encoder, or one of a kind that ELLA was not trained with.
    """
    block = "encoder.block.{}.layer.{}."
    bias = block.format(0, 0) + "SelfAttention.relative_attention_bias.weight"
    if bias not in state or "shared.weight" not in state:
        raise ValueError(
            f"This file is not a T5 text encoder: it seems to be {describe(state)}. Choose the encoder of "
            "FLAN-T5-XL (models/ella_encoder or models/text_encoders) in ELLATextEncoderLoader."
        )
    if block.format(1, 0) + "SelfAttention.relative_attention_bias.weight" in state:
        raise ValueError(
            "This file is a umT5 or pile-T5 encoder (a relative attention bias in every block), which ELLA was not "
            "trained with. Choose the encoder of FLAN-T5-XL in ELLATextEncoderLoader."
        )
    gate = block.format(0, 1) + "DenseReluDense.wi_0.weight"
    if gate not in state:
        raise ValueError(
            "This file is a T5 encoder of the first version (no gated activation), which ELLA was not trained with. "
            "Choose the encoder of FLAN-T5-XL in ELLATextEncoderLoader."
        )
    query = block.format(0, 0) + "SelfAttention.q.weight"
    if query not in state:
        raise ValueError(f"This file is a T5 encoder without {query}. Get the encoder of FLAN-T5-XL again.")
    _check_matrices(state, (bias, "shared.weight", gate, query), "the encoder of FLAN-T5-XL")
    heads = state[bias].shape[1]
    return T5Config(
        d_model=state["shared.weight"].shape[1],
        d_ff=state[gate].shape[0],
        d_kv=state[query].shape[0] // heads,
        num_heads=heads,
        num_layers=_blocks(state, "encoder.block"),
        vocab_size=state["shared.weight"].shape[0],
    )
