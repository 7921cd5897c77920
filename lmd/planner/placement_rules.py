"""One rule per relation: where the block of the subjects goes beside the block of the targets.

Each moves `m`, whose subjects lie in `a`, next to `home`, whose targets lie in `b`.
"""

from __future__ import annotations

import math

from .blocks import GAP, Block, Rect


def _left(m: Block, a: Rect, home: Block, b: Rect) -> None:
    m.move(b.x - GAP - a.right, b.bottom - a.bottom)
    m.push(home, -0.02, 0)


def _right(m: Block, a: Rect, home: Block, b: Rect) -> None:
    m.move(b.right + GAP - a.x, b.bottom - a.bottom)
    m.push(home, 0.02, 0)


def _near(m: Block, a: Rect, home: Block, b: Rect) -> None:
    m.move(b.right + GAP - a.x, b.bottom - a.bottom)
    if m.collides(home):
        m.move(b.x - GAP - (b.right + GAP + a.w), 0)
        if m.collides(home):
            m.move(b.right - b.x + 2 * GAP + a.w, 0)
            m.push(home, 0.02, 0)


def _above(m: Block, a: Rect, home: Block, b: Rect) -> None:
    m.move(b.cx - a.cx, b.y - 1.5 * GAP - a.bottom)
    m.push(home, 0, -0.02)


def _below(m: Block, a: Rect, home: Block, b: Rect) -> None:
    m.move(b.cx - a.cx, b.bottom + 1.5 * GAP - a.y)
    m.push(home, 0, 0.02)


def _on(m: Block, a: Rect, home: Block, b: Rect) -> None:
    """Standing on it: the feet reach a little into the support."""
    m.move(b.cx - a.cx, b.y + min(0.12 * b.h, 0.1 * a.h) - a.bottom)
    m.push(home, 0, -0.02, slack=0.16)


def _under(m: Block, a: Rect, home: Block, b: Rect) -> None:
    m.move(b.cx - a.cx, b.bottom - min(0.15 * a.h, 0.1 * b.h) - a.y)
    m.push(home, 0, 0.02, slack=0.16)


def _in(m: Block, a: Rect, _home: Block, b: Rect) -> None:
    """One thing looks out of its container, several lie inside it."""
    if len(m.rects) == 1:
        (rect,) = m.rects.values()
        fit = min(1.0, 0.48 * b.w / rect.w, 0.62 * b.h / rect.h, math.sqrt(0.17 * b.w * b.h / (rect.w * rect.h)))
        m.scale(fit)
        a = m.bounds()
        m.move(b.cx - a.cx, b.y - 0.4 * a.h - a.y)
    else:
        biggest = max(r.w * r.h for r in m.rects.values())
        m.scale(min(0.84 * b.w / a.w, 0.74 * b.h / a.h, math.sqrt(0.095 * b.w * b.h / biggest), 1.8))
        a = m.bounds()
        m.move(b.cx - a.cx, b.cy - 0.08 * b.h - a.cy)


def _flat(m: Block, a: Rect, _home: Block, b: Rect) -> None:
    """On the surface: inside the outline of what it is on, in the middle, with a wide margin."""
    m.scale(min(0.42 * b.w / a.w, 0.42 * b.h / a.h, math.sqrt(0.14 * b.w * b.h / (a.w * a.h))))
    a = m.bounds()
    m.move(b.cx - a.cx, b.cy - a.cy)


def _behind(m: Block, a: Rect, home: Block, b: Rect) -> None:
    aside = 0.22 * min(a.w, b.w) if len(m.rects) == 1 else 0.0
    m.move(b.cx + aside - a.cx, b.y + 0.16 * min(a.h, b.h) - a.bottom)
    m.push(home, 0, -0.02, slack=0.2)


def _front(m: Block, a: Rect, home: Block, b: Rect) -> None:
    aside = 0.22 * min(a.w, b.w) if len(m.rects) == 1 else 0.0
    m.move(b.cx - aside - a.cx, b.bottom - 0.16 * min(a.h, b.h) - a.y)
    m.push(home, 0, 0.02, slack=0.2)


RULES = {"left": _left, "right": _right, "near": _near, "above": _above, "below": _below, "on": _on, "under": _under,
          "in": _in, "flat": _flat, "behind": _behind, "front": _front}  # fmt: skip
