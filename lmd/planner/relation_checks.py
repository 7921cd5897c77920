"""What a prompt says about how things stand to each other, and when boxes surely break it.

The reader's word alone is not enough: a relation is judged only where its own words stand in the prompt before the
thing they govern ("two cars with one stop sign" puts nothing in a car).
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise, takewhile

from ..english import inflection, lexicon
from ..english.inflection import word_set
from ..english.nouns import head
from ..english.scene import Relation, Scene
from ..layout import Box

LEAST_DISTANCE = 0.03  # of the canvas, between the middles of what is left of, right of, above or below something
_LEAST_SHARE = 0.25  # ... and of the smaller side of the two
_GAP = 0.12
_FEET = 0.05  # how far the lower edge of what is behind may reach below the other's
_REACH = 7  # words from a preposition to the noun it governs
_COVERS = word_set("blanket sheet quilt duvet cloth tablecloth cover canopy umbrella veil net snow sky roof")
_HUNG = re.compile(r"\b(?:hang|hung|pinned|attached|printed|painted|mounted|stuck|sewn)\w*\b", re.I)
_ALOFT = word_set(  # their lower edge says nothing about how near they are
    """
    airplane plane helicopter kite drone bee butterfly dragonfly bird rocket cloud sun moon star rainbow ufo seagull
    eagle hawk owl balloon spaceship window mirror painting picture poster clock curtain frame lamp chandelier sign
    screen sky mountain
    """
)
_FLIES = re.compile(r"\b(?:fl(?:y|ies|ying|oat\w*)|hover\w*|jump\w*|leap\w*|hang\w*|fall\w*|swim\w*|div\w+)\b", re.I)
# "a tree with no star on top": the place belongs to what is not there.
_DENIED_PLACE = re.compile(
    r"\b(?:no|not|without|nobody|never)\b[^,.;]*\b(?:on|under|above|below|left|right|between|over|beneath)\b", re.I
)
# the reader's relation -> words before the target -> the rule it is judged by
_WORDS = {
    "above": (("above", "above"), ("over", "over")),
    "below": (("below", "below"), ("beneath underneath bottom foot base", "under")),
    "on": (("on onto upon atop", "on"),),
    "under": (("under beneath underneath", "under"),),
    "in": (("in inside into within", "in"),),
    "between": (("between among amongst amid amidst flanked surrounded", "between"),),
    "behind": (("behind back", "behind"),),
    "front": (("front before ahead", "front"),),
}
_PRONOUNS = word_set("it them him her")
_STOPS = word_set("with and or while but . , ; : ! ?")
_SUPPORTING = word_set("on onto upon atop in inside into within under beneath underneath behind front over")
_CONTACT = _SUPPORTING | word_set("against around through between among amid across along with at off from")
_AFTER_VERB = lexicon.DETERMINERS | set(lexicon.NUMBER_WORDS)  # "riding a", but not "sitting next to"
_SIDES = word_set("left right side top bottom front ahead")
_TOGETHER = re.compile(
    r"(?:her|his|its|their|together|other|another|feet|arms?|hands?|lap|crowd|pile|stack|row|"
    r"(?:hold|hug|rid|wear|carr|embrac|kiss|lean|cuddl|climb|danc|fight|play|pull|push|feed|chas|eat|touch)\w*)"
)  # words after both things that may bring them together


def denies_a_place(prompt: str) -> bool:
    """True if the prompt says where something is not."""
    return _DENIED_PLACE.search(prompt) is not None


def rule_for(relation: Relation, prompt: str) -> str:
    """The rule of `holds` that a relation of the reader's is judged by; "" where it is better not judged.

    "On" may mean that something hangs there, "under" that something covers it.
    """
    kind = relation.kind
    if kind in ("left", "right"):
        return kind if re.search(r"\b(?:left|right)\b", prompt, re.I) else ""
    if kind == "on" and _HUNG.search(prompt) or kind == "under" and any(t.head in _COVERS for t in relation.targets):
        return ""
    targets = [_forms(t.head) for t in relation.targets]
    tokens = _tokens(prompt)
    for words, rule in _WORDS.get(kind, ()):
        if any(_governs(tokens, word_set(words), forms | _PRONOUNS) for forms in targets):
            return rule
    return ""


@lru_cache(64)
def _tokens(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+(?:'\w+)?|[.,;:!?]", text.lower()))


def _forms(noun: str) -> frozenset[str]:
    """How a noun may stand in a text: its last word, singular and plural."""
    last = re.split(r"[\s_-]", noun.lower())[-1]
    return frozenset((last, inflection.plural(last)))


def _governs(tokens: tuple[str, ...], words: frozenset[str], forms: frozenset[str]) -> bool:
    """Does one of `words` stand closely before one of `forms`, with nothing between that ends its phrase?"""
    for i, token in enumerate(tokens):
        if token not in words:
            continue
        for after in tokens[i + 1 : i + 1 + _REACH]:
            if after in forms:
                return True
            if after in _STOPS:
                break
    return False


@lru_cache(4096)
def may_touch(prompt: str, a: str, b: str) -> bool:
    """Do the words of the prompt bring the things named `a` and `b` together: on, in, behind, riding, a part of?

    True also for what the prompt does not name: then nothing is known.
    """
    tokens = _tokens(prompt)
    forms = [_forms(head(p)) for p in (a, b)]
    found = [(i, t) for i, t in enumerate(tokens) if t in forms[0] or t in forms[1]]
    pairs = [
        (i, j)
        for (i, s), (j, t) in pairwise(found)
        if s in forms[0] and t in forms[1] or s in forms[1] and t in forms[0]
    ]
    if not pairs:
        return True
    return _joined(tokens, *min(pairs, key=lambda pair: pair[1] - pair[0]))


def _joined(tokens: tuple[str, ...], first: int, second: int) -> bool:
    """Do the words around two named things, at two places of a text, bring them together?"""
    between = tokens[first + 1 : second]
    if _CONTACT & set(between) or any(map(_TOGETHER.fullmatch, between)):
        return True
    for word, after in pairwise([tokens[first], *between, ""]):
        if word.endswith("ing") and after in _AFTER_VERB or after == "of" and word not in _SIDES:
            return True
    for token in tokens[max(first - 4, 0) : first][::-1]:  # "on a couch a cat"
        if token in _STOPS:
            break
        if token in _SUPPORTING:
            return True
    for token in tokens[second + 1 :]:
        if token in ".;!?":
            break
        if _TOGETHER.fullmatch(token):
            return True
    return False


def words_around(prompt: str, phrase: str) -> set[str]:
    """The words of `phrase`, and those that stand around its noun in the prompt, up to the next comma or full stop."""
    tokens, forms = _tokens(prompt), _forms(head(phrase))
    found = set(_tokens(phrase))
    for i, token in enumerate(tokens):
        if token in forms:
            for side in (tokens[max(i - _REACH, 0) : i][::-1], tokens[i + 1 : i + 1 + _REACH]):
                found.update(takewhile(lambda t: t not in _STOPS, side))
    return found


def opposites(scene: Scene) -> list[Relation]:
    """ "a cat on the left and a dog on the right" says where they are to each other."""
    out = []
    for axis, kind in ((0, "left"), (1, "above")):
        placed = [t for t in scene.things if t.position[axis] is not None]
        low, high = [t for t in placed if t.position[axis] < 0.4], [t for t in placed if t.position[axis] > 0.6]  # pyright: ignore[reportOptionalOperand]
        out += [Relation(kind, (a,), (b,)) for a in low for b in high]
    return out


def aloft(relation: Relation, prompt: str) -> bool:
    """Is there something in the air or on a wall among the ends of a relation, so that feet say nothing?"""
    heads = {t.head.lower() for t in (*relation.subjects, *relation.targets)}
    return bool(heads & _ALOFT) or _FLIES.search(prompt) is not None


def holds(rule: str, first: list[Box], second: list[Box], feet: bool = True) -> bool:
    """False only when a relation is surely broken: every subject stands wrongly to every target.

    `feet`: what is in front stands lower in the picture; False for what flies or hangs.
    """
    if rule == "between":
        spans = [sorted(b.centre[axis] for b in second) for axis in (0, 1)]
        if len(second) < 2:
            return True
        return any(s[0] < b.centre[axis] < s[-1] for b in first for axis, s in enumerate(spans))
    return any(_holds(rule, a, b, feet) for a in first for b in second)


def _holds(rule: str, a: Box, b: Box, feet: bool) -> bool:
    ay, by = a.centre[1], b.centre[1]
    across = max(a.x, b.x) - min(a.x + a.w, b.x + b.w)  # below 0: they share columns
    apart = max(a.y, b.y) - min(a.y + a.h, b.y + b.h)
    lower = a.y + a.h - b.y - b.h  # how much lower a stands
    meet = across < 0.02 and apart < _GAP
    return {
        "left": before(a, b, 0),
        "right": before(b, a, 0),
        "above": before(a, b, 1),
        "below": before(b, a, 1),
        "over": ay < by + LEAST_DISTANCE,
        "on": meet and ay < by + 0.25 * b.h,
        "under": across < _GAP and ay > by - 0.05,
        "in": across < _GAP and apart < _GAP,
        "behind": meet and (not feet or lower < _FEET),
        "front": meet and (not feet or lower > -_FEET or a.y > b.y and across < -0.9 * a.w),
    }.get(rule, True)


def before(a: Box, b: Box, axis: int) -> bool:
    """Is `a` left of (`axis` 0) or above (1) `b` by a distance that can be seen?"""
    side = min(a.w, b.w) if axis == 0 else min(a.h, b.h)
    return b.centre[axis] - a.centre[axis] >= max(LEAST_DISTANCE, _LEAST_SHARE * side) - 1e-9
