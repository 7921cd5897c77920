"""A square picture for the template browser, put together from pictures, layouts and texts."""

from __future__ import annotations

import io
from pathlib import Path

from ella_lmd.lmd.layout import Layout
from ella_lmd.lmd.pictures import fonts
from ella_lmd.lmd.pictures.layout_picture import PALETTE, ink_on
from PIL import Image, ImageDraw, ImageOps

SIDE = 512  # the browser shows it at up to 256 CSS pixels
MOST_BYTES = 60_000
GAP, ROUND = 8, 12
BACK, RAISED, INK, FAINT, PAPER = "#1B1C20", "#2B2D33", "#F2F2F2", "#A9ADB8", "#FBFAF7"
Frame = tuple[int, int, int, int]  # x, y, width, height


class Card:
    def __init__(self) -> None:
        self.image = Image.new("RGB", (SIDE, SIDE), BACK)

    def picture(self, picture: Image.Image, frame: Frame, caption: str = "", whole: bool = True) -> None:
        """A picture in a frame with round corners: as a whole on paper, or filling the frame."""
        x, y, w, h = frame
        fit = ImageOps.pad if whole else ImageOps.fit
        more = {"color": PAPER} if whole else {"centering": (0, 0)}
        shown = fit(picture.convert("RGB"), (w, h), Image.Resampling.LANCZOS, **more)
        self.image.paste(shown, (x, y), _round(w, h))
        if caption:
            self._caption(caption, frame)

    def layout(self, layout: Layout, frame: Frame, caption: str = "") -> None:
        """The boxes with their phrases, large enough to be read in a thumbnail."""
        x, y, w, h = frame
        scale = 2  # drawn larger, for smooth lines
        drawn = Image.new("RGB", (w * scale, h * scale), PAPER)
        pen = ImageDraw.Draw(drawn, "RGBA")
        for i in range(1, 8):
            for line in ((w * i / 8, 0, w * i / 8, h), (0, h * i / 8, w, h * i / 8)):
                pen.line([v * scale for v in line], fill="#E6E3DC", width=scale)
        for i, thing in enumerate(layout.objects):
            colour = PALETTE[i % len(PALETTE)]
            x0, y0, x1, y1 = (v * s * scale for v, s in zip(thing.box.corners, (w, h, w, h)))
            pen.rectangle((x0, y0, x1, y1), fill=colour + "55", outline=colour, width=3 * scale)
            size, lines = _fitted(_named(thing.phrase), x1 - x0 - 6 * scale, y1 - y0, 20 * scale)
            plate = size * 1.25 * len(lines)
            pen.rectangle((x0, y0, x1, min(y0 + plate, y1)), fill=colour)
            for k, line in enumerate(lines):
                fonts.write(pen, (x0 + 3 * scale, y0 + size * 1.25 * (k + 0.5)), line, size, ink_on(colour))
        self.picture(drawn, frame, caption)

    def text(self, text: str, frame: Frame, points: int = 24, colour: str = INK, back: str = RAISED) -> None:
        """Wrapped text in a frame, in the largest size up to `points` that fits."""
        x, y, w, h = frame
        plate = Image.new("RGB", (w, h), back)
        pen = ImageDraw.Draw(plate)
        for size in range(points, 9, -1):
            lines = [line for part in text.split("\n") for line in fonts.wrapped(part, size, w - 24, most=99)]
            if len(lines) * size * 1.3 <= h - 12:
                break
        top = (h - len(lines) * size * 1.3) / 2
        for i, line in enumerate(lines):
            fonts.write(pen, (12, top + size * 1.3 * (i + 0.5)), line, size, colour)
        self.image.paste(plate, (x, y), _round(w, h))

    def _caption(self, text: str, frame: Frame) -> None:
        x, y, w, h = frame
        size = next((p for p in range(22, 13, -1) if fonts.length(text, p) <= w - 24), 14)
        wide, high = round(fonts.length(text, size)) + 16, round(size * 1.4)
        plate = Image.new("RGB", (wide, high), "#15161A")
        fonts.write(ImageDraw.Draw(plate), (8, high / 2), text, size, INK)
        self.image.paste(plate, (x + 6, y + h - high - 6), _round(wide, high, 8).point(lambda v: v * 8 // 10))

    def save(self, path: Path) -> int:
        """Write the JPEG in the best quality under `MOST_BYTES`; its size in bytes."""
        for quality in range(92, 40, -4):
            out = io.BytesIO()
            self.image.save(out, "JPEG", quality=quality, subsampling=0, optimize=True)
            if out.tell() <= MOST_BYTES:
                break
        path.write_bytes(out.getvalue())
        return out.tell()


def columns(n: int, y: int, height: int, x: int = 0, width: int = SIDE) -> list[Frame]:
    """`n` frames of equal width beside each other."""
    wide = (width - GAP * (n - 1)) / n
    edges = [(round(x + i * (wide + GAP)), round(x + i * (wide + GAP) + wide)) for i in range(n)]
    return [(left, y, right - left, height) for left, right in edges]


def _named(phrase: str) -> str:
    return phrase.removeprefix("a ").removeprefix("an ")


def _fitted(text: str, width: float, height: float, points: int) -> tuple[int, list[str]]:
    """The size and lines of a label in a box: in one line if that can be read, otherwise in two."""
    for lines in ([text], text.split(" ", 1)):
        for size in range(points, points * 3 // 5, -1):
            fits = all(fonts.length(line, size) <= width for line in lines)
            if fits and size * 1.25 * len(lines) <= height:
                return size, lines
    return points * 3 // 5, [fonts.shortened(text, points * 3 // 5, width)]


def _round(width: int, height: int, radius: int = ROUND) -> Image.Image:
    """A mask with round corners."""
    mask = Image.new("L", (width * 4, height * 4), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, width * 4 - 1, height * 4 - 1), radius * 4, fill=255)
    return mask.resize((width, height), Image.Resampling.LANCZOS)
