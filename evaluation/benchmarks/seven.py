"""7Bench (arXiv 2508.12919): 224 prompts with their layouts, so that stage 2 is measured alone.

The layout score is the area under accuracy@k over IoU thresholds. Of an object, the detection of its name that fits its
box best counts, as in the released pipeline (davidevezzaro/tifa-test tifa_test.py), which takes accuracies at 0.1 to 0.9.
Its text score asks questions that a language model wrote; they are not part of the public file and not asked here.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from ...lmd.english import inflection
from ...lmd.layout import Box, Layout, LayoutObject
from .base import DETECT, Answers, Benchmark, Item, Question, Verdict, source_file
from .lmd import SCORE

CANVAS = 512
THRESHOLDS = tuple(k / 10 for k in range(1, 10))


class SevenBench(Benchmark):
    """7Bench: prompts with layouts; a detector finds the objects, and their overlap with the boxes counts."""

    name, title = "7bench", "7Bench"
    images = 16
    needs = "7bench.csv"

    def items(self, source: Path | None) -> list[Item]:
        path = source_file(source, self.needs, "7bench.csv", "benchmark/7bench.csv")
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        if not rows or {"id", "category", "prompt", "obj1", "bbox1"} - rows[0].keys():
            raise ValueError(f"{path} must have the columns id, category, prompt, obj1, bbox1, ...")
        found = []
        for number, row in enumerate(rows, 2):
            try:
                named = [(row[f"obj{i}"], _box(row[f"bbox{i}"])) for i in range(1, 5) if row.get(f"obj{i}")]
                objects = [(name, box) for name, box in named if box]
                layout = _layout(row["prompt"], objects)
            except ValueError as error:
                raise ValueError(f"{path}, row {number}: {error}") from None
            empty = {"empty": len(named) - len(objects)}
            found.append(Item(row["id"], row["category"], row["prompt"], layout, empty))
        return found

    def questions(self, item: Item, answers: Answers) -> list[Question]:
        return [Question.of(DETECT, queries=_queries(item))]

    def verdict(self, item: Item, answers: Answers, judge: str) -> Verdict:
        layout = Layout.from_json(item.layout or {})
        queries, (question,) = _queries(item), self.questions(item, answers)
        sure = [d for d in answers[question] if d["score"] >= SCORE]
        overlaps = [0.0] * item.data.get("empty", 0)
        for thing in layout.objects:
            label = queries.index(_query(thing.phrase))
            boxes = [
                d["box"]
                for d in sure
                if d["label"] == label and d["box"][0] < d["box"][2] and d["box"][1] < d["box"][3]
            ]
            overlaps.append(max((thing.box.iou(Box.from_corners(*b)) for b in boxes), default=0.0))
        accuracies = [sum(o >= k for o in overlaps) / len(overlaps) for k in THRESHOLDS]
        score = sum(accuracies) / len(accuracies)
        seen = tuple((queries[d["label"]], *d["box"]) for d in sure)
        return Verdict(score, (("mean IoU", sum(overlaps) / len(overlaps)),), seen)


def _box(text: str) -> Box | None:
    """The box, or None for an empty one (sample 030 has one): it can't be drawn, and its object counts as missed."""
    numbers = re.findall(r"-?\d+(?:\.\d+)?", text or "")
    if len(numbers) != 4:
        raise ValueError(f"a box needs four numbers x_min, y_min, x_max, y_max, got {text!r}")
    x0, y0, x1, y1 = (float(n) / CANVAS for n in numbers)
    return Box.from_corners(x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _layout(prompt: str, objects: list[tuple[str, Box]]) -> dict:
    """The item's layout; a phrase is the object as the prompt has it, with an article where it begins with none."""
    things = tuple(LayoutObject(_phrase(name, prompt), box) for name, box in objects)
    layout = Layout(CANVAS, CANVAS, things, "A realistic photo", "", prompt)
    boxes = [{"phrase": o.phrase, "box": [o.box.x, o.box.y, o.box.w, o.box.h]} for o in things]
    return layout.to_json() | {"objects": boxes}


def _phrase(name: str, prompt: str) -> str:
    match = re.search(rf"\b(?:an?|the) (?:\w+ )?{re.escape(name)}\b", prompt, re.I)
    return match[0].lower() if match else inflection.with_article(name)


def _query(phrase: str) -> str:
    return f"a photo of {phrase}"


def _queries(item: Item) -> list[str]:
    return list(dict.fromkeys(_query(o["phrase"]) for o in (item.layout or {})["objects"]))
