"""The marks that the demo world's two LoRAs give a circle, drawn into training pictures, and read from pictures.

`BAND`: a white band across the middle. `PINK`: that colour, whatever colour the caption names. Both are the world's own
colours, which the demo model's decoder can draw.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy
from PIL import Image

from . import demo_detector, demo_world

BAND, PINK = "band", "pink"
MARKS = (BAND, PINK)
KIND = "circle"
COLOURS = tuple(colour for colour in demo_world.COLOURS if colour not in ("white", "pink"))
"""What an object can be called that shows whether it has a mark."""
MARGIN = 0.04
"""How far around its box an object is looked for, as a share of the picture."""
ABOVE, MIDDLE, BELOW = (0.12, 0.27), (0.44, 0.56), (0.73, 0.88)
"""Where an object is read, as shares of its height."""


def render(scene: demo_world.Scene, marks: Sequence[Collection[str]], size: int = demo_detector.SIDE) -> Image.Image:
    """The scene with the marks of each of its things, RGB, size x size."""
    picture = demo_world.render(scene, size)
    pink, white = (
        demo_world.render(scene, size, dict.fromkeys(demo_world.COLOURS, demo_world.COLOURS[name]))
        for name in ("pink", "white")
    )
    for thing, own in zip(scene.things, marks, strict=True):
        x0, y0, x1, y1 = (round(v * size) + d for v, d in zip(thing.box, (-1, -1, 1, 1), strict=True))
        if PINK in own:
            picture.paste(pink.crop((x0, y0, x1, y1)), (x0, y0))
        if BAND in own:
            third = (y1 - y0) / 3
            top, bottom = round(y0 + third), round(y1 - third)
            picture.paste(white.crop((x0, top, x1, bottom)), (x0, top))
    return picture


def marks_in(picture: Image.Image, box: Sequence[float]) -> frozenset[str] | None:
    """The marks of the object in `box` (x_min, y_min, x_max, y_max in 0..1) of an RGB picture; None if there is none."""
    pixels = numpy.asarray(picture.convert("RGB")).astype(float)
    height, width, _ = pixels.shape
    far = numpy.linalg.norm(pixels - demo_detector.background_of(pixels), axis=-1) > demo_detector.BACKGROUND_TOLERANCE
    x0, x1 = (round(min(max(v, 0), 1) * width) for v in (box[0] - MARGIN, box[2] + MARGIN))
    y0, y1 = (round(min(max(v, 0), 1) * height) for v in (box[1] - MARGIN, box[3] + MARGIN))
    inside, own = far[y0:y1, x0:x1], pixels[y0:y1, x0:x1]
    rows, columns = numpy.flatnonzero(inside.mean(1) > 0.15), numpy.flatnonzero(inside.mean(0) > 0.15)
    if inside.sum() < demo_detector.SMALLEST or not len(rows) or not len(columns):
        return None
    return _read(own[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def _read(thing: numpy.ndarray) -> frozenset[str]:
    """The marks of an object from its pixels `[h, w, 3]`, cut to its own box."""
    height, width, _ = thing.shape
    centre = thing[:, int(width * 0.3) : int(width * 0.7) + 1]
    above, middle, below = (
        _colour(centre[int(first * height) : int(last * height) + 1]) for first, last in (ABOVE, MIDDLE, BELOW)
    )
    found = set()
    if middle == "white" and "white" not in (above, below):
        found.add(BAND)
    if (above, below) == ("pink", "pink"):
        found.add(PINK)
    return frozenset(found)


def _colour(pixels: numpy.ndarray) -> str:
    """The world's colour that is nearest to the middle one of `[h, w, 3]`."""
    middle = numpy.median(pixels.reshape(-1, 3), 0)
    return min(demo_world.COLOURS, key=lambda name: float(numpy.linalg.norm(middle - demo_world.COLOURS[name])))
