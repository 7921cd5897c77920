"""Conditioning tokens that know how to become themselves at another timestep.

A `TimedTokens` is an ordinary tensor (the tokens at one fixed timestep, usable anywhere) that also remembers its
origin: a text and a connector. Linear operations and re-arrangements done to it (joining, averaging, scaling,
slicing, ...) are remembered too, so that the same operations can be done again with the tokens of another timestep.
Any other operation gives a plain tensor. This is what lets nodes that know nothing of ELLA edit ELLA conditioning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeGuard

import torch
from torch import Tensor

_T = torch.Tensor
# Linear in the tokens, or a re-arrangement: doing them again at another timestep means what the first time meant.
REPLAYED = {
    torch.cat, torch.concat, torch.concatenate, torch.stack, torch.mul, torch.multiply, torch.add, torch.sub,
    torch.div, torch.lerp, torch.narrow, torch.chunk, torch.split, torch.unsqueeze, torch.squeeze, torch.flip,
    torch.index_select, torch.roll, torch.reshape, torch.where, torch.neg,
    _T.mul, _T.__mul__, _T.__rmul__, _T.multiply, _T.add, _T.__add__, _T.__radd__, _T.sub, _T.__sub__, _T.__rsub__,
    _T.div, _T.__truediv__, _T.lerp, _T.neg, _T.__neg__, _T.__getitem__, _T.narrow, _T.repeat, _T.expand, _T.chunk,
    _T.split, _T.unsqueeze, _T.squeeze, _T.flip, _T.index_select, _T.roll, _T.reshape, _T.view,
    torch.nn.functional.pad, torch.nn.functional.interpolate,
}  # fmt: skip
# The tokens stay the same, only where or how they are stored changes.
SAME = {_T.to, _T.cpu, _T.cuda, _T.clone, torch.clone, _T.contiguous, _T.detach, torch.detach, _T.float, _T.half}
# Where a network starts to read the tokens as they are.
READ = {torch.nn.functional.linear, torch.matmul, _T.matmul, _T.__matmul__, torch.nn.functional.layer_norm}


class Replay:
    """One remembered operation: calling it again with other tokens gives the edited tokens of another timestep."""

    def __init__(self, function: Callable, args: tuple, kwargs: dict, pick: int | None = None):
        self.function, self.args, self.kwargs, self.pick = function, args, kwargs, pick


class TimedTokens(torch.Tensor):
    """Tokens (B, N, W) with `origin`: a source with `.at(...)`, a `Replay` of an operation, or None once lost."""

    origin: Any
    on_read: Callable[[int, int], None] | None

    @staticmethod
    def wrap(values: Tensor, origin: Any, on_read: Callable[[int, int], None] | None = None) -> TimedTokens:
        """Attach an origin to a tensor.

        `on_read(width, wanted)` is called before a network reads the tokens, of that width, without resolving them;
        `wanted` is the width that its layer takes.
        """
        out = values.as_subclass(TimedTokens)
        out.origin, out.on_read = origin, on_read
        return out

    @classmethod
    def __torch_function__(cls, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        mine = [x for x in _leaves((args, kwargs)) if isinstance(x, TimedTokens)]
        on_read = next((x.on_read for x in mine if getattr(x, "on_read", None)), None)
        if func in READ and on_read is not None:
            on_read(mine[0].shape[-1], _input_width(func, args, kwargs, mine[0].shape[-1]))
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
        if _edits_in_place(func):  # the numbers are no longer those of the origin
            if isinstance(args[0], TimedTokens):
                args[0].origin = None
            return result
        if any(getattr(x, "origin", None) is None for x in mine):
            return result
        if func in SAME:
            own = isinstance(args[0], TimedTokens)  # otherwise only the pattern of another tensor's dtype and device
            return cls.wrap(result, args[0].origin, on_read) if own else result
        if func in REPLAYED and kwargs.get("out") is None:
            if isinstance(result, Tensor):
                return cls.wrap(result, Replay(func, args, kwargs), on_read)
            return type(result)(cls.wrap(r, Replay(func, args, kwargs, i), on_read) for i, r in enumerate(result))
        return result

    def __copy__(self) -> Tensor:
        values = plain(self)
        return TimedTokens.wrap(values.view_as(values), getattr(self, "origin", None), getattr(self, "on_read", None))

    def __deepcopy__(self, memo: dict) -> Tensor:
        return TimedTokens.wrap(plain(self).clone(), getattr(self, "origin", None), getattr(self, "on_read", None))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return plain(self).__reduce_ex__(protocol)  # on disk and between processes: the tokens as they are


def plain(values: Tensor) -> Tensor:
    """The same numbers as an ordinary tensor."""
    return values.as_subclass(torch.Tensor) if isinstance(values, TimedTokens) else values


def is_timed(values: Any) -> TypeGuard[TimedTokens]:
    """True if `values` are TimedTokens that still know the text they were made from."""
    return isinstance(values, TimedTokens) and getattr(values, "origin", None) is not None


def sources(values: Any) -> Iterator[Any]:
    """Every source that the tokens were made from, once each, in order."""
    seen: dict[int, Any] = {}
    todo = [values]
    while todo:
        x = todo.pop(0)
        if not is_timed(x):
            continue
        if isinstance(x.origin, Replay):
            todo += _leaves((x.origin.args, x.origin.kwargs))
        else:
            seen[id(x.origin)] = x.origin
    return iter(seen.values())


def resolve(values: Tensor, at: Callable[[Any, Tensor], Tensor], device: torch.device | str | None = None) -> Tensor:
    """The tokens with every source replaced by `at(source, its fixed tokens)`, and all remembered edits done again.

    Computed in float32 on `device`; the result has the dtype of `values`. Plain tensors only change device.
    """
    device = device or values.device
    return _resolve(values, at, device).to(values.dtype)


def _resolve(x: Any, at: Callable, device: Any) -> Any:
    if is_timed(x):
        if not isinstance(x.origin, Replay):
            return at(x.origin, plain(x).to(device)).float()
        step = x.origin
        args = _map(step.args, lambda a: _resolve(a, at, device))
        kwargs = _map(step.kwargs, lambda a: _resolve(a, at, device))
        result = step.function(*args, **kwargs)
        return result if step.pick is None else result[step.pick]
    return plain(x).to(device) if isinstance(x, Tensor) else x


def _input_width(func: Callable, args: tuple, kwargs: dict, width: int) -> int:
    weight = kwargs.get("weight", args[1] if len(args) > 1 else None)
    return weight.shape[-1] if func is torch.nn.functional.linear and isinstance(weight, Tensor) else width


def _edits_in_place(func: Callable) -> bool:
    name = getattr(func, "__name__", "")
    return name == "__setitem__" or (name.endswith("_") and not name.endswith("__")) or name in _IN_PLACE


_IN_PLACE = {"__iadd__", "__isub__", "__imul__", "__itruediv__"}


def _map(x: Any, f: Callable) -> Any:
    if isinstance(x, (list, tuple)):
        return type(x)(_map(y, f) for y in x)
    if isinstance(x, dict):
        return {k: _map(v, f) for k, v in x.items()}
    return f(x)


def _leaves(x: Any) -> list:
    if isinstance(x, (list, tuple)):
        return [z for y in x for z in _leaves(y)]
    if isinstance(x, dict):
        return [z for y in x.values() for z in _leaves(y)]
    return [x]
