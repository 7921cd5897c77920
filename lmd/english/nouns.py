"""Nouns of English phrases: the head of a phrase, and whether two nouns can name one thing. Is a text English at all?"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from . import inflection, lexicon

# A noun phrase's head ends before one of these: "a bowl | of fruit", "a man | in a suit".
_AFTER_HEAD = inflection.word_set(
    """
    of in on with at by for from to under over near behind beside wearing holding who that which and
    """
)
_NOUNS_IN_ING = inflection.word_set(
    """
    ring king wing string swing spring sling building painting drawing ceiling wedding clothing lightning earring
    sibling duckling dumpling pudding railing awning evening morning thing being stocking carving crossing landing
    seedling inkling sapling starling herring lemming
    """
)

_GROUPS = [
    inflection.word_set(line)
    for line in """
    cat kitten kitty tabby feline
    dog puppy hound corgi poodle husky labrador retriever terrier bulldog pug dachshund chihuahua dalmatian
    horse pony foal stallion mare
    cow calf bull cattle ox
    chicken hen rooster chick
    rabbit bunny hare
    sofa couch settee
    car automobile sedan taxi cab van vehicle suv truck lorry
    bicycle bike
    motorcycle motorbike scooter
    boat sailboat rowboat ship yacht canoe vessel
    cup mug teacup
    rug carpet mat
    television tv
    phone smartphone telephone
    laptop computer notebook
    airplane plane aircraft jet
    refrigerator fridge
    stove oven range
    picture painting photo photograph portrait poster artwork
    lamp lantern light streetlamp streetlight
    stone rock boulder pebble
    present gift
    plate dish saucer
    pan saucepan
    bag backpack purse handbag rucksack schoolbag
    shoe sneaker boot
    flower rose tulip daisy bouquet sunflower
    tree oak pine palm fir birch
    bird sparrow robin pigeon parrot crow raven seagull
    hill mountain
    house cottage cabin home hut
    bookshelf bookcase shelf
    table desk
    bucket pail
    """.strip().splitlines()
]
_ENGLISH = inflection.word_set(
    """
    a an the of in on with and or to at by from under over above below behind between next near left right top bottom
    front no without not there is are that has have wearing standing sitting photo painting picture scene into inside
    some several its his her their
    """
) | set(lexicon.NUMBER_WORDS[1:])
_FOREIGN = inflection.word_set(
    """
    der das ein eine einen einem einer und mit auf neben unter ohne zwei drei im ist sind rechts links vor hinter
    el los las una uno y sobre sin dos tres del junto detr\u00e1s izquierda derecha
    le les et avec sur sous sans deux trois du des une dans gauche droite
    il gli della sul senza due tre con uma um e com sem dois tr\u00eas ao lado esquerda direita
    en een het och ett og av z na i w u pod nad bez
    """
)


def strip_article(phrase: str) -> str:
    """Take a leading article off: "a red cat" -> "red cat"; only a leading article goes."""
    first, _, rest = phrase.partition(" ")
    return rest if rest and first.lower() in ("a", "an", "the") else phrase


def head_index(tokens: list[str]) -> int:
    """Index of the head noun of an article-less noun phrase: before the first preposition or trailing participle."""
    end = len(tokens)
    for i, token in enumerate(tokens):
        low = token.lower()
        participle = low.endswith("ing") and len(low) > 5 and low not in _NOUNS_IN_ING
        if i and (
            low in _AFTER_HEAD or (participle and (i == len(tokens) - 1 or tokens[i + 1].lower() in _AFTER_HEAD))
        ):
            end = i
            break
    return end - 1


@lru_cache(4096)
def head(phrase: str) -> str:
    """The singular noun that a phrase is about, in lower case: "two old men with hats" -> "man"."""
    tokens = strip_article(phrase.strip()).lower().split() or [""]
    noun = tokens[head_index(tokens)].strip(".,;:!?\"'")
    return inflection.singular(noun) or noun


def nouns(text: str) -> list[str]:
    """The words of a text in lower case, plurals turned into singulars."""
    return [inflection.singular(w) or w for w in re.findall(r"[\w'-]+", text.lower())]


def is_person(noun: str) -> bool:
    """True if the noun names a person."""
    return noun in lexicon.PEOPLE or noun.endswith(("man", "woman", "men", "women")) and len(noun) > 5


@lru_cache(4096)
def same(a: str, b: str) -> bool:
    """Can singular nouns `a` and `b` name one thing? Generous: compounds, people and near synonyms are the same."""
    if a == b or (is_person(a) and is_person(b)):
        return True
    short, long = sorted((a, b), key=len)
    if len(short) > 2 and (long.endswith(short) or long.startswith(short + "-") or short in long.split("-")):
        return True
    return any(a in group and b in group for group in _GROUPS)


def is_english(text: str) -> bool:
    """False for a text that is clearly in another language; a few bare nouns count as English."""
    letters = [c for c in text if c.isalpha()]
    if sum(ord(c) > 0x24F for c in letters) > 0.1 * len(letters):
        return False
    found = re.findall(r"[^\W\d_]+", text.lower())
    foreign = sum(w in _FOREIGN for w in found)
    return not foreign or foreign < sum(w in _ENGLISH for w in found)


def colours_in(tokens: Iterable[str]) -> set[str]:
    """The colours among some words, spelled in one way."""
    low = {w.lower().replace("grey", "gray") for t in tokens for w in t.split("-")}
    return {"gold" if c == "golden" else c for c in low & lexicon.COLOURS}


def named(text: str) -> set[str]:
    """The nouns that a prompt names as things: "a dog park with benches" names a park and benches, not a dog."""
    tokens = re.findall(r"[\w'-]+|[^\w\s]", text.lower())
    out = set()
    for token, after in zip(tokens, [*tokens[1:], "."]):
        if not after[0].isalnum() or after in lexicon.CONJUNCTIONS or after in _ENDS or after.endswith("ing"):
            out.add(inflection.singular(token) or token)
    return out


_ENDS = inflection.word_set(
    """
    of in on with at by for from to under over near behind beside above below between around along across through inside
    into onto against without during is are that which who standing sitting lying running a an the during outside
    """
)
