"""Scene -> boxes: relations join things into blocks, blocks are fitted into the canvas."""

from __future__ import annotations

import math

from ..english.scene import Relation, Scene, Thing
from ..layout import Box
from .blocks import GAP, Block, Key, Rect, flow, group, row
from .placement_rules import RULES
from .relation_checks import holds
from .usual_sizes import FLYING, size_of

MARGIN = 0.035
MIN_AREA = 0.004  # of the canvas: smaller boxes hold nothing that a model could draw
_LARGER = 1.6
_CROWD = 12  # boxes in one place
_LEAST_SLOT = 0.4  # of what all slots of an axis want, before they share it
_ORDER = {"flat": 7, "in": 0, "on": 1, "under": 2, "behind": 3, "front": 3, "above": 4, "below": 4, "between": 5}


class Arranger:
    """Arranges the blocks of a scene's things by their relations."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        _order_sizes(scene)
        self.block: dict[Thing, Block] = {
            t: group(t, size_of(t), first=n) for n, t in enumerate(scene.things) if t.count > 0
        }
        self.done: list[Relation] = []

    def boxes(self, width: int, height: int) -> dict[Key, Box]:
        """A box for every instance on a canvas of `width` x `height` pixels."""
        self._join_all()
        mean = math.sqrt(width * height)
        w, h = width / mean, height / mean
        self._lift_flyers()
        blocks = self._blocks()
        if not blocks:
            return {}
        cells = [
            (cell, Rect(x0 * w, y0 * h, (x1 - x0) * w, (y1 - y0) * h))
            for part, (x0, x1) in _slots(blocks, 0)
            for cell, (y0, y1) in _slots(part, 1)
        ]
        scales = [_largest_scale(cell, rect, w * h) for cell, rect in cells]
        crowd = any(len(_keys(cell)) >= _CROWD for cell, _ in cells)
        whole = Block()
        for (cell, rect), own in zip(cells, scales):
            align = _align(cell, 0), _align(cell, 1)
            limit = 1.25 * min(scales)  # sizes stay comparable
            if crowd and len(_keys(cell)) < _CROWD:
                limit = max(limit, 0.6 * own)  # but a crowd in one place shrinks nothing elsewhere
            whole.absorb(_fit(cell, rect, align, w * h, limit))
        return {k: _visible(Rect(r.x / w, r.y / h, r.w / w, r.h / h)) for k, r in whole.rects.items()}

    def _blocks(self) -> list[Block]:
        found: list[Block] = []
        for thing in self.scene.things:
            if thing in self.block and self.block[thing] not in found:
                found.append(self.block[thing])
        return found

    def _lift_flyers(self) -> None:
        """What flies goes above what does not, unless the prompt says where."""
        if all(t.head in FLYING for t in self.scene.things):
            return
        for block in self._blocks():
            things = {t for t, _ in block.rects}
            if all(t.position == (None, None) and t.head in FLYING for t in things):
                for t in things:
                    t.position = (None, 0.2)

    # joining

    def _merge(self, into: Block, other: Block) -> None:
        into.absorb(other)
        for thing in {t for t, _ in other.rects}:
            self.block[thing] = into

    def _join_all(self) -> None:
        gathered = self._gathered()
        shared = [set(r.subjects) for r in gathered if r.kind in ("on", "in", "under") and len(r.subjects) > 1]

        def rank(r: Relation) -> int:
            """Who stands beside whom on one support is settled before they are put on it."""
            ends = {*r.subjects, *r.targets}
            return -1 if any(ends <= s for s in shared) else _ORDER.get(r.kind, 6)

        relations = sorted(gathered, key=rank)
        for relation in relations:
            subjects = tuple(t for t in relation.subjects if t in self.block)
            targets = tuple(t for t in relation.targets if t in self.block)
            if subjects and targets:
                self._join(relation.kind, subjects, targets)

    def _gathered(self) -> list[Relation]:
        """Relations with the same support become one, so that everything on a table stands in one row."""
        out: list[Relation] = []
        for r in self.scene.relations:
            if r.flat:
                r = Relation("flat", r.subjects, r.targets)
            same = [
                o
                for o in out
                if o.kind == r.kind and o.targets == r.targets and r.kind in ("on", "in", "under", "above", "below")
            ]
            if same:
                old = same[0]
                merged = old.subjects + tuple(t for t in r.subjects if t not in old.subjects)
                out[out.index(old)] = Relation(r.kind, merged, r.targets)
            else:
                out.append(r)
        return out

    def _join(self, kind: str, subjects: tuple[Thing, ...], targets: tuple[Thing, ...]) -> None:
        if kind == "between":
            return self._between(subjects, targets)
        home = self.block[targets[0]]
        for other in targets[1:]:
            if self.block[other] is not home:
                b, o = home.bounds(), self.block[other]
                o.move(b.right + GAP - o.bounds().x, b.bottom - o.bounds().bottom)
                self._merge(home, o)
        loose = [t for t in subjects if self.block[t] is not home]
        if len(loose) < len(subjects):
            self._check(kind, tuple(t for t in subjects if t not in loose), targets)
        if not loose:
            return None
        if kind in ("on", "in", "under") and len(loose) == len(targets) == 1:
            counts = {loose[0].count, targets[0].count, len(self.block[loose[0]].rects), len(home.rects)}
            if len(counts) == 1 and counts != {1}:
                return self._pairwise(kind, loose[0], targets[0])
        if kind == "on" and len(loose) == 1 and 3 < loose[0].count <= 14:
            alone = self.block[loose[0]]
            if len(alone.rects) == loose[0].count:  # all of them stand on it, none on another
                alone.rects = row([Block({k: r}) for k, r in alone.rects.items()]).rects
        mover = self._one_row(loose)
        self._attach(kind, mover, tuple(loose), home, targets)
        self._merge(home, mover)
        return None

    def _one_row(self, things: list[Thing]) -> Block:
        """The blocks of several subjects side by side, ordered by what the scene says about left and right."""
        blocks: list[Block] = []
        for thing in self._sorted_by_side(things):
            if self.block[thing] not in blocks:
                blocks.append(self.block[thing])
        if len(blocks) == 1:
            return blocks[0]
        joined = row(blocks)
        for thing in {t for t, _ in joined.rects}:
            self.block[thing] = joined
        return joined

    def _sorted_by_side(self, things: list[Thing]) -> list[Thing]:
        order = sorted(things, key=lambda t: t.position[0] if t.position[0] is not None else 0.5)
        for _ in range(len(order)):
            for r in self.scene.relations:
                for s in r.subjects:
                    for t in r.targets:
                        if r.kind in ("left", "right") and s in order and t in order:
                            first, second = (s, t) if r.kind == "left" else (t, s)
                            if order.index(first) > order.index(second):
                                order.remove(first)
                                order.insert(order.index(second), first)
        return order

    def _pairwise(self, kind: str, subject: Thing, target: Thing) -> None:
        """ "two cats on two chairs": one on each."""
        home = self.block[target]
        w, h = size_of(target)
        sw, sh = size_of(subject)
        pairs = []
        for i in range(target.count):
            base = Block({(target, i): Rect(0, 0, w, h)})
            top = Block({(subject, i): Rect(0, 0, sw, sh)})
            RULES[kind](top, top.bounds(), base, base.bounds())
            pairs.append(base.absorb(top))
        arranged = row(pairs)
        home.rects.clear()
        home.absorb(arranged)
        self.block[subject] = home

    def _attach(
        self, kind: str, mover: Block, subjects: tuple[Thing, ...], home: Block, targets: tuple[Thing, ...]
    ) -> None:
        a, b = mover.bounds(subjects), home.bounds(targets)
        if kind in ("on", "in", "under"):
            single = len(home.rects) == 1
            need = {"on": 1.12, "in": 2.1 if len(mover.rects) == 1 else 1.6, "under": 1.15}[kind] * a.w
            if kind == "in":
                need = max(need, b.w / b.h * a.h * 1.5)
            if b.w < need:
                if single:
                    (rect,) = home.rects.values()
                    grow = need / b.w
                    limit = 1.45 if kind != "in" else 2.0
                    gx = min(grow, limit)
                    gy = gx if kind == "in" else max(1.0, gx**0.5)
                    rect.w, rect.h = rect.w * gx, rect.h * gy
                    b = home.bounds(targets)
                if b.w < need:
                    mover.scale(max(b.w / need, 0.3))
                    a = mover.bounds(subjects)
        if kind in ("front", "behind") and a.w > 1.1 * b.w:
            if len(home.rects) == 1:
                home.scale(min(a.w / (1.1 * b.w), 1.4), 1.0)
                b = home.bounds(targets)
            mover.scale(min(1.0, 1.1 * b.w / a.w))
            a = mover.bounds(subjects)
        RULES[kind](mover, a, home, b)

    def _between(self, subjects: tuple[Thing, ...], targets: tuple[Thing, ...]) -> None:
        """Subjects in the middle; half of the targets' boxes on either side."""
        middle = self._one_row(list(subjects))
        sides: list[Block] = []
        for thing in targets:
            if self.block[thing] not in sides:
                sides.append(self.block[thing])
        if middle in sides:
            return self._check("between", subjects, targets)
        if len(sides) > 1:
            joined = row([sides[0], middle, *sides[1:]])
            for thing in {t for t, _ in joined.rects}:
                self.block[thing] = joined
            return None
        home = sides[0]
        if all(t in targets for t, _ in home.rects) and len(home.rects) <= 8:  # stand in one row
            home.rects = row([Block({k: r}) for k, r in home.rects.items()]).rects
        posts = sorted((r for (t, _), r in home.rects.items() if t in targets), key=lambda r: r.cx)
        if len(posts) < 2:
            return self._join("near", subjects, targets)
        half = math.ceil(len(posts) / 2)
        edge, far = max(r.right for r in posts[:half]), min(r.x for r in posts[half:])
        for r in home.rects.values():
            if r.cx > edge:
                r.x += max(0.0, middle.bounds().w + 2 * GAP - (far - edge))
        m = middle.bounds(subjects)
        middle.move(edge + GAP - m.x, posts[half - 1].bottom - m.bottom)
        self._merge(home, middle)
        return None

    def _check(self, kind: str, subjects: tuple[Thing, ...], targets: tuple[Thing, ...]) -> None:
        """Both ends are placed already: say so if that contradicts the relation."""
        rects = self.block[targets[0]].rects
        first, second = (
            [Box(r.x, r.y, r.w, r.h) for (t, _), r in rects.items() if t in ts] for ts in (subjects, targets)
        )
        if not holds(kind, first, second):
            names = [" and ".join(t.phrase for t in ts) for ts in (subjects, targets)]
            self.scene.note(f'contradiction: "{names[0]}" cannot also be {kind} "{names[1]}"')


def _keys(blocks: list[Block]) -> list[Key]:
    return [key for block in blocks for key in block.rects]


def _order_sizes(scene: Scene) -> None:
    """What is called larger becomes so: the two sizes part until one area is well above the other."""
    for _ in range(min(len(scene.larger), 12) + 1):
        for large, small in scene.larger:
            (lw, lh), (sw, sh) = size_of(large), size_of(small)
            if lw * lh < _LARGER * sw * sh:
                part = math.sqrt(_LARGER * 1.05 * sw * sh / (lw * lh)) ** 0.5
                large.scale *= part
                small.scale /= part


def _visible(r: Rect) -> Box:
    """The rectangle as a box of at least MIN_AREA that lies inside the canvas."""
    if r.w * r.h < MIN_AREA:
        grow = math.sqrt(MIN_AREA * 1.01 / max(r.w * r.h, 1e-9))
        w = min(max(r.w * grow, MIN_AREA), 1.0)
        h = min(MIN_AREA * 1.01 / w, 1.0)
        r = Rect(r.cx - w / 2, r.cy - h / 2, w, h)
    x, y = min(max(r.x, 0.0), 1.0 - min(r.w, 1.0)), min(max(r.y, 0.0), 1.0 - min(r.h, 1.0))
    return Box(x, y, min(r.w, 1.0), min(r.h, 1.0))


def _coordinate(block: Block, axis: int) -> float | None:
    values = [t.position[axis] for t, _ in block.rects if t.position[axis] is not None]
    return values[0] if values else None


def _slots(blocks: list[Block], axis: int) -> list[tuple[list[Block], tuple[float, float]]]:
    """Blocks by thirds of one axis, each third with its span."""
    low, middle, high, free = [], [], [], []
    for block in blocks:
        v = _coordinate(block, axis)
        (free if v is None else low if v < 0.4 else high if v > 0.6 else middle).append(block)
    centre = middle + free
    if not low and not high:
        return [(centre, (0.0, 1.0))]
    needs = [_extent(part, axis) for part in (low, centre, high)]
    if not centre or (middle and not (low and high)):  # a lone side keeps its half, a named middle stays in the middle
        widest = max(needs)
        needs = [max(needs[0], needs[2])] * 3 if centre else [widest, 0.0, widest]
        needs[1] = widest if centre else 0.0
    needs = [n and max(n, _LEAST_SLOT * sum(needs)) for n in needs]
    cuts = [sum(needs[:i]) / sum(needs) for i in range(4)]
    parts = ((low, cuts[0:2]), (centre, cuts[1:3]), (high, cuts[2:4]))
    return [(part, (start, end)) for part, (start, end) in parts if part]


def _extent(blocks: list[Block], axis: int) -> float:
    """Roughly the room that blocks want along one axis."""
    if not blocks:
        return 0.0
    bounds = [b.bounds() for b in blocks]
    return max((b.w, b.h)[axis] for b in bounds) * math.sqrt(len(blocks)) + 2 * MARGIN


def _align(blocks: list[Block], axis: int) -> float:
    v = _coordinate(blocks[0], axis)
    if v is None:
        return 0.5 if axis == 0 else 0.62
    return 0.2 if v < 0.4 else 0.8 if v > 0.6 else 0.5


def _inner(cell: Rect, canvas: float) -> Rect:
    mx, my = (min(MARGIN * math.sqrt(canvas), 0.1 * side) for side in (cell.w, cell.h))
    return Rect(cell.x + mx, cell.y + my, cell.w - 2 * mx, cell.h - 2 * my)


def _largest_scale(blocks: list[Block], cell: Rect, canvas: float) -> float:
    inner = _inner(cell, canvas)
    whole = flow(blocks, inner.w, inner.h)
    b = whole.bounds()
    biggest = max(r.w * r.h for r in whole.rects.values())
    return min(inner.w / b.w, inner.h / b.h, math.sqrt(0.36 * canvas / biggest), 1.9)


def _fit(blocks: list[Block], cell: Rect, align: tuple[float, float], canvas: float, limit: float) -> Block:
    """Arrange blocks in a cell as large as is sensible, and at most `limit` times their own size."""
    scale = min(_largest_scale(blocks, cell, canvas), limit)
    inner = _inner(cell, canvas)
    whole = flow(blocks, inner.w, inner.h)
    b = whole.bounds()
    stretch = 1.4
    sx = min(inner.w / b.w, scale * stretch if inner.w / b.w > scale * 1.05 else scale)
    sy = min(inner.h / b.h, scale * stretch if inner.h / b.h > scale * 1.05 else scale)
    if scale < min(inner.w / b.w, inner.h / b.h) * 0.999:  # held back on purpose: keep the shape
        sx = sy = scale
    whole.scale(sx, sy)
    b = whole.bounds()
    whole.move(inner.x + (inner.w - b.w) * align[0] - b.x, inner.y + (inner.h - b.h) * align[1] - b.y)
    return whole
