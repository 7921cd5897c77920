"""Judges a layout against the expectations of tests/data/user_prompts.json.

An expectation may hold: count {noun: n}; objects [noun] (at least one box each); objects_total n; neg / not_neg (words in /
not in the negative prompt; `neg: []` for none at all); not_objects (text in no box's phrase); attr (text in some phrase);
bg (text in the background); note (text in the notes); left, above, beside, between, inside, larger (lists of nouns: the
first against the others); small [noun] (less than 6 % of the canvas); phrases_are_noun_phrases (a counted noun ends its phrase).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ella_lmd.lmd.layout import Box, Layout

FILE = Path(__file__).resolve().parents[2] / "tests" / "data" / "user_prompts.json"
_GAP = 0.03
_PLURALS = {"mouse": "mice", "person": "people", "child": "children"}


def load() -> list[dict[str, Any]]:
    return json.loads(FILE.read_text(encoding="utf-8"))


def complaints(layout: Layout, expect: dict[str, Any]) -> list[str]:
    """What is wrong with a layout; empty when everything is as expected."""
    return [*_objects(layout, expect), *_words(layout, expect), *_places(layout, expect)]


def _has(noun: str, phrase: str) -> bool:
    stem, ends = (noun[:-1], "(y|ies)") if noun.endswith("y") else (noun, "(s|es|ren)?")
    names = [rf"{re.escape(stem)}{ends}", *([_PLURALS[noun]] if noun in _PLURALS else [])]
    return any(re.search(rf"\b{name}\b", phrase) for name in names)


def _boxes(layout: Layout, noun: str) -> list[Box]:
    return [o.box for o in layout.objects if _has(noun, o.phrase.lower())]


def _objects(layout: Layout, expect: dict[str, Any]) -> list[str]:
    phrases = [o.phrase.lower() for o in layout.objects]
    bad = []
    for noun, wanted in expect.get("count", {}).items():
        have = [p for p in phrases if _has(noun, p)]
        if len(have) != wanted:
            bad.append(f"{noun}: {len(have)} boxes instead of {wanted}")
        if expect.get("phrases_are_noun_phrases") and have and not any(_has(noun, p.split()[-1]) for p in have):
            bad.append(f"{noun} does not end its phrase: {have}")
    bad += [f"no box for {n}" for n in expect.get("objects", []) if not _boxes(layout, n)]
    if "objects_total" in expect and len(phrases) != expect["objects_total"]:
        bad.append(f"{len(phrases)} boxes instead of {expect['objects_total']}: {phrases}")
    return bad


def _words(layout: Layout, expect: dict[str, Any]) -> list[str]:
    phrases = [o.phrase.lower() for o in layout.objects]
    negative, background = layout.negative.lower(), layout.background.lower()
    bad = [f"not excluded: {w}" for w in expect.get("neg", []) if w not in negative]
    bad += [f"wrongly excluded: {w}" for w in expect.get("not_neg", []) if w in negative]
    if expect.get("neg") == [] and negative:
        bad.append(f"wrongly excluded: {negative}")
    bad += [f"boxed: {w}" for w in expect.get("not_objects", []) if any(w in p for p in phrases)]
    bad += [f"no phrase with {a}" for a in expect.get("attr", []) if not any(a.lower() in p for p in phrases)]
    bad += [f"not in the background: {b}" for b in expect.get("bg", []) if b not in background]
    if "note" in expect and expect["note"] not in " ".join(layout.notes):
        bad.append(f"no note with {expect['note']!r}")
    return bad


def _places(layout: Layout, expect: dict[str, Any]) -> list[str]:
    bad = []
    for kind in ("left", "above", "beside", "between", "inside", "larger"):
        for nouns in expect.get(kind, []):
            found = [_boxes(layout, n)[:1] for n in nouns]
            if not all(found) or not _holds(kind, *(f[0] for f in found)):
                bad.append(f"not {kind}: {nouns}")
    for noun in expect.get("small", []):
        if not any(b.area <= 0.06 for b in _boxes(layout, noun)):
            bad.append(f"{noun} is not small")
    return bad


def _holds(kind: str, a: Box, b: Box, c: Box | None = None) -> bool:
    (ax, ay), (bx, by) = a.centre, b.centre
    if kind == "left":
        return ax < bx - _GAP
    if kind == "above":
        return ay < by - _GAP
    if kind == "beside":
        return abs(ax - bx) > max(_GAP, abs(ay - by))
    if kind == "larger":
        return a.area > b.area
    if kind == "inside":
        (x0, y0, x1, y1), (u0, v0, u1, v1) = a.corners, b.corners
        return max(0.0, min(x1, u1) - max(x0, u0)) * max(0.0, min(y1, v1) - max(y0, v0)) >= 0.8 * a.area
    assert c is not None, "between needs three nouns"
    spans = [sorted((b.centre[i], c.centre[i])) for i in (0, 1)]
    return any(low + _GAP < a.centre[i] < high - _GAP for i, (low, high) in enumerate(spans))
