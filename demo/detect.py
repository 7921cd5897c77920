"""Finds the objects in a picture of the demo world by classical vision: background, palette colours, outlines.

It knows the world's palette and shapes but no caption, layout or latents, so it judges every method alike.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy
from PIL import Image
from scipy import ndimage

from . import world

SIDE = 128
"""Pictures are brought to this side in pixels; sizes below belong to it."""
BACKGROUND_TOLERANCE = 26.0
"""Largest distance in RGB (0..255) at which a pixel still belongs to the background."""
SMALLEST = 60
"""Fewest pixels of an object; the world's smallest has about 200."""
LIKENESS = 0.62
"""Least overlap (intersection over union) with the best of the eight outlines."""
TEMPLATE = 40


@dataclass(frozen=True)
class Detection:
    """One object: its `box` (x_min, y_min, x_max, y_max in 0..1) as drawn, and `score`, the likeness of its outline."""

    kind: str
    colour: str
    box: tuple[float, float, float, float]
    score: float

    @property
    def centre(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


def detect(picture: Image.Image | numpy.ndarray) -> list[Detection]:
    """All objects of an RGB picture (values 0..255, any square size), from the best score down."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(numpy.asarray(picture, dtype=numpy.uint8))
    if image.size != (SIDE, SIDE):
        image = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pixels = numpy.asarray(image.convert("RGB")).astype(float)
    foreground = _distance_from_background(pixels) > BACKGROUND_TOLERANCE
    names, nearest = _nearest_colours(pixels)
    found = []
    for index, colour in enumerate(names):
        core = ndimage.binary_opening(foreground & (nearest == index), numpy.ones((3, 3)))
        labels, count = ndimage.label(core)
        for number in range(1, count + 1):
            part = _with_rim(labels == number, foreground, labels)
            if part.sum() >= SMALLEST:
                kind, score = _kind(part)
                if score >= LIKENESS:
                    found.append(Detection(kind, colour, _box(part), score))
    return sorted(_without_doubles(found), key=lambda d: -d.score)


def _distance_from_background(pixels: numpy.ndarray) -> numpy.ndarray:
    """How far each pixel is from a background that changes linearly from top to bottom, fitted to the picture.

    The fit starts at the border, where objects are rare, and then takes in all pixels near it.
    """
    height, width, _ = pixels.shape
    y = numpy.repeat(numpy.linspace(-1, 1, height), width)
    design = numpy.stack([numpy.ones_like(y), y], 1)
    flat = pixels.reshape(-1, 3)
    edge = numpy.ones((height, width), bool)
    edge[4:-4, 4:-4] = False
    near = edge.ravel()
    reference = numpy.median(flat[near], 0)
    near = near & (numpy.abs(flat - reference).max(1) < 50)
    for tolerance in (30, 24, 20):
        if near.sum() < 50:
            break
        fit = numpy.linalg.lstsq(design[near], flat[near], rcond=None)[0]
        near = numpy.linalg.norm(flat - design @ fit, axis=1) < tolerance
    else:
        fit = numpy.linalg.lstsq(design[near], flat[near], rcond=None)[0] if near.sum() >= 50 else fit
        return numpy.linalg.norm(flat - design @ fit, axis=1).reshape(height, width)
    return numpy.linalg.norm(flat - reference, axis=1).reshape(height, width)


def _nearest_colours(pixels: numpy.ndarray) -> tuple[list[str], numpy.ndarray]:
    """Colour names, and per pixel the index of the nearest one; a colour's darker rim counts as the rim, not as it."""
    names = list(world.COLOURS)
    palette = numpy.array([world.COLOURS[name] for name in names], dtype=float)
    both = numpy.concatenate([palette, palette * world.RIM])
    distance = numpy.linalg.norm(pixels[:, :, None] - both, axis=-1)
    return names, distance.argmin(-1)


def _with_rim(core: numpy.ndarray, foreground: numpy.ndarray, labels: numpy.ndarray) -> numpy.ndarray:
    """The core of an object and the foreground within three pixels of it that no other core of its colour owns."""
    near = ndimage.binary_dilation(core, iterations=3) & foreground
    return near & ((labels == 0) | core)


def _box(mask: numpy.ndarray) -> tuple[float, float, float, float]:
    rows, columns = numpy.flatnonzero(mask.any(1)), numpy.flatnonzero(mask.any(0))
    return tuple(float(v) / SIDE for v in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))


def _normalised(mask: numpy.ndarray) -> numpy.ndarray:
    """The mask cut to its box and stretched to TEMPLATE x TEMPLATE."""
    rows, columns = numpy.flatnonzero(mask.any(1)), numpy.flatnonzero(mask.any(0))
    cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    image = Image.fromarray(cut.astype(numpy.uint8) * 255).resize((TEMPLATE, TEMPLATE), Image.Resampling.BILINEAR)
    return numpy.asarray(image) > 127


@functools.cache
def _templates() -> list[tuple[str, numpy.ndarray, float]]:
    """(kind, stretched outline, width over height) of every kind in three sizes, from the renderer itself."""
    found = []
    for kind, size in itertools.product(world.KINDS, (0.2, 0.3, 0.5)):
        thing = world.Thing(kind, "red", 0.5, 0.5, size, size)
        pictures = [numpy.asarray(world.render(world.Scene("snow", t), SIDE)).astype(float) for t in ((thing,), ())]
        mask = numpy.linalg.norm(pictures[0] - pictures[1], axis=-1) > BACKGROUND_TOLERANCE
        x0, y0, x1, y1 = _box(mask)
        found.append((kind, _normalised(mask), (x1 - x0) / (y1 - y0)))
    return found


def _kind(mask: numpy.ndarray) -> tuple[str, float]:
    """The kind whose outline overlaps best, and the overlap, less what its proportions are off."""
    own = _normalised(mask)
    x0, y0, x1, y1 = _box(mask)
    scores = []
    for kind, outline, proportion in _templates():
        overlap = (own & outline).sum() / (own | outline).sum()
        off = abs(numpy.log((x1 - x0) / (y1 - y0) / proportion))
        scores.append((float(overlap - 0.3 * max(0.0, off - 0.15)), kind))
    score, kind = max(scores)
    return kind, score


def _without_doubles(found: list[Detection]) -> list[Detection]:
    """Of detections that cover one another by more than half of the smaller, only the larger stays."""
    kept: list[Detection] = []
    for one in sorted(found, key=lambda d: -_area(d.box)):
        if all(_shared(one.box, other.box) <= 0.5 * _area(one.box) for other in kept):
            kept.append(one)
    return kept


def _area(box: tuple[float, float, float, float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _shared(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height)
