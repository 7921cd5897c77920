"""What the reader understood: things, relations between them, and the words that are no things."""

from __future__ import annotations

from dataclasses import dataclass, field

from . import inflection, lexicon
from .vocabulary import kind


@dataclass(eq=False)
class Thing:
    """One object kind with `count` instances that share a phrase and a place."""

    head: str
    before: list[str] = field(default_factory=list)
    tail: str = ""
    worn: str = ""
    actions: list[str] = field(default_factory=list)
    count: int = 1
    det: str = ""
    name: bool = False
    mass: bool = False
    position: tuple[float | None, float | None] = (None, None)
    scale: float = 1.0
    counted: bool = False  # the prompt gave a number
    group: int = 0  # not 0: one of several instances that "one ... the other ..." tells apart
    claimed: bool = False

    @property
    def phrase(self) -> str:
        """A singular noun phrase with its article: "a small running dog wearing a hat"."""
        bare = " ".join(w for w in (*self.actions, *self.before, self.head) if w)
        rest = " ".join(w for w in (self.tail, self.worn) if w)
        pair = self.head.split("-")[-1] in inflection.PAIR_NOUNS
        if self.name or self.mass or pair:
            start = bare
        elif self.det == "the" and self.head in ("sun", "moon", "earth"):
            start = f"the {bare}"
        else:
            start = inflection.with_article(bare)
        return f"{start} {rest}".strip()

    @property
    def animate(self) -> bool:
        """True for people and animals."""
        return kind(self.head.lower()) in ("person", "animal")


@dataclass(frozen=True, eq=False)
class Relation:
    """`kind`: left right above below on under in behind front near between; every subject relates to the targets."""

    kind: str
    subjects: tuple[Thing, ...]
    targets: tuple[Thing, ...]
    flat: bool = False  # "in" as a logo is on a mug: wholly inside the target's outline


@dataclass
class Scene:
    """What a prompt describes: things, their relations, the surroundings, the style, and notes for the user."""

    things: list[Thing] = field(default_factory=list)
    relations: list[Relation] = field(default_factory=list)
    style: str = ""
    places: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    absent_heads: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    larger: list[tuple[Thing, Thing]] = field(default_factory=list)  # the first is the larger one of the two
    left_out: list[str] = field(default_factory=list)  # nouns that got no box because they are not surely things

    def note(self, text: str) -> None:
        """Adds a note for the user, once."""
        if text not in self.notes:
            self.notes.append(text)

    @property
    def background(self) -> str:
        """One phrase that works alone and in front of "with ...": "A watercolor painting of a park at night"."""
        places = sorted(dict.fromkeys(self.places), key=_is_time)
        where = ""
        for place in places:
            first, _, rest = place.partition(" ")
            if not where:
                where = _as_setting(first, rest) if first in _PREPOSITIONS and not _is_time(place) else place
                where = f"a scene {where}" if where.partition(" ")[0] in _PREPOSITIONS else where
            else:
                where += f" {place}" if first in _PREPOSITIONS else f" and {place}"
        text = f"{self.style} of {where or 'a scene'}" if self.style else where or "a realistic scene"
        return ", ".join([text[0].upper() + text[1:], *self.tags])


def _is_time(place: str) -> bool:
    last = place.split(" ")[-1].lower()
    return last in lexicon.TIMES or place.startswith(("with ", "under ", "during "))


def _as_setting(preposition: str, rest: str) -> str:
    """ "in the park" -> "a park": the place itself is the picture."""
    if preposition in ("under", "during", "with") or not rest:
        return f"{preposition} {rest}"
    article, _, noun = rest.partition(" ")
    if article == "the" and noun and inflection.singular(noun.split(" ")[-1]) is None and noun not in lexicon.MATTER:
        return inflection.with_article(noun)
    return rest


_PREPOSITIONS = frozenset(
    (
        "in",
        "on",
        "at",
        "by",
        "under",
        "during",
        "along",
        "across",
        "through",
        "over",
        "above",
        "against",
        "near",
        "with",
    )
)
