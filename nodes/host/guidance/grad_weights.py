"""The host's weights and conditionings in a form that autograd takes.

The host loads weights and runs nodes under `torch.inference_mode`, where nothing can be differentiated. Here the
weights are made usable for one forward and backward pass, without a copy of the model, and put back as they were.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator, Sequence
from typing import Any

import comfy.ops
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .attention import Layer, modules_after

_MISSING = object()
_Linear = comfy.ops.disable_weight_init.Linear
_MULTIPLY = _Linear.forward_comfy_cast_weights  # the ordinary one; those of the option --fast have no gradient


class Aliases:
    """Ordinary tensors on the weights' own memory, kept from pass to pass of one run, for making them takes time.

    They hold that memory: `clear` them when the run ends, or the host could not free it. What a pass does not use is
    not kept for the next one.
    """

    def __init__(self) -> None:
        self._modules: dict[int, list[torch.nn.Module]] = {}
        self._known: dict[int, tuple[Tensor, Tensor]] = {}
        self._used: dict[int, tuple[Tensor, Tensor]] = {}

    def clear(self) -> None:
        """Forgets every alias."""
        self._modules.clear()
        self._known, self._used = {}, {}

    def modules(self, root: torch.nn.Module, layers: Sequence[Layer]) -> list[torch.nn.Module]:
        """Those with weights among the modules of `root`, of a U-Net only what runs before its last guided layer ends."""
        if id(root) not in self._modules:
            late = modules_after(root, layers[-1]) if layers else ()
            late = {m for top in late for m in top.modules()}
            found = [m for m in root.modules() if m not in late]
            self._modules[id(root)] = [m for m in found if m._parameters or m._buffers]
        return self._modules[id(root)]

    def of(self, weight: Tensor) -> Tensor:
        """An ordinary tensor on the same memory."""
        known, alias = self._known.get(id(weight), (None, None))
        if known is not weight or alias is None or alias.data_ptr() != weight.data_ptr():
            alias = torch.empty(0, dtype=weight.dtype, device=weight.device)
            alias.set_(weight.untyped_storage(), weight.storage_offset(), weight.shape, weight.stride())
            if isinstance(weight, torch.nn.Parameter):
                alias = torch.nn.Parameter(alias, False)
        self._used[id(weight)] = weight, alias
        return alias

    def pass_done(self) -> None:
        """Ends a pass: aliases that it did not use are forgotten."""
        self._known, self._used = self._used, {}


class OrdinaryTensors(TorchFunctionMode):
    """While entered, every operation takes ordinary tensors on the same memory in the place of inference tensors.

    For what `grad_ready` cannot see: the weights of a LoRA that is injected into the layers' forward, or tensors that a
    patch made when its node ran.
    """

    def __init__(self, aliases: Aliases):
        super().__init__()
        self._aliases = aliases

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = {k: self._ordinary(v) for k, v in kwargs.items()} if kwargs else {}
        return func(*map(self._ordinary, args), **kwargs)

    def _ordinary(self, value: Any) -> Any:
        if type(value) in (Tensor, torch.nn.Parameter):
            return self._aliases.of(value) if value.is_inference() else value
        if type(value) in (list, tuple):
            return type(value)(map(self._ordinary, value))
        return value


@contextlib.contextmanager
def grad_ready(*roots: torch.nn.Module, layers: Sequence[Layer] = (), aliases: Aliases | None = None) -> Iterator[None]:
    """Make the weights of `roots` fit for autograd; enter it inside `torch.inference_mode(False)`.

    A resident weight is replaced by a plain tensor on the same storage. A weight that is cast or streamed for each
    layer (low VRAM, dynamic VRAM) is cloned layer by layer, because its buffer is overwritten before the backward pass.
    Quantized weights and the fast multiplications of --fast, which have no such gradient, take the same way, dequantized.
    With `layers`, the first root is a U-Net of which only what runs up to the last of them is made ready.
    """
    aliases = aliases or Aliases()
    undo: list[tuple[dict, str, Any]] = []
    try:
        for module in (m for i, root in enumerate(roots) for m in aliases.modules(root, () if i else layers)):
            own, parameters = module.__dict__, module._parameters
            streamed = "_v" in own
            quantized = any(hasattr(p, "_qdata") for p in parameters.values())
            special = _multiplies_fast(module)
            if hasattr(module, "weight_function") and (streamed or quantized or special or module.comfy_cast_weights):
                changed: dict[str, Any] = {
                    n: [*getattr(module, n), torch.clone] for n in ("weight_function", "bias_function")
                }
                if special:
                    changed["forward_comfy_cast_weights"] = types.MethodType(_MULTIPLY, module)
                for name, value in changed.items():
                    undo.append((own, name, own.get(name, _MISSING)))
                    own[name] = value
            shelves: list[Any] = [] if streamed else [parameters, module._buffers]
            for tensors in shelves:
                for name, p in tensors.items():
                    if (
                        p is not None and type(p) in (Tensor, torch.nn.Parameter) and p.is_inference()
                    ):  # others know how to unpack
                        undo.append((tensors, name, p))
                        tensors[name] = aliases.of(p)
        yield
    finally:
        for tensors, name, value in reversed(undo):
            if value is _MISSING:
                tensors.pop(name, None)
            else:
                tensors[name] = value
        aliases.pass_done()


def _multiplies_fast(module: torch.nn.Module) -> bool:
    """A Linear layer of one of the host's --fast options; other packs' layers unpack their weights and are left alone."""
    own = getattr(type(module), "forward_comfy_cast_weights", _MULTIPLY)
    return isinstance(module, _Linear) and own is not _MULTIPLY and own.__module__ == comfy.ops.__name__


def normal(value: Any) -> Any:
    """`value` with every inference tensor inside it cloned into an ordinary one (dicts, lists, tuples, host conds)."""
    if isinstance(value, Tensor):
        return value.clone() if value.is_inference() else value
    if isinstance(value, dict):
        return {k: normal(v) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(normal(v) for v in value)
    if hasattr(value, "_copy_with") and isinstance(getattr(value, "cond", None), (Tensor, list, tuple, dict)):
        return value._copy_with(normal(value.cond))
    return value
