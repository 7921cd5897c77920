"""What single English words can be: their parts of speech, and what kind of thing a noun names.

The table comes from WordNet and Brill's lexicon (`data/LICENSE.txt`); `tools/lexicon.py` builds it.
"""

from __future__ import annotations

from functools import lru_cache

from . import inflection, lexicon
from .words import table

# Kinds of nouns that can have a box of their own.
SOLID = frozenset(("animal", "thing", "food", "object", "person", "plant", "worn", "built", "shape"))
_DOUBLED = "bdgklmnprtvz"


def known(word: str) -> bool:
    """Is it an English word in its basic form, or a two-word noun with an underscore?"""
    return word in table()


@lru_cache(8192)
def speech(word: str) -> str:
    """The parts of speech of a lower-case word, likeliest first: n v j r, c for function words; "" when unknown."""
    found = table().get(word, ("", ""))[0]
    derived = _derived(word)
    if not found and "-" in word:
        last = word.rsplit("-", 1)[-1]
        return "j" + ("n" if "n" in speech(last) and not last.endswith("ed") else "") if last != word else "j"
    noun = "n" if lexicon.KINDS.get(word, "idea") != "idea" else ""
    return found + "".join(p for p in derived + noun if p not in found)


def _derived(word: str) -> str:
    """Parts of speech that a regular ending gives."""
    if len(word) < 4:
        return ""
    if word.endswith("ing") and any("v" in _basic(v) for v in _stems(word[:-3])):
        return "v"
    if word.endswith("ed") and any("v" in _basic(v) for v in _stems(word[:-2])):
        return "vj"
    if word.endswith("s") and not word.endswith("ss"):
        stems = [
            word[:-1],
            *([word[:-2]] if word.endswith("es") else []),
            *([word[:-3] + "y"] if word.endswith("ies") else []),
        ]
        return "".join(dict.fromkeys(p for s in stems for p in _basic(s) if p in "nv"))
    if word.endswith("ly") and "j" in _basic(word[:-2]):
        return "r"
    return ""


def _stems(stem: str) -> tuple[str, ...]:
    short = (stem[:-1],) if len(stem) > 2 and stem[-1] == stem[-2] and stem[-1] in _DOUBLED else ()
    return (stem, stem + "e", *short, stem[:-1] + "y" if stem.endswith("i") else stem)


def _basic(word: str) -> str:
    return table().get(word, ("", ""))[0]


def kind(noun: str, first: str = "") -> str:
    """The kind of a singular noun; `first` is the noun before it, since "traffic light" is a thing and "light" is not."""
    if lexicon.KINDS.get(noun) in SOLID:
        return lexicon.KINDS[noun]
    if first and speech(first)[:1] == "n" and (found := compound_kind(first, noun)):
        return found
    if noun in lexicon.KINDS:
        return lexicon.KINDS[noun]
    found = table().get(noun, ("", ""))[1]
    if found and not (
        found == "idea" and noun.endswith("man")
    ):  # "fireman" is first of all a reliever in baseball there
        return found
    if "-" in noun or "_" in noun:
        return kind(noun.replace("_", "-").rsplit("-", 1)[-1])
    if noun.endswith(("man", "woman", "girl", "boy")):
        return "person"
    stem = noun[:-1] if noun in inflection.PAIR_NOUNS else inflection.singular(noun)
    return kind(stem) if stem and stem != noun else ""


def is_part_of(part: str, owner: str) -> bool:
    """Do things of the second noun regularly have the first as parts: leaves of a tree, wheels of a car?"""
    if part in lexicon.PARTS:
        return True
    if part in lexicon.PLANT_PARTS:
        return kind(owner) == "plant" or owner in lexicon.GROWTH | lexicon.PLANTS
    return part in lexicon.MACHINE_PARTS and kind(owner) in ("thing", "object", "built")


def compound_kind(first: str, noun: str) -> str:
    """The kind of a two-word noun of its own, or "": "traffic light"."""
    if f"{first} {noun}" in lexicon.COMPOUNDS:
        return "thing"
    return table().get(f"{first}_{noun}", ("", ""))[1]
