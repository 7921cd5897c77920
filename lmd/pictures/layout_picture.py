"""A layout as a picture: numbered boxes, readable labels at any canvas size, colours that colour-blind eyes tell apart."""

from __future__ import annotations

import torch

from ..layout import Layout
from . import fonts

LONG_EDGE, SHORT_EDGE = 1024, 320
LEAST_WIDTH = 480  # of the strip below the canvas, so that a narrow canvas has room for its text
# Okabe and Ito's palette without black and yellow's weak contrast: order chosen so that neighbours differ in lightness.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#B8A800", "#7A7A7A")
_PAPER, _INK, _GRID = "#FBFAF7", "#202020", "#E6E3DC"
_SMALLEST = 15
_MOST_LEGEND_LINES = 12


def picture_size(width: int, height: int) -> tuple[int, int]:
    """The picture's size for a canvas: its shape, enlarged or reduced so that labels can be read."""
    scale = LONG_EDGE / max(width, height)
    size = [max(round(width * scale), 1), max(round(height * scale), 1)]
    if min(size) < SHORT_EDGE:  # an extreme strip: let the long edge grow a little
        grow = min(SHORT_EDGE / min(size), 2.0)
        size = [round(v * grow) for v in size]
    return size[0], size[1]


def draw(layout: Layout):
    """A PIL image of the layout with a caption strip below it for background and negative prompt."""
    from PIL import Image, ImageDraw

    width, height = picture_size(layout.width, layout.height)
    image = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(image, "RGBA")
    for i in range(1, 8):
        pen.line([(width * i / 8, 0), (width * i / 8, height)], fill=_GRID)
        pen.line([(0, height * i / 8), (width, height * i / 8)], fill=_GRID)
    order = layout.back_to_front()
    line = max(3, round(min(width, height) / 170))
    frames = {}
    for i in order:
        x0, y0, x1, y1 = layout.objects[i].box.corners
        frame = (x0 * width, y0 * height, max(x1 * width, x0 * width + 2), max(y1 * height, y0 * height + 2))
        frames[i] = frame
        colour = PALETTE[i % len(PALETTE)]
        pen.rectangle(frame, fill=colour + "3A", outline=colour, width=line)
    taken: list[tuple[float, float, float, float]] = []
    unnamed = []
    for i in reversed(order):  # the smallest box has the least choice
        if not _label(pen, i, layout.objects[i].phrase, frames[i], (width, height), taken):
            unnamed.append(i)
    return _with_caption(image, layout, sorted(unnamed))


def as_image(layout: Layout) -> torch.Tensor:
    """The picture as ComfyUI's IMAGE: float32 `[1, H, W, 3]` in 0..1."""
    return to_tensor(draw(layout))


def to_tensor(image) -> torch.Tensor:
    """A PIL image as ComfyUI's IMAGE: float32 `[1, H, W, 3]` in 0..1."""
    data = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
    return data.reshape(1, image.height, image.width, 3).float() / 255


def ink_on(colour: str) -> str:
    """Black or white, whichever reads better on `colour` (#rrggbb)."""
    r, g, b = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#FFFFFF" if 0.299 * r + 0.587 * g + 0.114 * b < 140 else _INK


def _label(pen, index: int, phrase: str, frame, size, taken) -> bool:
    """Number and phrase on a plate in the box's colour, where it covers no other plate; False when the phrase is cut."""
    x0, y0, x1, y1 = frame
    width, height = size
    best: tuple[float, tuple, str, int] | None = None
    for shown, points in _texts(index + 1, phrase, max(x1 - x0, 0), max(_SMALLEST, min(width, height) // 24)):
        w, h = fonts.length(shown, points) + points * 0.6, points * 1.35
        for x, y in ((x0, y0), (x0, y0 - h), (x0, y1), (x0, y1 - h), (x1 - w, y0), (x0, (y0 + y1 - h) / 2), (x1, y0)):
            x, y = min(max(x, 0), max(width - w, 0)), min(max(y, 0), max(height - h, 0))
            plate = (x, y, x + w, y + h)
            hit = sum(_shared(plate, t) for t in taken)
            if best is None or hit < best[0] - 1:
                best = (hit, plate, shown, points)
            if hit == 0:
                break
        if best is not None and best[0] == 0:
            break
    assert best is not None, "there is always a text to try"
    _, plate, shown, points = best
    taken.append(plate)
    colour = PALETTE[index % len(PALETTE)]
    pen.rectangle(plate, fill=colour + "F0")
    fonts.write(pen, (plate[0] + points * 0.3, plate[1] + points * 0.67), shown, points, ink_on(colour))
    return shown == f"{index + 1} {phrase}"


def _texts(number: int, phrase: str, room: float, largest: int):
    """What a label may say, best first, with its size: the whole phrase, its beginning, the number alone."""
    whole, room_here = f"{number} {phrase}", max(room * 1.1, 60)
    sizes = range(largest, 12, -2)
    if fonts.shows(phrase):
        fair = [p for p in sizes if 2 * p >= largest or room < 6 * largest]  # in a large box rather cut than tiny
        yield from ((whole, points) for points in fair if fonts.length(whole, points) <= room_here)
        for points in sizes:
            shown = fonts.shortened(whole, points, room_here)
            if len(shown) >= len(whole) / 2 or fonts.length(shown, points) >= 5 * points:
                yield shown, points
    yield from ((f"{number}", points) for points in range(min(largest, max(13, round(room * 0.45))), 12, -2))


def _shared(a, b) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _with_caption(image, layout: Layout, unnamed: list[int]):
    """Adds a strip with the canvas size, the phrases that had no room, the background and the negative prompt."""
    from PIL import Image, ImageDraw

    width = max(image.width, LEAST_WIDTH)
    points = max(_SMALLEST, min(width, image.height) // 28, width // 48)
    room = width - points
    n = len(layout.objects)
    lines = [f"{layout.width} x {layout.height}, {n} object{'' if n == 1 else 's'}"]
    if unnamed:
        lines += fonts.wrapped(_legend(layout, unnamed), points, room, _MOST_LEGEND_LINES)
    lines += fonts.wrapped(f"background: {layout.background or '-'}", points, room)
    if layout.negative:
        lines += fonts.wrapped(f"negative: {layout.negative}", points, room)
    texts = (layout.background, layout.negative, *(o.phrase for o in layout.objects))
    if not all(map(fonts.shows, texts)):
        lines += fonts.wrapped(fonts.NO_FONT, points, room)
    step = round(points * 1.4)
    out = Image.new("RGB", (width, image.height + step * len(lines) + points), _INK)
    out.paste(image, ((width - image.width) // 2, 0))
    pen = ImageDraw.Draw(out)
    for i, text in enumerate(lines):
        y = image.height + points / 2 + step * (i + 0.5)
        fonts.write(pen, (points / 2, y), text, points, "#FFFFFF" if i else "#BBBBBB")
    return out


def _legend(layout: Layout, indices: list[int]) -> str:
    """ "1-3, 5 an egg; 4 a spoon"."""
    numbers: dict[str, list[list[int]]] = {}
    for i in indices:
        runs = numbers.setdefault(layout.objects[i].phrase, [])
        if runs and runs[-1][1] == i:
            runs[-1][1] = i + 1
        else:
            runs.append([i + 1, i + 1])
    named = []
    for phrase, runs in numbers.items():
        named.append(", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs) + f" {phrase}")
    return "; ".join(named)
