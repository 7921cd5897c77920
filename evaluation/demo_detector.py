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

from . import demo_world

SIDE = 128
"""Pictures are brought to this side in pixels; sizes below belong to it."""
BACKGROUND_TOLERANCE = 26.0
"""Largest distance in RGB (0..255) at which a pixel still belongs to the background."""
SMALLEST = 100
"""Fewest pixels of an object; the world's smallest has about 200."""
CORE = 15
"""Fewest pixels of what is left of an object when a blob is eroded until its objects part."""
LIKENESS = 0.55
"""Least overlap (intersection over union) with the best of the eight outlines."""
SHARP = 0.35
"""Where an object ends: at this share of its own distance from the background."""
CLEAR = 0.85
"""Overlap from which on a blob is taken for one object without further ado."""
DIVISION_COST = 0.05
"""By how much more the parts of a blob must look like objects than the whole."""
FAINT, STRANGE = 80.0, 40.0
"""A part that differs from the background by less than the first and from the world's colours by more than the second
(distances in RGB) is a stain that the decoder left, no object."""
PALE = 0.3
"""Least share of an outline's area that a pale inside takes up; the hole of a ring takes up less."""
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
        """(x, y) of the box's middle."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


def detect(picture: Image.Image | numpy.ndarray) -> list[Detection]:
    """All objects of an RGB picture (values 0..255, any square size), from the best score down."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(numpy.asarray(picture, dtype=numpy.uint8))
    if image.size != (SIDE, SIDE):
        image = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pixels = numpy.asarray(image.convert("RGB")).astype(float)
    background = background_of(pixels)
    distance, colours = _without_frame(numpy.linalg.norm(pixels - background, axis=-1)), _nearest_colours(pixels)
    distance = _with_pale_insides(distance, pixels, background)
    found = []
    for blob in _parts(ndimage.binary_opening(distance > BACKGROUND_TOLERANCE, numpy.ones((2, 2)))):
        parts = [part for part in _read(blob, distance, colours) if not _stain(part, distance, pixels)]
        found += [_judge(part, colours) for part in parts]
    return sorted((d for d in found if d.score >= LIKENESS), key=lambda d: -d.score)


def _stain(part: numpy.ndarray, distance: numpy.ndarray, pixels: numpy.ndarray) -> bool:
    """Is this neither clearly apart from the background nor of any of the world's colours?"""
    strange = numpy.linalg.norm(pixels[part][:, None] - _palette(), axis=-1).min(-1)
    return numpy.percentile(distance[part], 80) < FAINT and numpy.percentile(strange, 25) > STRANGE


def _read(blob: numpy.ndarray, distance: numpy.ndarray, colours: numpy.ndarray, depth: int = 3) -> list[numpy.ndarray]:
    """The objects of a connected blob: itself, or what it divides into if that looks clearly more like objects."""
    limit = max(BACKGROUND_TOLERANCE, SHARP * float(numpy.percentile(distance[blob], 80)))
    sharp = _parts(blob & (distance > limit), 1)  # without the blurred border, which can join neighbours
    if not sharp:
        return [blob]
    if depth and len([part for part in sharp if part.sum() >= SMALLEST]) > 1:
        return [
            thing for part in _parts(blob & (distance > limit)) for thing in _read(part, distance, colours, depth - 1)
        ]
    whole = max(sharp, key=numpy.sum)
    if depth == 0 or _kind(whole)[1] > CLEAR:
        return [whole]
    readings = [[whole]]
    for cores in _divisions(blob, colours):
        parts = _grow(cores, blob)
        readings.append([thing for part in parts for thing in _read(part, distance, colours, depth - 1)])
    return max(readings, key=lambda r: _quality(r, whole) - (DIVISION_COST if len(r) > 1 else 0))


def _parts(mask: numpy.ndarray, smallest: int = SMALLEST) -> list[numpy.ndarray]:
    """The connected parts of a mask that are large enough to be objects."""
    labels, count = ndimage.label(mask)
    sizes = ndimage.sum_labels(mask, labels, range(1, count + 1))
    return [labels == number for number, size in enumerate(sizes, 1) if size >= smallest]


def _divisions(blob: numpy.ndarray, colours: numpy.ndarray) -> list[list[numpy.ndarray]]:
    """Cores of objects of several colours that touch, and of objects that touch along a thin neck."""
    own = [blob & (colours == index) for index in range(len(demo_world.COLOURS))]
    found = [[part for mask in own for part in _parts(ndimage.binary_opening(mask, numpy.ones((3, 3))))]]
    filled = ndimage.binary_fill_holes(blob)
    found += [_parts(ndimage.binary_erosion(filled, iterations=i), CORE) for i in (1, 2, 3, 4, 6, 8, 10, 12)]
    return [cores for cores in found if len(cores) > 1]


def _grow(cores: list[numpy.ndarray], blob: numpy.ndarray) -> list[numpy.ndarray]:
    """Divide the blob among the cores: every pixel goes to the nearest one."""
    distances = numpy.stack([ndimage.distance_transform_edt(~core) for core in cores])
    nearest = distances.argmin(0)
    return [blob & (nearest == index) for index in range(len(cores))]


def _quality(reading: list[numpy.ndarray], whole: numpy.ndarray) -> float:
    """How well the parts of a reading look like objects, by area; what it leaves out of the whole counts as nothing."""
    areas = [int(part.sum()) for part in reading]
    alike = sum(area * max(0.0, _kind(part)[1]) for area, part in zip(areas, reading, strict=True))
    return alike / max(sum(areas), int(whole.sum()))


def _judge(part: numpy.ndarray, colours: numpy.ndarray) -> Detection:
    """Kind and colour of one object; its rim has no say in its colour unless there is nothing else."""
    kind, score = _kind(part)
    inside = part & (colours < len(demo_world.COLOURS))
    votes = numpy.bincount(colours[inside if inside.any() else part] % len(demo_world.COLOURS))
    return Detection(kind, list(demo_world.COLOURS)[int(votes.argmax())], _box(part), score)


def _palette() -> numpy.ndarray:
    return numpy.array(list(demo_world.COLOURS.values()), dtype=float)


def background_of(pixels: numpy.ndarray) -> numpy.ndarray:
    """RGB of a background that changes linearly from top to bottom, fitted to the picture, in the picture's shape.

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
    fitted = numpy.broadcast_to(reference, flat.shape)
    for tolerance in (30, 24, 20, 0):
        if near.sum() < 50:
            break
        fitted = design @ numpy.linalg.lstsq(design[near], flat[near], rcond=None)[0]
        near = numpy.linalg.norm(flat - fitted, axis=1) < tolerance
    return fitted.reshape(pixels.shape)


def _with_pale_insides(distance: numpy.ndarray, pixels: numpy.ndarray, background: numpy.ndarray) -> numpy.ndarray:
    """The distances with the insides of thin outlines raised where they are nearer to white than to the background.

    On snow, white objects differ from the background by their rims only; the hole of a ring stays a hole.
    """
    mask = distance > BACKGROUND_TOLERANCE
    found = distance.copy()
    for outline in _parts(ndimage.binary_fill_holes(mask)):
        for hole in _parts(outline & (distance < FAINT), 2 * CORE):
            colour = pixels[hole].mean(0)
            pale = numpy.linalg.norm(colour - demo_world.COLOURS["white"]) < numpy.linalg.norm(
                colour - background[hole].mean(0)
            )
            if pale and hole.sum() > PALE * outline.sum():
                found[hole] = numpy.percentile(distance[outline & mask], 80)
    return found


def _without_frame(distance: numpy.ndarray) -> numpy.ndarray:
    """The outermost two pixels count as background: decoders like to leave a line there."""
    inner = numpy.zeros_like(distance)
    inner[2:-2, 2:-2] = distance[2:-2, 2:-2]
    return inner


def _nearest_colours(pixels: numpy.ndarray) -> numpy.ndarray:
    """Per pixel the index of the nearest of the world's colours; the rims of these colours follow as further indices."""
    both = numpy.concatenate([_palette(), _palette() * demo_world.RIM])
    return numpy.linalg.norm(pixels[:, :, None] - both, axis=-1).argmin(-1)


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
    """(kind, stretched outline, width over height) of every kind, from the renderer: three sizes, sharp and blurred."""
    found = []
    for kind, size, blur in itertools.product(demo_world.KINDS, (0.2, 0.3, 0.5), (0.0, 1.5, 2.5)):
        thing = demo_world.Thing(kind, "red", 0.5, 0.5, size, size)
        pictures = [
            numpy.asarray(demo_world.render(demo_world.Scene("snow", t), SIDE)).astype(float) for t in ((thing,), ())
        ]
        pictures = [ndimage.gaussian_filter(picture, (blur, blur, 0)) for picture in pictures]
        distance = numpy.linalg.norm(pictures[0] - pictures[1], axis=-1)
        mask = distance > SHARP * numpy.percentile(distance[distance > BACKGROUND_TOLERANCE], 80)
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
