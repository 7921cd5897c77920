"""Digests of what a layout's JSON can't hold, the same again after a restart, so that an editor's edits find it."""

from __future__ import annotations

import hashlib
from typing import Any

from torch import Tensor

from .run_cache import signature


def digest(value: Any, owner: str) -> str:
    """16 hexadecimal digits for an object's tensors, "" for None; by their numbers, and of other things their kind."""
    if value is None:
        return ""
    return hashlib.sha256(f"{owner} {_content(value)}".encode()).hexdigest()[:16]


def _content(value: Any) -> str:
    if isinstance(value, dict):
        return repr([(str(k), _content(v)) for k, v in value.items()])
    if isinstance(value, (list, tuple)):
        return repr([_content(v) for v in value])
    if value is None or isinstance(value, (bool, int, float, str, bytes, Tensor)):
        return repr(signature(value))
    return type(value).__qualname__
