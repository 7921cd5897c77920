"""Positions and relations: what stands where, and whose relation it is."""

from __future__ import annotations

from .. import lexicon, verbs
from ..clauses import Aside, Place, Position, Reference, Relation, Style, Who
from ..noun_phrases import NounPhrase
from ..pieces import Piece
from ..style_words import STYLE, STYLE_HEADS, WEAK
from ..surroundings import head_is_place, is_place, is_scenery, written
from .state import State, noun_of

OWN = lexicon.PARTS | frozenset(
    ("back", "lap", "shoulder", "side", "foot", "flank", "chest", "cheek", "knee", "forehead", "wrist", "neck", "belly")
)  # fmt: skip
_FLAT = frozenset(("left", "right", "near", "between", "front", "behind", "amid", "beside"))
_SEEN = lexicon.MATTER | {"camera", "viewer", "lens"}
_VAGUE_LINKS = frozenset(("for", "like", "about", "than", "via", "per"))
_WHERE = frozenset(
    ("on", "in", "inside", "near", "above", "under", "below", "front", "between", "loose", "from", "about")
)


def on_position(p: State, piece: Piece) -> None:
    """A place in the picture, such as "on the left" or "in the background"."""
    before, following = p.peek(-1).kind, p.after()
    if piece.value == "skip":
        return
    if piece.value == "view":
        p.emit(Style(piece.text))
        return
    if piece.value == "own side":
        side = "left" if "left" in piece.text else "right"
        if following in ("cop", "noun", "verb", "there") and before in ("stop", "comma", "and", "but"):
            while p.peek().kind in ("cop", "verb", "adverb"):
                p.at += 1
            p.pending, p.subjects, p.settled = (
                Relation(side, (), (Reference("it", host=p.host),)),
                (),
                True,
            )
            return
        p.emit(Relation(side, p.subjects or p.recent, (Reference("it", host=p.host),)))
        p.settled = True
        return
    if piece.value == "background" and not (before in ("stop", "comma", "and") and following in ("noun", "there")):
        _to_background(p, piece)
        return
    opens = before in ("stop", "comma", "and", "but") and following in ("noun", "there", "verb", "comma", "one")
    idle = piece.value in ("row", "stack", "ontop", "sides", "beside", "far")
    if opens and not idle and not (following == "comma" and p.peek(2).kind != "noun"):
        p.pending, p.subjects, p.settled, p.in_place = (
            Position(piece.value, (), piece.where),
            (),
            True,
            False,
        )
        return
    who = p.subjects or p.recent
    if piece.value in ("ontop", "sides", "beside"):
        p.emit(Position(piece.value, p.subjects, piece.where), *([] if p.host is None else []))
    elif who:
        p.emit(Position(piece.value, who, piece.where))
    p.settled = piece.value != "row"


def _to_background(p: State, piece: Piece) -> None:
    who = p.recent or p.subjects[-1:]
    if who:
        noun = noun_of(who)
        far = "distance" in piece.text and noun is not None and noun.solid and not noun.plural and not is_scenery(noun)
        p.emit(Position("far" if far else "background", who))
    p.recent, p.settled = (), True


def on_relation(p: State, piece: Piece) -> None:
    """A place relative to another thing, such as "left of" or "under"."""
    kind, following = piece.value, p.peek()
    while following.kind in ("adverb", "neg") and p.peek(2).kind == "noun":
        p.at += 1
        following = p.peek()
    if following.kind == "and" and p.recent and p.peek(2).kind == "noun":  # "a picture above and a rug below ..."
        p.deferred.append((kind, p.subjects or p.recent))
        p.settled = True
        return
    if following.kind == "style":
        p.at += 1
        following = p.peek()
    if following.kind not in ("noun", "pron", "one"):
        return
    if kind == "from" and p.verb in ("hanging", "hangs", "hang", "hung", "dangling"):
        kind = "under"
    before = p.peek(-1).kind
    fronted = before in ("stop", "comma", "and", "but", "there") and (not p.subjects or _inverted(p))
    p.at += 1
    target = p.pieces[p.at]
    who = () if fronted else _whose(p, kind, before, piece)
    _related(p, kind, who, target, piece, fronted)


def _whose(p: State, kind: str, before: str, piece: Piece) -> tuple[Who, ...]:
    """Whose relation it is."""
    if before in ("comma", "and", "but") and p.subjects:
        return p.subjects
    if piece.text in ("into", "onto") and p.recent:
        return p.recent
    after_verb = before in ("verb", "cop", "adverb", "rel")
    if p.settled and p.recent and not after_verb:
        if kind in ("on", "in", "inside") and p.last_relation in ("left", "right", "near", "between"):
            return (*p.subjects, *(t for t in p.recent if t not in p.subjects))
        return p.recent
    return p.subjects or p.recent


def _inverted(p: State) -> bool:
    """Is this relation in front of its subject: relation, noun, then comma or verb, then another noun?"""
    n = 2
    while p.peek(n).kind in ("and", "noun") and p.peek(n - 1).kind in ("noun", "and"):
        n += 1
    link = p.peek(n).kind
    if link == "comma" and p.peek(-1).kind in ("stop", "comma"):
        return p.peek(n + 1).kind in ("noun", "there", "adverb") and p.peek(-1).kind == "stop"
    if link == "there":
        return True
    named = p.peek(n + 1).kind == "noun"
    return link in ("verb", "cop") and named and p.peek(-1).kind in ("stop", "and", "comma")


def _related(p: State, kind: str, who: tuple[Who, ...], target: Piece, piece: Piece, fronted: bool) -> None:
    noun = target.noun
    if target.kind == "pron":
        _target(p, kind, who, (Reference(target.text, host=p.host),), fronted, piece)
        return
    assert noun is not None
    if target.kind == "one":
        _target(p, kind, who, (Reference("instance", noun),), fronted, piece)
        return
    if _no_target(p, kind, who, noun, piece):
        return
    if kind in ("left", "right") and is_scenery(noun) and not p.known(noun) and head_is_place(noun):
        p.emit(Position("at", who, (0.15 if kind == "left" else 0.85, None)), Place(f"on {noun.written}", noun))
        p.settled = True
        return
    if is_place(noun, kind, piece.text) and not p.known(noun):
        p.emit(Place(written(kind, piece.text, noun), noun))
        if kind == "dwarfed":
            p.emit(Position("dwarfed", who))
        p.in_place = p.settled = True
        _more_places(p, kind, piece)
        if fronted:
            p.subjects = p.recent = ()
        return
    more = _more_targets(p, kind)
    p.name((noun, *more), "target" if kind not in ("loose", "from", "during") else "mention")
    _target(p, kind, who, (noun, *more), fronted, piece)


def _more_places(p: State, kind: str, piece: Piece) -> None:
    while (
        p.peek().kind == "and"
        and (noun := p.peek(2).noun) is not None
        and noun.bare
        and is_place(noun, kind, piece.text)
    ):
        if p.peek(3).kind in ("cop", "verb", "have", "relation"):
            return
        p.at += 2
        p.emit(Place(f"with {noun.written}", noun))


def _no_target(p: State, kind: str, who: tuple[Who, ...], noun: NounPhrase, piece: Piece) -> bool:
    """Targets that are no thing: a style, a part of the subject's own body, what somebody looks at."""
    if noun.head == "style" or (
        noun.head in STYLE_HEADS and noun.head in STYLE and noun.head not in WEAK and not noun.solid
    ):
        p.emit(Aside(noun.written) if noun.det == "the" else Style(f"{piece.text} {noun.written}"))
        return True
    if noun.head in lexicon.PICTURES and noun.det in ("this", "the") and kind in ("in", "inside"):
        p.emit(Aside(noun.written))  # "in this captivating scene"
        return True
    own = noun.det in lexicon.POSSESSIVES and (noun.head in OWN or noun.kind == "body")
    if own and kind in _WHERE:
        p.emit(Relation("own", who, (Reference("owner", noun),), piece.text))
        p.settled = True
        return True
    part = noun.det == "the" and not p.known(noun) and _of_another(p, kind, noun)
    stared = piece.text in ("at", "into", "towards") and p.verb in verbs.STARE and noun.head in _SEEN
    if (
        part
        or stared
        or (
            noun.kind in ("idea", "time", "body")
            and noun.count is None
            and kind in ("loose", "from", "in", "near", "amid", "bottom")
            and not is_place(noun, kind, piece.text)
        )
    ):
        p.emit(Aside(noun.written))
        return True
    vague = kind in ("during", "from") or kind == "loose" and (not noun.solid or piece.text in _VAGUE_LINKS)
    if vague and not is_place(noun, kind, piece.text):
        p.emit(Aside(f"{piece.text} {noun.written}"))
        return True
    return False


def _of_another(p: State, kind: str, noun: NounPhrase) -> bool:
    """ "light in the windows", "the harmony between the bus and the city": words about a thing that is there already."""
    before = p.peek(-2).noun if p.peek(-1).kind == "relation" else None
    unseen = before is not None and not before.solid and before.kind in ("idea", "weather", "matter", "time")
    if noun.head in lexicon.PARTS:
        return kind == "from" or unseen or (noun.plural or p.sentence > 0) and bool(p.named)
    if unseen and before is not None and before.kind in ("idea", "time") and kind in ("between", "amid") and p.named:
        _more_targets(p, kind)
        return True
    return False


def _target(p: State, kind: str, who: tuple[Who, ...], targets: tuple[Who, ...], fronted: bool, piece: Piece) -> None:
    for waiting, placed in p.deferred:
        p.emit(Relation(waiting, placed, targets))
    p.deferred = []
    if fronted:
        p.pending, p.subjects = Relation(kind, (), targets, piece.text), ()
    else:
        who = tuple(t for t in who if t not in targets)
        p.emit(Relation(kind, who, targets, piece.text))
    p.recent, p.settled, p.last_relation = targets, True, kind


def _more_targets(p: State, kind: str) -> tuple[NounPhrase, ...]:
    """ "between A and B": the nouns joined to the target, if they start no clause of their own."""
    found: list[NounPhrase] = []
    joins = kind in _FLAT | {"above", "below"}
    while joins and p.peek().kind == "and" and p.peek(2).kind == "noun":
        noun, after = p.peek(2).noun, p.peek(3).kind
        assert noun is not None
        if kind not in ("between", "amid") and after in (
            "relation",
            "position",
            "verb",
            "cop",
            "have",
            "with",
            "wear",
        ):
            break
        if kind in ("between", "amid") and found:
            break
        p.at += 2
        found.append(noun)
    return tuple(found)
