"""What other nodes have patched into a model, as the guided pass sees it: made differentiable, left out, or put back.

A guided pass is an extra call of the U-Net with gradients. Nodes that keep something from call to call must not notice
it, and what they keep, made under inference mode, must not get into it.
"""

from __future__ import annotations

import contextlib
import functools
import re
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import comfy.model_patcher
import torch
from torch import Tensor

_PACK = __name__.partition(".nodes.")[0]
# Nodes that skip the U-Net, or parts of it, and answer from an earlier call.
_ANSWERS_FROM_MEMORY = re.compile(r"cache|t[-_]?gate", re.IGNORECASE)
# The lists of patches that the host's U-Net calls between its blocks, with and on its features.
_BETWEEN_BLOCKS = (
    "emb_patch", "input_block_patch", "input_block_patch_after_skip", "middle_block_after_patch", "output_block_patch",
)  # fmt: skip
_FUNCTION_WRAPPER = "model_function_wrapper"
_DEEP = 4  # so far the state of a patch is followed: its own dict, an object or a list in it, and so on


@dataclass
class Way:
    """How the guided passes of one run treat what other nodes have patched in; kept, so that it is found out once.

    `aliased`: every tensor made under inference mode is replaced where an operation takes it. `bare`: without other
    nodes' wrappers around the U-Net.
    """

    aliased: bool = False
    bare: bool = False


def without_wrappers(options: dict, bare: bool) -> None:
    """Take out of model options (a clone) the wrappers that a guided pass must not run: caches, torch.compile; `bare`:
    every other node's."""

    def kept(key: str, function: Any) -> bool:
        if _is_ours(function):
            return True
        return not (bare or key == "torch.compile" or _ANSWERS_FROM_MEMORY.search(f"{key} {described(function)}"))

    to = options["transformer_options"]
    if "wrappers" in to:
        to["wrappers"] = {
            kind: {key: [f for f in several if kept(key, f)] for key, several in keyed.items()}
            for kind, keyed in to["wrappers"].items()
        }
    if _FUNCTION_WRAPPER in options and not kept("", options[_FUNCTION_WRAPPER]):
        del options[_FUNCTION_WRAPPER]


def wrappers_of(options: dict) -> list[str]:
    """The other nodes' wrappers around the U-Net in some model options, by name."""
    keyed = (k for kinds in options["transformer_options"].get("wrappers", {}).values() for k in kinds.values())
    found = [f for several in keyed for f in several]
    found += [options[_FUNCTION_WRAPPER]] if _FUNCTION_WRAPPER in options else []
    return list(dict.fromkeys(described(f) for f in found if not _is_ours(f)))


def patches_of(options: dict) -> list[str]:
    """Every function that other nodes have patched into the model, by name."""
    to = options["transformer_options"]
    found = [f for several in to.get("patches", {}).values() for f in several]
    found += [f for slots in to.get("patches_replace", {}).values() for f in slots.values()]
    names = [
        described(f) for f in [*found, to.get("optimized_attention_override")] if f is not None and not _is_ours(f)
    ]
    return list(dict.fromkeys([*wrappers_of(options), *names]))


def differentiable_patches(patches: dict[str, list]) -> dict[str, list]:
    """A copy in which patches that write into the features (FreeU) can be differentiated like any other."""
    return {
        name: [_on_copies(f) for f in several] if name in _BETWEEN_BLOCKS else list(several)
        for name, several in patches.items()
    }


def _on_copies(patch: Callable) -> Callable:
    @functools.wraps(patch, updated=())
    def on_copies(*args: Any) -> Any:
        # What is written into later on is kept for the backward pass as it was.
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t.detach().clone(), lambda t: t):
            return patch(*(a.clone() if isinstance(a, Tensor) else a for a in args))

    return on_copies


@contextlib.contextmanager
def unnoticed(options: dict) -> Iterator[None]:
    """Put back what the patches in model options remember (attributes, closures, and containers in them) afterwards."""
    to = options["transformer_options"]
    wrapped = [f for kinds in to.get("wrappers", {}).values() for several in kinds.values() for f in several]
    patched = [f for several in to.get("patches", {}).values() for f in several]
    replaced = [f for slots in to.get("patches_replace", {}).values() for f in slots.values()]
    memory = _Memory()
    for function in (*wrapped, *patched, *replaced, options.get(_FUNCTION_WRAPPER)):
        memory.add(function)
    try:
        yield
    finally:
        memory.put_back()


class _Memory:
    """The state of functions and objects of other packs, as it was when they were added."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._cells: list[tuple[types.CellType, Any]] = []
        self._containers: list[tuple[Any, Any]] = []

    def add(self, value: Any, depth: int = 0) -> None:
        if value is None or depth > _DEEP or id(value) in self._seen or isinstance(value, (type, str, int, float)):
            return
        self._seen.add(id(value))
        if isinstance(value, functools.partial):
            inside: Any = (value.func, *value.args, *value.keywords.values())
        elif isinstance(value, types.MethodType):
            inside = (value.__self__,)
        elif isinstance(value, types.FunctionType):
            inside = self._closed(value)
        elif type(value) in (dict, list, set):
            self._containers.append((value, value.copy()))
            inside = value.values() if isinstance(value, dict) else value
        elif type(value) is tuple:
            inside = value
        elif _holds_state(value):
            inside = (vars(value),)
        else:
            return
        for item in list(inside):
            self.add(item, depth + 1)

    def _closed(self, function: types.FunctionType) -> list[Any]:
        full = []
        for cell in function.__closure__ or ():
            with contextlib.suppress(ValueError):  # an empty cell
                self._cells.append((cell, cell.cell_contents))
                full.append(cell.cell_contents)
        return full

    def put_back(self) -> None:
        for cell, value in self._cells:
            cell.cell_contents = value
        for container, copy in self._containers:
            if isinstance(container, list):
                if any(isinstance(item, Tensor) for item in (*container, *copy)):  # others are logs and counters
                    container[:] = copy
            elif container != copy if isinstance(container, set) else _differ(container, copy):
                container.clear()
                container.update(copy)


def _differ(now: dict, before: dict) -> bool:
    return now.keys() != before.keys() or any(now[k] is not before[k] for k in before)


def _holds_state(value: Any) -> bool:
    """A plain object of another pack: not the host's, torch's, or Python's own, and no model."""
    module = type(value).__module__.split(".")[0]
    foreign = module not in ("torch", "comfy", "builtins", "threading", "collections") and not _is_ours(value)
    known = (Tensor, torch.nn.Module, comfy.model_patcher.ModelPatcher, types.ModuleType)
    return foreign and not isinstance(value, known) and hasattr(value, "__dict__")


def _bare_function(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _is_ours(value: Any) -> bool:
    value = _bare_function(value)
    module = getattr(value, "__module__", None) or type(value).__module__
    return module.startswith(f"{_PACK}.")


def described(function: Any) -> str:
    """ "name of module" of a patch; of a pack's module, the part inside its folder of custom_nodes."""
    function = _bare_function(function)
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    module = getattr(function, "__module__", None) or type(function).__module__
    return f"{name} of {re.split(r'custom_nodes[/.]', module.replace(chr(92), '/'))[-1]}"
