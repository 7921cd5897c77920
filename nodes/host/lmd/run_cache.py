"""A bounded cache of finished object runs, so that editing one object does not recompute the others."""

from __future__ import annotations

import hashlib
import weakref
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

import torch

MAX_BYTES = 512 * 2**20


class Same:
    """A key that equals another one only for the very same living object."""

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
        content = value.detach().cpu().contiguous()
        digest = hashlib.sha256(content.view(torch.uint8).numpy().tobytes() if content.numel() else b"").hexdigest()
        return tuple(value.shape), str(value.dtype), digest
    if isinstance(value, dict):
        return tuple((signature(k), signature(v)) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(signature(v) for v in value)
    return Same(value)


def model_signature(model: Any) -> Hashable:
    """Everything about a MODEL that changes what it samples: the weights, their patches, and every option and hook."""
    parts = (model.model_options, model.object_patches, model.wrappers, model.callbacks, model.hook_patches)
    return Same(model.model), str(model.patches_uuid), tuple(signature(p) for p in parts)


class RunCache:
    """Least recently used entries go when the tensors in it exceed `max_bytes`."""

    def __init__(self, max_bytes: int = MAX_BYTES):
        self.max_bytes = max_bytes
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def get(self, key: Hashable) -> Any | None:
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key][0]

    def put(self, key: Hashable, value: Any, tensors: list[torch.Tensor]) -> None:
        size = sum(t.numel() * t.element_size() for t in tensors)
        self._entries[key] = (value, size)
        self._entries.move_to_end(key)
        while len(self._entries) > 1 and sum(s for _, s in self._entries.values()) > self.max_bytes:
            self._entries.popitem(last=False)

    def clear(self) -> None:
        self._entries.clear()


OBJECT_RUNS = RunCache()
