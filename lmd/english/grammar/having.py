""" "with", "has", "wearing", "as": parts, dress and what stands by."""

from __future__ import annotations

from .. import lexicon
from ..clauses import Attribute, Place, Reference, Relation, Style, Who
from ..noun_phrases import NounPhrase
from ..pieces import Piece
from ..style_words import STYLE, STYLE_HEADS
from ..surroundings import is_scenery
from ..vocabulary import is_part_of
from .naming import subject
from .state import LIST, State, noun_of


def on_with(p: State, _: Piece) -> None:
    """ "with": things that belong to the last noun, or its attributes."""
    if p.peek().kind == "relation" and p.peek(2).kind == "noun":
        p.at += 1
    if p.peek().kind == "adjective" and p.peek(2).kind == "noun":
        p.at += 1
    if p.peek().kind == "noun":
        last = p.recent[-1:] or p.subjects[-1:]
        p.host = None if p.in_place else noun_of(last)
        picked = last and isinstance(last[0], Reference) and last[0].text == "instance"
        with_list(p, last[0] if picked and not p.in_place else p.host)


def on_have(p: State, _: Piece) -> None:
    """ "has", "have": things that belong to the subjects."""
    subjects = p.subjects or p.recent
    p.host = None if p.in_place else noun_of(subjects[-1:])
    owner = p.host if p.host is not None else (subjects[-1] if subjects and not p.in_place else None)
    if p.peek().kind == "noun":
        with_list(p, owner)


def with_list(p: State, host: Who | None) -> None:
    """Nouns behind "with" or "has", as long as the list goes on."""
    fillers = host is None and p.in_place and _filled(p)
    while True:
        p.at += 1
        noun = p.pieces[p.at].noun
        assert noun is not None
        if fillers and _loose(noun) and p.peek().kind in (*LIST, "stop"):
            p.emit(Place(f"with {noun.written}", noun))
            again = True
        else:
            again = _with_one(p, noun, host)
        skip = 1
        while p.peek(skip).kind in LIST:
            skip += 1
        if not again or skip == 1 or p.peek(skip).kind != "noun" or _starts_clause(p, skip):
            return
        p.at += skip - 1


def _loose(noun: NounPhrase) -> bool:
    """Many things without a number."""
    return noun.plural and noun.bare and not noun.animate


def _filled(p: State) -> bool:
    """ "a kitchen with plants, books and a cat": plurals beside something that counts only fill the place."""
    found: list[NounPhrase] = []
    n = 1
    while (noun := p.peek(n).noun) is not None:
        found.append(noun)
        n += 1
        while p.peek(n).kind in LIST:
            n += 1
    return len(found) > 2 or any(not _loose(f) for f in found)


def _starts_clause(p: State, n: int) -> bool:
    noun = p.peek(n).noun
    assert noun is not None
    following = p.peek(n + 1).kind
    if following in ("cop", "verb", "have", "there", "wear") and not p.peek(n + 1).text.endswith("ing"):
        return p.peek(n - 1).kind == "and" or noun.det != ""
    return p.peek(n - 1).kind == "comma" and noun.bare and p.host is not None and noun.kind not in ("worn", "body")


def _with_one(p: State, noun: NounPhrase, host: Who | None) -> bool:
    """One noun behind "with": a part or dress of its host, surroundings, or a thing near it. May the list go on?"""
    following = p.peek()
    head = noun.head.lower()
    owner = host if isinstance(host, NounPhrase) else None
    if noun.head in STYLE_HEADS and noun.head in STYLE and not noun.solid and noun.count is None:
        p.emit(Style(f"with {noun.written}"))
        return True
    if following.kind == "position" and following.value == "background":
        subject(p, noun)
        return False
    stands = following.kind == "position" or (
        following.kind == "relation"
        and following.value != "loose"
        and p.peek(2).kind not in ("comma", "stop", "and")  # "with its headlights on"
    )
    worn = noun.kind == "worn" and (there := p.peek(2).noun) is not None and there.det in lexicon.POSSESSIVES
    if host is not None and _is_part(noun, owner) and (not stands or worn):
        p.emit(Attribute("with", (host,), noun.written))
        p.named.append(noun)
        p.parts.add(noun.head)
        return True
    if (
        is_scenery(noun)
        and (noun.count is None or head in ("wall", "floor", "ceiling"))
        and head not in lexicon.CONTAINERS
        and (host is None or not noun.det or head in lexicon.MATTER)
        and not (head in lexicon.BUILT and noun.det)
    ):
        p.emit(Place(f"with {noun.written}", noun))
        return True
    fixture = noun.plural and noun.count is None and head in lexicon.GROWTH | lexicon.PARTS or noun.kind == "matter"
    if host is None and p.in_place and fixture:
        p.emit(Place(f"with {noun.written}", noun))
        return True
    _with_thing(p, noun, owner, host)
    return following.kind not in ("relation", "position", "verb")


def _is_part(noun: NounPhrase, owner: NounPhrase | None) -> bool:
    head = noun.head.lower()
    return (
        (noun.det in lexicon.POSSESSIVES and not noun.animate)
        or head in lexicon.PARTS
        or (owner is not None and noun.plural and noun.count is None and is_part_of(head, owner.head.lower()))
        or noun.kind in ("body", "idea", "time", "text")
        and not noun.solid
        and noun.count is None
        or (noun.kind == "worn" and (owner is None or owner.animate or noun.count is None))
        or head in lexicon.MASS
        or (noun.kind in ("weather", "matter") and not noun.det and noun.count is None)
    )


def _with_thing(p: State, noun: NounPhrase, owner: NounPhrase | None, host: Who | None) -> None:
    p.name((noun,), "object")
    p.subjects = p.recent = (noun,)
    p.settled = False
    following = p.after()
    if following == "verb" and p.peek(2).kind == "relation" and p.peek(3).kind == "pron":
        following = "relation"  # "a mug with a cat printed on it"
    name = owner.head.lower() if owner is not None else ""
    holder = name in lexicon.SUPPORTS | lexicon.CONTAINERS
    held = holder and p.peek().kind == "relation" and p.peek(2).kind == "noun"
    if held and p.peek().value in ("on", "in", "near", "under", "behind", "front"):
        p.emit(Relation("on" if name in lexicon.SUPPORTS else "in", (noun,), (owner,)))  # type: ignore[arg-type]
        p.subjects = p.recent = (owner,)  # type: ignore[assignment]
    elif host is not None and following not in ("relation", "position"):
        kind = "on" if name in lexicon.SUPPORTS else "in" if name in lexicon.CONTAINERS and _fits(noun) else "near"
        p.emit(Relation(kind, (noun,), (host,)))


def _fits(noun: NounPhrase) -> bool:
    """ "a box with three eggs" holds them; "one car with one stop sign" does not."""
    return not noun.animate and noun.count != 1 or noun.kind in ("food", "plant", "animal")


def on_wear(p: State, piece: Piece) -> None:
    """ "wearing", "in": clothes, which are attributes of a person and no things of their own."""
    wearers = p.subjects or p.recent
    if p.recent and not (len(p.subjects) == 2 and piece.text == ""):
        wearers = p.recent[-1:] if piece.value != "wearing" or len(p.subjects) != 2 else p.subjects
    word = piece.text or piece.value
    while p.peek().kind in ("noun", "adjective"):
        p.at += 1
        if (noun := p.pieces[p.at].noun) is None:
            continue
        p.emit(Attribute(word, wearers, noun.written))
        skip = 1
        while p.peek(skip).kind in LIST:
            skip += 1
        follows = p.peek(skip).noun
        if skip == 1 or p.peek(skip).kind != "noun" or follows is None or not _worn(follows, word):
            return
        p.at += skip - 1


def on_as(p: State, _: Piece) -> None:
    """ "as": a role, which is an attribute."""
    if p.peek().kind == "noun" and (p.recent or p.subjects) and not _finite(p.peek(2)):
        p.at += 1
        noun = p.pieces[p.at].noun
        assert noun is not None
        p.emit(Attribute("as", (p.recent or p.subjects)[-1:], noun.written))


def _finite(piece: Piece) -> bool:
    return piece.kind == "cop" or piece.kind == "verb" and not piece.text.endswith("ing")


def _worn(noun: NounPhrase, how: str) -> bool:
    return how in ("wearing", "in") and (
        noun.kind in ("worn", "body") or noun.head in lexicon.CLOTHES or noun.source.endswith("glasses")
    )
