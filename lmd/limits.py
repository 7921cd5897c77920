"""Every limit on what comes from outside, and the cleaning of foreign text. web/js/limits.mjs holds the editor's share."""

from __future__ import annotations

import re

MAX_OBJECTS = 50
CANVAS_MULTIPLE = 8
LEAST_CANVAS, MOST_CANVAS = 64, 16384  # pixels to a side, which the host's own nodes allow too
MAX_COORDINATE = 1000.0  # of a box, in canvas sides
MAX_PHRASE = 1000  # characters, as are those below
MAX_TEXT = 20_000  # background and negative prompt, each
MAX_REPLY = 100_000
MAX_KEPT_REPLY = 200_000  # on disk
MAX_EDITS = 500_000
MAX_BODY = 512 * 1024  # bytes of a server's answer
MAX_SERVERS_FILE = 256 * 1024  # bytes

_UNREADABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


def readable(text: str) -> str:
    """The text with control characters as spaces and half characters (lone surrogates) as U+FFFD."""
    return text if text.isprintable() else _UNREADABLE.sub(lambda m: "\ufffd" if m[0] > "\x7f" else " ", text)


def within(name: str, text: str, most: int) -> str:
    """The text, readable. Raises ValueError when it is longer than `most` characters; `name` says what it is."""
    if len(text) > most:
        raise ValueError(
            f"{name} has {len(text)} characters, and at most {most} are read: shorten it, it begins {text[:40]!r}"
        )
    return readable(text)
