"""Which models treat the images of a batch apart, so that several objects in one batch cannot influence each other.

A patch may average over a batch, keep state from call to call, or draw one random number for all of it. So nothing is
assumed: the host's plain path and the patches below, which were read and are measured in tests/host/test_independence.py,
are per image. Everything else might not be, and its objects run one at a time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import comfy.hooks
import comfy.model_base
import comfy.patcher_extension
import comfy.samplers
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor

_HOST = Path(comfy.samplers.__file__).resolve().parents[1]
_PACK = Path(__file__).resolve().parents[3]
_PLAIN = (bool, int, float, complex, str, bytes, Tensor, torch.dtype, torch.device, type(None))
# (file, outermost name, own name) of patches whose every result depends on its own image alone.
_PER_IMAGE = {
    (_HOST / "comfy_extras/nodes_model_advanced.py", "RescaleCFG", "rescale_cfg"),
    (_HOST / "comfy_extras/nodes_freelunch.py", "FreeU", "output_block_patch"),
    (_HOST / "comfy_extras/nodes_freelunch.py", "FreeU_V2", "output_block_patch"),
    (_HOST / "comfy_extras/nodes_model_downscale.py", "PatchModelAddDownscale", "input_block_patch"),
    (_HOST / "comfy_extras/nodes_model_downscale.py", "PatchModelAddDownscale", "output_block_patch"),
    (_HOST / "comfy_extras/nodes_pag.py", "PerturbedAttentionGuidance", "post_cfg_function"),
    (_HOST / "comfy_extras/nodes_cfg.py", "CFGZeroStar", "cfg_zero_star"),
    (_HOST / "comfy_extras/nodes_cfg.py", "CFGNorm", "cfg_norm"),
    (_HOST / "comfy_extras/nodes_cfg.py", "CFGNorm", "cfg_norm_pre"),
    (_HOST / "comfy_extras/nodes_eps.py", "EpsilonScaling", "epsilon_scaling_function"),
    (_HOST / "comfy_api/torch_helpers/torch_compile.py", "apply_torch_compile_factory", "apply_torch_compile_wrapper"),
    (_HOST / "comfy/weight_adapter/bypass.py", "BypassInjectionManager", "inject_all"),
    (_HOST / "comfy/weight_adapter/bypass.py", "BypassInjectionManager", "eject_all"),
    (_PACK / "nodes/host/ella/recompute.py", "TimestepAware", "prepare_sampling"),
    (_PACK / "nodes/host/ella/recompute.py", "TimestepAware", "calc_cond_batch"),
}
# The host's plain path; a pack that replaces one of these for the whole program may do anything in it.
_PATH = (
    (comfy.samplers, "sampling_function"),
    (comfy.samplers, "cfg_function"),
    (comfy.samplers, "calc_cond_batch"),
    (comfy.model_base.BaseModel, "_apply_model"),
    (UNetModel, "forward"),
)


def not_per_image(model: Any) -> str | None:
    """The first part of a MODEL that is not known to treat the images of a batch apart, in words; None without any."""
    return next(_unknown_parts(model), None)


def hooks_per_image(hooks: Any) -> bool:
    """Whether a conditioning's hooks (None, or the host's HookGroup) only exchange weights, for all rows alike."""
    return hooks is None or all(type(hook) is comfy.hooks.WeightHook for hook in hooks.hooks)


def _unknown_parts(model: Any) -> Iterator[str]:
    for owner, name in _PATH:
        if not _of_host(getattr(owner, name)):
            yield f"a replacement of ComfyUI's own {name}"
    yield from _unknown_modules(model.model)
    yield from _unknown_values(model.model_options)
    yield from _unknown_values(model.wrappers)
    yield from _unknown_values(model.callbacks)
    for injection in (i for several in model.injections.values() for i in several):
        yield from _unknown_values([injection.inject, injection.eject])
    for key, value in model.object_patches.items():
        yield from _unknown_object(key, value)
    if not hooks_per_image(model.forced_hooks):
        yield "hooks on the model that do more than change weights"


def _unknown_modules(root: torch.nn.Module) -> Iterator[str]:
    for module in root.modules():
        if not _host_class(type(module)):
            yield f"the network module {_name(type(module))}"
        elif (
            module._forward_hooks or module._forward_pre_hooks or ("forward" in vars(module) and not _compiled(module))
        ):
            yield f"a changed forward of {_name(type(module))}"


def _compiled(module: torch.nn.Module) -> bool:
    """Whether torch.compile made it, of a module that is looked at itself; another clone may have it in place."""
    return type(module).__module__.startswith("torch._dynamo")


def _unknown_object(key: str, value: Any) -> Iterator[str]:
    if isinstance(value, torch.nn.Module):
        yield from _unknown_modules(value)
    elif key not in ("model_sampling", "latent_format") or not _host_class(type(value)):
        yield from _unknown_values(value)


def _unknown_values(value: Any) -> Iterator[str]:
    """Everything in nested containers that could run, or be read by the host while it samples."""
    if isinstance(value, dict):
        for item in value.values():
            yield from _unknown_values(item)
    elif isinstance(value, (list, tuple, set)):
        for item in value:
            yield from _unknown_values(item)
    elif not isinstance(value, _PLAIN) and _origin(value) not in _PER_IMAGE:
        yield _name(value)


def _origin(value: Any) -> tuple[Path, str, str] | None:
    """Where a Python function was written: its file, and the first and last of its qualified name."""
    function = value.__func__ if isinstance(value, MethodType) else value
    if not isinstance(function, FunctionType):
        return None
    first, *_, last = [*function.__qualname__.split("."), function.__name__]
    return Path(function.__code__.co_filename).resolve(), first, last


def _of_host(function: Any) -> bool:
    origin = _origin(function)
    return origin is not None and origin[0].is_relative_to(_HOST / "comfy")


def _host_class(cls: type) -> bool:
    """Whether a class and all its bases come from ComfyUI, torch or Python."""
    return all(_host_module(base.__module__) for base in cls.__mro__)


def _host_module(name: str) -> bool:
    if name.split(".")[0] in ("torch", "comfy", "builtins", "abc", "typing", "enum"):
        return True
    file = getattr(sys.modules.get(name), "__file__", None)
    return file is not None and Path(file).resolve().is_relative_to(_HOST / "comfy_extras")


def _name(value: Any) -> str:
    kind = value if isinstance(value, (type, FunctionType, MethodType)) else type(value)
    return f"{getattr(kind, '__qualname__', kind)} of {kind.__module__}"
