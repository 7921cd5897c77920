"""Recomputes ELLA's tokens at every model call, for the sigma of that call, in whatever conditioning carries them.

A wrapper around the host's batching of conditions sees every call of every sampler before areas, ControlNets, hooks
and batching are worked out, so each of them gets the right tokens. Conditions without ELLA pass through untouched.
"""

from __future__ import annotations

from typing import Any

import comfy.hooks
import torch
from comfy.patcher_extension import WrappersMP

from ....ella.schedule import RecomputeOptions, checked_timestep
from ....ella.timed import is_timed, plain, resolve, sources
from .connector import EllaText, compute, misfit

KEY = "ella_lmd_timestep_aware"


def timestep_of(model_sampling: Any, sigma: torch.Tensor) -> int:
    """The timestep 0..999 that the U-Net is told for this sigma; ValueError for models with another notion of it."""
    return checked_timestep(float(model_sampling.timestep(sigma.flatten()[:1])), type(model_sampling).__name__)


class TimestepAware:
    """The two wrappers of one TimestepAwareConditioning node (or of a conditioning that brings its own)."""

    def __init__(self, options: RecomputeOptions):
        self.options = options

    def wrappers(self) -> dict[str, dict[str, list]]:
        """The wrappers to add to a model's options."""
        return {
            WrappersMP.PREPARE_SAMPLING: {KEY: [self.prepare_sampling]},
            WrappersMP.CALC_COND_BATCH: {KEY: [self.calc_cond_batch]},
        }

    def prepare_sampling(self, executor, model, noise_shape, conds, *args, **kwargs):
        """Has the connectors loaded together with the model, before sampling starts.

        A model of another kind is refused here, before the host asks such a model's other needs of the conditioning.
        """
        for entries in conds.values():
            for cond in entries or ():
                _check_width(model.model, cond.get("cross_attn"))
        return executor(
            model, noise_shape, {k: [_with_connectors(c) for c in v] for k, v in conds.items()}, *args, **kwargs
        )

    def calc_cond_batch(self, executor, model, conds, x, sigma, model_options):
        """Puts the tokens of this sigma's timestep into the conditionings, then calls the model."""
        if not any(_carries_tokens(c) for entries in conds for c in entries or ()):
            return executor(model, conds, x, sigma, model_options)
        timestep = timestep_of(model.model_sampling, sigma)
        strength = self.options.strength_at(timestep)
        for entries in conds:
            for c in entries or ():
                _check_width(model, getattr(c["model_conds"].get("c_crossattn"), "cond", None))
        if strength != 0.0:
            compute(_texts_in_use(conds, sigma), timestep)

        def current(text: EllaText, fixed: torch.Tensor) -> torch.Tensor:
            if strength == 0.0:
                return fixed
            tokens = text.at(timestep).to(device=fixed.device, dtype=fixed.dtype)
            return tokens if strength == 1.0 else torch.lerp(fixed, tokens, strength)

        def swap(c: dict) -> dict:
            active = _is_active(c, sigma) and strength != 0.0
            out = {**c, "model_conds": dict(c["model_conds"])}
            for key, entry in c["model_conds"].items():
                values = getattr(entry, "cond", None)
                if is_timed(values):
                    tokens = resolve(values, current, x.device) if active else plain(values).to(x.device)
                    out["model_conds"][key] = entry._copy_with(_usable(tokens))
                elif key == "c_crossattn" and values is not None:  # the host batches only conditions on the same device
                    out["model_conds"][key] = entry._copy_with(plain(values).to(x.device))
            return _without_own_hook(out)

        conds = [None if entries is None else [swap(c) for c in entries] for entries in conds]
        return executor(model, conds, x, sigma, model_options)


def strength_in(transformer_options: dict, timestep: int) -> float:
    """How far ELLA's tokens follow the timestep in a model call with these options: 0 without any of our wrappers."""
    found = transformer_options.get("wrappers", {}).get(WrappersMP.CALC_COND_BATCH, {}).get(KEY, [])
    return next((w.__self__.options.strength_at(timestep) for w in found), 0.0)


class OwnHook(comfy.hooks.TransformerOptionsHook):
    """Brings the wrappers along inside a conditioning, for graphs whose MODEL passes no node of ours."""

    def __init__(self):
        super().__init__(transformers_dict={"wrappers": TimestepAware(RecomputeOptions()).wrappers()})


def patch_model(model, options: RecomputeOptions):
    """A clone of a MODEL whose samplers see ELLA's tokens at their timesteps; a second patch replaces the first."""
    model = model.clone()
    for kind, keyed in TimestepAware(options).wrappers().items():
        model.remove_wrappers_with_key(kind, KEY)
        model.add_wrapper_with_key(kind, KEY, keyed[KEY][0])
    return model


def with_own_hook(conditioning: list) -> list:
    """The conditioning with `OwnHook` on every entry that carries ELLA tokens."""
    group = comfy.hooks.HookGroup()
    group.add(OwnHook())
    out = []
    for tokens, extra in conditioning:
        hooks = group if is_timed(tokens) else None
        if hooks is not None and "hooks" in extra:
            hooks = extra["hooks"].clone_and_combine(hooks)
        out.append([tokens, {**extra, "hooks": hooks} if hooks is not None else extra])
    return out


def _with_connectors(cond: dict) -> dict:
    if not is_timed(cond.get("cross_attn")):
        return cond
    patchers = {text.connector.patcher: None for text in sources(cond["cross_attn"])}
    present = cond.get("additional_models", [])
    present = present if isinstance(present, list) else [present]
    return {**cond, "additional_models": [*present, *(p for p in patchers if p not in present)]}


def _carries_tokens(cond: dict) -> bool:
    return any(is_timed(getattr(entry, "cond", None)) for entry in cond["model_conds"].values())


def _usable(tokens: torch.Tensor) -> torch.Tensor:
    """Remembered tokens were made in inference mode; where gradients are taken outside of it, a copy is needed."""
    return tokens.clone() if tokens.is_inference() and not torch.is_inference_mode_enabled() else tokens


def _texts_in_use(conds, sigma: torch.Tensor) -> list[EllaText]:
    """Every text, once, that some active condition carries, in the order of the conditions."""
    texts: dict[EllaText, None] = {}
    for entries in conds:
        for c in entries or ():
            if _is_active(c, sigma):
                for entry in c["model_conds"].values():
                    texts.update(dict.fromkeys(sources(getattr(entry, "cond", None))))
    return list(texts)


def _is_active(cond: dict, sigma: torch.Tensor) -> bool:
    """Whether the host will use this entry at this sigma (the same comparison as its own)."""
    start, end = cond.get("timestep_start"), cond.get("timestep_end")
    return not ((start is not None and sigma[0] > start) or (end is not None and sigma[0] < end))


def _check_width(model: Any, values: Any) -> None:
    wanted = model.model_config.unet_config.get("context_dim")
    if is_timed(values) and wanted is not None and values.shape[-1] != wanted:
        raise ValueError(misfit(values.shape[-1], wanted))


def _without_own_hook(cond: dict) -> dict:
    """Without our own hook, entries that differ in nothing else are batched again."""
    group = cond.get("hooks")
    if group is not None and all(isinstance(h, OwnHook) for h in group.hooks):
        cond = {k: v for k, v in cond.items() if k != "hooks"}
    return cond
