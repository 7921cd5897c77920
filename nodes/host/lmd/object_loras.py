"""The LoRAs of a layout's objects, on the model and the text encoder of an object's own run."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import comfy.lora
import comfy.lora_convert

from ....lmd.object_settings import ObjectLora
from .. import lora_files, model_files
from .run_cache import signature

NODE = "LMD Object Settings"


def with_loras(model: Any, clip: Any, loras: Sequence[ObjectLora]) -> tuple[Any, Any, Hashable]:
    """Clones of MODEL and CLIP with the LoRAs, as the host's own loader makes them, and what is equal for equal LoRAs.

    Raises ValueError for a file that can't be used, or is for another model.
    """
    found: list[Hashable] = []
    for lora in loras:
        path, state = lora_files.read(lora.file, NODE)
        found.append((signature(state), lora.strength, lora.clip_strength))
        keys = comfy.lora.model_lora_keys_unet(model.model, {})
        keys = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, keys)
        loaded = comfy.lora.load_lora(comfy.lora_convert.convert_lora(state), keys, log_missing=False)
        if not loaded:
            raise model_files.wrong_kind(path, state, "a LoRA for this model", lora_files.remedy(NODE))
        if lora.strength:
            model = model.clone()
            model.add_patches(loaded, lora.strength)
        if lora.clip_strength:
            clip = clip.clone()
            clip.add_patches(loaded, lora.clip_strength)
    return model, clip, tuple(found)
