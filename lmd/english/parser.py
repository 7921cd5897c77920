"""Pieces -> clauses: which words belong to which noun. One walk; each kind of piece has its handler."""

from __future__ import annotations

from collections.abc import Callable

from . import lexicon
from .clauses import Aside, Attribute, Clause, Position, Reference, Style
from .grammar.acting import on_cop, on_verb
from .grammar.having import on_as, on_have, on_wear, on_with
from .grammar.naming import on_noun
from .grammar.negations import on_neg
from .grammar.relating import on_position, on_relation
from .grammar.state import State
from .pieces import Piece


def clauses_of(pieces: list[Piece]) -> list[Clause]:
    """The clauses of a prompt's pieces, in order."""
    state = State(pieces)
    while state.at < len(pieces):
        piece = pieces[state.at]
        handler = _HANDLERS.get(piece.kind)
        if handler is not None:
            handler(state, piece)
        state.at += 1
    return state.clauses


def on_other(p: State, piece: Piece) -> None:
    """A word that no other function reads is something said in passing."""
    if piece.text.isalpha() and len(piece.text) > 2:
        p.emit(Aside(piece.text))


def on_stop(p: State, _: Piece) -> None:
    """The end of a sentence: nothing is carried on but what is named."""
    p.subjects, p.settled, p.pending = (), True, None
    p.in_place, p.last_relation, p.host, p.each = False, "", None, False
    p.sentence += 1


def on_comma(p: State, piece: Piece) -> None:
    """A comma: what follows may begin something new."""
    if piece.value == "says":
        return
    if p.peek().kind in ("tag", "adjective"):
        p.host = None


def on_tag(p: State, piece: Piece) -> None:
    """A style word such as "4k"."""
    p.emit(Style(piece.text))


def on_style(p: State, piece: Piece) -> None:
    """A style with a noun, such as "a watercolour of"."""
    noun = piece.noun
    assert noun is not None
    if noun.head in lexicon.PICTURES:
        p.emit(Style(noun.written if noun.det in ("a", "an") else noun.source, leading=True))


def on_there(p: State, _: Piece) -> None:
    """ "there is": new subjects follow."""
    if p.pending is None:
        p.settled = True
        p.subjects = ()


def on_adjective(p: State, piece: Piece) -> None:
    """ "the cat is big": the first of a row; others stay in the overall prompt."""
    if p.peek(-1).kind in ("cop", "adverb") and p.subjects and p.peek(-2).kind != "neg":
        p.emit(Attribute("adjective", p.subjects, piece.text))
    elif piece.text:
        p.emit(Aside(piece.text))


def on_quote(p: State, piece: Piece) -> None:
    """Text in quotation marks is what the last thing says or bears."""
    if p.named:
        p.emit(Attribute("says", (p.recent[-1] if p.recent else p.named[-1],), piece.text))
    else:
        p.emit(Aside(piece.text))


def on_rel(p: State, _: Piece) -> None:
    """ "who", "that", "which": the last noun is the subject of what follows."""
    if p.recent:
        p.subjects, p.settled = p.recent[-1:], False


def on_order(p: State, piece: Piece) -> None:
    """An order of several things, such as "from left to right"."""
    p.emit(Position(piece.value, p.subjects if len(p.subjects) > 1 else (Reference("everything"),)))


def on_pron(p: State, piece: Piece) -> None:
    """ "it", "they", "he", "she": refers to what was named before."""
    if p.after() in ("verb", "cop", "relation", "have", "wear", "neg", "position"):
        p.subjects, p.settled = (Reference(piece.text, host=p.host),), False
        p.recent = p.subjects


def on_one(p: State, piece: Piece) -> None:
    """ "one ... the other ...", "each": picks instances out of the last group."""
    noun = piece.noun
    assert noun is not None
    p.instance(noun)


_HANDLERS: dict[str, Callable[[State, Piece], None]] = {
    "other": on_other, "stop": on_stop, "comma": on_comma, "tag": on_tag, "style": on_style, "there": on_there,
    "adjective": on_adjective, "quote": on_quote, "rel": on_rel, "order": on_order, "pron": on_pron, "one": on_one,
    "neg": on_neg, "with": on_with, "have": on_have, "wear": on_wear, "as": on_as, "cop": on_cop, "verb": on_verb,
    "position": on_position, "relation": on_relation, "noun": on_noun,
}  # fmt: skip
