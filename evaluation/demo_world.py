"""The demo world: flat shapes on simple backgrounds, drawn with Pillow, and the captions that describe them.

A scene is plain data (`Scene` of `Thing`s, all coordinates in 0..1 of a square canvas, y down), so the same scene can
be drawn at any size, captioned in many wordings, and used as ground truth for boxes. Everything is deterministic in
the `random.Random` that is passed in.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image, ImageDraw

from ..lmd.english.lexicon import NUMBER_WORDS

KINDS = ("circle", "square", "triangle", "star", "heart", "cross", "ring", "moon")
PLURALS = {kind: kind + ("es" if kind == "cross" else "s") for kind in KINDS}
COLOURS = {
    "red": (214, 30, 38),
    "orange": (246, 138, 20),
    "yellow": (250, 224, 40),
    "green": (22, 138, 56),
    "blue": (28, 64, 206),
    "purple": (128, 36, 160),
    "pink": (252, 132, 190),
    "white": (252, 252, 252),
}
# name: (colour at the top, colour at the bottom, how captions say it)
BACKGROUNDS = {
    "grass": ((150, 196, 118), (104, 160, 84), ("on the grass", "on a green meadow", "on a lawn")),
    "sky": ((146, 198, 236), (202, 228, 244), ("in the sky", "in a bright sky", "high in the air")),
    "sand": ((236, 214, 166), (212, 182, 128), ("on the sand", "on a beach", "in the desert")),
    "night": ((16, 20, 46), (40, 44, 84), ("at night", "in a dark night", "in the dark")),
    "snow": ((216, 224, 232), (232, 238, 244), ("in the snow", "on a snowy field", "in winter")),
    "water": ((70, 134, 164), (44, 100, 136), ("on the water", "on a lake", "in the sea")),
}
SCENE_NAMES = {
    "grass": ("a meadow", "a grass field", "a park"),
    "sky": ("a bright sky", "the sky", "a sunny day"),
    "sand": ("a beach", "a desert", "a sandy place"),
    "night": ("a dark night", "the night", "a night scene"),
    "snow": ("a snowy field", "a winter landscape", "the snow"),
    "water": ("a lake", "the sea", "the water"),
}
NUMBERS = NUMBER_WORDS[:6]
OPENINGS = ("A realistic photo of", "A photo of", "A picture of", "A realistic image of")
SHORT_OPENINGS = ("A realistic scene", "A scene", "a photo", "A simple drawing")
SUPERSAMPLING = 4
RIM = 0.5
"""Brightness of an object's rim relative to its colour."""
# Longest side of one object as a fraction of the canvas, by the number of objects in the scene.
SIZES = {1: (0.24, 0.62), 2: (0.26, 0.46), 3: (0.24, 0.38), 4: (0.22, 0.33), 5: (0.21, 0.30)}


@dataclass(frozen=True)
class Thing:
    """One object: `kind` of `KINDS`, `colour` of `COLOURS`, its box centre `x`, `y` and sides `w`, `h` in 0..1."""

    kind: str
    colour: str
    x: float
    y: float
    w: float
    h: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x_min, y_min, x_max, y_max in 0..1."""
        return self.x - self.w / 2, self.y - self.h / 2, self.x + self.w / 2, self.y + self.h / 2


@dataclass(frozen=True)
class Scene:
    """A background name, how bright it is (about 1), and the objects on it."""

    background: str
    things: tuple[Thing, ...]
    brightness: float = 1.0


# ---------------------------------------------------------------------------------------------------- drawing


def _outline(kind: str) -> list[tuple[float, float]]:
    """Polygon of a kind in its box, coordinates in -1..1, y down. Rings and moons add a second outline elsewhere."""
    turn = [2 * math.pi * i / 64 for i in range(64)]
    if kind in ("circle", "ring"):
        return [(math.cos(a), math.sin(a)) for a in turn]
    if kind == "square":
        return [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]
    if kind == "triangle":
        return [(0, -1), (1, 0.9), (-1, 0.9)]
    if kind == "star":
        radii = [1.0, 0.42] * 5
        return [(r * math.sin(math.pi * i / 5), 0.08 - r * math.cos(math.pi * i / 5)) for i, r in enumerate(radii)]
    if kind == "heart":
        points = [(16 * math.sin(a) ** 3, -_heart_height(a)) for a in turn]
        return [(x / 16.5, (y - 2.5) / 15.5) for x, y in points]
    if kind == "cross":
        t = 0.36
        quarter = [(-t, -1), (t, -1), (t, -t), (1, -t), (1, t), (t, t), (t, 1), (-t, 1), (-t, t), (-1, t), (-1, -t)]
        return [*quarter, (-t, -t)]
    if kind == "moon":  # the outer circle, then back along a smaller circle shifted to the right
        outer = [(math.cos(a) * 0.98, math.sin(a) * 0.98) for a in _arc(math.radians(48), math.radians(312), 48)]
        inner = [(0.42 + math.cos(a) * 0.76, math.sin(a) * 0.76) for a in _arc(math.radians(-72), math.radians(72), 48)]
        return outer + [(0.84 - x, y) for x, y in inner]
    raise ValueError(f"The demo world has no such shape: got {kind!r}. Use one of: {', '.join(KINDS)}.")


def _heart_height(a: float) -> float:
    return 13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a)


def _arc(start: float, stop: float, steps: int) -> list[float]:
    return [start + (stop - start) * i / (steps - 1) for i in range(steps)]


def _shade(colour: tuple[int, ...], factor: float) -> tuple[int, int, int]:
    return tuple(max(0, min(255, round(c * factor))) for c in colour)


def draw_background(scene: Scene, size: int) -> Image.Image:
    """Vertical gradient of the background, RGB, size x size."""
    top, bottom, _ = BACKGROUNDS[scene.background]
    column = Image.new("RGB", (1, size))
    for y in range(size):
        t = y / (size - 1)
        column.putpixel(
            (0, y), _shade(tuple(a + (b - a) * t for a, b in zip(top, bottom, strict=True)), scene.brightness)
        )
    return column.resize((size, size))


def render(scene: Scene, size: int = 128, colours: Mapping[str, tuple[int, ...]] = COLOURS) -> Image.Image:
    """Draw a scene as an RGB picture of size x size pixels: each object filled, with a darker rim."""
    full = size * SUPERSAMPLING
    image = draw_background(scene, size).resize((full, full))
    draw = ImageDraw.Draw(image)
    for thing in scene.things:
        rim = max(1, round(full * 0.012))
        colour = colours[thing.colour]
        edge = _shade(colour, RIM)

        def place(
            points: list[tuple[float, float]], scale: float = 1.0, thing: Thing = thing
        ) -> list[tuple[float, float]]:
            return [
                ((thing.x + x * scale * thing.w / 2) * full, (thing.y + y * scale * thing.h / 2) * full)
                for x, y in points
            ]

        outline = place(_outline(thing.kind))
        if thing.kind == "ring":
            hole = place(_outline("circle"), 0.5)
            mask = Image.new("1", (full, full))
            pen = ImageDraw.Draw(mask)
            pen.polygon(outline, fill=1)
            pen.polygon(hole, fill=0)
            image.paste(colour, (0, 0), mask)
            draw.line([*hole, hole[0], hole[1]], fill=edge, width=rim, joint="curve")
        else:
            draw.polygon(outline, fill=colour)
        draw.line([*outline, outline[0], outline[1]], fill=edge, width=rim, joint="curve")
    return image.reduce(SUPERSAMPLING)


# ---------------------------------------------------------------------------------------------------- sampling


def place(groups: list[tuple[str, str]], rng: random.Random) -> list[Thing]:
    """Objects of the given (kind, colour) at random places without overlap; tries again with smaller ones."""
    low, high = SIZES[len(groups)]
    for attempt in range(200):
        shrink = 1.0 - 0.2 * min(attempt / 100, 1)
        things: list[Thing] = []
        for kind, colour in groups:
            for _ in range(30):
                w = rng.uniform(low, high) * shrink
                h = w * rng.uniform(0.92, 1.08)
                x, y = rng.uniform(w / 2 + 0.02, 0.98 - w / 2), rng.uniform(h / 2 + 0.02, 0.98 - h / 2)
                gap = 0.02
                if all(abs(x - o.x) > (w + o.w) / 2 + gap or abs(y - o.y) > (h + o.h) / 2 + gap for o in things):
                    things.append(Thing(kind, colour, x, y, w, h))
                    break
            else:
                break
        if len(things) == len(groups):
            return things
    raise RuntimeError(f"No room for {len(groups)} objects; check SIZES in evaluation/demo_world.py.")


def sample_scene(rng: random.Random) -> Scene:
    """A random scene of 1 to 5 objects in one to three groups; a group shares its kind and usually its colour."""
    count = rng.choices((1, 2, 3, 4, 5), (30, 34, 14, 11, 11))[0]
    most = min(count, 3)
    groups = rng.choices(range(1, most + 1), (45, 45, 10)[:most])[0] if count > 1 else 1
    kinds = rng.sample(KINDS, groups)
    sizes = [1] * groups
    for _ in range(count - groups):
        sizes[rng.randrange(groups)] += 1
    members: list[tuple[str, str]] = []
    for kind, members_here in zip(kinds, sizes, strict=True):
        shared = rng.choice(list(COLOURS))
        same = rng.random() < 0.7
        members += [(kind, shared if same else rng.choice(list(COLOURS))) for _ in range(members_here)]
    things = place(members, rng)
    return Scene(rng.choice(list(BACKGROUNDS)), tuple(things), rng.uniform(0.93, 1.05))


# ---------------------------------------------------------------------------------------------------- captions


def _with_article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def _groups(scene: Scene) -> list[list[Thing]]:
    found: dict[str, list[Thing]] = {}
    for thing in scene.things:
        found.setdefault(thing.kind, []).append(thing)
    return list(found.values())


def _name(group: list[Thing], rng: random.Random, colour_rate: float) -> str:
    """'a red star', 'two stars', 'three red stars', 'stars', now and then 'one star'."""
    kind, count = group[0].kind, len(group)
    coloured = rng.random() < colour_rate
    colours = {thing.colour for thing in group}
    words = (group[0].colour + " ") if coloured and len(colours) == 1 else ""
    if count == 1:
        return "one " + words + kind if rng.random() < 0.15 else _with_article(words + kind)
    if coloured and len(colours) > 1 and count <= 3:
        return " and ".join(_with_article(f"{thing.colour} {kind}") for thing in group)
    number = NUMBERS[count] + " " if rng.random() < 0.85 else rng.choice(("", "some ", "several "))
    return number + words + PLURALS[kind]


def _relation(a: Thing, b: Thing, first: str, second: str, rng: random.Random) -> str | None:
    """A wording of how `a` lies relative to `b`, or None where neither axis is clear."""
    dx, dy = b.x - a.x, b.y - a.y
    if max(abs(dx), abs(dy)) < 0.15:
        return None
    if abs(dx) > abs(dy):
        here, there = ("left", "right") if dx > 0 else ("right", "left")
        between = f"to the {here} of"
    else:
        here, there = ("top", "bottom") if dy > 0 else ("bottom", "top")
        between = "above" if dy > 0 else "below"
    if rng.random() < 0.6:
        return f"{first} on the {here} and {second} on the {there}"
    return f"{first} {between} {second}"


def _join(names: list[str], rng: random.Random) -> str:
    if len(names) == 1:
        return names[0]
    if rng.random() < 0.5:
        return ", ".join(names)
    return ", ".join(names[:-1]) + " and " + names[-1]


def caption(scene: Scene, rng: random.Random) -> str:
    """One of many ways to describe a scene: in the benchmark's manner or freer, complete or not, as captions are."""
    groups = _groups(scene)
    rng.shuffle(groups)
    if len(groups) > 1 and rng.random() < 0.06:  # captions leave things out
        groups = groups[:-1]
    colour_rate = 0.75 if rng.random() < 0.8 else 0.0
    names = [_name(group, rng, colour_rate) for group in groups]
    things = None
    if len(groups) == 2 and all(len(group) == 1 for group in groups) and rng.random() < 0.3:
        things = _relation(groups[0][0], groups[1][0], names[0], names[1], rng)
    things = things or _join(names, rng)
    where = rng.choice(BACKGROUNDS[scene.background][2])
    place = rng.choice(SCENE_NAMES[scene.background])
    style = rng.choices(range(6), (34, 20, 16, 12, 10, 8))[0]
    if style == 0:
        return f"A realistic photo of a scene with {things}"
    if style == 1:
        return f"{rng.choice(OPENINGS)} {place} with {things}"
    if style == 2:
        return f"{things} {where}"
    if style == 3:
        return f"{rng.choice(SHORT_OPENINGS)} with {things} {where}"
    if style == 4:
        return things
    return f"{place} with {things}"
