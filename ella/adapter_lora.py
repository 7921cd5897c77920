"""LoRAs for LLM adapters: the names that trainers give a layer -> the layer's own path, fused projections split."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

_TRAINER = re.compile(r"lora_te\d*_(?:text_model_|llm_adapter_|model_)?")
_WRAPPERS = ("", "base_model.model.", "diffusion_model.", "adapter.", "llm_adapter.")
_PART = re.compile(r"\.(?:lora|hada_|lokr_|oft_|alpha$|dora_scale$|diff|w_norm$|b_norm$|set_weight$|reshape_weight$)")
_UP = ("lora_up.weight", "lora_B.weight", "lora_B.default.weight", "lora_B")
_DOWN = ("lora_down.weight", "lora_A.weight", "lora_A.default.weight", "lora_A")
_QKV = ("q_proj", "k_proj", "v_proj")


def adapter_lora(
    state: Mapping[str, Tensor], layers: Mapping[str, Sequence[int]]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A LoRA's tensors for an adapter, as `<path of the layer>.<part>`, and the tensors that are for something else.

    Args:
        state: the LoRA's tensors, under sd-scripts' names (`lora_te_<path with _>.lora_up.weight`, also `lora_te1_`) or
            with the path as it is (`<path>.lora_A.weight`). Layers may be called as in any of the adapters' namings; a
            LoRA of a fused matrix becomes one for each of q, k and v, with the same product.
        layers: shape of the weight by the layer's path.

    Raises:
        ValueError: a LoRA does not fit its layer, or that of a fused matrix is in a form that can't be split.
    """
    names = _names(layers)
    own: dict[str, Tensor] = {}
    rest: dict[str, Tensor] = {}
    for key, value in state.items():
        layer, part = _layer_and_part(key)
        paths = names.get(layer)
        if paths is None:
            rest[key] = value
        else:
            own |= {f"{path}.{part}": piece for path, piece in _pieces(paths, part, value)}
    for key, value in own.items():
        _check_shape(key, value, layers)
    return own, rest


def _names(layers: Mapping[str, Sequence[int]]) -> dict[str, tuple[str, ...]]:
    """What a layer may be called, dots as underscores -> the paths that this name means."""
    names: dict[str, tuple[str, ...]] = {}
    for path in layers:
        stem, dot, last = path.rpartition(".")
        for name in {path, path.replace(".out_proj", ".o_proj")}:
            flat = re.sub(r"^(compression|pooling)_attention\.", r"\1_", name).replace(".attn.", ".")
            names |= {n.replace(".", "_"): (path,) for n in (name, flat)}
        if last == "q_proj":
            fused = tuple(f"{stem}{dot}{n}" for n in _QKV)
            names |= {f"{stem}.{n}".replace(".", "_"): fused for n in ("in_proj", "in_proj_weight")}
    return names


def _layer_and_part(key: str) -> tuple[str, str]:
    """A key's layer, dots as underscores, and what of the LoRA it is."""
    found = _PART.search(key)
    if found is None:
        return key, ""
    layer, part = key[: found.start()], key[found.start() + 1 :]
    trainer = _TRAINER.match(layer)
    if trainer:
        return layer[trainer.end() :], part
    prefix = next(p for p in sorted(_WRAPPERS, key=len, reverse=True) if layer.startswith(p))
    return layer[len(prefix) :].replace(".", "_"), part


def _pieces(paths: tuple[str, ...], part: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    if len(paths) == 1 or part in (*_DOWN, "alpha"):
        return ((path, value) for path in paths)
    if part not in _UP or value.shape[0] % len(paths):
        raise ValueError(f"its '{part}' for the joined projections of {paths[0].rpartition('.')[0]} can't be split")
    return zip(paths, value.chunk(len(paths)))


def _check_shape(key: str, value: Tensor, layers: Mapping[str, Sequence[int]]) -> None:
    for side, parts in enumerate((_UP, _DOWN)):
        path = next((key[: -len(p) - 1] for p in parts if key.endswith("." + p)), None)
        if path is not None:
            size = value.flatten(1).shape[side] if value.ndim > 1 else 0
            if size != layers[path][side]:
                raise ValueError(
                    f"its part for {path} is made for {size} numbers, where the adapter has {layers[path][side]}"
                )
