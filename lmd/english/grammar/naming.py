"""Nouns that open or join a clause: subjects, tags, surroundings, words for pictures."""

from __future__ import annotations

from .. import lexicon, verbs
from ..clauses import Aside, Place, Style
from ..noun_phrases import NounPhrase
from ..pieces import Piece
from ..style_words import STYLE, STYLE_HEADS, WEAK
from ..surroundings import is_scenery
from ..vocabulary import is_part_of
from .state import State

_HOURS = frozenset(("sunset", "sunrise", "dusk", "dawn", "night", "noon", "midnight"))


def on_noun(p: State, piece: Piece) -> None:
    """A noun phrase: a reference, something said in passing, or a subject."""
    noun = piece.noun
    assert noun is not None
    if noun.head in ("one", "other", "ones", "others"):
        p.instance(noun)
    elif noun.count == 0:
        p.emit(Aside(noun.source))
    else:
        subject(p, noun)


def subject(p: State, noun: NounPhrase) -> None:
    """Names a thing, a place or the picture itself, and attaches it to what came before."""
    following, before = p.after(), p.peek(-1).kind
    first = not p.named and p.pending is None
    if _is_style(p, noun, first, before):
        return
    if _is_part_of_named(p, noun):
        p.emit(Aside(noun.written))
        p.subjects = p.recent = ()
        return
    background = following == "position" and p.peek().value == "background"
    counted = noun.count is not None or p.known(noun)
    if (
        is_scenery(noun, first and following in ("with", "have"))
        and not background
        and not counted
        and _surroundings(p, noun, following, first)
    ):
        return
    bare = (
        noun.bare and before in ("comma", "stop", "and") and following in ("comma", "stop", "and", "tag") and not first
    )
    p.name((noun,), "tag" if bare and before != "and" else "subject")
    joined = before in ("and", "comma", "or", "adverb", "adjective") and p.subjects and not p.settled
    p.subjects = (*(p.subjects if joined else ()), noun)
    p.recent, p.settled, p.in_place = (noun,), False, False
    p.settle_pending((noun,))


def _is_part_of_named(p: State, noun: NounPhrase) -> bool:
    """ "a house ..., the windows are lit": parts of what is there already."""
    if noun.det not in ("the", "its") or noun.count is not None or p.pending is not None:
        return False
    if p.known(noun) and noun.head not in p.parts:
        return False
    said = p.peek().kind == "cop" and p.peek(2).kind == "adjective"
    parts = (n for n in p.named if is_part_of(noun.head.lower(), n.head.lower()))
    return (noun.plural or said) and any(parts)


def _is_style(p: State, noun: NounPhrase, first: bool, before: str) -> bool:
    """A picture word in front of the things ("a photo, ...", "The image shows ...") or a style word behind them."""
    head = noun.head.lower()
    lies = head in lexicon.PICTURES and noun.tail and (p.peek().value == "on" or p.peek().text in lexicon.PRINTING)
    if noun.count is not None or lies:
        return False
    ends = p.after() in ("comma", "stop", "with", "have", "rel", "tag") or p.peek().value in ("in", "loose")
    shows = p.peek().kind in ("verb", "have") and p.peek().text in verbs.SHOWING
    if (
        head in lexicon.PICTURES | {"scene", "composition", "atmosphere", "setting"}
        and noun.det in ("the", "this")
        and (shows or not first)
    ):
        p.emit(Aside(noun.written))
        p.subjects = p.recent = ()
        return True
    if head in lexicon.STYLE_NOUNS and first and ends and noun.det != "the":
        p.emit(Style(noun.written if noun.det else noun.source, leading=True))
        p.in_place = p.settled = True
        return True
    tag = head in STYLE and (head in STYLE_HEADS or head not in WEAK) and noun.det in ("", "the") and before != "cop"
    alone = noun.bare and before in ("comma", "stop") and p.peek().kind in ("comma", "stop", "tag") and not first
    if alone and head in STYLE and all(w in STYLE for w in noun.before):
        p.emit(Style(noun.written))
        return True
    if alone and (head in lexicon.GESTURES or set(noun.before) & {"peace", "thumbs"} or head in lexicon.COLLECTIVES):
        p.emit(Aside(noun.written))
        return True
    if tag and noun.det == "the":
        p.emit(Aside(noun.written))
        return True
    if tag and not noun.plural and not first or (tag and noun.kind in ("idea", "weather", "")):
        p.emit(Style(noun.written))
        return True
    return False


def _surroundings(p: State, noun: NounPhrase, following: str, first: bool) -> bool:
    head = noun.head.lower()
    alone = (
        noun.bare
        and p.peek(-1).kind in ("comma", "stop")
        and following in ("comma", "stop", "tag")
        and not (first and not p.clauses)
    )
    built = head in lexicon.BUILT and (following not in ("with", "have", "neg") or head == "bridge") and not alone
    if noun.kind in ("animal", "person") or (built and not (head in lexicon.MATTER and not noun.det)):
        return False
    if head in lexicon.CONTAINERS:
        return False
    kind = "at " if head in _HOURS and not noun.det else "" if first or not (p.named or p.clauses) else "with "
    p.emit(Place(f"{kind}{noun.written}", noun))
    p.in_place, p.subjects, p.recent, p.settled = True, (), (), True
    return True
