"""Does a layout give what its prompt asks for? A checker that would rather say nothing than raise a false alarm.

It reads the prompt with the offline planner's reader. What it does not understand is left to the language model and
listed in `Verdict.unsure`.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from ..english import inflection, lexicon
from ..english.nouns import colours_in, head, is_english, is_person, nouns, same
from ..english.reader import read
from ..english.scene import Scene, Thing
from ..layout import Box, Layout
from . import quality
from .relation_checks import aloft, denies_a_place, holds, may_touch, opposites, rule_for
from .usual_sizes import CONCRETE

MIN_SIDE = 0.02  # of the canvas: smaller boxes hold less than one cell of most models' attention
_OUTSIDE = 0.01
_TOUCH = ("on", "in", "under", "behind", "front", "between")
_MOST_COUNTED = 10


@dataclass(frozen=True)
class Violation:
    """One thing that is wrong. `kind`: count, attribute, relation, negation, overlap, canvas, size, negative or
    background. `boxes` and `others` are object indices that geometry can fix; `relation` says what should hold;
    `advice` is for the language model alone: which numbers to change.
    """

    kind: str
    text: str
    boxes: tuple[int, ...] = ()
    others: tuple[int, ...] = ()
    relation: str = ""
    advice: str = ""


@dataclass(frozen=True)
class Verdict:
    """What is wrong with a layout, and what could not be decided."""

    violations: tuple[Violation, ...]
    unsure: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """True if nothing is wrong."""
        return not self.violations


def check(prompt: str, layout: Layout) -> Verdict:
    """Everything that is surely wrong with `layout` for `prompt`."""
    scene, unsure = understand(prompt)
    doubtful = bool(unsure)
    found: list[Violation] = []
    if scene is not None:
        mine = {id(t): boxes_of(t, scene, layout) for t in scene.things}
        found += [*_negations(scene, layout), *_attributes(scene, layout)]
        if doubt := _uncountable(prompt, scene):
            unsure = (*unsure, f'"{doubt}" leaves the numbers open, so they were not checked')
        elif not doubtful:
            found += _counts(scene, layout, elliptic=bool(_ELLIPSIS.search(prompt)))
        if not doubtful and not denies_a_place(prompt):
            found += _relations(scene, layout, mine, prompt)
    found += [*_geometry(prompt, layout), *_prompts(layout, scene)]
    return Verdict(tuple(found), unsure)


@functools.lru_cache(maxsize=64)  # a repair checks dozens of candidates for one prompt
def understand(prompt: str) -> tuple[Scene | None, tuple[str, ...]]:
    """What the prompt says, or None; and what of it was not understood."""
    text = prompt.strip()
    if not text:
        return None, ()
    if not is_english(text):
        return None, ("the prompt is not in English, so only the boxes themselves were checked",)
    scene = read(text[:4000])
    return scene, tuple(n for n in scene.notes if n.startswith("not understood"))


def _phrases(layout: Layout) -> list[str]:
    return [o.phrase for o in layout.objects]


def _open(thing: Thing, scene: Scene) -> bool:
    """Is the number of `thing` left open, or nothing that a box must show?"""
    low = thing.head.lower()
    for note in scene.notes:
        quoted = re.match(r'"(?:\d+ )?([^"]+)": (?:no|more)', note)
        if quoted and same(head(quoted[1]), low):
            return True
    if thing.name or thing.count > _MOST_COUNTED or low in lexicon.PARTS | lexicon.COLLECTIVES:
        return True
    if low in lexicon.CLOTHES:  # "two hats and a cup" are things, the hats of two men need no boxes
        return any(t.animate for t in scene.things) or not _numbered(thing)
    vague = lexicon.MASS | lexicon.STYLE_NOUNS | lexicon.MATTER | inflection.PAIR_NOUNS
    compound = " " in whole_noun(thing)  # a traffic light is no light
    return not _numbered(thing) and (thing.mass or (low in vague and not compound))


def _numbered(thing: Thing) -> bool:
    """Did the prompt give a number above one, which makes things even of bread, paintings and clouds?"""
    return thing.counted and thing.count > 1


def whole_noun(thing: Thing) -> str:
    """The noun with what makes a compound of it: "parking meter", "teddy bear"."""
    words = [thing.head.lower()]
    for word in reversed(thing.before):
        if word.lower() in lexicon.ADJECTIVES:
            break
        words.insert(0, word.lower())
    return " ".join(words).replace("_", " ")


# "three monkeys in a tree and one on the ground" are four: such a number is a lower bound.
_ELLIPSIS = re.compile(
    rf"\b(?:{'|'.join(lexicon.NUMBER_WORDS[1:])}|another|others?|ones|some|more)\b"
    r"(?=\s+(?:in|on|at|under|over|above|below|behind|beside|between|near|next|to|by|with|is|are|of|from|who|that)\b"
    r"|\s*[,.;]|\s*$)",
    re.I,
)
_DOUBT = re.compile(
    r"\b(?:except|missing|instead|rather|each|every|half|halves|pairs|either|neither|unless|maybe|perhaps|reflection|"
    r"reflected|mirrored|pieces|slices)\b",
    re.I,
)


def _uncountable(prompt: str, scene: Scene) -> str:
    """A word that makes numbers of things doubtful, or ""."""
    found = _DOUBT.search(prompt) or (None if scene.absent else re.search(r"\bor\b", prompt, re.I))
    return found[0] if found else ""


def _counts(scene: Scene, layout: Layout, elliptic: bool) -> list[Violation]:
    found = []
    phrases = _phrases(layout)
    heads = [_noun(p) for p in phrases]
    spoken = set(nouns(" ".join(phrases)))
    behind = nouns(layout.background)
    done: list[str] = []
    for thing in scene.things:
        low = thing.head.lower()
        if any(same(low, d) for d in done) or _unreadable(low):
            continue
        done.append(low)
        kin = [t for t in scene.things if same(t.head.lower(), low)]
        if any(_open(t, scene) for t in kin):
            continue
        want = sum(t.count for t in kin)
        exact = all(t.counted for t in kin) and want > 0
        have = sum(same(low, h) for h in heads)
        wholes = {whole_noun(t) for t in kin}
        noun = wholes.pop() if len(wholes) == 1 else low
        name = inflection.plural(noun) if want > 1 else inflection.with_article(noun)
        if have > want and exact and not elliptic:
            found.append(Violation("count", f"there are {have} boxes for {inflection.plural(noun)} instead of {want}"))
        elif 0 < have < _least(kin):
            hint = "; write one box for each single one" if want > 1 else ""
            boxes = "is 1 box" if have == 1 else f"are {have} boxes"
            found.append(Violation("count", f"there {boxes} for {name} instead of {want}{hint}"))
        elif have == 0 and _surely_missing(low, kin, heads, spoken, behind, scene, exact):
            hint = f" {want} boxes" if want > 1 else " a box"
            found.append(Violation("count", f"{name} {'are' if want > 1 else 'is'} missing; it needs{hint}"))
    return found


def _least(kin: list[Thing]) -> int:
    """How many boxes a noun surely needs: what is named again without a difference may be the same thing."""
    least: dict[tuple[str, ...], int] = {}
    for thing in kin:
        key = tuple(thing.before)
        apart = thing.group or thing.counted
        least[key] = least.get(key, 0) + thing.count if apart else max(least.get(key, 0), thing.count)
    return sum(least.values())


def _unreadable(low: str) -> bool:
    return not re.fullmatch(r"[a-z][a-z'-]+", low)


def _known(noun: str) -> bool:
    return noun in lexicon.ANIMATE or noun in CONCRETE


def _surely_missing(low, kin, heads, spoken, behind, scene: Scene, exact: bool) -> bool:
    """No box, no other phrase and no synonym stands for it, and it is not a place that the background may hold."""
    if low in spoken or any(same(low, s) for s in spoken if s in lexicon.ANIMATE | CONCRETE):
        return False
    if any(same(low, w) for w in behind) and not (exact or any(t.position != (None, None) for t in kin)):
        return False
    if low in lexicon.PLACES or low in lexicon.BUILT or low.endswith(lexicon.PLACE_ENDINGS):
        return False
    wanted = {t.head.lower() for t in scene.things}
    strangers = [h for h in heads if not any(same(h, w) for w in wanted)]
    return _known(low) and all(map(_known, strangers))  # "dinner" and "everywhere" are nothing that must be seen


def _attributes(scene: Scene, layout: Layout) -> list[Violation]:
    found = []
    for thing in scene.things:
        colours = colours_in(thing.before)
        mine = [p for p in _phrases(layout) if matches(thing, p)]
        low = thing.head.lower()
        if not colours or not mine or (_open(thing, scene) and low not in lexicon.CLOTHES | inflection.PAIR_NOUNS):
            continue
        have = sum(bool(colours & colours_in(re.findall(r"[\w-]+", p.lower()))) for p in mine)
        if have < min(thing.count, len(mine)):
            first = next(i for i, w in enumerate(thing.before) if colours_in([w]))
            name = " ".join((*thing.before[first:], thing.head.lower())).replace("_", " ")
            name = name if low in inflection.PAIR_NOUNS else inflection.with_article(name)
            found.append(Violation("attribute", f'the colour of "{name}" is missing from its name: write "{name}"'))
    return found


def _negations(scene: Scene, layout: Layout) -> list[Violation]:
    wanted = {t.head.lower() for t in scene.things}
    absent = {a for a in scene.absent_heads if not any(same(a, w) for w in wanted)}
    found = []
    for i, phrase in enumerate(_phrases(layout)):
        noun = head(phrase)
        if noun in absent or (is_person(noun) and absent & {"people", "person"}):
            text = f'"{phrase}" has a box although the caption rules it out: leave it out'
            found.append(Violation("negation", text, (i,)))
    return found


# rule -> the words of the complaint; the others are their own
_SAYING = {"left": "left of", "right": "right of", "front": "in front of"}


def _relations(scene: Scene, layout: Layout, mine: dict[int, list[int]], prompt: str) -> list[Violation]:
    found = []
    judged = [(rule_for(r, prompt), r) for r in scene.relations] + [(r.kind, r) for r in opposites(scene)]
    for rule, relation in judged:
        if not rule:
            continue
        a = [i for t in relation.subjects for i in mine[id(t)]] if _all_here(relation.subjects, mine) else []
        b = [i for t in relation.targets for i in mine[id(t)]] if _all_here(relation.targets, mine) else []
        if not a or not b or set(a) & set(b):
            continue
        first, second = [layout.objects[i].box for i in a], [layout.objects[i].box for i in b]
        if not holds(rule, first, second, feet=not aloft(relation, prompt)):
            names = layout.objects[a[0]].phrase, layout.objects[b[0]].phrase
            text = f'"{names[0]}" must be {_SAYING.get(rule, rule)} "{names[1]}", but its box is not'
            advice = _numbers(rule, names, first[0], second[0], layout)
            found.append(Violation("relation", text, tuple(a), tuple(b), rule, advice))
    pairs = {id(t) for r in opposites(scene) for t in (*r.subjects, *r.targets)}
    for thing in scene.things:
        if thing.position != (None, None) and mine[id(thing)] and id(thing) not in pairs:
            found += _position(thing, layout, mine[id(thing)])
    return list(dict.fromkeys(found))


def _numbers(kind: str, names: tuple[str, str], a: Box, b: Box, layout: Layout) -> str:
    """Where the two boxes are and which way to move them, in the numbers that a language model writes."""
    if kind not in ("left", "right", "above", "below"):
        return ""
    axis = 1 if kind in ("above", "below") else 0
    side, size = ("top", layout.height) if axis else ("left", layout.width)
    at = [round(box.corners[axis] * size) for box in (a, b)]
    less, more = names if kind in ("left", "above") else names[::-1]
    return (
        f' ({side} {at[0]} and {side} {at[1]}): give "{less}" a much smaller {side} and "{more}" a much larger {side}'
    )


def _all_here(things: tuple[Thing, ...], mine: dict[int, list[int]]) -> bool:
    return all(mine.get(id(t)) for t in things)


def _position(thing: Thing, layout: Layout, mine: list[int]) -> list[Violation]:
    for axis, (low, high) in enumerate((("left", "right"), ("top", "bottom"))):
        where = thing.position[axis]
        if where is None or 0.4 <= where <= 0.6:
            continue
        side, wrong = (low, 0.6) if where < 0.4 else (high, 0.4)
        centres = [layout.objects[i].box.centre[axis] for i in mine]
        if all(c > wrong if where < 0.4 else c < wrong for c in centres):
            text = f'"{layout.objects[mine[0]].phrase}" must be on the {side} of the picture, but its box is not'
            return [Violation("relation", text, tuple(mine), (), f"at {side}")]
    return []


def _geometry(prompt: str, layout: Layout) -> list[Violation]:
    found = []
    for i, o in enumerate(layout.objects):
        x0, y0, x1, y1 = o.box.corners
        if min(x0, y0) < -_OUTSIDE or max(x1, y1) > 1 + _OUTSIDE:
            found.append(Violation("canvas", f'the box of "{o.phrase}" leaves the canvas', (i,)))
        if min(o.box.w, o.box.h) < MIN_SIDE:
            found.append(Violation("size", f'the box of "{o.phrase}" is too small to draw anything in', (i,)))
    for i, a in enumerate(layout.objects):
        for j in range(i + 1, len(layout.objects)):
            b = layout.objects[j]
            if a.box.iou(b.box) > quality.ONE_PLACE and not touching(prompt, a.phrase, b.phrase):
                text = f'the boxes of "{a.phrase}" and "{b.phrase}" lie over each other: give each its own place'
                found.append(Violation("overlap", text, (i,), (j,)))
    return found


@functools.lru_cache(maxsize=4096)
def touching(prompt: str, a: str, b: str) -> bool:
    """Does the prompt put one of the two on, in, under, behind or in front of the other, or join them otherwise?"""
    if a == b:
        return False
    scene, _ = understand(prompt)
    for r in scene.relations if scene else ():
        if r.kind in _TOUCH:
            for one, other in ((a, b), (b, a)):
                if any(matches(t, one) for t in r.subjects) and any(matches(t, other) for t in r.targets):
                    return True
    return scene is None or may_touch(prompt, a, b)  # nothing is known of a prompt that can't be read


def _prompts(layout: Layout, scene: Scene | None) -> list[Violation]:
    excluded = scene.absent_heads if scene else set()
    found = []
    for noun in quality.wanted_in_negative(layout):
        if noun not in excluded:
            found.append(Violation("negative", f'"{noun}" has a box, so it must not be in the negative prompt'))
    for noun in quality.boxed_in_background(layout):
        found.append(Violation("background", f'"{noun}" has a box, so it must not be in the background prompt'))
    return found


def matches(thing: Thing, phrase: str) -> bool:
    """Is `phrase` a name for `thing`?"""
    return same(thing.head.lower(), _noun(phrase))


def _noun(phrase: str) -> str:
    """The head of a phrase, and of "a pair of scissors" the scissors: they are one thing."""
    _, _, last = phrase.lower().rpartition("pair of ")
    return head(last) if head(last) in inflection.PAIR_NOUNS else head(phrase)


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
