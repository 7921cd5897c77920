"""A changed layout keeps what the instruction does not mention, box for box, whatever the language model wrote."""

from __future__ import annotations

import re
from dataclasses import replace

from ..english.inflection import word_set
from ..english.lexicon import NUMBER_WORDS
from ..english.nouns import colours_in, head, is_english, nouns, same
from ..layout import Layout, LayoutObject

_ALL = word_set("all everything everybody everyone both every each them they things objects rest others")
_SCENE = word_set("background scene style setting place backdrop photo painting negative without")
_PLAIN = word_set("a an the of in on at with and or to is are it no realistic photo scene")
_ADDING = word_set("add insert include draw place put create append introduce")
_GOES_ON = word_set("a an the another some more") | set(NUMBER_WORDS[1:])
_SNAP = 1.5  # pixels: what rounding to whole numbers may move


def keep_unspoken(previous: Layout, new: Layout, instruction: str) -> Layout:
    """`new` with every object, and the background and negative prompt, restored that `instruction` leaves alone.

    An instruction that mentions everything, or is not in English, only has its rounding undone.
    """
    if set(re.findall(r"\w+", instruction.lower())) & _ALL or not is_english(instruction):
        return replace(new, objects=tuple(_snapped(o, previous, new) for o in new.objects))
    spoken = _spoken(previous, instruction)
    left = list(new.objects)
    for i, old in enumerate(previous.objects):
        if not spoken[i]:
            _take(left, old, any_box=not any(spoken[j] and same_head(old, o) for j, o in enumerate(previous.objects)))
    objects: list[LayoutObject] = []
    for i, old in enumerate(previous.objects):
        found = old if not spoken[i] else _take(left, old, any_box=True)
        if found is not None:
            objects.append(found if found is old else _snapped(found, previous, new))
    about = set(nouns(instruction))
    background, negative = (
        _text(getattr(previous, field), getattr(new, field), about) for field in ("background", "negative")
    )
    return replace(new, objects=(*objects, *left), background=background, negative=negative)


def same_head(a: LayoutObject, b: LayoutObject) -> bool:
    """True if both phrases name the same kind of thing."""
    return head(a.phrase) == head(b.phrase)


def _mentions(instruction: str) -> list[tuple[str, set[str]]]:
    """The nouns that an instruction mentions, each with the colours in front of it; what is only added is left out."""
    found = []
    adding = False
    for clause in re.split(r"[,.;:]|\band\b|\bthen\b", instruction.lower()):
        tokens = re.findall(r"[\w'-]+", clause)
        if tokens and tokens[0] not in _GOES_ON:
            adding = tokens[0] in _ADDING and "the" not in tokens[1:2]
        for i, noun in enumerate(nouns(clause)):
            if not adding and noun not in _PLAIN:
                found.append((noun, colours_in(tokens[max(i - 3, 0) : i])))
    return found


def _spoken(previous: Layout, instruction: str) -> list[bool]:
    """Which objects the instruction names: by their own noun, else by a near synonym; a colour tells twins apart."""
    heads = [head(o.phrase) for o in previous.objects]
    mentions = _mentions(instruction)
    named = {n for n, _ in mentions}
    out = []
    for o, noun in zip(previous.objects, heads):
        own = colours_in(o.phrase.lower().split())
        mine = [c for n, c in mentions if n == noun or (noun not in named and n not in heads and same(noun, n))]
        out.append(any(not c or c & own for c in mine))
    return out


def _take(left: list[LayoutObject], old: LayoutObject, any_box: bool) -> LayoutObject | None:
    """Remove from `left` and return what the model made of `old`: the same phrase, else (`any_box`) the same noun."""
    found = next((o for o in left if o.phrase.lower() == old.phrase.lower()), None)
    if found is None and any_box:
        found = next((o for o in left if same_head(o, old)), None)
    if found is not None:
        left.remove(found)
    return found


def _snapped(new: LayoutObject, previous: Layout, canvas: Layout) -> LayoutObject:
    for old in previous.objects:
        if old.phrase.lower() == new.phrase.lower():
            moved = [abs(a - b) for a, b in zip(old.box.corners, new.box.corners)]
            if max(moved[0::2]) * canvas.width <= _SNAP and max(moved[1::2]) * canvas.height <= _SNAP:
                return old
    return new


def _text(before: str, after: str, about: set[str]) -> str:
    """The model's new text only where the instruction mentions what changed in it, or of the scene as such."""
    old, new = set(nouns(before)) - _PLAIN, set(nouns(after)) - _PLAIN
    return after if (old ^ new) & about or about & _SCENE else before
