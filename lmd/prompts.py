"""Layout -> the prompts of stage 2: one per object, one overall prompt with its phrase groups, the negative prompts.

Source: docs/lmd.md, 2 (LLM-groundedDiffusion@cef2a90, utils/parse.py and utils/latents.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .english import inflection
from .english.nouns import head_index, strip_article
from .layout import Box, Layout
from .object_settings import ObjectSettings

OVERALL_NEGATIVE = "artifacts, blurry, smooth texture, bad quality, distortions, unrealistic, distorted image, bad proportions, duplicate"
OBJECT_NEGATIVE = OVERALL_NEGATIVE + ", two, many, group, occlusion, occluded, side, border, collate"


Span = tuple[int, int]  # first character and the one behind the last


@dataclass(frozen=True)
class ObjectPrompt:
    """What one object's own run needs. `word` is the last space-separated word of `phrase`; `box` as in the layout.

    `span` is where the phrase stands in `prompt`, `number` the object's in the layout, from 1.
    """

    prompt: str
    phrase: str
    word: str
    box: Box
    span: Span | None = None
    number: int = 0
    settings: ObjectSettings = ObjectSettings()


@dataclass(frozen=True)
class Group:
    """All boxes that share a name; `phrase` stands literally in the overall prompt ("two cats").

    `span` is where it stands there, `name` the name of one of them ("a cat"), `numbers` those of the boxes in the
    layout's picture, from 1.
    """

    phrase: str
    word: str
    boxes: tuple[Box, ...]
    span: Span | None = None
    name: str = ""
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True)
class OverallPrompt:
    """The composition's prompt and the groups of boxes that it names."""

    prompt: str
    groups: tuple[Group, ...]


def object_prompts(layout: Layout) -> tuple[ObjectPrompt, ...]:
    """One item per box, sorted by name (code points, stable). This order defines object indices and seeds."""
    items = []
    for number, o in sorted(enumerate(layout.objects, 1), key=lambda pair: pair[1].phrase):
        prompt, (span,) = _scene(layout.background, [o.phrase], [o.settings.words])
        items.append(ObjectPrompt(prompt, o.phrase, _last_word(o.phrase), o.box, span, number, o.settings))
    return tuple(items)


def overall_prompt(layout: Layout, include_counts: bool = True, exact: bool = False) -> OverallPrompt:
    """The prompt of the whole image and its groups; flattening the groups gives the order of `object_prompts`.

    `exact` repeats the reference's pluralisation letter by letter, faults included ("two pandbears").
    """
    named: dict[str, list[tuple[int, Box]]] = {}
    for number, item in sorted(enumerate(layout.objects, 1), key=lambda pair: pair[1].phrase):
        named.setdefault(item.phrase, []).append((number, item.box))
    many = _exact_group_phrase if exact else _group_phrase
    phrases = [n if len(own) == 1 else many(n, len(own) if include_counts else 0) for n, own in named.items()]
    words = [
        ", ".join(dict.fromkeys(filter(None, (layout.objects[i - 1].settings.words for i, _ in own))))
        for own in named.values()
    ]
    prompt, spans = _scene(layout.background, phrases, words)
    groups = []
    for (name, own), phrase, span in zip(named.items(), phrases, spans):
        numbers, boxes = zip(*own)
        groups.append(Group(phrase, _last_word(phrase), boxes, span, name, numbers))
    return OverallPrompt(prompt, tuple(groups))


def with_negative(extra: str, default: str) -> str:
    """The layout's own negative prompt in front of a default list."""
    return f"{extra}, {default}" if extra else default


def overall_negative(layout: Layout, own: bool = True) -> str:
    """The negative prompt of the whole image; `own`: with what the layout itself rules out in front."""
    return with_negative(layout.negative if own else "", OVERALL_NEGATIVE)


def object_negative(layout: Layout, own: bool = True) -> str:
    """The negative prompt of every object's own run; `own` as in `overall_negative`."""
    return with_negative(layout.negative if own else "", OBJECT_NEGATIVE)


def written(text: str) -> str:
    """`text` as it stands in a prompt: a parenthesis without its partner gets a backslash, so that it stays a word.

    Pairs are left alone: they are the host's syntax for weights, "(a red cat:1.3)".
    """
    opened: list[int] = []
    alone: set[int] = set()
    for i, char in enumerate(text):
        if char not in "()" or text[i - 1 : i] == "\\":
            continue
        if char == "(":
            opened.append(i)
        elif opened:
            opened.pop()
        else:
            alone.add(i)
    alone.update(opened)
    return "".join("\\" * (i in alone) + char for i, char in enumerate(text)) if alone else text


def _scene(background: str, things: list[str], words: list[str]) -> tuple[str, list[Span]]:
    """ "background with thing, its words, thing", and where each thing stands in it.

    Tokenizers join neighbouring marks to one token, so a comma keeps away from a thing that ends with one.
    """
    prompt = written(background) + (" with " if background and things and any(things) else "")
    spans = []
    for i, thing in enumerate(map(written, things)):
        prompt += _comma(prompt) if i else ""
        spans.append((len(prompt), len(prompt) + len(thing)))
        prompt += thing
        prompt += _comma(prompt) + written(words[i]) if words[i] else ""
    return prompt, spans


def _comma(prompt: str) -> str:
    return ", " if prompt[-1:].isalnum() else " , "


_WEIGHTED = re.compile(r"(\(+)([^()]*?)((?:: *[\d.]+ *)?\)+)")


def _unweighted(phrase: str) -> tuple[str, str, str]:
    """("(", "a red cat", ":1.3)") of a phrase that is weighted as a whole, else ("", phrase, "")."""
    found = _WEIGHTED.fullmatch(phrase)
    return (found[1], found[2], found[3]) if found else ("", phrase, "")


def _last_word(phrase: str) -> str:
    return _unweighted(phrase)[1].split(" ")[-1]


def _counted(noun: str, count: int) -> str:
    return f"{inflection.number_word(count)} {noun}" if count else noun


def _exact_group_phrase(name: str, count: int) -> str:
    return _counted(inflection.plural(name.replace("an ", "").replace("a ", "")), count)


def _group_phrase(name: str, count: int) -> str:
    before, name, after = _unweighted(name)
    bare = strip_article(name)
    tokens = bare.split(" ")
    head = head_index(tokens)
    already = bare == name and (
        tokens[head].lower() in inflection.PAIR_NOUNS or inflection.singular(tokens[head]) is not None
    )
    if not already:
        tokens[head] = inflection.plural(tokens[head]) or tokens[head]
    return before + _counted(" ".join(tokens), count) + after
