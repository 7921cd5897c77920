"""Checks of options where they are made: each raises ValueError naming the field, what it got and what it allows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import UnionType
from typing import Any


def number(owner: Any, name: str, low: float = -math.inf, high: float = math.inf) -> None:
    """The field is a finite number from `low` to `high`."""
    value = getattr(owner, name)
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not good or not low <= value <= high:
        raise _wrong(owner, name, f"a number {_range(low, high)}")


def whole(owner: Any, name: str, low: float = -math.inf, high: float = math.inf) -> None:
    """The field is a whole number from `low` to `high`."""
    if not _is_whole(getattr(owner, name), low, high):
        raise _wrong(owner, name, f"a whole number {_range(low, high)}")


def wholes(owner: Any, name: str, low: float, high: float) -> None:
    """The field is a tuple of whole numbers from `low` to `high`."""
    value = getattr(owner, name)
    if not isinstance(value, tuple) or not all(_is_whole(v, low, high) for v in value):
        raise _wrong(owner, name, f"a tuple of whole numbers {_range(low, high)}")


def one_of(owner: Any, name: str, allowed: Sequence[str]) -> None:
    """The field is one of the words in `allowed`."""
    if getattr(owner, name) not in allowed:
        raise _wrong(owner, name, " or ".join(f'"{word}"' for word in allowed))


def kind(owner: Any, kind: type | UnionType, *names: str) -> None:
    """The fields are of a type, or of one of several."""
    for name in names:
        if not isinstance(getattr(owner, name), kind):
            raise _wrong(owner, name, f"of the type {getattr(kind, '__name__', kind)}")


def _is_whole(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _range(low: float, high: float) -> str:
    if math.isinf(high):
        return f"of at least {low:g}" if math.isfinite(low) else "that is finite"
    return f"from {low:g} to {high:g}"


def _wrong(owner: Any, name: str, allowed: str) -> ValueError:
    value = repr(getattr(owner, name))
    return ValueError(f"{type(owner).__name__}: {name} must be {allowed}, got {value[:80]}")
