"""Guided passes that read the guided prompt's own encoding, whatever conditions the ordinary passes.

Guidance moves the latent only and the U-Net is unmodified, so its cross-attention can be read with CLIP's tokens while
the image is conditioned by something else: ELLA, an adapter's tokens, another text, an average.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.samplers
from torch import Tensor

from .sampler_run import SamplerRun

# What the host's text nodes for SDXL put beside the pooled vector; it belongs to the text that was encoded with it.
_SIZES = ("width", "height", "crop_w", "crop_h", "target_width", "target_height", "aesthetic_score")
_OF_TEXT = ("c_crossattn", "y")  # the model's inputs that are made from a text


def own_entries(run: SamplerRun, positive: Sequence[dict], conditioning: Sequence, batch: int) -> list[dict]:
    """The positive entries with `conditioning`, the guided prompt's own, in the place of their text, for `batch` images.

    Entries that differ in nothing but their text become one, and those for a part of the canvas are left out unless
    there are no others. Time ranges, ControlNets and hooks stay. Raises ValueError if the model cannot read the
    encoding.
    """
    whole = [c for c in positive if c.get("area") is None and c.get("mask") is None] or positive
    alike = {_without_text(c): c for c in reversed(whole)}
    return [
        _with_text(run, cond, entry[0], entry[1], batch) for cond in reversed(alike.values()) for entry in conditioning
    ]


def _without_text(cond: dict) -> tuple:
    kept = ("timestep_start", "timestep_end", "start_percent", "end_percent", "area")
    shared = tuple(id(cond[k]) if k in cond else None for k in ("control", "hooks", "gligen", "mask"))
    return (*(str(cond.get(k)) for k in kept), *shared)


def _with_text(run: SamplerRun, cond: dict, features: Tensor, extra: dict[str, Any], batch: int) -> dict:
    reads = cond["model_conds"]["c_crossattn"].cond.shape[-1]
    if features.shape[-1] != reads:
        raise ValueError(
            "layout guidance does not find its prompt in the positive conditioning, and cannot use the prompt's own "
            f"encoding either: that has width {features.shape[-1]}, this model reads {reads}. Connect the CLIP of the "
            "sampled checkpoint to the guidance node"
        )
    model, noise = run.guider.inner_model, run.model.noise
    given = {k: v for k, v in cond.items() if k not in _SIZES}
    given |= {k: v for k, v in extra.items() if k != "hooks"} | {"cross_attn": features, "model_conds": {}}
    timed = [given]
    comfy.samplers.calculate_start_end_timesteps(model, timed)
    made = comfy.samplers.encode_model_conds(model.extra_conds, timed, noise, noise.device, "positive")[0]
    own = {k: _for_images(made["model_conds"][k], batch) for k in _OF_TEXT if k in made["model_conds"]}
    return {**made, "model_conds": {**cond["model_conds"], **own}}


def _for_images(value: Any, batch: int) -> Any:
    tensor = value.cond
    return value._copy_with(tensor.expand(batch, *tensor.shape[1:])) if len(tensor) == 1 else value
