"""What must not appear, and where an exclusion ends."""

from __future__ import annotations

from .. import lexicon
from ..clauses import Aside, Negation, Place
from ..noun_phrases import NounPhrase
from ..pieces import Piece
from ..surroundings import is_place, written
from .state import LIST, State


def on_neg(p: State, piece: Piece) -> None:
    """ "no", "without", "not": what must be absent, or a negation that a layout can't show."""
    following = p.peek()
    if piece.value == "copula" and following.kind in ("relation", "verb", "position"):
        p.emit(
            Aside(
                f"not {following.text}",
                f'not drawn: "not {following.text}"; a layout can only say where things are',
            )
        )
        p.at += 2 if following.kind in ("verb", "relation") and p.peek(2).kind in ("noun", "pron") else 1
        return
    if piece.value in ("verb", "copula", "") and following.kind in (
        "verb",
        "adverb",
        "adjective",
        "relation",
        "have",
        "wear",
    ):
        _denied(p, following)
        return
    if following.kind != "noun" or following.noun is None:
        if following.kind in ("pron", "one", "verb", "tag"):
            p.at += 1
        return
    _absent_list(p)


def _denied(p: State, following: Piece) -> None:
    """ "can't swim", "not wooden": nothing is excluded, and what is denied is not drawn."""
    p.at += 1
    if (
        following.kind in ("verb", "have", "wear")
        and p.peek().kind in ("noun", "pron")
        or following.value == "loose"
        and p.peek().kind == "noun"
    ):
        p.at += 1
    elif p.peek().text in ("at", "to", "like", "for") and p.peek(2).kind == "noun":
        p.at += 2
    if following.kind == "wear":
        noun = p.pieces[p.at].noun
        if noun is not None:
            p.emit(Negation(noun))


def _absent_list(p: State) -> None:
    p.at += 1
    first = p.pieces[p.at].noun
    assert first is not None
    _absent(p, first)
    while _list_goes_on(p):
        p.at += 1
        while p.pieces[p.at].kind in LIST:
            p.at += 1
        noun = p.pieces[p.at].noun
        assert noun is not None
        _absent(p, noun)
    p.in_place = False
    if p.peek().kind == "relation":  # "no people on the sofa": where, is not drawn, unless it is a place
        noun, kind = p.peek(2).noun, p.peek().value
        if noun is None:
            p.at += 1
        elif is_place(noun, kind, p.peek().text):
            p.emit(Place(written(kind, p.peek().text, noun), noun))
            p.at += 2
        elif not p.subjects or first.det not in ("a", "an", ""):
            p.at += 2
    elif p.peek().kind in ("verb", "position"):
        p.at += 1


def _absent(p: State, noun: NounPhrase) -> None:
    if (
        noun.head in lexicon.NOT_THINGS
        or noun.head in ("time", "moment")
        or noun.head in ("doubt", "matter", "reason", "longer", "idea")
    ):
        return
    p.emit(Negation(noun))


def _list_goes_on(p: State) -> bool:
    """ "no A, B or C" goes on; "no A, B, C" ends at its first comma."""
    joint, second = p.peek(), p.peek(2)
    if joint.kind in ("or", "and"):
        n = 2 + (second.kind in LIST)
        follows = p.peek(n)
        if follows.kind != "noun" or follows.noun is None or not (follows.noun.bare or joint.kind == "or"):
            return False
        return joint.kind == "or" or p.peek(n + 1).kind not in ("cop", "verb", "have")
    if joint.kind != "comma":
        return False
    if second.kind == "or":
        return p.peek(3).kind == "noun"
    n = 2
    while p.peek(n).kind == "noun" and p.peek(n).noun.bare:  # pyright: ignore[reportOptionalMemberAccess]
        n += 1
        if p.peek(n).kind == "or" or (p.peek(n).kind == "comma" and p.peek(n + 1).kind == "or"):
            return True
        if p.peek(n).kind != "comma":
            return False
        n += 1
    return p.peek(n).kind == "or" and n > 2
