"""What a reader keeps in mind: the things so far, the current subjects, what "it" and "the other" mean."""

from __future__ import annotations

from . import inflection, lexicon
from .chunker import NounPhrase, Piece, pieces_of
from .scene import Relation, Scene, Thing

MOST_PER_KIND = 40


class Memory:
    """The state of one reading and the steps that every clause needs."""

    def __init__(self, prompt: str) -> None:
        self.pieces = pieces_of(prompt)
        self.scene = Scene()
        self.at = 0
        self.subjects: list[Thing] = []  # what a verb or relation that comes now talks about
        self.recent: list[Thing] = []  # the last mentioned things, for "it" and for close attachment
        self.settled = False  # the subjects have had their relation, so the next noun starts a new clause
        self.last_relation = ""
        self.mode: tuple = ()
        self.pending: tuple = ()  # a relation or position in front of its subject
        self.mentions: list[Thing] = []
        self.host: Thing | None = None  # what "with ..." belongs to
        self.in_place = False  # the last noun named a place
        self.deferred: list[tuple[str, list[Thing]]] = []  # relations that wait for their target
        self.verb = ""  # the last one, as written
        self.listed: tuple[Thing, int] | None = None  # "three people: ..." and how many things there were
        self.each: Thing | None = None  # "..., each with ..."

    def _peek(self, n: int = 1) -> Piece:
        i = self.at + n
        return self.pieces[i] if 0 <= i < len(self.pieces) else Piece("stop")

    def _kind_after(self) -> str:
        n = 1
        while self._peek(n).kind in ("adverb", "rel", "cop"):
            n += 1
        return self._peek(n).kind

    def _bare(self, piece: Piece) -> bool:
        return piece.kind == "np" and not piece.value.det and piece.value.count is None

    def _place(self, things: list[Thing], where: tuple[float | None, float | None]) -> None:
        free = [t for t in things if t.position == (None, None)]
        for thing in (free if len(free) == len(things) else free[-1:]) or things[-1:]:
            thing.position = tuple(new if new is not None else old for new, old in zip(where, thing.position))
        self.settled = True

    def _in_order(self, kind: str, things: list[Thing]) -> None:
        for first, second in zip(things, things[1:]):
            self._relate(kind, [first], [second])

    def _antecedent(self, pronoun: str) -> list[Thing]:
        subjects = self.mode[2] or [] if self.mode[:1] == ("relation",) else self.subjects
        pool = [t for t in self.mentions if t not in subjects and t in self.scene.things]
        kind = self.mode[1] if self.mode[:1] == ("relation",) else ""
        if pronoun == "it" and self.host in pool and kind in ("on", "under", "front", "behind", "in", "inside", "near"):
            return [self.host]
        if pronoun in ("it", "itself"):
            pool = [t for t in pool if t.count == 1] or pool
        if pronoun in ("them", "they", "themselves"):
            many = [t for t in pool if t.count > 1]
            return many[-1:] or pool[-2:]
        if pronoun in ("he", "him", "she"):
            pool = [t for t in pool if t.animate] or pool
        return pool[-1:]

    def _one_of(self, noun: NounPhrase) -> bool:
        """ "one black and one white": a colour or size alone that picks from a group."""
        return (
            noun.head in lexicon.ADJECTIVES
            and (noun.count == 1 or noun.det in ("the", "another"))
            and any(t.count > 1 or (t.group and not t.claimed) for t in self.scene.things)
        )

    def _instance(self, noun: NounPhrase) -> None:
        """ "one ... the other ...", "each": picks instances out of the last group."""
        groups = [t for t in self.scene.things if t.count > 1]
        if noun.det in ("each", "both", "all") and groups:
            self.subjects, self.recent, self.settled = [groups[-1]], [groups[-1]], False
            self.each = groups[-1] if noun.det == "each" else None
            return
        if noun.det in ("both", "all") and len(self.scene.things) > 1:
            self.subjects = self.scene.things[-2:] if noun.det == "both" else list(self.scene.things)
            self.recent, self.settled = self.subjects[-1:], False
            return
        left = [t for t in self.scene.things if t.group and not t.claimed]
        if not left and groups:
            left = self._split(groups[-1])
        if not left and noun.head == "other" and self.mentions and noun.det == "the":
            left = [Thing(self.mentions[-1].head, counted=True)]
            self.scene.things.append(left[0])
        if not left:
            self.scene.note(f'not understood: what "{noun.source or noun.det}" refers to')
            return
        taken = left[: noun.count or 1]
        extra = [w for w in (*noun.before, noun.head) if w and w not in ("one", "other", "ones", "others")]
        for thing in taken:
            thing.claimed = True
            thing.before = [*extra, *(w for w in thing.before if w not in ("different", "colored", "coloured"))]
        self.subjects, self.recent, self.settled, self.mode = taken, taken, False, ()

    def _split(self, whole: Thing) -> list[Thing]:
        number = 1 + max((t.group for t in self.scene.things), default=0)
        parts = [
            Thing(
                whole.head, list(whole.before), whole.tail, whole.worn, list(whole.actions), counted=True, group=number
            )
            for _ in range(whole.count)
        ]
        at = self.scene.things.index(whole)
        self.scene.things[at : at + 1] = parts

        def swap(things: tuple[Thing, ...]) -> tuple[Thing, ...]:
            return tuple(p for t in things for p in (parts if t is whole else [t]))

        self.scene.relations = [Relation(r.kind, swap(r.subjects), swap(r.targets)) for r in self.scene.relations]
        return parts

    def _known(self, noun: NounPhrase) -> Thing | None:
        """The thing that a definite noun refers back to."""
        if noun.det not in ("the", "this", "that", "these", "those", "its", "their", "his", "her", "both", "each"):
            return None
        same = [t for t in self.scene.things if t.head == noun.head]
        if not same and noun.head in lexicon.COLLECTIVES and not noun.tail:
            same = [t for t in self.scene.things if t.count > 1]
        exact = [t for t in same if set(noun.before) <= set(t.before)]
        if noun.before:
            return exact[-1] if exact else None
        return same[-1] if same else None

    def _things(self, noun: NounPhrase) -> list[Thing]:
        known = self._known(noun)
        if known is not None:
            same = [t for t in self.scene.things if t.head == known.head and set(noun.before) <= set(t.before)]
            self.mentions.append(known)
            return same if noun.plural else [known]
        pair = noun.head in inflection.PAIR_NOUNS or noun.head == "glasses"
        mass = noun.head in lexicon.MATTER - {"star", "cloud", "wall", "light"} and not noun.det and noun.count is None
        mass = mass or noun.head in lexicon.MASS and noun.count is None and noun.det not in ("a", "an")
        count, counted = noun.count or 1, noun.count is not None
        if noun.plural and noun.count is None and not mass and not pair:
            count = 2 if noun.det in ("both",) else 3
            self.scene.note(f'"{noun.source}": no number given, {count} drawn')
        elif noun.vague:
            self.scene.note(f'"{noun.source}": no exact number given, {count} drawn')
        if pair and noun.det == "a":
            count = 1
        if count > MOST_PER_KIND:
            self.scene.note(f'"{count} {noun.source}": more than fit, {MOST_PER_KIND} drawn')
            count = MOST_PER_KIND
        thing = Thing(
            noun.head, list(noun.before), noun.tail, count=count, det=noun.det, name=noun.name, mass=mass or pair
        )
        thing.counted = counted
        self.in_place = False
        self.scene.things.append(thing)
        self.mentions.append(thing)
        return [thing]

    def _for_each(self, things: list[Thing]) -> list[Thing]:
        """ "four candles, each on a plate": four plates."""
        if self.each is not None and len(things) == 1 and things[0] not in (self.each,):
            things[0].count *= self.each.count
            things[0].before = [w for w in things[0].before if w not in ("separate", "own", "different")]
        self.each = None
        return things

    def _relate(self, kind: str, subjects: list[Thing], targets: list[Thing]) -> None:
        subjects = [t for t in subjects if t not in targets]
        if not subjects or not targets:
            return
        if kind == "amid":
            single = len(targets) == 1 and targets[0].count == 1
            kind = "on" if single and targets[0].head in lexicon.SUPPORTS else "in" if single else "between"
        if kind in ("bigger", "smaller"):
            for thing in subjects:
                thing.scale *= 1.35 if kind == "bigger" else 0.7
            for thing in targets:
                thing.scale *= 0.7 if kind == "bigger" else 1.35
            kind = "near"
        if kind == "about":
            if sum(t.count for t in subjects) > 1:
                subjects, targets, kind = targets, subjects, "between"
            else:
                kind = "near"
        if kind == "around" and sum(t.count for t in subjects) == 1:
            subjects[0].count = 2
        if kind in ("flanked", "around"):
            subjects, targets, kind = (
                (targets, subjects, "between") if kind == "around" else (subjects, targets, "between")
            )
        if kind == "surrounded":
            kind = "between"
        if kind == "along":
            kind = "on"
        if kind == "inside":
            kind = "in"
        if kind == "in" and targets[0].head in lexicon.SUPPORTS - lexicon.CONTAINERS:
            kind = "on"
        if kind in ("loose", "from", "during"):
            kind = "near"
        self.scene.relations.append(Relation(kind, tuple(subjects), tuple(targets)))


def plain(noun: NounPhrase) -> str:
    """The phrase as written, with its determiner or number."""
    start = noun.det or (inflection.number_word(noun.count) if noun.count else "")
    return " ".join(w for w in (start, noun.source, noun.tail) if w)
