"""Fonts for the pictures: the one that Pillow brings, and for other scripts than Latin what the machine has."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, cast

# By name, as Pillow looks them up in the system's font folders: Linux, Windows, macOS.
_CANDIDATES = (
    "DejaVuSans.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf",
    "NotoSansSC-Regular.otf",
    "SourceHanSans-Regular.ttc",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    "DroidSansFallback.ttf",
    "NanumGothic.ttf",
    "unifont.ttf",
    "msyh.ttc",
    "YuGothM.ttc",
    "meiryo.ttc",
    "malgun.ttf",
    "simsun.ttc",
    "segoeui.ttf",
    "arial.ttf",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "AppleSDGothicNeo.ttc",
    "Arial Unicode.ttf",
)
_MISSING = "\U0010fffd"  # a private character that fonts have no glyph for
NO_FONT = "no font on this machine shows this script: install Noto Sans CJK"


@lru_cache(64)
def plain(size: int):
    """Pillow's own font in this size: Latin script."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


@lru_cache(256)
def _named(name: str, size: int):
    from PIL import ImageFont

    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@lru_cache(8192)
def _draws(name: str | None, character: str) -> bool:
    font = plain(24) if name is None else _named(name, 24)
    if font is None:
        return False
    mask, missing = (cast(Any, font.getmask(c)) for c in (character, _MISSING))
    return (mask.size, bytes(mask)) != (missing.size, bytes(missing))


@lru_cache(8192)
def _source(character: str) -> str | None | bool:
    """The first candidate that draws the character, None for Pillow's own font, False if there is none."""
    if character.isspace() or unicodedata.category(character) in ("Mn", "Cf", "Cc") or _draws(None, character):
        return None
    return next((name for name in _CANDIDATES if _draws(name, character)), False)


def shows(text: str) -> bool:
    """Whether every character of the text can be drawn on this machine."""
    return all(_source(c) is not False for c in set(text))


@lru_cache(4096)
def _one_for_all(letters: frozenset[str]) -> str | None | bool:
    """The font that draws all these letters, as `_source` names it; False if it takes several."""
    sources = {_source(c) for c in letters}
    if False not in sources and len(sources - {None}) == 1:
        (name,) = sources - {None}
        if all(c.isspace() or _draws(name, c) or _source(c) is None and not _draws(None, c) for c in letters):
            return name
    return None if sources <= {None} else False


def runs(text: str, size: int) -> Iterator[tuple[str, Any]]:
    """The text in pieces, each with the font that draws it; what no font draws becomes a question mark."""
    whole = _one_for_all(frozenset(text))
    piece, current = "", None
    for c in text:
        source = _source(c) if whole is False else whole
        if source is False:
            c, source = "?", None
        if piece and source != current:
            yield piece, plain(size) if current is None else _named(current, size)
            piece = ""
        piece, current = piece + c, source
    if piece:
        yield piece, plain(size) if current is None else _named(current, size)


def length(text: str, size: int) -> float:
    """The text's width in pixels."""
    return sum(font.getlength(piece) for piece, font in runs(text, size))


def write(pen, at: tuple[float, float], text: str, size: int, fill: str, anchor: str = "lm") -> None:
    """Draw one line; `anchor` is Pillow's: l, m or r, then t, m or s (baseline)."""
    x, y = at
    width = length(text, size) if anchor[0] != "l" else 0
    x -= width / 2 if anchor[0] == "m" else width if anchor[0] == "r" else 0
    for piece, font in runs(text, size):
        pen.text((x, y), piece, font=font, fill=fill, anchor="l" + anchor[1])
        x += font.getlength(piece)


def shortened(text: str, size: int, room: float) -> str:
    """The text, or its beginning with an ellipsis, in `room` pixels; broken at a space where one is near."""
    low = fitting(text, size, room)
    if low == len(text):
        return text
    low = fitting(text, size, room - length("\u2026", size), low)
    space = text.rfind(" ", 0, low + 1)
    end = space if space > low * 0.6 else low
    return text[:end].rstrip(" ,;") + "\u2026" if end else ""


def fitting(text: str, size: int, room: float, start: int = 64) -> int:
    """How many of the text's first characters fit into `room` pixels: tried in doubled steps, so that what is far too
    long is never measured as a whole.
    """
    high = max(start, 1)
    while high < len(text) and length(text[:high], size) <= room:
        high *= 2
    high = min(high, len(text))
    if length(text[:high], size) <= room:
        return high
    low = 0
    while low < high - 1:
        middle = (low + high) // 2
        if length(text[:middle], size) <= room:
            low = middle
        else:
            high = middle
    return low


def wrapped(text: str, size: int, room: float, most: int = 3) -> list[str]:
    """The text in lines of at most `room` pixels; words that are too long, and scripts without spaces, break anywhere.

    What does not fit into `most` lines is left out with an ellipsis.
    """
    lines, line = [], ""
    for word in _pieces(text, size, room):
        if line and length((line + word).rstrip(), size) > room:
            lines.append(line.rstrip())
            line = ""
            if len(lines) == most:
                line = word
                break
        line = line + word if line else word.lstrip()
    lines.append(line.rstrip())
    if len(lines) > most:
        rest = " ".join(lines[most - 1 :])
        lines = [*lines[: most - 1], shortened(rest, size, room)]
    return lines


def _pieces(text: str, size: int, room: float) -> Iterator[str]:
    """Words with the space behind them; single characters where a line may break at any of them."""
    for word in text.split():
        start = 0
        for i, c in enumerate(word):
            if unicodedata.east_asian_width(c) in "WF":
                yield word[start : i + 1]
                start = i + 1
        while len(word) - start > (fits := fitting(word[start : start + 4096], size, room)):
            yield word[start : start + max(fits, 1)]
            start += max(fits, 1)
        yield word[start:] + " "
