"""What was seen by eye in a picture of the demo world, and how far the detector agrees.

A label is "COLOUR KIND X Y": what it is and roughly where its middle lies (0..1, y down). "?" stands for a colour or
kind that eyes can't tell. An object is clear if both are named. Rules of comparison:

- A clear object is found if a detection of its colour and kind has its centre within REACH of the label's.
- An unclear object need not be found. One detection near it is no error if it contradicts nothing that was named.
- Every other detection is an error.
- The labels' verdict on a benchmark prompt is the benchmark's own on them. It is open if it depends on how
  unclear objects are read, or on which of several objects of a kind is meant; a strict one counts an unclear object as
  none of the things asked for and takes the object that was labelled first.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image

from . import demo_benchmark
from .demo_detector import SIDE, Detection
from .lmd_benchmark import query

REACH = 0.2
"""Largest distance between a label's place, given by eye, and the centre of a detection of it."""
UNKNOWN = "?"
TALLIED = ("pictures", "clear", "found", "extra", "unclear", "verdicts", "agreeing", "open", "strict")
"""What `tally` counts; "verdicts" are those that are not open, "strict" the agreeing ones of all."""


@dataclass(frozen=True)
class Seen:
    """One labelled object; `colour` and `kind` may be UNKNOWN, `x` and `y` in 0..1."""

    colour: str
    kind: str
    x: float
    y: float

    @property
    def clear(self) -> bool:
        """True if both colour and kind were recognised."""
        return UNKNOWN not in (self.colour, self.kind)

    def fits(self, found: Detection) -> bool:
        """Can the detection be of this object?"""
        near = math.dist((self.x, self.y), found.centre) <= REACH
        return near and self.colour in (UNKNOWN, found.colour) and self.kind in (UNKNOWN, found.kind)

    @property
    def detection(self) -> Detection:
        """As a detection, with a box of nominal size: verdicts look at its centre only."""
        return Detection(self.kind, self.colour, (self.x - 0.1, self.y - 0.1, self.x + 0.1, self.y + 0.1), 1.0)


def parse(text: str) -> Seen:
    """The object of a label such as "red star 0.3 0.6"."""
    colour, kind, x, y = text.split()
    return Seen(colour, kind, float(x), float(y))


def compare(seen: Sequence[Seen], found: Sequence[Detection]) -> tuple[list[Seen], list[Detection]]:
    """(clear objects that were not found, detections that are errors)"""
    left, missed = list(found), []
    for thing in sorted(seen, key=lambda s: not s.clear):
        fitting = [d for d in left if thing.fits(d)]
        if fitting:
            left.remove(min(fitting, key=lambda d: math.dist((thing.x, thing.y), d.centre)))
        elif thing.clear:
            missed.append(thing)
    return missed, left


def pictures(sheet: Image.Image) -> list[Image.Image]:
    """The pictures of a sheet, SIDE x SIDE pixels each, row by row."""
    places = itertools.product(range(0, sheet.height, SIDE), range(0, sheet.width, SIDE))
    return [sheet.crop((x, y, x + SIDE, y + SIDE)) for y, x in places]


def tally(prompt: str | None, seen: Sequence[Seen], found: Sequence[Detection]) -> Counter:
    """Counts, named in TALLIED, of one picture; verdicts only with a benchmark prompt."""
    missed, errors = compare(seen, found)
    clear = sum(s.clear for s in seen)
    counts = Counter(pictures=1, clear=clear, found=clear - len(missed), extra=len(errors), unclear=len(seen) - clear)
    if prompt is not None:
        given, own = verdict(prompt, seen), demo_benchmark.verdict(prompt, found)
        counts["verdicts" if given is not None else "open"] += 1
        counts["agreeing"] += given is not None and given == own
        counts["strict"] += strict_verdict(prompt, seen) == own
    return counts


def strict_verdict(prompt: str, seen: Sequence[Seen]) -> bool:
    """The verdict where unclear objects count as none of the things asked for."""
    return demo_benchmark.verdict(prompt, [s.detection for s in seen])


def verdict(prompt: str, seen: Sequence[Seen]) -> bool | None:
    """The verdict that every reading of the labels gives; None if it is open."""
    wanted = query(prompt)
    asked = [
        name.split()[-2:] if wanted.task == "attribution" else [UNKNOWN, name.split()[-1]] for name in wanted.names
    ]
    readings = _readings(asked, seen)
    if wanted.task == "spatial":
        readings = [order for reading in readings for order in _orders(reading)]
    given = {strict_verdict(prompt, reading) for reading in readings}
    return given.pop() if len(given) == 1 else None


def _readings(asked: Sequence[Sequence[str]], seen: Sequence[Seen]) -> list[list[Seen]]:
    """All ways to read unclear objects: each as it is, or as any `(colour, kind)` asked for that it may be."""
    choices = []
    for thing in seen:
        options = [thing]
        for colour, kind in asked if not thing.clear else ():
            options.append(
                replace(
                    thing,
                    colour=colour if thing.colour == UNKNOWN else thing.colour,
                    kind=kind if thing.kind == UNKNOWN else thing.kind,
                )
            )
        choices.append(options)
    return [list(reading) for reading in itertools.product(*choices)]


def _orders(seen: Sequence[Seen]) -> list[list[Seen]]:
    """The objects in orders that put each of them before all others of its kind once."""
    kinds = {s.kind for s in seen}
    firsts = itertools.product(*([s for s in seen if s.kind == kind] for kind in sorted(kinds)))
    return [[*first, *(s for s in seen if s not in first)] for first in firsts]
