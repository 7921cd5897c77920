"""Do two nouns name the same thing, as far as a checker may assume? And is a text English at all?"""

from __future__ import annotations

import re
from collections.abc import Iterable

from . import words
from .layout import Layout
from .offline import lexicon
from .offline.scene import Scene, Thing
from .prompts import head_index, strip_article

_GROUPS = [
    words.word_set(line)
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
_ENGLISH = words.word_set(
    """
    a an the of in on with and or to at by from under over above below behind between next near left right top bottom
    front no without not two three four five six seven eight nine ten there is are that has have wearing standing
    sitting photo painting picture scene into inside one some several its his her their
    """
)
_FOREIGN = words.word_set(
    """
    der das ein eine einen einem einer und mit auf neben unter ohne zwei drei im ist sind rechts links vor hinter
    el los las una uno y sobre sin dos tres del junto detr\u00e1s izquierda derecha
    le les et avec sur sous sans deux trois du des une dans gauche droite
    il gli della sul senza due tre con uma um e com sem dois tr\u00eas ao lado esquerda direita
    en een het och ett og av z na i w u pod nad bez
    """
)


def head(phrase: str) -> str:
    """The singular noun that a phrase is about, in lower case: "two old men with hats" -> "man"."""
    tokens = strip_article(phrase.strip()).lower().split() or [""]
    noun = tokens[head_index(tokens)].strip(".,;:!?\"'")
    return words.singular(noun) or noun


def nouns(text: str) -> list[str]:
    """The words of a text in lower case, plurals turned into singulars."""
    return [words.singular(w) or w for w in re.findall(r"[\w'-]+", text.lower())]


def is_person(noun: str) -> bool:
    return noun in lexicon.PEOPLE or noun.endswith(("man", "woman", "men", "women")) and len(noun) > 5


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


def matches(thing: Thing, phrase: str) -> bool:
    """Is `phrase` a name for `thing`?"""
    return same(thing.head.lower(), head(phrase))


def colours_in(tokens: Iterable[str]) -> set[str]:
    """The colours among some words, spelled in one way."""
    low = {w.lower().replace("grey", "gray") for t in tokens for w in t.split("-")}
    return {"gold" if c == "golden" else c for c in low & lexicon.COLOURS}


def boxes_of(thing: Thing, scene: Scene, layout: Layout) -> list[int]:
    """The objects that can only be `thing`; empty when another thing might be meant."""
    mine = [i for i, p in enumerate([o.phrase for o in layout.objects]) if matches(thing, p)]
    rivals = [t for t in scene.things if t is not thing and same(t.head.lower(), thing.head.lower())]
    if not rivals:
        return mine if len(mine) == thing.count else []
    colours = colours_in(thing.before)
    if not colours or thing.group or any(not colours_in(t.before) or colours_in(t.before) & colours for t in rivals):
        return []
    mine = [i for i in mine if colours <= colours_in(layout.objects[i].phrase.lower().split())]
    return mine if len(mine) == thing.count else []


def named(text: str) -> set[str]:
    """The nouns that a prompt names as things: "a dog park with benches" names a park and benches, not a dog."""
    tokens = re.findall(r"[\w'-]+|[^\w\s]", text.lower())
    out = set()
    for token, after in zip(tokens, [*tokens[1:], "."]):
        if not after[0].isalnum() or after in lexicon.CONJUNCTIONS or after in _ENDS or after.endswith("ing"):
            out.add(words.singular(token) or token)
    return out


_ENDS = words.word_set(
    """
    of in on with at by for from to under over near behind beside above below between around along across through inside
    into onto against without during is are that which who standing sitting lying running a an the during outside
    """
)
