"""Layout -> the prompts of stage 2: one per object, one overall prompt with its phrase groups, the negative prompts.

Source: the LMD docs/lmd.md, 2 (LLM-groundedDiffusion@cef2a90, utils/parse.py and utils/latents.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from .english import inflection
from .english.nouns import head_index, strip_article
from .layout import Box, Layout

OVERALL_NEGATIVE = "artifacts, blurry, smooth texture, bad quality, distortions, unrealistic, distorted image, bad proportions, duplicate"
OBJECT_NEGATIVE = OVERALL_NEGATIVE + ", two, many, group, occlusion, occluded, side, border, collate"


@dataclass(frozen=True)
class ObjectPrompt:
    """What one object's own run needs. `word` is the last space-separated word of `phrase`; `box` as in the layout."""

    prompt: str
    phrase: str
    word: str
    box: Box


@dataclass(frozen=True)
class Group:
    """All boxes that share a name; `phrase` stands literally in the overall prompt ("two cats")."""

    phrase: str
    word: str
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class OverallPrompt:
    prompt: str
    groups: tuple[Group, ...]


def object_prompts(layout: Layout) -> tuple[ObjectPrompt, ...]:
    """One item per box, sorted by name (code points, stable). This order defines object indices and seeds."""
    ordered = sorted(layout.objects, key=lambda o: o.phrase)
    return tuple(
        ObjectPrompt(_scene(layout.background, o.phrase), o.phrase, _last_word(o.phrase), o.box) for o in ordered
    )


def overall_prompt(layout: Layout, include_counts: bool = True, exact: bool = False) -> OverallPrompt:
    """The prompt of the whole image and its groups; flattening the groups gives the order of `object_prompts`.

    `exact` repeats the reference's pluralisation letter by letter, faults included ("two pandbears").
    """
    named: dict[str, list[Box]] = {}
    for item in object_prompts(layout):
        named.setdefault(item.phrase, []).append(item.box)
    many = _exact_group_phrase if exact else _group_phrase
    groups = []
    for name, boxes in named.items():
        phrase = name if len(boxes) == 1 else many(name, len(boxes) if include_counts else 0)
        groups.append(Group(phrase, _last_word(phrase), tuple(boxes)))
    return OverallPrompt(_scene(layout.background, ", ".join(g.phrase for g in groups)), tuple(groups))


def with_negative(extra: str, default: str) -> str:
    """The layout's own negative prompt in front of a default list."""
    return f"{extra}, {default}" if extra else default


def _scene(background: str, things: str) -> str:
    return f"{background} with {things}" if background and things else background or things


def _last_word(phrase: str) -> str:
    return phrase.split(" ")[-1]


def _counted(noun: str, count: int) -> str:
    return f"{inflection.number_word(count)} {noun}" if count else noun


def _exact_group_phrase(name: str, count: int) -> str:
    return _counted(inflection.plural(name.replace("an ", "").replace("a ", "")), count)


def _group_phrase(name: str, count: int) -> str:
    bare = strip_article(name)
    tokens = bare.split(" ")
    head = head_index(tokens)
    already = bare == name and (
        tokens[head].lower() in inflection.PAIR_NOUNS or inflection.singular(tokens[head]) is not None
    )
    if not already:
        tokens[head] = inflection.plural(tokens[head]) or tokens[head]
    return _counted(" ".join(tokens), count)
