"""GenEval (arXiv 2310.11513): objects, counts, colours and positions, by a detector and a judge of colours.

The rules follow djghosh13/geneval@af4902f evaluation/evaluate_images.py. The released judge is Mask2Former with masks
and CLIP ViT-L/14; here the detector is the panel's, and colours are read from boxes. Scores of different judges are
not comparable, so the judge's name stands beside each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from .base import COLOUR, DETECT, Answers, Benchmark, Item, Published, Question, Verdict, json_lines, source_file
from .lmd import OVERLAP, SCORE, kept

COLOURS = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white"]
MOST, NEARNESS = 16, 0.1
_README = "README of djghosh13/geneval"
_TAGS = ("overall", "single_object", "two_object", "counting", "colors", "position", "color_attr")


def _row(name: str, *values: float) -> Published:
    percent = {tag: 100 * value for tag, value in zip(_TAGS, values, strict=True)}
    return Published(name, percent, "Mask2Former swin-s + CLIP ViT-L/14", _README)


class GenEval(Benchmark):
    """GenEval: objects, counts, colours and positions, judged by a detector."""

    name, title = "geneval", "GenEval"
    images, over_tasks = 4, True
    needs = "evaluation_metadata.jsonl"
    detector_thresholds = {"mask2former": (0.3, 0.9)}  # for objects, and where they are counted
    published = (
        _row("SD v1.5", 0.43, 0.97, 0.38, 0.35, 0.76, 0.04, 0.06),
        _row("SD v2.1", 0.50, 0.98, 0.51, 0.44, 0.85, 0.07, 0.17),
        _row("SDXL", 0.55, 0.98, 0.74, 0.39, 0.85, 0.15, 0.23),
        _row("IF-XL", 0.61, 0.97, 0.74, 0.66, 0.81, 0.13, 0.35),
    )

    def items(self, source: Path | None) -> list[Item]:
        path = source_file(source, self.needs, "evaluation_metadata.jsonl", "prompts/evaluation_metadata.jsonl")
        found = []
        for number, record in enumerate(json_lines(path)):
            try:
                for wanted in (*record["include"], *record.get("exclude", ())):
                    int(wanted["count"]), str(wanted["class"])
                data = {"include": record["include"], "exclude": record.get("exclude", [])}
                found.append(Item(f"{number:05}", record["tag"], record["prompt"], None, data))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {number + 1}, lacks what GenEval needs: {error!r}") from None
        return found

    def questions(self, item: Item, answers: Answers) -> list[Question]:
        detect = Question.of(DETECT, queries=_queries(item))
        asked = [detect]
        if detect in answers:  # the colours of what was found
            for wanted in item.data["include"]:
                if "color" in wanted:
                    for box in _found(item, answers[detect], wanted["class"], self._thresholds(item, answers))[
                        : wanted["count"]
                    ]:
                        asked.append(_colour(wanted["class"], box))
        return asked

    def verdict(self, item: Item, answers: Answers, judge: str) -> Verdict:
        detect = Question.of(DETECT, queries=_queries(item))
        threshold = self._thresholds(item, answers)
        found = {name: _found(item, answers[detect], name, threshold) for name in _classes(item)}
        groups: list[list | None] = []
        for wanted in item.data["include"]:
            boxes = found[wanted["class"]][: wanted["count"]]
            groups.append(boxes if self._given(wanted, boxes, groups, answers) else None)
        right = all(group is not None for group in groups)
        right &= all(len(found[w["class"]]) < w["count"] for w in item.data["exclude"])
        boxes = tuple((name, *box) for name, all_of_it in found.items() for box in all_of_it)
        return Verdict(float(right), (), boxes)

    def _thresholds(self, item: Item, answers: Answers) -> float:
        """What a detection must score: the detector's own published setting, as its answer names it."""
        detector = answers.get(Question.of(DETECT, queries=_queries(item)))
        by = detector[0].get("by", "") if detector else ""
        usual, counting = self.detector_thresholds.get(by, (SCORE, SCORE))
        return counting if item.task == "counting" else usual

    def _given(self, wanted: dict, boxes: list, groups: Sequence[list | None], answers: Answers) -> bool:
        if len(boxes) < wanted["count"]:
            return False
        if "color" in wanted:
            colours = [answers[_colour(wanted["class"], box)] for box in boxes]
            if colours.count(wanted["color"]) < wanted["count"]:
                return False
        if "position" in wanted:
            relation, target = wanted["position"]
            others = groups[target]
            return others is not None and all(relation in relations(a, b) for a in boxes for b in others)
        return True


def _classes(item: Item) -> list[str]:
    return list(dict.fromkeys(w["class"] for w in (*item.data["include"], *item.data["exclude"])))


def _queries(item: Item) -> list[str]:
    return [f"a photo of a {name}" for name in _classes(item)]


def _found(item: Item, detections: Sequence[dict], name: str, threshold: float) -> list[list[float]]:
    """The boxes of a class from the best score down, at most MOST."""
    label = _classes(item).index(name)
    masked = bool(detections) and detections[0].get("by") == "mask2former"  # it gives no doubles
    own = [d for d in kept(detections, threshold, 2.0 if masked else OVERLAP) if d["label"] == label]
    return [d["box"] for d in own[:MOST]]


def _colour(name: str, box: Sequence[float]) -> Question:
    return Question.of(COLOUR, name=name, box=list(box), colours=COLOURS)


def relations(a: Sequence[float], b: Sequence[float]) -> set[str]:
    """Where box `a` lies seen from box `b`; the offset counts beyond a tenth of the boxes' added sizes."""
    offset = [(a[i] + a[i + 2] - b[i] - b[i + 2]) / 2 for i in (0, 1)]
    sizes = [abs(a[i + 2] - a[i]) + abs(b[i + 2] - b[i]) for i in (0, 1)]
    left = [math.copysign(max(abs(o) - NEARNESS * s, 0), o) for o, s in zip(offset, sizes, strict=True)]
    if max(map(abs, left)) < 1e-6:
        return set()
    dx, dy = (v / math.hypot(*offset) for v in left)
    words = (("left of", dx < -0.5), ("right of", dx > 0.5), ("above", dy < -0.5), ("below", dy > 0.5))
    return {word for word, holds in words if holds}
