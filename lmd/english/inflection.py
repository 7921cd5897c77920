"""English number, plural and article: a thin layer over inflect that knows the nouns which inflect gets wrong."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, cast

from .words import table


def word_set(text: str) -> frozenset[str]:
    """A set of words from one readable line or paragraph."""
    return frozenset(text.split())


# Singular nouns that look like plurals to inflect ("bus" -> "bu").
_SINGULAR_IN_S = word_set(
    """
    bus minibus trolleybus gas lens cactus tennis canvas iris octopus asparagus christmas atlas virus campus
    circus walrus hippopotamus platypus hibiscus crocus lotus eucalyptus citrus hummus papyrus abacus thesaurus
    chorus genius oasis pelvis trellis chassis clematis bass moss boss fungus stylus bonus compass glass grass
    dress mattress actress waitress princess goddess fortress harness dais marquis ibis mantis tripos cosmos
    rhinoceros albatross cross brass class mess chess canvass pancreas pampas venus jesus zeus cyclops apparatus
    discus lass mass pass access process business witness swiss press bypass octobass mistress hostess lioness
    tigress countess duchess empress seamstress stewardess cypress carcass dryness darkness wilderness happiness
    watercress buttress eyeglass hourglass spyglass
    """
)
# Nouns that are plural in form but one thing to a painter: one box, never "a scissor".
PAIR_NOUNS = word_set(
    """
    scissors pants trousers jeans shorts tights leggings sunglasses goggles binoculars headphones earphones pliers
    tweezers shears chopsticks drumsticks skis skates rollerblades earbuds handcuffs castanets maracas stilts crutches pyjamas pajamas overalls dungarees spectacles tongs clothes bagpipes
    """
)
# The same form for one and many.
_INVARIANT = word_set(
    """
    sheep fish deer moose bison salmon trout squid shrimp swine aircraft spacecraft hovercraft series species
    offspring cod tuna elk reindeer
    """
)
_IRREGULAR = {"cacti": "cactus", "octopi": "octopus", "dice": "die", "loaves": "loaf", "oxen": "ox", "leaves": "leaf",
              "glasses": "glass", "buses": "bus", "gases": "gas", "lenses": "lens", "canvases": "canvas",
              "chefs": "chef", "roofs": "roof", "doves": "dove", "gloves": "glove", "olives": "olive",
              "hives": "hive", "caves": "cave", "waves": "wave", "stoves": "stove", "archives": "archive",
              "beehives": "beehive", "cookies": "cookie", "movies": "movie", "pies": "pie", "ties": "tie",
              "brownies": "brownie", "zombies": "zombie", "fairies": "fairy", "selfies": "selfie",
              "hoodies": "hoodie", "smoothies": "smoothie", "axes": "axe", "shoes": "shoe", "horseshoes": "horseshoe",
              "toes": "toe", "canoes": "canoe", "vases": "vase", "purses": "purse", "geese": "goose"}  # fmt: skip


_PLURAL_ENDS = ("men", "ren", "mice", "lice", "dice", "feet", "teeth", "geese", "people", "oxen", "i", "kine", "dren")


@cache
def _engine():
    import inflect  # takes a second; only planners pay for it

    return inflect.engine()


@lru_cache(4096)
def plural(noun: str) -> str:
    """The plural of a singular noun or noun phrase: "cat" -> "cats", "bowl of fruit" -> "bowls of fruit"."""
    return _engine().plural_noun(noun) if noun.strip() else noun


@lru_cache(4096)
def singular(word: str) -> str | None:
    """The singular of a single plural word, in lower case ("Wolves" -> "wolf"); None when `word` is no plural.

    Words with one form for both ("sheep") count as not plural.
    """
    low = word.lower()
    if low in _IRREGULAR:
        return _IRREGULAR[low]
    if low in _SINGULAR_IN_S or low in _INVARIANT or low in PAIR_NOUNS or len(low) < 3 or low.endswith(("ss", "'s")):
        return None
    stem, dash, last = low.rpartition("-")
    if dash:
        one = singular(last)
        return one and f"{stem}-{one}"
    if low.endswith("s"):
        return _without_s(low)
    if not low.endswith(_PLURAL_ENDS):
        return None
    one = _engine().singular_noun(low)
    return one if one and one != low else None


def _without_s(low: str) -> str | None:
    """The singular of a word in -s: the first regular form that is a known noun; a guess for unknown words."""
    words = table()
    if "n" in words.get(low, ("", ""))[0] and words[low][1] and not low.endswith("ves"):
        plain = words.get(low[:-1], ("", ""))
        if "n" not in plain[0] or low.endswith(("us", "is", "os")):
            return None
    stems = [low[:-1]]
    if low.endswith("ies"):
        stems.insert(0, low[:-3] + "y")
    elif low.endswith("ves"):
        stems = [low[:-1], low[:-3] + "f", low[:-3] + "fe"]
    elif low.endswith(("shes", "ches", "xes", "sses", "zes")):
        stems.insert(0, low[:-2])
    elif low.endswith("es"):
        stems.append(low[:-2])
    for stem in stems:
        if "n" in words.get(stem, ("", ""))[0]:
            return stem
    if low in words or low.endswith(("us", "is", "os", "as")):
        return None
    if low.endswith(("shes", "ches", "xes", "sses", "zes")):
        return low[:-2]
    return stems[0]


def is_invariant(word: str) -> bool:
    """True for nouns with one form for singular and plural."""
    return word.lower() in _INVARIANT


def number_word(n: int) -> str:
    """2 -> "two", 21 -> "twenty-one"."""
    return str(_engine().number_to_words(cast(Any, n)))


@lru_cache(4096)
def with_article(phrase: str) -> str:
    """ "red cat" -> "a red cat", "orange car" -> "an orange car"."""
    return _engine().a(phrase) if phrase.strip() else phrase
