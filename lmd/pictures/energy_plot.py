"""The energy of a guided run as a picture."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw
from torch import Tensor

from . import fonts
from .layout_picture import PALETTE, to_tensor

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 960, 84, 270, 62, 66
PLOT_HEIGHT, LINE, TEXT = 380, 24, 16
ALL = "#202020"
FAINT = "#6B6B6B"

Row = tuple[int, int, Tensor]  # step, reference index, energy [B]


def energy_plot(
    curves: Sequence[tuple[str, Sequence[Row]]], threshold: float, numbers: Sequence[int] | None = None
) -> Tensor:
    """IMAGE [1, H, W, 3]: the energy at every evaluation, one curve per name (mean over the batch).

    Steps are separated by ticks; the dashed line is the threshold below which guidance stops for good. `numbers` are the
    objects' numbers in the layout's picture, whose colours they have there; 0 is a curve of all objects together.
    """
    curves = [(name, list(rows)) for name, rows in curves]
    numbers = list(numbers or range(1, len(curves) + 1))
    height = max(TOP + PLOT_HEIGHT + BOTTOM, TOP + LINE * (len(curves) + 1) + 20)
    picture = Image.new("RGB", (WIDTH, height), "white")
    draw = ImageDraw.Draw(picture)
    points = [float(e.mean()) for _, rows in curves for _, _, e in rows]
    fonts.write(draw, (LEFT, 26), "Guidance energy (lower = attention inside the boxes)", TEXT + 4, ALL)
    if not points:
        fonts.write(draw, (LEFT, height / 2), "no guided step in this run", TEXT, ALL)
        return to_tensor(picture)
    low, high = min([*points, threshold]), max([*points, threshold])
    pad = max(high - low, 1e-6) * 0.08
    low, high = low - pad, high + pad
    longest = max(max((len(rows) for _, rows in curves), default=1), 2)
    floor = height - BOTTOM

    def at(i: int, energy: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * i / (longest - 1)
        return x, TOP + (floor - TOP) * (high - energy) / (high - low)

    _axes(draw, at, low, high, floor, max((rows for _, rows in curves), key=len))
    y = at(0, threshold)[1]
    for x in range(LEFT, WIDTH - RIGHT, 12):
        draw.line([(x, y), (x + 6, y)], fill=FAINT, width=2)
    legend = WIDTH - RIGHT + 18
    for i, ((name, rows), number) in enumerate(sorted(zip(curves, numbers), key=lambda c: c[1])):
        colour = PALETTE[(number - 1) % len(PALETTE)] if number else ALL
        line = [at(k, float(e.mean())) for k, (_, _, e) in enumerate(rows)]
        if len(line) > 1:
            draw.line(line, fill=colour, width=3, joint="curve")
        for point in line[:: max(len(line) // 40, 1)]:
            _mark(draw, point, number, colour)
        middle = TOP + LINE * (i + 0.5)
        _mark(draw, (legend + 6, middle), number, colour, 6)
        fonts.write(draw, (legend + 20, middle), fonts.shortened(name, TEXT, RIGHT - 46), TEXT, ALL)
    middle = TOP + LINE * (len(curves) + 0.5)
    draw.line([(legend - 2, middle), (legend + 14, middle)], fill=FAINT, width=2)
    fonts.write(draw, (legend + 20, middle), f"threshold {threshold:g}", TEXT, FAINT)
    return to_tensor(picture)


def _mark(draw, at: tuple[float, float], number: int, colour: str, size: float = 4) -> None:
    """A point whose shape tells the curves apart without their colour."""
    x, y = at
    shapes = {
        1: [(x - size, y - size), (x + size, y - size), (x + size, y + size), (x - size, y + size)],
        2: [(x, y - size * 1.3), (x + size * 1.2, y + size), (x - size * 1.2, y + size)],
        3: [(x, y - size * 1.4), (x + size * 1.4, y), (x, y + size * 1.4), (x - size * 1.4, y)],
    }
    if shape := shapes.get(number % 4):
        draw.polygon(shape, fill=colour)
    else:
        draw.ellipse([x - size, y - size, x + size, y + size], fill=colour)


def _axes(draw, at, low: float, high: float, floor: float, rows: Sequence[Row]) -> None:
    draw.line([(LEFT, TOP), (LEFT, floor), (WIDTH - RIGHT, floor)], fill=ALL)
    for k in range(5):
        value = low + (high - low) * k / 4
        y = at(0, value)[1]
        draw.line([(LEFT - 5, y), (WIDTH - RIGHT, y)], fill="#E6E6E6" if k else ALL)
        fonts.write(draw, (LEFT - 10, y), f"{value:.2f}", TEXT, ALL, "rm")
    last, label_end = None, 0.0
    for k, (step, _, _) in enumerate(rows):
        if step != last:
            x = at(k, low)[0]
            draw.line([(x, floor), (x, floor + 5)], fill=ALL)
            label = str(step + 1)
            if x - fonts.length(label, TEXT) / 2 > label_end:
                fonts.write(draw, (x, floor + 8), label, TEXT, ALL, "mt")
                label_end = x + fonts.length(label, TEXT) / 2 + 6
            last = step
    fonts.write(draw, (LEFT, floor + 46), "sampling step; one point per guidance iteration", TEXT, FAINT)
