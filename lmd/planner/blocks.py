"""Blocks of boxes that keep their relative places while they are put together, in units of the canvas's mean side."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ..english.scene import Thing

GAP = 0.035
# Small regular differences, so that three dogs are not three copies of one box.
_VARIATION = (1.0, 0.93, 1.05, 0.97, 0.9, 1.03, 0.95, 1.07)


@dataclass
class Rect:
    """A rectangle that is still being moved; y runs downwards."""

    x: float
    y: float
    w: float
    h: float

    @property
    def right(self) -> float:
        """The x of its right edge."""
        return self.x + self.w

    @property
    def bottom(self) -> float:
        """The y of its bottom edge."""
        return self.y + self.h

    @property
    def cx(self) -> float:
        """The x of its middle."""
        return self.x + self.w / 2

    @property
    def cy(self) -> float:
        """The y of its middle."""
        return self.y + self.h / 2

    def overlap(self, other: Rect) -> float:
        """The shared area."""
        w = min(self.right, other.right) - max(self.x, other.x)
        h = min(self.bottom, other.bottom) - max(self.y, other.y)
        return max(w, 0.0) * max(h, 0.0)


Key = tuple[Thing, int]


@dataclass(eq=False)
class Block:
    """Rectangles by `(thing, instance)`; y grows downwards."""

    rects: dict[Key, Rect] = field(default_factory=dict)

    def bounds(self, things: tuple[Thing, ...] | None = None) -> Rect:
        """The tight rectangle around all, or around some things."""
        rects = [r for (t, _), r in self.rects.items() if things is None or t in things]
        x, y = min(r.x for r in rects), min(r.y for r in rects)
        return Rect(x, y, max(r.right for r in rects) - x, max(r.bottom for r in rects) - y)

    def move(self, dx: float, dy: float) -> None:
        """Moves all rectangles."""
        for r in self.rects.values():
            r.x += dx
            r.y += dy

    def scale(self, sx: float, sy: float | None = None) -> None:
        """Scales all rectangles about the origin; `sy` is `sx` unless given."""
        sy = sx if sy is None else sy
        for r in self.rects.values():
            r.x, r.w, r.y, r.h = r.x * sx, r.w * sx, r.y * sy, r.h * sy

    def collides(self, other: Block, slack: float = 0.0) -> bool:
        """True if any two rectangles overlap by more than the share `slack` of the smaller one."""
        return any(a.overlap(b) > slack * min(a.w * a.h, b.w * b.h) + 1e-9
                   for a in self.rects.values() for b in other.rects.values())  # fmt: skip

    def push(self, other: Block, dx: float, dy: float, slack: float = 0.0) -> None:
        """Move away from `other` in small steps until nothing collides."""
        for _ in range(200):
            if not self.collides(other, slack):
                return
            self.move(dx, dy)

    def absorb(self, other: Block) -> Block:
        """Takes over the other block's rectangles; returns itself."""
        self.rects.update(other.rects)
        return self


def group(thing: Thing, size: tuple[float, float], first: int = 0) -> Block:
    """The instances of one thing in a row, or in rows when there are many; `first` picks where variation begins."""
    w, h = size
    n = thing.count
    rows = 1 if n * w <= 3.2 * h or n <= 3 else max(1, round(math.sqrt(n * w / h / 1.6)))
    per_row = math.ceil(n / rows)
    block = Block()
    for index in range(n):
        row, column = divmod(index, per_row)
        k = _VARIATION[(first + index) % len(_VARIATION)]
        in_row = min(per_row, n - row * per_row)
        x = (column + (per_row - in_row) / 2) * (w * 1.07 + GAP)
        block.rects[thing, index] = Rect(x, row * (h * 1.07 + GAP) + h * (1.07 - k), w * k, h * k)
    return block


def row(blocks: list[Block], baseline: bool = True, gap: float = GAP) -> Block:
    """Blocks side by side from left to right, standing on one line (or centred on it)."""
    out, x = Block(), 0.0
    for block in blocks:
        b = block.bounds()
        block.move(x - b.x, -b.bottom if baseline else -b.cy)
        x += b.w + gap
        out.absorb(block)
    return out


def flow(blocks: list[Block], width: float, height: float) -> Block:
    """Independent blocks in the number of rows that lets them grow most in `width` x `height`."""
    best: list[list[Block]] = [blocks]
    best_scale = -1.0
    total = sum(b.bounds().w + GAP for b in blocks)
    for rows in range(1, len(blocks) + 1):
        lines: list[list[Block]] = [[]]
        used = 0.0
        for block in blocks:
            w = block.bounds().w + GAP
            if lines[-1] and used + w / 2 > total / rows * len(lines) and len(lines) < rows:
                lines.append([])
            lines[-1].append(block)
            used += w
        widths = [sum(b.bounds().w for b in line) + GAP * (len(line) - 1) for line in lines]
        heights = [max(b.bounds().h for b in line) for line in lines]
        scale = min(width / max(widths), height / (sum(heights) + GAP * (len(lines) - 1)))
        if scale > best_scale + 1e-9:
            best, best_scale = lines, scale
    out, y = Block(), 0.0
    widest = max(sum(b.bounds().w for b in line) + GAP * (len(line) - 1) for line in best)
    for line in best:
        one = row(line)
        b = one.bounds()
        one.move(-b.x + (widest - b.w) / 2, y - b.y)
        y += b.h + GAP
        out.absorb(one)
    return out
