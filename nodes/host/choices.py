"""Choices that reach a node without the host's check: through a link, or from another program's prompt."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def one_of(value: T, choices: Iterable[T], input_name: str, node: str) -> T:
    """`value` if it is one of the choices; else ValueError that lists them and names the node's input."""
    known = list(choices)
    if value not in known:
        listed = ", ".join(f"'{c}'" for c in known)
        raise ValueError(f"The input {input_name} of {node} is {value!r}, which is not one of its choices: {listed}.")
    return value
