"""What a reading keeps in mind: the things so far, and what "it", "the other" and "the cat" mean."""

from __future__ import annotations

from . import lexicon
from .clauses import Reference, Who
from .noun_phrases import NounPhrase
from .scene import Relation, Scene, Thing
from .vocabulary import kind

_DEFINITE = frozenset(("the", "this", "that", "these", "those", "its", "their", "his", "her", "both", "each"))
_SINGLE = frozenset(("left", "right", "above", "below", "near", "behind", "front", "between"))


class References:
    """The scene so far, and what nouns and pronouns refer to in it."""

    def __init__(self) -> None:
        self.scene = Scene()
        self.mentions: list[Thing] = []
        self.meant: dict[int, list[Thing]] = {}  # by the place of a noun phrase in the text

    def remember(self, noun: NounPhrase, things: list[Thing]) -> None:
        """Keeps which things a noun phrase means."""
        self.meant[noun.at] = things
        self.mentions += things

    def things_of(self, noun: NounPhrase) -> list[Thing]:
        """The things a noun phrase means that are still in the scene."""
        return [t for t in self.meant.get(noun.at, []) if t in self.scene.things]

    def known(self, noun: NounPhrase) -> list[Thing] | None:
        """The things that a definite or bare noun refers back to."""
        repeated = noun.bare and not noun.tail
        counted = noun.count is not None and noun.det in _DEFINITE
        if noun.det not in _DEFINITE and not repeated and not counted:
            same = [
                t for t in self.scene.things if t.head == noun.head and noun.count and t.count == 3 and not t.counted
            ]
            return None if not same or noun.det else same[-1:]
        same = [t for t in self.scene.things if t.head == noun.head]
        if not same and noun.head in lexicon.COLLECTIVES and not noun.tail and not repeated:
            same = [t for t in self.scene.things if t.count > 1]
        if noun.before:
            same = [t for t in same if set(noun.before) <= set(t.before)]
        if not same and noun.det in _DEFINITE and not noun.plural and noun.count is None:
            same = [t for t in self.scene.things if _general(noun.head, t)]
        if not same or (repeated and noun.plural and all(t.count == 1 for t in same) and len(same) == 1):
            return None
        return same if noun.plural else same[-1:]

    def resolve(self, who: tuple[Who, ...], besides: list[Thing] | None = None) -> list[Thing]:
        """The things that nouns, pronouns and "the other" stand for."""
        found: list[Thing] = []
        for one in who:
            things = self.things_of(one) if isinstance(one, NounPhrase) else self._referred(one, besides or [])
            found += [t for t in things if t not in found]
        return found

    def _referred(self, reference: Reference, besides: list[Thing]) -> list[Thing]:
        if reference.text in ("instance", "each"):
            assert reference.noun is not None
            if reference.noun.at not in self.meant:
                self.pick(reference)
            return self.things_of(reference.noun)
        if reference.host is not None and reference.text in ("it", "itself"):
            hosts = [t for t in self.things_of(reference.host) if t not in besides]
            if hosts:
                return hosts
        pool = [t for t in self.mentions if t not in besides and t in self.scene.things]
        if reference.text in ("it", "itself"):
            pool = [t for t in pool if t.count == 1] or pool
        if reference.text in ("them", "they", "themselves"):
            many = [t for t in pool if t.count > 1]
            return many[-1:] or pool[-2:]
        if reference.text in ("he", "him", "she", "her", "himself", "herself"):
            pool = [t for t in pool if t.animate] or pool
        return pool[-1:]

    def pick(self, reference: Reference) -> None:
        """ "one ... the other ...", "each": picks instances out of the last group."""
        noun = reference.noun
        assert noun is not None
        groups = [t for t in self.scene.things if t.count > 1]
        if noun.det in ("each", "both", "all") and groups:
            self.remember(noun, [groups[-1]])
            return
        if noun.det in ("both", "all") and len(self.scene.things) > 1:
            self.remember(noun, self.scene.things[-2:] if noun.det == "both" else list(self.scene.things))
            return
        left = [t for t in self.scene.things if t.group and not t.claimed]
        if not left and groups:
            left = self.split(groups[-1])
        if not left and noun.head == "other" and self.mentions and noun.det == "the":
            left = [Thing(self.mentions[-1].head, counted=True)]
            self.scene.things.append(left[0])
        if not left:
            self.meant[noun.at] = []
            return
        taken = left[: noun.count or 1]
        extra = [w for w in (*noun.before, noun.head) if w and w not in ("one", "other", "ones", "others")]
        for thing in taken:
            thing.claimed = True
            thing.before = [*extra, *(w for w in thing.before if w not in ("different", "colored", "coloured"))]
        self.remember(noun, taken)

    def split(self, whole: Thing) -> list[Thing]:
        """One thing per member in place of a counted thing, also in its relations; returns the members."""
        number = 1 + max((t.group for t in self.scene.things), default=0)
        parts = [
            Thing(
                whole.head, list(whole.before), whole.tail, whole.worn, list(whole.actions), counted=True, group=number
            )
            for _ in range(whole.count)
        ]
        at = self.scene.things.index(whole)
        self.scene.things[at : at + 1] = parts

        def swap(things) -> tuple[Thing, ...]:
            return tuple(p for t in things for p in (parts if t is whole else [t]))

        self.scene.relations = [
            Relation(r.kind, swap(r.subjects), swap(r.targets), r.flat) for r in self.scene.relations
        ]
        self.meant = {at: list(swap(things)) for at, things in self.meant.items()}
        return parts

    def for_each(self, things: list[Thing]) -> None:
        """ "four candles, each on a plate": four plates."""
        groups = [t for t in self.scene.things if t.count > 1 and t not in things]
        if groups and len(things) == 1 and things[0].count == 1:
            things[0].count *= groups[-1].count
            things[0].before = [w for w in things[0].before if w not in ("separate", "own", "different")]

    # places and relations

    def place(self, things: list[Thing], where: tuple[float | None, float | None]) -> None:
        """Gives things a place in the picture, (x, y) in 0..1; None leaves an axis open."""
        free = [t for t in things if t.position == (None, None)]
        for thing in (free if len(free) == len(things) else free[-1:]) or things[-1:]:
            x, y = (new if new is not None else old for new, old in zip(where, thing.position))
            thing.position = (x, y)

    def in_order(self, kind: str, things: list[Thing]) -> None:
        """Relates each thing to the next one."""
        for first, second in zip(things, things[1:]):
            self.relate(kind, [first], [second])

    def add(self, kind: str, subjects: list[Thing], targets: list[Thing], flat: bool = False) -> None:
        """Adds a relation, unless one side is empty."""
        if subjects and targets:
            self.scene.relations.append(Relation(kind, tuple(subjects), tuple(targets), flat))

    def relate(self, kind: str, subjects: list[Thing], targets: list[Thing]) -> None:
        """Adds one relation, spelled in the kinds that an arrangement knows."""
        subjects = [t for t in subjects if t not in targets]
        if not subjects or not targets:
            return
        single = len(targets) == 1 and targets[0].count == 1
        many = sum(t.count for t in subjects) > 1
        head = targets[0].head
        if kind in ("bigger", "towers", "smaller", "dwarfed"):
            pairs = [(s, t) for s in subjects for t in targets]
            self.scene.larger += [(t, s) if kind in ("smaller", "dwarfed") else (s, t) for s, t in pairs]
        if kind == "dwarfed":
            for thing in subjects:
                thing.scale *= _DWARFED
        if kind == "around" and not many:
            subjects[0].count = 2
        if (kind == "about" and many) or kind == "around":
            subjects, targets = targets, subjects
        flat = kind in ("on", "beside") and single and all(_flat(t) for t in subjects) and not _upright(subjects, head)
        if flat:
            self.add("in", subjects, targets, flat=True)
            return
        water = head in lexicon.OUTDOORS or head in _DEEP
        kinds = {
            "amid": "on" if single and head in lexicon.SUPPORTS else "in" if single else "between",
            "about": "between" if many else "near",
            "bottom": "in" if water else "below",
            "in": "on" if head in lexicon.SUPPORTS - lexicon.CONTAINERS else "in",
        }
        self.add(kinds.get(kind) or _SPELLED.get(kind, kind), subjects, targets)


_GENERAL = {"vehicle": (), "craft": (), "animal": ("animal",), "creature": ("animal",), "beast": ("animal",), "feline": ("animal",),
            "building": ("built",), "structure": ("built",), "plant": ("plant",), "person": ("person",), "figure": ("person",),
            "individual": ("person",), "character": ("person",), "subject": ("person", "animal")}  # fmt: skip
_VEHICLES = frozenset(
    ("car", "bus", "truck", "van", "train", "motorcycle", "scooter", "bicycle", "taxi", "tractor", "boat", "ship", "helicopter",
     "airplane", "plane", "jet", "spaceship", "rocket", "tank", "tram", "jeep", "suv", "limousine", "ambulance", "lorry", "wagon")
)  # fmt: skip
_DWARFED = 0.45  # of its usual size, beside what dwarfs it
_DEEP = frozenset(
    (
        "aquarium", "tank", "fishbowl", "well", "pit", "hole", "bowl", "glass", "jar", "bucket", "bathtub", "sink", "bag", "box", "cup",
        "mug", "vase", "pot", "basket", "drawer", "barrel", "crate", "canyon",
    )
)  # fmt: skip
_SPELLED = {"bigger": "near", "smaller": "near", "towers": "near", "dwarfed": "near", "beside": "near", "around": "between", "flanked": "between",
            "surrounded": "between", "along": "on", "inside": "in", "loose": "near", "from": "near", "during": "near"}  # fmt: skip


def _general(word: str, thing: Thing) -> bool:
    """ "a bus ... the vehicle": does the general word name the thing?"""
    head = thing.head.lower()
    if head == word or word not in _GENERAL:
        return False
    return head in _VEHICLES if word in ("vehicle", "craft") else kind(head) in _GENERAL[word]


def _flat(thing: Thing) -> bool:
    pictured = thing.head in lexicon.PICTURES and thing.tail.startswith("of ")
    return pictured or thing.head in lexicon.FLAT and not thing.animate


def _upright(subjects: list[Thing], head: str) -> bool:
    """A star on a tree and a word on a table stand there; on a mug or an arm they lie in the surface."""
    return head in lexicon.SUPPORTS and all(t.head in ("star", "drawing", "letter") for t in subjects)
