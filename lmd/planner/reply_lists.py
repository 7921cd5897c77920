"""Which of the lists in a reply is meant: the last one, several single boxes together, never a draft without a note."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

from .literals import Budget, LiteralError, read_literal
from .reply_shapes import Found, boxes_in, looks_like_boxes

_BRACKET = re.compile(r"[\[{(]")
_DOUBLE_BRACE = re.compile(r"\{\s{0,40}(?=\{)")
_LABEL_BEFORE = re.compile(
    r"(?:objects?|boxes|layout)(?: list)?[*_`'\"]{0,8}\s{0,8}[:=][*_`\s]{0,20}(?:\w{1,10}\n\s{0,4})?\Z", re.I
)
_BETWEEN = re.compile(r"[\s,;.\-*\u2022>_`\d)|#]{0,40}(?:(?:and|object|box|item)\b[\s\d.:#)*]{0,12})?", re.I)
_CAPTION = re.compile(r"(?:^|\n)[ \t*#>-]{0,8}caption[*_]{0,4}:[*_ \t]{0,8}([^\n]{0,300})", re.I)


@dataclass(frozen=True)
class Listing:
    """Boxes at `start`..`stop` of a text. `notes` say what else was there."""

    start: int
    stop: int
    found: Found
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Broken:
    """Something at `start` that looks like boxes and can't be read."""

    start: int
    error: LiteralError


def chosen(text: str) -> Listing | Broken | None:
    """The boxes that the text means, or what is in the way of reading them; None when it holds no boxes."""
    seen = _seen(text)
    listings = [s for s in seen if isinstance(s, Listing)]
    sure = [s for s in seen if isinstance(s, Broken) and looks_like_boxes(text[s.start : s.start + 400], surely=True)]
    if not listings:
        return sure[-1] if sure else next((s for s in seen if isinstance(s, Broken)), None)
    if sure and sure[-1].start > listings[-1].start:
        return sure[-1]
    lists = [s for s in listings if s.found.listed]
    if not lists:
        return sure[-1] if sure else _together(listings)
    best = _last(text, lists)
    names = {name for name, _ in best.found.boxes}
    spare = [s for s in listings if not s.found.listed and s.found.boxes[0][0] not in names]
    notes = list(best.notes)
    if sure:
        notes.append("another list in the reply can't be read and was left out")
    if spare:
        notes.append(f'boxes beside the list were left out, such as "{spare[0].found.boxes[0][0][:60]}"')
    return Listing(best.start, best.stop, best.found, tuple(notes))


def _seen(text: str) -> list[Listing | Broken]:
    """Everything that is boxes, or looks so, in the order of the text."""
    budget, seen, at = Budget(text), [], 0
    while (bracket := _BRACKET.search(text, at)) and budget.left >= 0:
        start = bracket.start()
        at = start + 1
        try:
            value, stop = read_literal(text, start, budget)
        except LiteralError as error:
            if looks_like_boxes(text[start : start + 400]) and not _DOUBLE_BRACE.match(text, start):
                seen.append(Broken(start, error))
                if looks_like_boxes(text[start : start + 400], surely=True):
                    at = max(at, error.position)
            continue
        found = boxes_in(value)
        if found is not None and (found.boxes or isinstance(value, dict) or _alone(text, start, stop)):
            seen.append(Listing(start, stop, found))
            at = stop
    return _joined(text, seen)


def _joined(text: str, seen: Sequence[Listing | Broken]) -> list[Listing | Broken]:
    """Neighbours with one box each, with nothing but commas, numbers and bullets between them, are one list."""
    groups: list[list[Listing | Broken]] = []
    for item in seen:
        last = groups[-1][-1] if groups else None
        if _single(item) and _single(last) and _BETWEEN.fullmatch(text[last.stop : item.start][:200]):
            groups[-1].append(item)
        else:
            groups.append([item])
    return [group[0] if len(group) == 1 else _one_of(group) for group in groups]


def _one_of(group: Sequence[Listing | Broken]) -> Listing:
    """Neighbours that belong together as one list."""
    lists = [item for item in group if isinstance(item, Listing)]
    return Listing(lists[0].start, lists[-1].stop, _merged([item.found for item in lists], listed=True))


def _single(item: Listing | Broken | None) -> TypeGuard[Listing]:
    found = item.found if isinstance(item, Listing) else None
    return found is not None and len(found.boxes) == 1 and not (found.background or found.negative)


def _merged(parts: Sequence[Found], listed: bool) -> Found:
    boxes = []
    for part in parts:
        boxes += [b for b in part.boxes if b not in boxes[-50:]]
    background = next((p.background for p in reversed(parts) if p.background), "")
    negative = next((p.negative for p in reversed(parts) if p.negative), "")
    canvas = next((p.canvas for p in reversed(parts) if p.canvas), None)
    notes = tuple(dict.fromkeys(n for p in parts for n in p.notes))
    shares = all(p.fractions for p in parts)
    return Found(boxes, background, negative, canvas, shares, notes, listed, all(p.unsure for p in parts))


def _together(singles: Sequence[Listing]) -> Listing:
    """Single boxes with talk between them, all of them."""
    if len(singles) == 1:
        return singles[0]
    found = _merged([s.found for s in singles], listed=True)
    note = f"the reply has no list; the {len(found.boxes)} boxes in its sentences were taken together"
    return Listing(singles[0].start, singles[-1].stop, found, (note,))


def _last(text: str, lists: Sequence[Listing]) -> Listing:
    """The last list, without those for other captions, which a model without an end goes on to invent."""
    captions = [(m.start(), " ".join(m[1].split()).lower()) for m in _CAPTION.finditer(text)]
    behind = lists[0].stop
    first = next((c for at, c in reversed(captions) if at < lists[0].start), None)
    other = next((at for at, c in captions if at >= behind and c != first), len(text))
    mine = [s for s in lists if s.start < other]
    notes = ["lists for other captions were left out"] if len(mine) < len(lists) else []
    best = mine[-1]
    for former in reversed(mine[:-1]):  # a list that repeats a part of a labelled one is a remark about it
        names = [name for name, _ in best.found.boxes]
        labelled = _LABEL_BEFORE.search(text[max(former.start - 80, 0) : former.start])
        if labelled and len(names) < len(former.found.boxes) and set(names) <= {n for n, _ in former.found.boxes}:
            best = former
            break
    if len(mine) > 1 and any(s.found.boxes != best.found.boxes for s in mine):
        which = "the last one" if best is mine[-1] else "the most complete one"
        notes.append(f"the reply holds {len(mine)} lists of boxes; {which} was taken, the others may be drafts")
    return Listing(best.start, best.stop, best.found, tuple(notes))


def _alone(text: str, start: int, stop: int) -> bool:
    """Does the empty list at `start` stand alone, on its own line or behind the objects label?"""
    before = text[text.rfind("\n", max(start - 80, 0), start) + 1 or max(start - 80, 0) : start].strip(" `*>")
    return (not before or bool(_LABEL_BEFORE.search(before + " "))) and text[stop : stop + 1] in (
        "",
        "\n",
        "\r",
        " ",
        "`",
    )
