"""Line charts for the documentation, drawn with Pillow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

# Okabe and Ito's palette, told apart by colour-blind people.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 360, 64, 24, 44, 52

Points = Sequence[tuple[float, float]]


def line_chart(title: str, x_label: str, y_label: str, series: Mapping[str, Points]) -> Image.Image:
    """One line per name, through its points (x, y); both axes start at 0, and x is marked at the points."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=13)
    points = [p for line in series.values() for p in line]
    right, top = max(x for x, _ in points), _round_up(max(y for _, y in points))

    def at(x: float, y: float) -> tuple[float, float]:
        return LEFT + (WIDTH - LEFT - RIGHT) * x / right, HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * y / top

    draw.text((LEFT, 8), title, "black", ImageFont.load_default(size=15))
    draw.text((LEFT, 26), y_label, "#555555", font)
    for k in range(5):
        y = top * k / 4
        draw.line([at(0, y), at(right, y)], fill="#e4e4e4")
        text = f"{y:g}"
        draw.text((at(0, y)[0] - 8 - font.getlength(text), at(0, y)[1] - 8), text, "black", font)
    draw.line([at(0, top), at(0, 0), at(right, 0)], fill="black")
    for x in sorted({x for x, _ in points}):
        draw.line([at(x, 0), (at(x, 0)[0], at(x, 0)[1] + 4)], fill="black")
        draw.text((at(x, 0)[0] - font.getlength(f"{x:g}") / 2, at(x, 0)[1] + 6), f"{x:g}", "black", font)
    draw.text(((WIDTH - font.getlength(x_label)) / 2, HEIGHT - 22), x_label, "black", font)
    for i, (name, line) in enumerate(series.items()):
        colour = PALETTE[i % len(PALETTE)]
        draw.line([at(*p) for p in line], fill=colour, width=2)
        for x, y in (at(*p) for p in line):
            draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill=colour)
        draw.rectangle([LEFT + 12, TOP + 8 + 18 * i, LEFT + 22, TOP + 18 + 18 * i], fill=colour)
        draw.text((LEFT + 28, TOP + 5 + 18 * i), name, "black", font)
    return picture


def side_by_side(charts: Sequence[Image.Image], path: Path) -> None:
    """Save the charts in one row."""
    picture = Image.new("RGB", (sum(c.width for c in charts), max(c.height for c in charts)), "white")
    x = 0
    for chart in charts:
        picture.paste(chart, (x, 0))
        x += chart.width
    picture.quantize(64).save(path, optimize=True)


def _round_up(value: float) -> float:
    """The next of 1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8 times a power of ten, so that quarters are short numbers."""
    power = 10.0 ** math.floor(math.log10(value)) if value > 0 else 1.0
    return next(s * power for s in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if s * power >= value)
