"""Mends a layout's geometry, and nothing else: names, counts and prompts stay the language model's word.

Deterministic. Every step is kept only if it leaves fewer violations than before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations, product

from ..english.nouns import head
from ..english.scene import Thing
from ..layout import Box, Layout, LayoutObject
from . import quality
from .check import MIN_SIDE, Verdict, Violation, check, touching, understand
from .usual_sizes import size_of

GEOMETRY = ("relation", "overlap", "canvas", "size")
LOW_COVERAGE = 0.115  # half of what GPT-4's layouts cover
_SPECK = 0.06  # a single object on less of the canvas than this is a speck
_STOCK = 0.042  # small models give every box 100 x 100 of 512 x 512 pixels
_MIN_SIDE = 0.06  # what a box that was too small becomes
_GAP = 0.02
_ROUNDS = 12
_TOGETHER = re.compile(
    r"\b(?:her|his|its|their|against|around|through|among|inside|together|feet|arms?|hands?|lap|crowd|pile|stack|row|"
    r"(?:hold|hug|rid|wear|carr|embrac|kiss|lean|cuddl|climb|danc|fight|play|pull|push|feed|chas|eat)\w*)\b",
    re.I,
)  # words that may make things touch: their boxes are left over each other
_ALIKE = re.compile(r"\b(?:same|identical|equal|alike|twins?|symmetr\w*|mirror\w*|half|halves|grid|row)\b", re.I)


def repair(prompt: str, layout: Layout) -> tuple[Layout, tuple[str, ...]]:
    """The mended layout and a sentence for each thing that was mended; a good layout comes back unchanged, unless its
    boxes are all of one size.
    """
    said: list[str] = []
    verdict = check(prompt, layout)
    for _ in range(_ROUNDS):
        step = _best_step(prompt, layout, verdict)
        if step is None:
            break
        layout, verdict, violation = step
        said.append(f"{violation.text}: moved by code")
    for step, sentence in (
        (_enlarged, "the boxes were small and all alike, so they were enlarged by code"),
        (_parted, "boxes overlapped, so they were moved apart by code"),
        (_varied, "the boxes were all of one size, so some were made smaller by code"),
    ):
        mended = step(prompt, layout, verdict)
        if mended is not layout:
            said.append(sentence)
            layout = mended
    return layout, tuple(dict.fromkeys(said))


def _best_step(prompt: str, layout: Layout, verdict: Verdict) -> tuple[Layout, Verdict, Violation] | None:
    for violation in verdict.violations:
        if violation.kind not in GEOMETRY:
            continue
        for candidate in _candidates(violation, layout):
            new = check(prompt, candidate)
            if len(new.violations) < len(verdict.violations):
                return candidate, new, violation
    return None


def _with(layout: Layout, boxes: dict[int, Box]) -> Layout:
    objects = tuple(LayoutObject(o.phrase, boxes.get(i, o.box)) for i, o in enumerate(layout.objects))
    return replace(layout, objects=objects)


def inside(box: Box) -> Box:
    """The box moved into the canvas, cut to its size where it is larger, and large enough to draw something in."""
    w, h = (min(max(v, _MIN_SIDE if v < MIN_SIDE else v), 1.0) for v in (box.w, box.h))
    x, y = box.x - (w - box.w) / 2, box.y - (h - box.h) / 2
    return Box(min(max(x, 0.0), 1.0 - w), min(max(y, 0.0), 1.0 - h), w, h)


def _at(box: Box, cx: float | None = None, cy: float | None = None) -> Box:
    x = box.x if cx is None else cx - box.w / 2
    y = box.y if cy is None else cy - box.h / 2
    return inside(Box(x, y, box.w, box.h))


def _candidates(v: Violation, layout: Layout) -> Iterator[Layout]:
    box = {i: o.box for i, o in enumerate(layout.objects)}
    if v.kind in ("canvas", "size"):
        yield _with(layout, {i: inside(box[i]) for i in v.boxes})
    elif v.kind == "overlap":
        yield from _apart(layout, v.boxes[0], v.others[0])
    elif v.relation.startswith("at "):
        axis, goal = {"left": (0, 0.25), "right": (0, 0.75), "top": (1, 0.25), "bottom": (1, 0.75)}[v.relation[3:]]
        for share in (0.0, -0.1, 0.1):
            yield _with(layout, {i: _at(box[i], **{"cx" if axis == 0 else "cy": goal + share}) for i in v.boxes})
    elif v.relation in ("left", "right", "above", "below"):
        yield from _ordered(layout, v)
    else:
        yield from _beside(layout, v)


def _ordered(layout: Layout, v: Violation) -> Iterator[Layout]:
    """Swap along the axis of the relation, swap places entirely, or move one past the other."""
    box = {i: o.box for i, o in enumerate(layout.objects)}
    axis = v.relation in ("above", "below")
    if len(v.boxes) == len(v.others) == 1:
        a, b = v.boxes[0], v.others[0]
        (ax, ay), (bx, by) = box[a].centre, box[b].centre
        if axis:
            yield _with(layout, {a: _at(box[a], cy=by), b: _at(box[b], cy=ay)})
        else:
            yield _with(layout, {a: _at(box[a], cx=bx), b: _at(box[b], cx=ax)})
        yield _with(layout, {a: _at(box[a], bx, by), b: _at(box[b], ax, ay)})
    first = v.relation in ("left", "above")
    for near, far in ((0.25, 0.75), (0.2, 0.8), (0.15, 0.85)):
        low, high = (v.boxes, v.others) if first else (v.others, v.boxes)
        key = "cy" if axis else "cx"
        moved = {i: _at(box[i], **{key: near}) for i in low} | {i: _at(box[i], **{key: far}) for i in high}
        yield _with(layout, moved)


def _beside(layout: Layout, v: Violation) -> Iterator[Layout]:
    """On, under, in and between: the subjects move to their target."""
    box = {i: o.box for i, o in enumerate(layout.objects)}
    target = box[v.others[0]]
    n = len(v.boxes)
    spread = [target.x + target.w * (k + 0.5) / n for k in range(n)]
    if v.relation == "between":
        xs = [box[i].centre[0] for i in v.others]
        ys = [box[i].centre[1] for i in v.others]
        yield _with(layout, {i: _at(box[i], cx=(min(xs) + max(xs)) / 2) for i in v.boxes})
        yield _with(layout, {i: _at(box[i], cy=(min(ys) + max(ys)) / 2) for i in v.boxes})
        return
    for step in (1.0, 0.8, 0.6):
        moved = {}
        for i, cx in zip(v.boxes, spread):
            w, h = box[i].w * step, box[i].h * step
            shrunk = Box(box[i].x, box[i].y, w, h)
            y = {
                "on": target.y + min(0.12 * target.h, 0.1 * h) - h / 2,
                "under": target.y + target.h - min(0.15 * h, 0.1 * target.h) + h / 2,
                "in": target.y + target.h / 2 - 0.1 * h,
            }[v.relation]
            moved[i] = _at(shrunk, cx, y)
        yield _with(layout, moved)
    if v.relation in ("on", "under"):  # no room beyond the target, so the target makes some
        down = 0.97 - target.h if v.relation == "on" else 0.03
        room = replace(target, y=down)
        reach = max(box[i].h for i in v.boxes)
        y = room.y + 0.05 * room.h - reach / 2 if v.relation == "on" else room.y + 0.95 * room.h + reach / 2
        yield _with(layout, {v.others[0]: inside(room)} | {i: _at(box[i], cx, y) for i, cx in zip(v.boxes, spread)})


def _apart(layout: Layout, i: int, j: int) -> Iterator[Layout]:
    """The smaller of two boxes moves to the nearest free side of the other; both shrink when there is no room."""
    a, b = (i, j) if layout.objects[i].box.area <= layout.objects[j].box.area else (j, i)
    small, large = layout.objects[a].box, layout.objects[b].box
    for scale in (1.0, 0.85, 0.7, 0.55):
        s, t = _scaled(small, scale), _scaled(large, scale)
        rooms = [
            Box(t.x - s.w - _GAP, s.y, s.w, s.h), Box(t.x + t.w + _GAP, s.y, s.w, s.h),
            Box(s.x, t.y - s.h - _GAP, s.w, s.h), Box(s.x, t.y + t.h + _GAP, s.w, s.h),
        ]  # fmt: skip
        fits = [r for r in rooms if inside(r) == r]
        for room in sorted(fits, key=lambda r: abs(r.x - small.x) + abs(r.y - small.y)):
            yield _with(layout, {a: room, b: t})
        if not fits:  # side by side around their common middle, both narrower
            middle = min(max(large.centre[0], 0.3), 0.7)
            w = min(s.w, t.w, 0.28)
            yield _with(layout, {b: Box(middle - w - _GAP / 2, t.y, w, t.h), a: Box(middle + _GAP / 2, s.y, w, s.h)})


def _parted(prompt: str, layout: Layout, verdict: Verdict) -> Layout:
    """Boxes that overlap, although nothing in the prompt brings their things together, lie beside each other."""
    scene, unsure = understand(prompt)
    if unsure or _TOGETHER.search(prompt):
        return layout
    for _ in range(_ROUNDS):
        boxes = [o.box for o in layout.objects]
        pairs = [
            (i, j)
            for i, j in combinations(range(len(boxes)), 2)
            if boxes[i].iou(boxes[j]) > quality.OVERLAP
            and not touching(scene, layout.objects[i].phrase, layout.objects[j].phrase)
        ]
        better = (c for i, j in pairs for c in _apart(layout, i, j) if _less_overlap(c, layout, prompt, verdict))
        step = next(better, None)
        if step is None:
            break
        layout = step
    return layout


def _varied(prompt: str, layout: Layout, verdict: Verdict) -> Layout:
    """Boxes of one size get the proportions of what is in them, two of a kind differ a little; their feet stay."""
    if not quality.uniform(layout) or _ALIKE.search(prompt):
        return layout
    factors = [max(rise, 0.6) for rise, _ in _proportions(layout)]
    smaller = _with(layout, {i: _scaled(o.box, factors[i]) for i, o in enumerate(layout.objects)})
    return smaller if len(check(prompt, smaller).violations) <= len(verdict.violations) else layout


def _less_overlap(new: Layout, old: Layout, prompt: str, verdict: Verdict) -> bool:
    fewer = quality.overlaps(new) < quality.overlaps(old)
    return fewer and len(check(prompt, new).violations) <= len(verdict.violations)


def _scaled(box: Box, factor: float, wide: float = 1.0) -> Box:
    """Around the middle of its lower edge, so that what stands on something keeps standing on it."""
    w, h = min(box.w * factor * wide, 1.0), min(box.h * factor, 1.0)
    x = min(max(box.centre[0] - w / 2, 0.0), 1.0 - w)
    return Box(x, max(box.y + box.h - h, 0.0), w, h)


def _enlarged(prompt: str, layout: Layout, verdict: Verdict) -> Layout:
    """Boxes of one small size (100 x 100 everywhere) grow to the usual proportions of what is in them."""
    if not layout.objects:
        return layout
    covered = quality.coverage(layout)
    stock = all(o.box.area <= _STOCK for o in layout.objects)
    alike = quality.uniform(layout) and (stock or covered < LOW_COVERAGE)
    if not alike and not (len(layout.objects) == 1 and covered < _SPECK):
        return layout
    scene, _ = understand(prompt)
    grown = layout
    usual = _proportions(layout)
    for factor in (1.15, 1.3, 1.5, 1.75, 2.0, 2.4, 2.8):
        for i, o in enumerate(layout.objects):
            rise, wide = usual[i]
            candidate = _with(grown, {i: _scaled(o.box, 1 + (factor - 1) * rise, wide)})
            if _no_worse(prompt, candidate, grown, verdict, lambda a, b: touching(scene, a, b)):
                grown = candidate
    return grown


def _proportions(layout: Layout) -> list[tuple[float, float]]:
    """(how much to grow beside the others, width to height beside the model's own) of each object."""

    sizes = [size_of(Thing(head(o.phrase))) for o in layout.objects]
    biggest = max(max(s) for s in sizes)
    out = []
    for k, (w, h) in enumerate(sizes):
        varied = (1.0, 0.9, 0.95, 0.85)[k % 4]  # two of a kind are never of one size in a picture
        out.append((varied * max(w, h) / biggest, min(max(w / h, 0.75), 1.35)))
    return out


def _no_worse(prompt: str, new: Layout, old: Layout, verdict: Verdict, may_touch: Callable[[str, str], bool]) -> bool:
    for i, j in product(range(len(new.objects)), repeat=2):
        if i < j and new.objects[i].box.iou(new.objects[j].box) > max(old.objects[i].box.iou(old.objects[j].box), 0.02):
            return False
    return len(check(prompt, new).violations) <= len(verdict.violations)
