"""Judges a layout against the expectations of tests/data/free_prompts.json."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ...lmd.planner.relation_checks import holds

FILE = Path(__file__).resolve().parents[2] / "tests" / "data" / "free_prompts.json"


def load(blind: bool | None = None) -> list[dict]:
    """All prompts with their expectations, or those of one half (`blind` ones were not looked at during tuning)."""
    return [p for p in json.loads(FILE.read_text()) if blind is None or p["blind"] == blind]


def _has(phrase: str, name: str) -> bool:
    return all(re.search(rf"\b{re.escape(word)}", phrase.lower()) for word in name.lower().split())


def _of(layout, name: str) -> list:
    """The boxes whose own noun (not a noun in "with ..." or "of ...") is `name`."""
    words = name.lower().split()
    found = []
    for o in layout.objects:
        core = re.split(r" (?:of|with|wearing|in|full) ", o.phrase.lower())[0].split()
        if core[-1].startswith(words[-1]) and len(core[-1]) <= len(words[-1]) + 2 and _has(o.phrase, name):
            found.append(o.box)
    return found


def _holds(kind: str, a, b) -> bool:
    """Not broken as the checker sees it, and as clear as a layout of our own can make it."""
    share = max(0.0, min(a.x + a.w, b.x + b.w) - max(a.x, b.x)) / min(a.w, b.w)
    tall = max(0.0, min(a.y + a.h, b.y + b.h) - max(a.y, b.y)) / min(a.h, b.h)
    gap = max(max(a.x, b.x) - min(a.x + a.w, b.x + b.w), max(a.y, b.y) - min(a.y + a.h, b.y + b.h))
    (ax, ay), by = a.centre, b.centre[1]
    return holds(kind, [a], [b]) and {
        "on": ay < by and share > 0.5 and abs(a.y + a.h - b.y) < 0.6 * b.h + 0.05,
        "under": ay > by and share > 0.5,
        "in": b.x <= ax <= b.x + b.w and b.y - 0.02 <= ay <= b.y + b.h,
        "near": gap < 0.2,
        "behind": share > 0.3 and tall < 0.9,
        "front": share > 0.3 and tall < 0.9,
    }.get(kind, True)


def complaints(layout, wanted: dict) -> list[str]:
    """What is wrong with a layout for one of the prompts; empty when everything is as expected."""
    out = []
    claimed = 0
    for name, count in wanted["objects"].items():
        got = len(_of(layout, name))
        claimed += got
        right = got >= int(count[:-1]) if isinstance(count, str) else got == count
        if not right:
            out.append(f"{name}: {got} boxes instead of {count}")
    claimed += sum(len(_of(layout, name)) for name in wanted.get("optional", []))
    if claimed < len(layout.objects):
        out.append(f"boxes nobody asked for among {sorted({o.phrase for o in layout.objects})}")
    for phrase in wanted.get("phrases", []):
        if not any(_has(o.phrase, phrase) for o in layout.objects):
            out.append(f'no object is "{phrase}"')
    for a, kind, b in wanted.get("relations", []):
        first, second = _of(layout, a), _of(layout, b)
        if kind == "around":
            first, second, kind = second, first, "between"
        if not first or not second:
            good = False
        elif kind == "between":
            good = len(second) > 1 and all(holds(kind, [box], second) for box in first)
        elif kind == "near":
            good = any(_holds(kind, x, y) for x in first for y in second)
        elif kind in ("in", "on"):
            good = all(any(_holds(kind, x, y) for y in second) for x in first)
        else:
            good = all(_holds(kind, x, y) for x in first for y in second)
        if not good:
            out.append(f"{a} is not {kind} {b}")
    for word in wanted.get("negative", []):
        if word not in layout.negative:
            out.append(f'"{word}" is not in the negative prompt "{layout.negative}"')
    for word in wanted.get("background", []):
        if word not in layout.background.lower():
            out.append(f'"{word}" is not in the background "{layout.background}"')
    for o in layout.objects:
        if min(o.box.x, o.box.y) < -1e-6 or max(o.box.x + o.box.w, o.box.y + o.box.h) > 1 + 1e-6:
            out.append(f"{o.phrase} leaves the canvas: {o.box}")
    return out
