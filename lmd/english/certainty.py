"""Is a noun surely a thing that can be seen? What is not sure gets no box."""

from __future__ import annotations

from . import lexicon
from .genre import Genre
from .noun_phrases import NounPhrase
from .scene import Scene
from .vocabulary import speech


def is_sure(noun: NounPhrase, role: str, sentence: int, genre: Genre, scene: Scene) -> bool:
    """Is the noun surely a thing that can be seen, and new in the picture?"""
    strange = role == "tag" and any(not speech(w.lower()) for w in noun.before)
    if noun.head in lexicon.NOT_THINGS or strange or role == "mention" and not noun.solid:
        return False
    counted = noun.count is not None and not noun.vague
    definite = noun.det in ("the", "this", "that", "these", "those", "its", "their", "his", "her")
    if genre.long and definite and noun.head in lexicon.COLLECTIVES | lexicon.PICTURES:
        return False
    if (
        genre.paragraph
        and definite
        and not counted
        and (sentence > 0 or noun.plural)
        and not (role in ("target", "object") and not noun.plural)
    ):
        return False
    if (
        genre.long
        and noun.plural
        and not counted
        and role != "subject"
        or role == "tag"
        and not _tag_is_sure(noun, genre, scene)
    ):
        return False
    if genre.paragraph and noun.plural and not counted and sentence > 0:
        return False
    if noun.solid or counted and noun.head == "light" or noun.head in lexicon.COLLECTIVES and noun.tail:
        return True
    if noun.name and noun.kind != "person":
        return not genre.long
    if noun.kind == "" and role in ("subject", "tag") and noun.bare and _names(scene):
        if scene.things and speech(noun.head):
            return False
        return not genre.long and not noun.plural and noun.head.isascii()  # "darth vader drinking coffee"
    if noun.kind == "":
        return not genre.long and bool(noun.det or counted) and noun.head.isascii()
    if noun.kind in ("group", "text") and noun.head in lexicon.COLLECTIVES | lexicon.CARRIERS | lexicon.FLAT:
        return True
    return not genre.long and _bare_kind(noun, role, counted)


def _bare_kind(noun: NounPhrase, role: str, counted: bool) -> bool:
    """Nouns of other kinds in a short caption: parts of bodies, places and pictures that something is said of."""
    if noun.kind == "body":
        return role in ("target", "subject") or counted
    if noun.kind in ("place", "weather", "matter"):
        return counted or role in ("target", "subject") and (bool(noun.det) or noun.head in lexicon.MASS)
    return (
        counted and noun.kind in ("group", "text") or noun.head in lexicon.STYLE_NOUNS and (counted or bool(noun.det))
    )


def _tag_is_sure(noun: NounPhrase, genre: Genre, scene: Scene) -> bool:
    if noun.plural and noun.count is None:
        return not scene.things or not scene.things[0].animate and not genre.styled
    if noun.kind == "" and not genre.tags and not genre.styled and scene.things and _names(scene):
        return True
    return (speech(noun.head)[:1] in ("n", "") or noun.head in lexicon.KINDS) and noun.kind != ""


def _names(scene: Scene) -> bool:
    """Are all things so far somebody by name: "goku and ...", "harry potter and ..."?"""
    return all(t.name or t.animate and not t.det and not t.counted for t in scene.things)
