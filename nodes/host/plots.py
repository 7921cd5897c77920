"""The energy of a guided run as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

# Okabe and Ito's palette, told apart by colour-blind people.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 400, 70, 200, 40, 50

Row = tuple[int, int, Tensor]  # step, reference index, energy [B]


def energy_plot(curves: Sequence[tuple[str, Sequence[Row]]], threshold: float) -> Tensor:
    """IMAGE [1, H, W, 3]: the energy at every evaluation, one curve per name (mean over the batch).

    Steps are separated by ticks; the dashed line is the threshold below which guidance stops for good.
    """
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=13)
    curves = [(name, list(rows)) for name, rows in curves]
    points = [float(e.mean()) for _, rows in curves for _, _, e in rows]
    draw.text(
        (LEFT, 10), "Guidance energy (lower = attention inside the boxes)", "black", ImageFont.load_default(size=15)
    )
    if not points:
        draw.text((LEFT, HEIGHT // 2), "no guided step in this run", "black", font)
        return _image(picture)
    low, high = min([*points, threshold]), max([*points, threshold])
    pad = max(high - low, 1e-6) * 0.08
    low, high = low - pad, high + pad
    longest = max(max((len(rows) for _, rows in curves), default=1), 2)

    def at(i: int, energy: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * i / (longest - 1)
        return x, TOP + (HEIGHT - TOP - BOTTOM) * (high - energy) / (high - low)

    _axes(draw, font, at, low, high, max((rows for _, rows in curves), key=len))
    y = at(0, threshold)[1]
    for x in range(LEFT, WIDTH - RIGHT, 10):
        draw.line([(x, y), (x + 5, y)], fill="#777777")
    draw.text((WIDTH - RIGHT + 8, y - 8), f"threshold {threshold:g}", "#777777", font)
    for i, (name, rows) in enumerate(curves):
        colour = PALETTE[i % len(PALETTE)]
        line = [at(k, float(e.mean())) for k, (_, _, e) in enumerate(rows)]
        if len(line) > 1:
            draw.line(line, fill=colour, width=2)
        for px, py in line:
            draw.ellipse([px - 2.5, py - 2.5, px + 2.5, py + 2.5], fill=colour)
        label_y = TOP + 18 * i
        if label_y < HEIGHT - BOTTOM:
            draw.rectangle([WIDTH - RIGHT + 8, label_y + 4, WIDTH - RIGHT + 18, label_y + 14], fill=colour)
            draw.text((WIDTH - RIGHT + 24, label_y), _shorten(name, font, RIGHT - 30), "black", font)
    return _image(picture)


def _axes(draw, font, at, low: float, high: float, rows: Sequence[Row]) -> None:
    draw.line([(LEFT, TOP), (LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, HEIGHT - BOTTOM)], fill="black")
    for k in range(5):
        value = low + (high - low) * k / 4
        y = at(0, value)[1]
        draw.line([(LEFT - 4, y), (LEFT, y)], fill="black")
        draw.text((8, y - 8), f"{value:.2f}", "black", font)
    last, label_end = None, 0.0
    for k, (step, _, _) in enumerate(rows):
        if step != last:
            x = at(k, low)[0]
            draw.line([(x, HEIGHT - BOTTOM), (x, HEIGHT - BOTTOM + 4)], fill="black")
            if x > label_end:
                draw.text((x - 3, HEIGHT - BOTTOM + 6), str(step), "black", font)
                label_end = x + 24
            last = step
    draw.text((LEFT, HEIGHT - 22), "sampling step (one point per guidance iteration)", "black", font)


def _shorten(text: str, font, width: float) -> str:
    while text and font.getlength(text) > width:
        text = text[:-2].rstrip() + "\u2026" if not text.endswith("\u2026") else text[:-2] + "\u2026"
    return text


def _image(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)[None]
