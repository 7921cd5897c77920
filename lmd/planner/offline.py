"""The offline planner's one function."""

from __future__ import annotations

from ..english.reader import read
from ..layout import MAX_OBJECTS, Layout, LayoutObject
from .arrange import Arranger
from .quality import tidy

MAX_PROMPT = 4000


def plan(prompt: str, width: int = 512, height: int = 512) -> Layout:
    """Lay out an English prompt on a canvas of `width` x `height` pixels (multiples of 8).

    `Layout.notes` says what was not understood or had to be assumed. Raises ValueError for an empty prompt.
    """
    text = prompt.strip()
    if not text:
        raise ValueError("the prompt is empty, so there is nothing to lay out: write what the image should show")
    scene = read(text[:MAX_PROMPT])
    if len(text) > MAX_PROMPT:
        scene.note(f"only the first {MAX_PROMPT} characters of the prompt were read")
    total = sum(t.count for t in scene.things)
    if total > MAX_OBJECTS:
        _shrink(scene.things, total)
        scene.note(f"{total} objects are more than a layout holds; {sum(t.count for t in scene.things)} were drawn")
    placed = Arranger(scene).boxes(width, height)
    keys = [(t, i) for t in scene.things for i in range(t.count) if (t, i) in placed]
    objects = tuple(LayoutObject(_spaced(t.phrase), placed[t, i]) for t, i in keys)
    if not objects:
        scene.note("no object with a place of its own was found; the whole prompt is background")
    background, negative = _spaced(scene.background), _spaced(", ".join(scene.absent))
    return tidy(Layout(width, height, objects, background, negative, text, tuple(scene.notes)))


def _spaced(text: str) -> str:
    """Compounds travel as one word ("parking_lot")."""
    return text.replace("_", " ")


def _shrink(things: list, total: int) -> None:
    for thing in sorted(things, key=lambda t: -t.count):
        drop = min(total - MAX_OBJECTS, thing.count - 1)
        if drop > 0:
            thing.count -= drop
            total -= drop
    while total > MAX_OBJECTS:
        total -= things.pop().count
