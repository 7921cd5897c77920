"""Verbs: who does it, and to what."""

from __future__ import annotations

from .. import lexicon, verbs
from ..clauses import Aside, Attribute, Place, Relation, Who
from ..noun_phrases import NounPhrase
from ..pieces import Piece
from ..surroundings import is_scenery
from .having import with_list
from .naming import subject
from .relating import OWN
from .state import PASSED, State, noun_of


def on_cop(p: State, _: Piece) -> None:
    """ "is", "are": a state, a place or a further name of the subjects."""
    following = p.peek()
    if following.kind == "noun" and p.subjects and p.pending is None and following.noun is not None:
        noun = following.noun
        if noun.count is None and not _names_thing(noun):
            p.at += 1
            p.emit(Aside(noun.written))


def _names_thing(noun: NounPhrase) -> bool:
    return noun.solid or noun.kind in ("place", "")


def on_verb(p: State, piece: Piece) -> None:
    """An action of the subjects, with its object or place."""
    verb = p.verb = piece.text
    before = p.peek(-1).kind
    if p.settled and before in ("comma", "and") and p.subjects:
        p.settled = False
    actors = p.subjects or p.recent[-1:]
    action, following = verbs.ing_form(verb), p.after()
    actor = noun_of(actors)
    inanimate = actor is not None and not actor.animate
    if following == "noun" and action in ("holding", "supporting", "carrying") and inanimate:
        p.host = actor
        while p.peek().kind in PASSED:
            p.at += 1
        with_list(p, actor)
    elif following == "noun" and p.pending is None:
        while p.peek().kind in PASSED:
            p.at += 1
        _act_on(p, verb, actors)
    elif (
        (following != "pron" or p.pending is not None)
        and action
        and action not in verbs.STATIC
        and p.pending is None
        and before in ("noun", "cop", "adverb", "rel")
        and (following != "with" or before == "noun")
    ):
        p.emit(Attribute("action", actors, action))


def _act_on(p: State, verb: str, actors: tuple[Who, ...]) -> None:
    """The noun behind a verb: close to whoever does it, or surroundings, or nothing to be seen."""
    p.at += 1
    noun = p.pieces[p.at].noun
    assert noun is not None
    if noun.head in lexicon.MATTER | lexicon.TIMES and noun.det != "a" and noun.count is None:
        p.emit(Place(f"with {noun.written}", noun))
    elif verb in verbs.SHOWING and not actors:
        subject(p, noun)
    elif noun.det in lexicon.POSSESSIVES and (noun.head in OWN or noun.kind in ("body", "idea", "")):
        p.emit(Aside(noun.written))
    elif verb in verbs.CROSS and is_scenery(noun) and noun.head not in lexicon.BUILT:
        p.emit(Place(f"on {noun.written}", noun))
    else:
        _act(p, verb, actors, noun)


def _act(p: State, verb: str, actors: tuple[Who, ...], noun: NounPhrase) -> None:
    kind = "on" if verb in verbs.RIDE | verbs.CROSS else "near"
    others = _joined_objects(p)
    p.name((noun, *others), "object")
    if actors:
        p.emit(Relation(kind, actors, (noun, *others)))
    p.settled = kind == "on" or not p.subjects
    p.recent = (noun, *others)
    if p.peek().kind == "relation" and p.peek().text == "to" and p.peek(2).kind == "noun":
        p.at += 2  # "giving A to B"
        receiver = p.pieces[p.at].noun
        assert receiver is not None
        if receiver.solid or receiver.kind == "":
            p.name((receiver,), "object")
            p.emit(Relation("near", (noun,), (receiver,)))


def _joined_objects(p: State) -> tuple[NounPhrase, ...]:
    """ "holding a cup and a spoon"."""
    found: list[NounPhrase] = []
    while p.peek().kind in ("and", "comma"):
        n = 2 if p.peek(2).kind == "noun" else 3
        noun = p.peek(n).noun
        if p.peek(n).kind != "noun" or noun is None or not noun.solid or noun.animate or noun.bare:
            break
        if p.peek(n + 1).kind not in ("and", "comma", "stop") or p.peek(n - 1).kind not in ("and", "comma"):
            break
        found.append(noun)
        p.at += n
    return tuple(found)
