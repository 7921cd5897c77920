"""What kind of prompt a text is: a caption, a list of tags, or a paragraph."""

from __future__ import annotations

from dataclasses import dataclass

from .pieces import Piece

LONG = 38  # words from which a text is no caption
_STYLES = 3  # pieces of style that make a prompt one for a web UI


@dataclass(frozen=True)
class Genre:
    """`tags`: bare pieces between commas; `booru`: tags that count people; `styled`: with several pieces of style;
    `paragraph`: several sentences; `long`: more than a caption's words; `somebody`: with a word for a person, drawn or not."""

    tags: bool = False
    booru: bool = False
    styled: bool = False
    paragraph: bool = False
    long: bool = False
    somebody: bool = False


def genre_of(pieces: list[Piece], words: int) -> Genre:
    """What kind of text a prompt is, by its punctuation, styles and verbs."""
    commas = sum(p.kind == "comma" for p in pieces)
    styles = sum(p.kind == "tag" for p in pieces)
    stops = sum(p.kind == "stop" for p, after in zip(pieces, pieces[1:]) if after.kind != "stop")
    verbs = sum(p.kind in ("verb", "cop", "have") for p in pieces)
    tags = commas >= 3 and words <= 6 * (commas + 1) and verbs <= commas / 2
    people = any(p.noun is not None and p.noun.kind == "person" for p in pieces[:8])
    paragraph = stops >= 1 and words >= 20 and verbs >= 1
    return Genre(
        tags,
        tags and people,
        styles >= _STYLES,
        paragraph,
        paragraph or (words > LONG and not tags),
        any(map(_somebody, pieces)),
    )


def _somebody(piece: Piece) -> bool:
    noun = piece.noun
    if noun is None:
        return piece.kind == "pron" and piece.text not in ("it", "itself")
    return noun.kind in ("person", "group") or noun.name or noun.det in ("his", "her", "my")
