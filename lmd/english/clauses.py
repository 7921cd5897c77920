"""What a prompt says, clause by clause: the tree between the pieces of its text and the scene."""

from __future__ import annotations

from dataclasses import dataclass

from .noun_phrases import NounPhrase


@dataclass(frozen=True)
class Reference:
    """A word that stands for things named before: "it", "them", "the other", "each"; `host` is what "it" surely means."""

    text: str
    noun: NounPhrase | None = None
    host: NounPhrase | None = None


Who = NounPhrase | Reference


@dataclass(frozen=True)
class Subject:
    """Things that the picture shows. `role`: subject, object, target, tag (bare, between commas) or mention (in passing)."""

    nouns: tuple[Who, ...]
    role: str = "subject"
    sentence: int = 0


@dataclass(frozen=True)
class Position:
    """Where in the picture things are, in shares of it; `kind`: at background far dwarfed row stack ontop sides beside."""

    kind: str
    nouns: tuple[Who, ...]
    where: tuple[float | None, float | None] = (None, None)


@dataclass(frozen=True)
class Relation:
    """`kind` as in `phrases.RELATIONS`: every one of `nouns` stands so to `targets`."""

    kind: str
    nouns: tuple[Who, ...]
    targets: tuple[Who, ...]
    text: str = ""


@dataclass(frozen=True)
class Attribute:
    """What is said of things. `how`: with, wearing (any word of dress), as, says, action or adjective."""

    how: str
    nouns: tuple[Who, ...]
    text: str


@dataclass(frozen=True)
class Negation:
    """What must not appear."""

    noun: NounPhrase


@dataclass(frozen=True)
class Place:
    """Surroundings: "in a park", "at night"."""

    text: str
    noun: NounPhrase | None = None


@dataclass(frozen=True)
class Style:
    """How the picture is made; `leading` for "a watercolor painting of ..."."""

    text: str
    leading: bool = False


@dataclass(frozen=True)
class Aside:
    """Words that give no box and no place. `reason`: "" when that is sure, else what was not understood."""

    text: str
    reason: str = ""


Clause = Subject | Position | Relation | Attribute | Negation | Place | Style | Aside
