"""Does a layout give what its prompt asks for? A checker that would rather say nothing than raise a false alarm.

It reads the prompt with the offline planner's reader. What it does not understand is left to the language model and
listed in `Verdict.unsure`.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from ..english import inflection, lexicon
from ..english.nouns import colours_in, head, is_english, is_person, named, nouns, same
from ..english.reader import read
from ..english.scene import Scene, Thing
from ..layout import Box, Layout
from .relation_checks import checkable, denies_a_place, holds, opposites
from .usual_sizes import CONCRETE

MIN_SIDE = 0.02  # of the canvas: smaller boxes hold less than one cell of most models' attention
_OUTSIDE = 0.01
_SAME_KIND, _ANY_KIND = 0.5, 0.7  # intersection over union from which two boxes are taken for one place
_TOUCH = ("on", "in", "under", "behind", "front", "between")
_MOST_COUNTED = 10


@dataclass(frozen=True)
class Violation:
    """One thing that is wrong. `kind`: count, attribute, relation, negation, overlap, canvas, size, negative or
    background. `boxes` and `others` are object indices that geometry can mend; `relation` says what should hold;
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
    violations: tuple[Violation, ...]
    unsure: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
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
    found += [*_geometry(layout, scene), *_prompts(layout, scene)]
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
    return (
        thing.mass
        or thing.name
        or low in lexicon.PARTS | lexicon.CLOTHES | lexicon.MASS | lexicon.COLLECTIVES | lexicon.STYLE_NOUNS
        or low in inflection.PAIR_NOUNS
        or low in lexicon.MATTER
        or thing.count > _MOST_COUNTED
    )


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
    heads = [head(p) for p in phrases]
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
        name = inflection.plural(low) if want > 1 else inflection.with_article(low)
        if have > want and exact and not elliptic:
            found.append(Violation("count", f"there are {have} boxes for {inflection.plural(low)} instead of {want}"))
        elif 0 < have < want and not (low in spoken and have == 0):
            hint = "; write one box for each single one" if want > 1 else ""
            found.append(Violation("count", f"there are {have} boxes for {name} instead of {want}{hint}"))
        elif have == 0 and _surely_missing(low, kin, heads, spoken, behind, scene, exact):
            hint = f" {want} boxes" if want > 1 else " a box"
            found.append(Violation("count", f"{name} {'are' if want > 1 else 'is'} missing; it needs{hint}"))
    return found


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
        if not colours or not mine or (_open(thing, scene) and thing.head.lower() not in lexicon.CLOTHES):
            continue
        have = sum(bool(colours & colours_in(re.findall(r"[\w-]+", p.lower()))) for p in mine)
        if have < min(thing.count, len(mine)):
            said = " ".join(w for w in thing.before if w.lower() in lexicon.COLOURS)
            thing_ = inflection.with_article(f"{said} {thing.head.lower()}")
            found.append(Violation("attribute", f'the colour of "{thing_}" is missing from its name: write "{thing_}"'))
    return found


def _negations(scene: Scene, layout: Layout) -> list[Violation]:
    wanted = {t.head.lower() for t in scene.things}
    absent = {a for a in scene.absent_heads if not any(same(a, w) for w in wanted)}
    found = []
    for i, phrase in enumerate(_phrases(layout)):
        noun = head(phrase)
        if noun in absent or (is_person(noun) and absent & {"people", "person"}):
            text = f'"{phrase}" has a box although the caption rules it out: leave it away'
            found.append(Violation("negation", text, (i,)))
    return found


# relation -> the sentence of the complaint
_SAYING = {
    "left": "left of", "right": "right of", "above": "above", "below": "below", "on": "on", "under": "under",
    "in": "in", "between": "between",
}  # fmt: skip


def _relations(scene: Scene, layout: Layout, mine: dict[int, list[int]], prompt: str) -> list[Violation]:
    found = []
    for relation in (*scene.relations, *opposites(scene)):
        if relation.kind not in _SAYING or not checkable(relation, prompt):
            continue
        a = [i for t in relation.subjects for i in mine[id(t)]] if _all_here(relation.subjects, mine) else []
        b = [i for t in relation.targets for i in mine[id(t)]] if _all_here(relation.targets, mine) else []
        if not a or not b or set(a) & set(b):
            continue
        first, second = [layout.objects[i].box for i in a], [layout.objects[i].box for i in b]
        if not holds(relation.kind, first, second):
            names = layout.objects[a[0]].phrase, layout.objects[b[0]].phrase
            text = f'"{names[0]}" must be {_SAYING[relation.kind]} "{names[1]}", but its box is not'
            advice = _numbers(relation.kind, names, first[0], second[0], layout)
            found.append(Violation("relation", text, tuple(a), tuple(b), relation.kind, advice))
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


def _geometry(layout: Layout, scene: Scene | None) -> list[Violation]:
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
            limit = _SAME_KIND if a.phrase == b.phrase else _ANY_KIND
            if a.box.iou(b.box) > limit and not touching(scene, a.phrase, b.phrase):
                text = f'the boxes of "{a.phrase}" and "{b.phrase}" lie over each other: give each its own place'
                found.append(Violation("overlap", text, (i,), (j,)))
    return found


def touching(scene: Scene | None, a: str, b: str) -> bool:
    """Does the prompt put one of the two on, in, under, behind or in front of the other?"""
    if a == b:
        return False
    for r in scene.relations if scene else ():
        if r.kind in _TOUCH:
            for one, other in ((a, b), (b, a)):
                if any(matches(t, one) for t in r.subjects) and any(matches(t, other) for t in r.targets):
                    return True
    return scene is None and a != b  # nothing is known of a prompt that can't be read


def _prompts(layout: Layout, scene: Scene | None) -> list[Violation]:
    heads = {head(o.phrase) for o in layout.objects}
    excluded = scene.absent_heads if scene else set()
    found = []
    for noun in sorted(heads & named(layout.negative) - excluded):
        found.append(Violation("negative", f'"{noun}" has a box, so it must not be in the negative prompt'))
    for noun in sorted(heads & named(layout.background)):
        found.append(Violation("background", f'"{noun}" has a box, so it must not be in the background prompt'))
    return found


def matches(thing: Thing, phrase: str) -> bool:
    """Is `phrase` a name for `thing`?"""
    return same(thing.head.lower(), head(phrase))


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
