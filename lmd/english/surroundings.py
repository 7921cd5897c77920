"""Which nouns are surroundings rather than things with a box, given the word before them."""

from __future__ import annotations

from . import lexicon
from .noun_phrases import NounPhrase
from .vocabulary import SOLID, compound_kind

_STATES = frozenset(
    (
        "thought",
        "love",
        "motion",
        "action",
        "flight",
        "silence",
        "prayer",
        "meditation",
        "contemplation",
        "anger",
        "fear",
        "pain",
    )
)
_SQUARES_OF = frozenset(("town", "city", "village", "market", "public", "main", "central", "busy", "crowded"))
_PLACE_WORD = {"in": "in", "inside": "in", "amid": "in", "on": "on", "near": "by", "along": "along", "above": "over",
               "under": "under", "below": "under", "during": "during", "from": "in", "behind": "in", "loose": "in", "bottom": "in",
               "about": "around"}  # fmt: skip
_KEPT = frozenset(
    ("in", "on", "at", "by", "under", "along", "over", "above", "across", "through", "against", "near", "during")
)
_HIGH = frozenset(("sky", "stars", "moon", "sun", "cloud", "clouds", "rainbow", "lights", "aurora", "canopy"))


def is_scenery(noun: NounPhrase, around: bool = False) -> bool:
    """Does the noun name surroundings? `around` says that its place in the sentence speaks for it ("in the square")."""
    head = noun.head.lower()
    if head == "square":  # a shape, unless a town or the sentence makes it a place
        before = {w.lower() for w in noun.before}
        return bool(before & _SQUARES_OF) or (around and not before & lexicon.COLOURS)
    if head in lexicon.MATTER and noun.before and compound_kind(noun.before[-1].lower(), head) in SOLID:
        return False  # a traffic light, a floor lamp
    last = head.split("-")[-1]
    named = _curated(head) or last in lexicon.PLACES
    return (named or noun.kind in ("place", "weather", "time")) and noun.kind not in ("person", "animal")


def _curated(head: str) -> bool:
    return head in lexicon.PLACES or head.endswith(lexicon.PLACE_ENDINGS)


def head_is_place(noun: NounPhrase) -> bool:
    """Surroundings that are never a thing to stand beside: a street, a room."""
    return noun.head.lower() not in lexicon.BUILT


def is_place(noun: NounPhrase, relation: str, text: str) -> bool:
    """Does the noun behind a relation (written as `text`) name surroundings rather than a thing with a box?"""
    head = noun.head.lower()
    last = head.split("-")[-1]
    scenery = is_scenery(noun, relation not in ("on", "under", "below", "above", "behind", "front"))
    if (head in lexicon.TIMES or noun.kind == "time") and (
        relation in ("near", "during", "in", "on", "amid", "under", "along") or noun.before
    ):
        return True
    if relation in ("in", "inside", "amid", "near", "along", "during", "from", "loose", "surrounded", "about"):
        if head in lexicon.CONTAINERS and head not in lexicon.ROOMS | {"mirror"}:
            return False
        if relation == "amid" and (noun.plural or noun.animate):
            return False
        built = head in lexicon.BUILT and relation in ("near", "about") and text not in ("at", "by", "along")
        return (scenery and not (built and head not in lexicon.MATTER)) or (
            relation in ("in", "amid")
            and head not in lexicon.SUPPORTS
            and noun.kind not in SOLID
            and noun.kind != "body"
            and not (noun.kind == "idea" and noun.bare and not noun.before and head in _STATES)
        )
    if relation == "on" and noun.det in ("a", "an") and not _curated(head) and noun.kind == "place":
        return False  # "on an ice floe"
    if relation == "on":
        return scenery and head not in ("bridge", "wall", "cloud", "moon") or head == "wall" and noun.det != "a"
    if relation == "dwarfed":
        return scenery and (head not in lexicon.BUILT or noun.plural and noun.count is None)
    if relation in ("under", "below"):
        return head in _HIGH or last in _HIGH or head in ("rain", "snow", "sunlight", "shade", "ceiling")
    if relation in ("above", "along", "behind", "front"):
        solid = ("village", "town", "mountain", "island", "hill", "lake", "market", "pond")
        return scenery and (head in solid or head not in lexicon.BUILT)
    return False


def placing(relation: str, text: str) -> str:
    """The preposition to write in front of a place."""
    return text if text in _KEPT else _PLACE_WORD.get(relation, "in")


def written(relation: str, text: str, noun: NounPhrase) -> str:
    """A place as the background's text says it, such as "on a beach"."""
    return f"{placing(relation, text)} {noun.written}".strip()
