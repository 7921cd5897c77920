"""LoRAs for LLM adapters, by the host's patcher: the adapter's part on the adapter, the U-Net's on the model."""

from __future__ import annotations

import logging
from typing import Any

import comfy.lora
import comfy.lora_convert
import folder_paths
import torch

from ....ella.adapter_lora import adapter_lora
from .. import choices, model_files
from .adapter import HostedAdapter, check_adapter

REMEDY = "Choose a LoRA that was trained with this adapter in LLMAdapterLoRA; such files are in models/loras."
log = logging.getLogger(__name__)


def lora_files() -> list[str]:
    """The files in models/loras, as the host lists them."""
    return folder_paths.get_filename_list("loras")


def with_lora(
    model: Any, adapter: HostedAdapter, name: str, strength_model: float, strength_adapter: float
) -> tuple[Any, HostedAdapter]:
    """The MODEL and the adapter with a LoRA from `models/loras`; what has strength 0 is given back as it is.

    A part of the file that is for neither is named in the log.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file can't be used, does not fit, or holds nothing for either.
    """
    check_adapter(adapter)
    path = folder_paths.get_full_path_or_raise(
        "loras", choices.one_of(name, lora_files(), "lora_name", "LLMAdapterLoRA")
    )
    if strength_model == 0 and strength_adapter == 0:
        return model, adapter
    state, _ = model_files.load(path, REMEDY)
    model_files.check_numbers(path, state, [k for k, v in state.items() if v.is_floating_point()], REMEDY)
    weights = {k.removesuffix(".weight"): v.shape for k, v in _weights(adapter) if k.endswith(".weight")}
    try:
        own, rest = adapter_lora(state, weights)
    except ValueError as error:
        raise model_files.refused(path, f"does not fit the adapter '{adapter.name}': {error}", REMEDY) from None
    patches = comfy.lora.load_lora(own, {layer: layer + ".weight" for layer in weights}, log_missing=False)
    foreign = {k: v for k, v in rest.items() if k.startswith("lora_te")}
    other = comfy.lora_convert.convert_lora({k: v for k, v in rest.items() if k not in foreign})
    unet = comfy.lora.load_lora(other, comfy.lora.model_lora_keys_unet(model.model, {}), log_missing=bool(patches))
    if not patches and not unet:
        raise model_files.wrong_kind(path, state, "a LoRA for this adapter or this model", REMEDY)
    _tell(name, adapter.name, len(patches), foreign)
    return _patched(model, unet, strength_model), adapter.patched(patches, strength_adapter)


def _weights(adapter: HostedAdapter) -> list[tuple[str, torch.Tensor]]:
    return list(adapter.patcher.model.state_dict().items())


def _tell(name: str, adapter: str, count: int, foreign: dict) -> None:
    if count == 0:
        log.warning("the LoRA %s holds nothing for the adapter %s; only the model is changed.", name, adapter)
    elif foreign:
        log.warning(
            "the LoRA %s changes %d layers of the adapter %s; %d tensors are for a text encoder that is not in use, the "
            "first is %s.", name, count, adapter, len(foreign), next(iter(foreign)),
        )  # fmt: skip


def _patched(model: Any, patches: dict, strength: float) -> Any:
    if strength == 0 or not patches:
        return model
    model = model.clone()
    model.add_patches(patches, strength)
    return model
