"""Repairs what the checker complained about in a layout's geometry, and nothing else: names, counts and prompts stay the
language model's word, and boxes that nobody complained about stay where they are.

Deterministic. Every step is kept only if it leaves fewer violations than before, takes nothing off what it lies on and
leaves equal things equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import cast

from ..english.inflection import word_set
from ..layout import Box, Layout
from . import quality
from .check import MIN_SIDE, Verdict, Violation, check, touching
from .relation_checks import words_around

GEOMETRY = ("relation", "overlap", "canvas", "size")
_MIN_SIDE = 0.06  # what a box that was too small becomes
_GAP = 0.02
_STEP, _SHARED = 0.04, 0.35  # how much lower feet are in front, and the share of a box that lies over the other one
_ROUNDS, _TRIES = 12, 120
_MEANT_SMALL = word_set(
    """
    tiny small little mini miniature minuscule microscopic far faraway distant distance remote corner corners speck dot
    background
    """
)


def repair(prompt: str, layout: Layout) -> tuple[Layout, tuple[str, ...]]:
    """The repaired layout and a sentence for each thing that was repaired; a layout that the checker finds right comes
    back unchanged.
    """
    said: list[str] = []
    verdict = check(prompt, layout)
    for _ in range(_ROUNDS):
        step = _best_step(prompt, layout, verdict)
        if step is None:
            break
        layout, verdict, violation = step
        said.append(f"{violation.text}: moved by code")
    return layout, tuple(dict.fromkeys(said))


def _best_step(prompt: str, layout: Layout, verdict: Verdict) -> tuple[Layout, Verdict, Violation] | None:
    """The first candidate that helps; one that lays more boxes over each other only when no other does."""
    wrong = [v for v in verdict.violations if v.kind in GEOMETRY]
    tries = islice(((v, c) for v in wrong for c in _candidates(v, layout)), _TRIES)
    second = None
    for violation, candidate in tries:
        if second is not None and violation is not second[2]:
            break
        candidate = _carried(candidate, layout)
        if not _keeps(candidate, layout, violation, prompt):
            continue
        new = check(prompt, candidate)
        if len(new.violations) < len(verdict.violations):
            if not _crowds(candidate, layout, prompt):
                return candidate, new, violation
            second = second or (candidate, new, violation)
    return second


def _crowds(new: Layout, old: Layout, prompt: str) -> bool:
    """Are there boxes that overlap now, and did not, although nothing in the prompt brings their things together?"""
    names = [o.phrase for o in old.objects]
    fresh = set(quality.overlapping(new)) - set(quality.overlapping(old))
    return any(not touching(prompt, names[i], names[j]) for i, j in fresh)


def _with(layout: Layout, boxes: dict[int, Box]) -> Layout:
    objects = tuple(replace(o, box=boxes.get(i, o.box)) for i, o in enumerate(layout.objects))
    return replace(layout, objects=objects)


def _rests(a: Box, b: Box) -> bool:
    """Does `a` lie on or in `b`: its feet within the larger box?"""
    feet = a.y + a.h
    return a.area < b.area and b.x <= a.centre[0] <= b.x + b.w and b.y - _GAP <= feet <= b.y + b.h + _GAP


def _carried(new: Layout, old: Layout) -> Layout:
    """What lay on or in a box that was moved goes with it."""
    was, now = [o.box for o in old.objects], [o.box for o in new.objects]
    moved = {i for i, (a, b) in enumerate(zip(was, now)) if a != b}
    fixed = set(moved)
    for _ in was:
        riders = {k for k in range(len(was)) if k not in fixed and (i := _support(k, was)) is not None and i in moved}
        if not riders:
            break
        for k in riders:
            i = cast(int, _support(k, was))  # riders have one
            dx, dy = now[i].centre[0] - was[i].centre[0], now[i].y + now[i].h - was[i].y - was[i].h
            now[k] = inside(Box(was[k].x + dx, was[k].y + dy, was[k].w, was[k].h))
        moved |= riders
        fixed |= riders
    return _with(new, dict(enumerate(now)))


def _support(k: int, boxes: list[Box]) -> int | None:
    """The smallest box that box `k` lies on or in."""
    under = [i for i, b in enumerate(boxes) if i != k and _rests(boxes[k], b)]
    return min(under, key=lambda i: boxes[i].area, default=None)


def _keeps(new: Layout, old: Layout, violation: Violation, prompt: str) -> bool:
    """Does everything that the prompt may put on something else still lie there, do equal things stay equal, and what
    is meant to be small small?
    """
    spoken = {*violation.boxes, *violation.others}
    was, now = [o.box for o in old.objects], [o.box for o in new.objects]
    names = [o.phrase for o in old.objects]
    for i, a in enumerate(was):
        if now[i].area > a.area + 1e-9 and _MEANT_SMALL & words_around(prompt, names[i]):
            return False
        for j, b in enumerate(was):
            if i == j or now[i] == a and now[j] == b:
                continue
            if names[i] == names[j] and _size(a) == _size(b) and _size(now[i]) != _size(now[j]):
                return False
            lost = not {i, j} <= spoken and _rests(a, b) and not _rests(now[i], now[j])
            if lost and touching(prompt, names[i], names[j]):
                return False
    return True


def _size(box: Box) -> tuple[float, float]:
    return round(box.w, 4), round(box.h, 4)


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
    elif v.relation in ("left", "right", "above", "over", "below"):
        yield from _ordered(layout, v)
    elif v.relation in ("behind", "front"):
        yield from _layered(layout, v)
    else:
        yield from _beside(layout, v)


def _ordered(layout: Layout, v: Violation) -> Iterator[Layout]:
    """Swap along the axis of the relation, swap places entirely, or move one past the other."""
    box = {i: o.box for i, o in enumerate(layout.objects)}
    axis = v.relation in ("above", "over", "below")
    if len(v.boxes) == len(v.others) == 1:
        a, b = v.boxes[0], v.others[0]
        (ax, ay), (bx, by) = box[a].centre, box[b].centre
        if axis:
            yield _with(layout, {a: _at(box[a], cy=by), b: _at(box[b], cy=ay)})
        else:
            yield _with(layout, {a: _at(box[a], cx=bx), b: _at(box[b], cx=ax)})
        yield _with(layout, {a: _at(box[a], bx, by), b: _at(box[b], ax, ay)})
    first = v.relation in ("left", "above", "over")
    for near, far in ((0.25, 0.75), (0.2, 0.8), (0.15, 0.85)):
        low, high = (v.boxes, v.others) if first else (v.others, v.boxes)
        key = "cy" if axis else "cx"
        moved = {i: _at(box[i], **{key: near}) for i in low} | {i: _at(box[i], **{key: far}) for i in high}
        yield _with(layout, moved)


def _layered(layout: Layout, v: Violation) -> Iterator[Layout]:
    """Behind and in front of: feet a little higher or lower than the target's, and a part of the one over the other."""
    box = {i: o.box for i, o in enumerate(layout.objects)}
    target = box[v.others[0]]
    feet = target.y + target.h + (-_STEP if v.relation == "behind" else _STEP)
    yield _with(layout, {i: _at(box[i], cy=feet - box[i].h / 2) for i in v.boxes})
    for direction in (1, -1):
        moved = {}
        for k, i in enumerate(v.boxes):
            side = direction * (1 if box[i].centre[0] >= target.centre[0] else -1) * (-1) ** k
            shared = _SHARED * min(box[i].w, target.w)
            cx = target.centre[0] + side * ((box[i].w + target.w) / 2 - shared)
            moved[i] = _at(box[i], cx, feet - box[i].h / 2)
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
        alike = {k: _scaled(layout.objects[k].box, scale) for k in _alike(layout, a, b)} if scale < 1 else {}
        for room in sorted(fits, key=lambda r: abs(r.x - small.x) + abs(r.y - small.y)):
            yield _with(layout, alike | {a: room, b: t})
        if not fits:  # side by side around their common middle, both narrower
            middle = min(max(large.centre[0], 0.3), 0.7)
            w = min(s.w, t.w, 0.28)
            yield _with(layout, {b: Box(middle - w - _GAP / 2, t.y, w, t.h), a: Box(middle + _GAP / 2, s.y, w, s.h)})


def _alike(layout: Layout, *some: int) -> list[int]:
    """The objects that are of one name and size with some."""
    kinds = {(layout.objects[i].phrase, _size(layout.objects[i].box)) for i in some}
    return [k for k, o in enumerate(layout.objects) if (o.phrase, _size(o.box)) in kinds]


def _scaled(box: Box, factor: float) -> Box:
    """Around the middle of its lower edge, so that what stands on something keeps standing on it."""
    w, h = min(box.w * factor, 1.0), min(box.h * factor, 1.0)
    x = min(max(box.centre[0] - w / 2, 0.0), 1.0 - w)
    return Box(x, max(box.y + box.h - h, 0.0), w, h)
