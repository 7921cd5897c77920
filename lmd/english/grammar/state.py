"""The state of a walk over the pieces of a prompt, and the steps that every kind of word needs."""

from __future__ import annotations

from ..clauses import Clause, Position, Reference, Relation, Subject, Who
from ..noun_phrases import NounPhrase
from ..pieces import Piece

_STOP = Piece("stop")
PASSED = ("adverb", "rel", "cop", "adjective", "other")
LIST = ("comma", "and", "or")
_DEFINITE = frozenset(("the", "this", "that", "these", "those", "its", "their", "his", "her", "both", "each"))


class State:
    """Where a walk over the pieces stands: the current subjects, the things named last, the clauses so far."""

    def __init__(self, pieces: list[Piece]) -> None:
        self.pieces, self.at = pieces, 0
        self.clauses: list[Clause] = []
        self.subjects: tuple[Who, ...] = ()  # what a verb or relation that comes now is about
        self.recent: tuple[Who, ...] = ()  # the things named last
        self.settled = False  # the subjects have had their relation
        self.last_relation = ""
        self.pending: Position | Relation | None = None  # "On the left ...": waits for its subject
        self.host: NounPhrase | None = None  # what "with ..." belongs to
        self.in_place = False  # the last noun named a place
        self.deferred: list[tuple[str, tuple[Who, ...]]] = []  # relations that wait for their target
        self.verb = ""  # the last one, as written
        self.sentence = 0
        self.named: list[NounPhrase] = []
        self.parts: set[str] = set()  # nouns that belong to another one
        self.each = False  # behind "each"

    def peek(self, n: int = 1) -> Piece:
        """The piece `n` after this one; a full stop beyond the ends."""
        i = self.at + n
        return self.pieces[i] if 0 <= i < len(self.pieces) else _STOP

    def after(self, n: int = 1) -> str:
        """The kind of the next piece that says something."""
        while self.peek(n).kind in PASSED:
            n += 1
        return self.peek(n).kind

    def emit(self, *clauses: Clause) -> None:
        """Adds finished clauses."""
        self.clauses += clauses

    def known(self, noun: NounPhrase) -> bool:
        """True if the noun refers to something already named ("the cat")."""
        return any(
            n.head == noun.head and (noun.det in _DEFINITE or noun.bare) and set(noun.before) <= set(n.before)
            for n in self.named
        )

    def name(self, nouns: tuple[NounPhrase, ...], role: str) -> None:
        """Adds nouns as subjects with this role."""
        self.named += nouns
        self.emit(Subject(nouns, role, self.sentence))
        if self.each:
            self.emit(Subject((Reference("for each"), *nouns), "each", self.sentence))
            self.each = False

    def settle_pending(self, nouns: tuple[Who, ...]) -> None:
        """Applies a place or relation that came before its nouns to these."""
        pending = self.pending
        if pending is None:
            return
        if isinstance(pending, Position) and pending.kind == "background":
            self.emit(Position("background", nouns))
            self.recent = ()
        elif isinstance(pending, Position):
            self.emit(Position(pending.kind, nouns, pending.where))
        else:
            self.emit(Relation(pending.kind, nouns, pending.targets, pending.text))
        goes_on = self.peek().kind in ("and", "comma") and (self.peek(2).kind == "noun" or self.peek(3).kind == "noun")
        if not (goes_on and isinstance(pending, Relation)):
            self.pending = None
        self.settled = False

    def instance(self, noun: NounPhrase) -> None:
        """ "one", "the other", "each": picks among things already named."""
        picked = Reference("each" if noun.det == "each" else "instance", noun)
        self.each = noun.det == "each"
        self.emit(Subject((picked,), "instance", self.sentence))
        self.subjects = self.recent = (picked,)
        self.settled = False
        self.settle_pending(self.subjects)


def noun_of(who: tuple[Who, ...]) -> NounPhrase | None:
    """The last one, if it is a noun."""
    return who[-1] if who and isinstance(who[-1], NounPhrase) else None
