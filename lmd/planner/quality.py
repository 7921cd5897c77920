"""How good a layout is beyond the benchmark's predicates: five measures of what language models get wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import median

from ..english.nouns import head, named
from ..layout import Layout

_CELLS = 64
# Intersection over union from which two boxes count as overlapping, and from which they are taken for one place.
OVERLAP, ONE_PLACE = 0.1, 0.6


def wanted_in_negative(layout: Layout) -> list[str]:
    """Nouns that have a box and stand in the negative prompt as well."""
    return sorted({head(o.phrase) for o in layout.objects} & named(layout.negative))


def boxed_in_background(layout: Layout) -> list[str]:
    """Nouns that have a box and stand in the background prompt, where they would be drawn a second time."""
    return sorted({head(o.phrase) for o in layout.objects} & named(layout.background))


def overlapping(layout: Layout) -> list[tuple[int, int]]:
    """Pairs of boxes with an intersection over union above 0.1, by their numbers."""
    boxes = [o.box for o in layout.objects]
    return [(i, j) for i, j in combinations(range(len(boxes)), 2) if boxes[i].iou(boxes[j]) > OVERLAP]


def uniform(layout: Layout) -> bool:
    """Two or more boxes, all of one size (to a 256th of the canvas): a sign of a planner that does not think."""
    sizes = {(round(o.box.w * 256), round(o.box.h * 256)) for o in layout.objects}
    return len(layout.objects) > 1 and len(sizes) == 1


def coverage(layout: Layout) -> float:
    """The share of the canvas under boxes, 0..1, on a 64 x 64 grid."""
    covered = set()
    for o in layout.objects:
        y0, y1, x0, x1 = o.box.cells(_CELLS, _CELLS)
        covered |= {(y, x) for y in range(y0, y1) for x in range(x0, x1)}
    return len(covered) / _CELLS**2


def tidy(layout: Layout) -> Layout:
    """Takes wanted nouns out of the negative prompt and boxed nouns out of the background, and notes it."""
    notes = list(layout.notes)
    negative, background = layout.negative, layout.background
    for noun in wanted_in_negative(layout):
        items = [i for i in re.split(r"\s*,\s*", negative) if noun not in named(i)]
        negative = ", ".join(items)
        notes.append(f'"{noun}" is wanted, so it was taken out of the negative prompt')
    for noun in boxed_in_background(layout):
        shorter = _without(background, noun)
        if shorter != background:
            background = shorter
            notes.append(f'"{noun}" has a box, so it was taken out of the background prompt')
    return replace(layout, negative=negative, background=background, notes=tuple(dict.fromkeys(notes)))


def _without(text: str, noun: str) -> str:
    """`text` without the part that names `noun`: a "with ..." or "and ..." part, or a listed item."""
    parts = re.split(r"(\s*,\s*|\s+(?:with|and|featuring|showing)\s+)", text)
    out: list[str] = []
    for i in range(0, len(parts), 2):
        if noun not in named(parts[i]):
            out += [*(parts[i - 1 : i] if out else []), parts[i]]
    return "".join(out).strip() if out else _style_of(text, noun)


def _style_of(text: str, noun: str) -> str:
    """What is left of a text that is all about `noun`: "A pencil sketch of a dog" -> "A pencil sketch"."""
    style, of, _ = text.partition(" of ")
    if noun not in named(text):  # "a dog park" is no dog
        return text
    return style if of and noun not in named(style) else "A realistic scene"


@dataclass(frozen=True)
class Summary:
    """Counts over layouts with at least one box; `coverage` is the median."""

    layouts: int
    wanted_in_negative: int
    boxed_in_background: int
    overlapping: int
    uniform: int
    coverage: float


def summarise(layouts: Sequence[Layout]) -> Summary:
    """How many of the layouts have each fault; layouts without objects don't count."""
    some = [layout for layout in layouts if layout.objects]
    return Summary(
        len(some),
        sum(bool(wanted_in_negative(x)) for x in some),
        sum(bool(boxed_in_background(x)) for x in some),
        sum(bool(overlapping(x)) for x in some),
        sum(uniform(x) for x in some),
        median(map(coverage, some)) if some else 0.0,
    )
