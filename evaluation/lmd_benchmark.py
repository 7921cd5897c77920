"""The LMD benchmark, stage 1: its 400 prompts, its predicates over layouts, and the detection filter of stage 2.

Source: docs/lmd.md, 9 (LLM-groundedDiffusion@cef2a90 prompt.py, eval/). The predicates match
substrings on purpose (a cupboard counts as a cup), so that numbers stay comparable with the published ones.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..lmd.english import inflection, lexicon
from ..lmd.layout import Box, Layout

TASKS = ("negation", "numeracy", "attribution", "spatial")
CLASSES = ("backpack", "book", "bottle", "bowl", "car", "cat", "chair", "cup", "dog", "laptop")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "gray")
_PREFIX = "A realistic photo of a scene"
_COUNTS = lexicon.NUMBER_WORDS[1:6]


@dataclass(frozen=True)
class Query:
    """What a benchmark prompt asks for. `names` carry their article, except for negation and numeracy."""

    task: str
    names: tuple[str, ...]
    count: int = 0
    places: tuple[str, ...] = ()

    @property
    def detector_queries(self) -> list[str]:
        """The texts that the image evaluation gives to the detector."""
        counted = self.task in ("negation", "numeracy")
        return [f"a photo of {inflection.with_article(n) if counted else n}" for n in self.names]


def prompts() -> list[tuple[str, str]]:
    """The 400 `(task, prompt)` pairs in the published order, drawn again from their seeds."""
    import numpy as np

    out = [("negation", f"{_PREFIX} without {inflection.plural(c)}") for c in CLASSES for _ in range(10)]
    for n, number in enumerate(_COUNTS, 1):
        for c in CLASSES:
            out += [("numeracy", f"{_PREFIX} with {number} {c if n == 1 else inflection.plural(c)}")] * 2
    for seed in range(100):
        random = np.random.RandomState(seed)
        colours = random.choice(COLOURS, 2, replace=False)
        classes = random.choice(CLASSES, 2, replace=False)
        a, b = (inflection.with_article(f"{colour} {c}") for colour, c in zip(colours, classes))
        out.append(("attribution", f"{_PREFIX} with {a} and {b}"))
    for seed in range(25):
        random = np.random.RandomState(seed)
        for first, second in (("left", "right"), ("right", "left"), ("top", "bottom"), ("bottom", "top")):
            a, b = (inflection.with_article(str(c)) for c in random.choice(CLASSES, 2, replace=False))
            out.append(("spatial", f"{_PREFIX} with {a} on the {first} and {b} on the {second}"))
    return out


def query(prompt: str) -> Query:
    """Reads the ground truth out of a benchmark prompt. Raises ValueError for any other text."""
    if not prompt.startswith(_PREFIX + " with"):
        raise ValueError(f"not a prompt of the LMD benchmark: {prompt!r}")
    rest = prompt[len(_PREFIX) + 1 :]
    if rest.startswith("without "):
        plural = rest.removeprefix("without ")
        return Query("negation", (inflection.singular(plural) or plural,))
    rest = rest.removeprefix("with ")
    if match := re.fullmatch(r"(an? \w+) on the (\w+) and (an? \w+) on the (\w+)", rest):
        return Query("spatial", (match[1], match[3]), places=(match[2], match[4]))
    if match := re.fullmatch(r"(an? \w+ \w+) and (an? \w+ \w+)", rest):
        return Query("attribution", (match[1], match[2]))
    if match := re.fullmatch(rf"({'|'.join(_COUNTS)}) (\w+)", rest):
        return Query("numeracy", (inflection.singular(match[2]) or match[2],), count=_COUNTS.index(match[1]) + 1)
    raise ValueError(f"not a prompt of the LMD benchmark: {prompt!r}")


def succeeds(wanted: Query, boxes: Sequence[tuple[str, Box]]) -> bool:
    """The published stage-1 predicate over `(name, box)` pairs."""
    if wanted.task in ("negation", "numeracy"):
        return sum(wanted.names[0] in name for name, _ in boxes) == wanted.count
    if wanted.task == "attribution":
        return all(any(n in name for name, _ in boxes) for n in wanted.names)
    found = [next((b for name, b in boxes if name.endswith(n) or f"{n} " in name), None) for n in wanted.names]
    if None in found:
        return False
    axis = 0 if wanted.places[0] in ("left", "right") else 1
    first, second = (b.centre[axis] for b in found)
    return first < second if wanted.places[0] in ("left", "top") else first > second


def predicate(prompt: str, layout: Layout) -> bool:
    """Does a layout give what a benchmark prompt asks for?"""
    return succeeds(query(prompt), [(o.phrase, o.box) for o in layout.objects])


def nms(
    boxes: Sequence[Box], scores: Sequence[float], labels: Sequence[int], threshold: float, class_aware: bool = True
) -> list[int]:
    """Indices of the detections that survive: greedy by score, others with IoU >= threshold dropped.

    `class_aware` compares within a label only and orders the result by label, then by falling score.
    """
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        rivals = [k for k in kept if not class_aware or labels[k] == labels[i]]
        if all(boxes[i].iou(boxes[k]) < threshold for k in rivals):
            kept.append(i)
    return sorted(kept, key=lambda i: labels[i]) if class_aware else kept
