"""LMD's four tasks in the demo world, judged by classical vision: the benchmark that runs on a processor."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ...demo import model
from ...lmd.layout import Layout
from .. import demo_benchmark
from ..demo_detector import Detection
from .base import DETECT, Answers, Benchmark, Item, Question, Verdict

PROMPTS = 100
"""Prompts of each task."""


class Demo(Benchmark):
    """LMD's four tasks on the demo world, which its own detector can judge without a download."""

    name, title = "demo", "LMD's tasks in the demo world"

    def items(self, source: Path | None) -> list[Item]:
        """Every beginning of them is a fair sample of the tasks."""
        seen: Counter[str] = Counter()
        found = []
        for task, prompt in demo_benchmark.prompts(PROMPTS):
            found.append(Item(f"{task}-{seen[task]:03}", task, prompt))
            seen[task] += 1
        return sorted(found, key=lambda item: item.id[-3:])

    def seed(self, index: int, repeat: int, offset: int) -> int:
        """A prompt's number within its task."""
        return index // len(demo_benchmark.TASKS) + 6789 * repeat + offset

    def questions(self, item: Item, answers: Answers) -> list[Question]:
        return [Question.of(DETECT, queries=["demo world"])]

    def verdict(self, item: Item, answers: Answers, judge: str) -> Verdict:
        (question,) = self.questions(item, answers)
        found = detections(answers[question])
        seen = tuple((f"{d.colour} {d.kind}", *d.box) for d in found)
        return Verdict(float(bool(demo_benchmark.verdict(item.prompt, found))), (), seen)


def detections(answer: list[dict]) -> list[Detection]:
    """The detector's answer, read back from JSON."""
    return [Detection(d["kind"], d["colour"], tuple(d["box"]), d["score"]) for d in answer]


def true_layout(item: Item) -> Layout:
    """The layout that is right for an item, on the demo model's canvas."""
    return demo_benchmark.true_layout(item.prompt).on_canvas(model.IMAGE_SIZE, model.IMAGE_SIZE)
