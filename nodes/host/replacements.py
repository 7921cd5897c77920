"""Which of our nodes stand in for another pack's in graphs that were saved with it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Replacement:
    """Which node of ours stands in for one of theirs; inputs are (theirs, ours), outputs keep their order.

    `widgets` are those of theirs that are taken. A saved graph holds widgets by place, so `all_widgets` names every one
    in order where some in between are not taken.
    """

    new: str
    widgets: tuple[str, ...]
    inputs: tuple[tuple[str, str], ...]
    outputs: int = 1
    all_widgets: tuple[str, ...] = ()


def same(*names: str) -> tuple[tuple[str, str], ...]:
    """Inputs that have the same name in both nodes."""
    return tuple((n, n) for n in names)
