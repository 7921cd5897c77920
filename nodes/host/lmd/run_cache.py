"""A bounded cache of finished object runs, so that editing one object does not recompute the others."""

from __future__ import annotations

import hashlib
import weakref
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import comfy.conds
import comfy.model_management
import torch

MAX_BYTES = 512 * 2**20
RAM_SHARE = 4  # never more than a quarter of the memory that the machine has free


class Same:
    """Equal only to a key for the same live object."""

    def __init__(self, value: Any):
        try:  # a bound method is a new object at every look-up, so it is known by its owner and function
            self._get = weakref.WeakMethod(value) if hasattr(value, "__func__") else weakref.ref(value)
        except TypeError:
            self._get = lambda: value
        self._hash = hash(type(value).__name__)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Same):
            return False
        mine, theirs = self._get(), other._get()
        return mine is not None and (mine is theirs or (hasattr(mine, "__func__") and mine == theirs))


def signature(value: Any) -> Hashable:
    """A hashable stand-in: plain values and tensors by content, containers by their items, the rest by identity."""
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return value
    if isinstance(value, torch.Tensor):
        content = value.detach().cpu().contiguous().flatten()
        digest = hashlib.sha256(content.view(torch.uint8).numpy().tobytes() if content.numel() else b"").hexdigest()
        return tuple(value.shape), str(value.dtype), digest
    if isinstance(value, comfy.conds.CONDRegular):
        return type(value).__qualname__, signature(vars(value))
    if isinstance(value, dict):
        return tuple((signature(k), signature(v)) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(signature(v) for v in value)
    return Same(value)


def model_signature(model: Any) -> Hashable:
    """Everything about a MODEL that changes what it samples: the weights, their patches, and every option and hook."""
    parts = (
        model.model_options, model.object_patches, model.wrappers, model.callbacks, model.hook_patches,
        model.forced_hooks, model.injections, model.additional_models, model.attachments,
    )  # fmt: skip
    return Same(model.model), str(model.patches_uuid), tuple(signature(p) for p in parts)


@dataclass(frozen=True)
class _Entry:
    value: Any
    size: int
    owner: weakref.ref


class RunCache:
    """Finished runs by key, each owned by the model that made it: they go when the host drops that model.

    The least recently used go when the tensors exceed `max_bytes`, or a quarter of the memory that is free.
    """

    def __init__(self, max_bytes: int = MAX_BYTES):
        self.max_bytes = max_bytes
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()

    def get(self, key: Hashable) -> Any | None:
        """The value kept under a key, which becomes the newest; None if there is none."""
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key].value

    def put(self, key: Hashable, value: Any, tensors: Sequence[torch.Tensor], owner: Any) -> None:
        """Keep `value`, which holds `tensors`, as long as `owner`, a loaded network, lives."""
        size = sum(t.numel() * t.element_size() for t in tensors)
        self._entries[key] = _Entry(value, size, weakref.ref(owner, self._drop))
        self._entries.move_to_end(key)
        free = cast(int, comfy.model_management.get_free_memory(torch.device("cpu")))
        limit = min(self.max_bytes, free / RAM_SHARE)
        while len(self._entries) > 1 and sum(e.size for e in self._entries.values()) > limit:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        """Frees everything."""
        self._entries.clear()

    def _drop(self, owner: weakref.ref) -> None:
        for key in [k for k, e in self._entries.items() if e.owner is owner]:
            del self._entries[key]


OBJECT_RUNS = RunCache()  # holds nothing that outlives the model that it was made with
