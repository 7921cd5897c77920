"""Gradients of an attention energy through the host's U-Net, inside the executor's inference mode.

The host loads weights and runs nodes under `torch.inference_mode`, where nothing can be differentiated. Here the
weights are made usable for one forward and backward pass, without a copy of the model, and put back as they were.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import comfy.model_patcher
import comfy.patcher_extension
import comfy.samplers
import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch import Tensor

from ...lmd.energy import AttentionMap
from .attention import Capture, Layer, LayersDone, add_patches

log = logging.getLogger(__name__)
_MISSING = object()
HALF_LOSS_SCALE = 1024.0  # keeps small gradients above half precision's smallest numbers


@contextlib.contextmanager
def grad_ready(*roots: torch.nn.Module) -> Iterator[None]:
    """Make the weights of `roots` fit for autograd; enter it inside `torch.inference_mode(False)`.

    A resident weight is replaced by a plain tensor on the same storage. A weight that is cast or streamed for each
    layer (low VRAM, dynamic VRAM) is cloned layer by layer, because its buffer is overwritten before the backward pass.
    """
    undo: list[tuple[dict, str, Any]] = []
    try:
        for module in (m for root in roots for m in root.modules()):
            streamed = hasattr(module, "_v")
            if hasattr(module, "weight_function") and (streamed or module.comfy_cast_weights):
                for name in ("weight_function", "bias_function"):
                    undo.append((module.__dict__, name, module.__dict__.get(name, _MISSING)))
                    module.__dict__[name] = [*getattr(module, name), torch.clone]
            for tensors in () if streamed else (module._parameters, module._buffers):
                for name, p in tensors.items():
                    if p is None or not p.is_inference() or hasattr(p, "_qdata"):
                        continue
                    alias = torch.empty(0, dtype=p.dtype, device=p.device)
                    alias.set_(p.untyped_storage(), p.storage_offset(), p.shape, p.stride())
                    undo.append((tensors, name, p))
                    tensors[name] = torch.nn.Parameter(alias, False) if tensors is module._parameters else alias
        yield
    finally:
        for tensors, name, value in reversed(undo):
            if value is _MISSING:
                tensors.pop(name, None)
            else:
                tensors[name] = value


def normal(value: Any) -> Any:
    """`value` with every inference tensor inside it cloned into an ordinary one (dicts, lists, tuples, host conds)."""
    if isinstance(value, Tensor):
        return value.clone() if value.is_inference() else value
    if isinstance(value, dict):
        return {k: normal(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(normal(v) for v in value)
    if hasattr(value, "_copy_with") and isinstance(getattr(value, "cond", None), (Tensor, list, tuple, dict)):
        return value._copy_with(normal(value.cond))
    return value


def energy_gradient(
    guider: Any,
    cond: dict,
    x: Tensor,
    sigma: Tensor,
    model_options: dict,
    layers: Sequence[Layer],
    columns: Sequence[int],
    energy: Callable[[list[AttentionMap]], Tensor],
) -> tuple[Tensor, Tensor] | None:
    """Energy [B] of one positive conditioning entry and its gradient with respect to `x` [B, C, h, w].

    `energy` gets the maps of `layers` in order, with `columns` as their token axis. Returns None if the entry does
    not take part at this sigma (its time range or area). The gradient has the dtype of `x` and is an ordinary tensor.
    """
    model = guider.inner_model
    # Weights that hooks swap must be in place before they are aliased; the guided pass then finds nothing to swap.
    if cond.get("hooks") is not None:
        model.current_patcher.prepare_hook_patches_current_keyframe(sigma, cond["hooks"], model_options)
    model.current_patcher.apply_hooks(hooks=cond.get("hooks"))
    for keep_patches in (True, False):
        options, capture = _guided_options(model_options, layers, columns, keep_patches)
        try:
            with torch.inference_mode(False), torch.enable_grad():
                leaf = x.detach().clone().requires_grad_()
                with grad_ready(model.diffusion_model, *_extra_modules(cond)):
                    with contextlib.suppress(LayersDone):
                        comfy.samplers.calc_cond_batch(model, [[normal(cond)]], leaf, sigma.clone(), options)
                    if not capture.maps:
                        return None
                    value = energy([capture.maps[layer] for layer in layers])
                    scale = HALF_LOSS_SCALE if model.get_dtype_inference() == torch.float16 else 1.0
                    (gradient,) = torch.autograd.grad(value.sum() * scale, leaf)
                return value.detach(), gradient / scale
        except RuntimeError as error:
            if not keep_patches or "modified by an inplace operation" not in str(error):
                raise
            log.warning("another node's patch writes in place, which cannot be differentiated: guiding without it")
    raise AssertionError("unreachable")


def _guided_options(
    model_options: dict, layers: Sequence[Layer], columns: Sequence[int], keep_patches: bool
) -> tuple[dict, Capture]:
    """A copy of the run's model options for the guided pass, with the capture patches in it."""
    options = comfy.model_patcher.create_model_options_clone(model_options)
    options.pop("multigpu_clones", None)  # that path runs in worker threads, where the gradient mode is not set
    to = options.setdefault("transformer_options", {})
    # Of the host's attention functions only PyTorch's is differentiable in every case.
    to["optimized_attention_override"] = lambda function, *args, **kwargs: attention_pytorch(*args, **kwargs)
    compiled = to.get("wrappers", {}).get(comfy.patcher_extension.WrappersMP.APPLY_MODEL, {})
    if "torch.compile" in compiled:
        to["wrappers"] = {
            **to["wrappers"],
            comfy.patcher_extension.WrappersMP.APPLY_MODEL: {k: v for k, v in compiled.items() if k != "torch.compile"},
        }
    patches = {k: list(v) if isinstance(v, list) else v for k, v in to.get("patches", {}).items()}
    if not keep_patches:
        patches.pop("output_block_patch", None)
    # ControlNet adds to the skip tensors in place; a copy keeps what earlier layers saved for the backward pass.
    patches.setdefault("input_block_patch_after_skip", []).append(lambda h, extra_options: h.clone())
    to["patches"] = patches
    capture = Capture(layers, columns)
    add_patches(to, layers, capture.patch)
    return options, capture


def _extra_modules(cond: dict) -> list[torch.nn.Module]:
    """The networks beside the U-Net that take part in the guided pass of a conditioning entry: ControlNets, GLIGEN."""
    modules, control = [], cond.get("control")
    while control is not None:
        modules.append(getattr(control, "control_model", None))
        control = getattr(control, "previous_controlnet", None)
    if "gligen" in cond:
        modules.append(cond["gligen"][1].model)
    return [m for m in modules if isinstance(m, torch.nn.Module)]
