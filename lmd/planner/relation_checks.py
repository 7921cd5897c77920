"""When is a spatial relation between boxes surely broken, and when is it better not judged?"""

from __future__ import annotations

import re

from ..english.inflection import word_set
from ..english.scene import Relation, Scene
from ..layout import Box

_GAP = 0.12
_HUNG = re.compile(r"\b(?:hang|hung|pinned|attached|printed|painted|mounted|stuck|sewn)\w*\b", re.I)
_COVERS = word_set("blanket sheet quilt duvet cloth tablecloth cover canopy umbrella veil net snow sky roof")
_ON = re.compile(r"\b(?:on|onto|upon|atop)\b", re.I)  # the reader's "on" also stands for "along", "up" and "through"
# "a tree with no star on top": the place belongs to what is not there.
_DENIED_PLACE = re.compile(
    r"\b(?:no|not|without|nobody|never)\b[^,.;]*\b(?:on|under|above|below|left|right|between|over|beneath)\b", re.I
)


def denies_a_place(prompt: str) -> bool:
    return _DENIED_PLACE.search(prompt) is not None


def checkable(relation: Relation, prompt: str) -> bool:
    """False where "on" may mean that something hangs there, and "under" that something covers it."""
    if relation.kind == "on":
        return bool(_ON.search(prompt)) and not _HUNG.search(prompt)
    return relation.kind != "under" or not any(t.head in _COVERS for t in relation.targets)


def opposites(scene: Scene) -> list[Relation]:
    """ "a cat on the left and a dog on the right" says where they are to each other."""
    out = []
    for axis, kind in ((0, "left"), (1, "above")):
        placed = [t for t in scene.things if t.position[axis] is not None]
        low, high = [t for t in placed if t.position[axis] < 0.4], [t for t in placed if t.position[axis] > 0.6]
        out += [Relation(kind, (a,), (b,)) for a in low for b in high]
    return out


def holds(kind: str, first: list[Box], second: list[Box]) -> bool:
    """False only when a relation is surely broken: every subject stands wrongly to every target."""
    if kind == "between":
        spans = [sorted(b.centre[axis] for b in second) for axis in (0, 1)]
        if len(second) < 2:
            return True
        return any(s[0] < b.centre[axis] < s[-1] for b in first for axis, s in enumerate(spans))
    return any(_holds(kind, a, b) for a in first for b in second)


def _holds(kind: str, a: Box, b: Box) -> bool:
    (ax, ay), (bx, by) = a.centre, b.centre
    across = max(a.x, b.x) - min(a.x + a.w, b.x + b.w)  # below 0: they share columns
    apart = max(a.y, b.y) - min(a.y + a.h, b.y + b.h)
    return {
        "left": ax < bx,
        "right": ax > bx,
        "above": ay < by,
        "below": ay > by,
        "on": across < 0.02 and apart < _GAP and ay < by + 0.25 * b.h,
        "under": across < _GAP and ay > by - 0.05,
        "in": across < _GAP and apart < _GAP,
    }[kind]
