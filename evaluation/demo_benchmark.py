"""LMD's benchmark carried over to the demo world: four tasks, their prompts, true layouts, and the verdict on a picture.

Templates and predicates are those of `evaluation/lmd_benchmark.py` (specification 9.1 and 9.2), with the world's kinds and
colours in place of COCO's. A picture is judged by what `detect` finds in it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from ..demo import model
from ..lmd.english import inflection
from ..lmd.layout import Box, Layout, LayoutObject
from . import demo_world
from .demo_detector import Detection
from .lmd_benchmark import Query, query, succeeds

TASKS = ("negation", "numeracy", "attribution", "spatial")
SCENE = "A realistic photo of a scene"
PLACES = (("left", "right"), ("right", "left"), ("top", "bottom"), ("bottom", "top"))


def prompts(count: int) -> list[tuple[str, str]]:
    """`(task, prompt)`, `count` of each task; the first ones are the same for every count."""
    found = []
    for i in range(count):
        rng = random.Random(f"benchmark {i}")
        first, second = (inflection.with_article(kind) for kind in rng.sample(demo_world.KINDS, 2))
        colours = rng.sample(list(demo_world.COLOURS), 2)
        coloured = [
            inflection.with_article(f"{c} {k.split()[-1]}") for c, k in zip(colours, (first, second), strict=True)
        ]
        kind, number = demo_world.KINDS[i % len(demo_world.KINDS)], 1 + i % 5
        here, there = PLACES[i % 4]
        found += [
            ("negation", f"{SCENE} without {inflection.plural(kind)}"),
            (
                "numeracy",
                f"{SCENE} with {demo_world.NUMBERS[number]} {kind if number == 1 else inflection.plural(kind)}",
            ),
            ("attribution", f"{SCENE} with {coloured[0]} and {coloured[1]}"),
            ("spatial", f"{SCENE} with {first} on the {here} and {second} on the {there}"),
        ]
    return sorted(found, key=lambda pair: TASKS.index(pair[0]))


def true_layout(prompt: str) -> Layout:
    """A layout that gives what a benchmark prompt asks for, with boxes of the sizes that the world itself uses."""
    wanted = query(prompt)
    rng = random.Random(prompt)
    negative = ""
    if wanted.task == "negation":
        names, negative = [], inflection.plural(wanted.names[0])
    elif wanted.task == "numeracy":
        names = [inflection.with_article(wanted.names[0])] * wanted.count
    else:
        names = list(wanted.names)
    boxes = [Box.from_corners(*thing.box) for thing in _places(wanted, len(names), rng)]
    objects = tuple(LayoutObject(name, box) for name, box in zip(names, boxes, strict=True))
    return Layout(model.IMAGE_SIZE, model.IMAGE_SIZE, objects, SCENE, negative, prompt)


def _places(wanted: Query, count: int, rng: random.Random) -> list[demo_world.Thing]:
    """Things of no particular kind, apart from one another; for a spatial prompt, clearly in the places asked for."""
    while True:
        things = demo_world.place([("circle", "red")] * count, rng) if count else []
        if not wanted.places:
            return things
        along = [t.x if wanted.places[0] in ("left", "right") else t.y for t in things]
        across = [t.y if wanted.places[0] in ("left", "right") else t.x for t in things]
        forward = wanted.places[0] in ("left", "top")
        if (along[1] - along[0] if forward else along[0] - along[1]) > max(0.25, abs(across[1] - across[0])):
            return things


def verdict(prompt: str, found: Sequence[Detection]) -> bool:
    """Does a picture with these detections (best first) give what the prompt asks for?"""
    wanted = query(prompt)
    coloured = wanted.task == "attribution"
    named = [
        (inflection.with_article(f"{d.colour} {d.kind}" if coloured else d.kind), Box.from_corners(*d.box))
        for d in found
    ]
    return succeeds(wanted, named)
