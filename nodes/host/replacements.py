"""Which of our nodes stand in for another pack's in graphs that were saved with it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Replacement:
    """Which node of ours stands in for one of theirs; inputs are (theirs, ours), outputs keep their order."""

    new: str
    widgets: tuple[str, ...]
    inputs: tuple[tuple[str, str], ...]
    outputs: int = 1


def same(*names: str) -> tuple[tuple[str, str], ...]:
    """Inputs that have the same name in both nodes."""
    return tuple((n, n) for n in names)
