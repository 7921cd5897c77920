"""LMD's benchmark: 400 prompts in four tasks, judged by an open-vocabulary detector (docs/lmd.md, 9)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...lmd.layout import Box
from .. import lmd_benchmark
from .base import DETECT, Answers, Benchmark, Item, Published, Question, Verdict

SCORE, OVERLAP = 0.15, 0.15
"""The published detection threshold, and the overlap from which on a weaker box of the same query is dropped."""
_README = "README of TonyLianLong/LLM-groundedDiffusion, stage 1 + 2"


def _row(name: str, *values: float) -> Published:
    tasks = (*lmd_benchmark.TASKS, "overall")
    return Published(name, dict(zip(tasks, values, strict=True)), "OWL-ViT base patch32, 0.15 / 0.15", _README)


class Lmd(Benchmark):
    """The LMD paper's own benchmark: negation, counting, attributes and places, judged by OWL-ViT."""

    name, title = "lmd", "LMD benchmark"
    published = (
        _row("SD v1.5", 28, 39, 52, 28, 36.8),
        _row("MultiDiffusion, GPT-3.5 layouts", 100, 30, 42, 36, 52.0),
        _row("Backward Guidance, GPT-3.5 layouts", 100, 42, 36, 61, 59.8),
        _row("BoxDiff, GPT-3.5 layouts", 100, 32, 55, 62, 62.3),
        _row("LMD, GPT-3.5 layouts", 100, 62, 65, 79, 76.5),
        _row("GLIGEN, GPT-3.5 layouts", 100, 57, 57, 45, 64.8),
        _row("LMD+, GPT-3.5 layouts", 100, 86, 69, 67, 80.5),
        _row("LMD+, GPT-4 layouts", 100, 84, 79, 82, 86.3),
    )

    def items(self, source: Path | None) -> list[Item]:
        return [Item(f"{i:03}", task, prompt) for i, (task, prompt) in enumerate(lmd_benchmark.prompts())]

    def questions(self, item: Item, answers: Answers) -> list[Question]:
        return [Question.of(DETECT, queries=lmd_benchmark.query(item.prompt).detector_queries)]

    def verdict(self, item: Item, answers: Answers, judge: str) -> Verdict:
        wanted = lmd_benchmark.query(item.prompt)
        (question,) = self.questions(item, answers)
        found = kept(answers[question])
        named = [(wanted.detector_queries[d["label"]], Box.from_corners(*d["box"])) for d in found]
        return Verdict(float(lmd_benchmark.succeeds(wanted, named)), (), tuple((n, *b.corners) for n, b in named))


def kept(detections: Sequence[dict], score: float = SCORE, overlap: float = OVERLAP) -> list[dict]:
    """The detections that count, by label, then from the best score down: thresholded, without doubles per label."""
    usable = [d for d in detections if d["score"] >= score and d["box"][0] < d["box"][2] and d["box"][1] < d["box"][3]]
    boxes, scores = [Box.from_corners(*d["box"]) for d in usable], [d["score"] for d in usable]
    return [usable[i] for i in lmd_benchmark.nms(boxes, scores, [d["label"] for d in usable], overlap)]
