"""DPG-Bench (arXiv 2403.05135): long prompts, and a graph of questions about each image."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import dpg_bench
from .base import ASK, Answers, Benchmark, Item, Published, Question, Verdict, source_file

_PAPER = "arXiv 2403.05135, table 4"


def _row(name: str, *values: float) -> Published:
    names = ("overall", "global", "entity", "attribute", "relation", "other")
    return Published(name, dict(zip(names, values, strict=True)), "mPLUG-large", _PAPER)


class Dpg(Benchmark):
    """DPG-Bench of the ELLA paper: yes-or-no questions on dense prompts."""

    name, title = "dpg", "DPG-Bench"
    images = 4
    needs = "dpg_bench.csv, or the folder that holds it and prompts/"
    published = (
        _row("SD v1.5", 63.18, 74.63, 74.23, 75.39, 73.49, 67.81),
        _row("ELLA SD v1.5", 74.91, 84.03, 84.61, 83.48, 84.03, 80.79),
        _row("SD v2", 68.09, 77.67, 78.13, 74.91, 80.72, 80.66),
        _row("PixArt-alpha", 71.11, 74.97, 79.32, 78.60, 82.57, 76.96),
        _row("Playground v2", 74.54, 83.61, 79.91, 82.67, 80.62, 81.22),
        _row("SDXL", 74.65, 83.27, 82.43, 80.91, 86.76, 80.41),
        _row("DALL-E 3", 83.50, 90.97, 89.61, 88.39, 90.58, 89.83),
    )

    def items(self, source: Path | None) -> list[Item]:
        path = source_file(source, self.needs, "dpg_bench.csv", "dpg_bench/dpg_bench.csv", "dpg_bench.json")
        rows, texts = _rows(path)
        grouped: dict[str, list[dpg_bench.Question]] = {}
        for question in rows:
            grouped.setdefault(question.item, []).append(question)
        found = []
        for place, (item, asked) in enumerate(grouped.items()):
            prompt = _prompt(path, item) or texts.get(item, "")
            if not prompt:
                raise ValueError(
                    f"{path}: the prompt of {item} stands neither in the column text nor in prompts/{item}.txt"
                )
            listed = [[q.number, list(q.parents), q.category, q.text] for q in asked]
            found.append(Item(item, "all", prompt, None, {"questions": listed, "place": place}))
        return found

    def questions(self, item: Item, answers: Answers) -> list[Question]:
        texts = dict.fromkeys(text for _, _, _, text in item.data["questions"])
        return [Question.of(ASK, question=text) for text in texts]

    def verdict(self, item: Item, answers: Answers, judge: str) -> Verdict:
        rows = _questions(item)
        report = dpg_bench.score(rows, lambda text, tile: _answer(answers, text), 1)
        if why := report.failed.get(item.id):
            raise ValueError(f"{item.id}: {why}")
        raw = report.raw[item.id][0]
        return Verdict(report.items[item.id], tuple((_broad(q.category), raw[q.number]) for q in rows))

    def further(self, found: Mapping[str, Sequence[Mapping[Question, Any]]], items: Mapping[str, Item]) -> dict:
        """DPG's score over the items whose images are all there: corrected, and as the released scorer reckons it."""
        tiles = max((len(images) for images in found.values()), default=0)
        whole = [items[name] for name in found if len(found[name]) == tiles]
        whole.sort(key=lambda item: item.data["place"])
        rows = [
            dpg_bench.Question(q.item, q.number, q.parents, q.category, f"{q.item}\n{q.text}")
            for item in whole
            for q in _questions(item)
        ]
        if not rows:
            return {}

        def answer(text: str, tile: int) -> str:
            name, question = text.split("\n", 1)
            return _answer(found[name][tile], question)

        released = dpg_bench.score(rows, answer, tiles, reference=True)
        corrected = dpg_bench.score(rows, answer, tiles)
        return {
            "prompts with all images": len(whole),
            "images per prompt": tiles,
            "DPG score": 100 * corrected.mean,
            "DPG score, as the released scorer": 100 * released.mean,
            "left out by the released scorer": len(released.failed),
            "detailed": {name: 100 * value for name, value in sorted(corrected.detailed.items())},
        }


def _rows(path: Path) -> tuple[list[dpg_bench.Question], dict[str, str]]:
    """The questions of a CSV or JSON file in its order, and the prompts that stand in it."""
    if path.suffix == ".json":
        records = json.loads(path.read_text(encoding="utf-8"))
        if not (isinstance(records, list) and records and all(isinstance(r, dict) for r in records)):
            raise ValueError(f"{path} must hold a list of objects with the columns of dpg_bench.csv")
        header = list(records[0])
        rows = [[str(record.get(name, "")) for name in header] for record in records]
    else:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
        rows = [row for row in rows if any(row)]
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise ValueError(f"{path}, row {number}, has {len(row)} columns, the header has {len(header)}")
    texts = {}
    if "text" in header and "item_id" in header:
        texts = {row[header.index("item_id")]: row[header.index("text")].strip() for row in rows}
    return dpg_bench.questions(header, rows), texts


def _prompt(path: Path, item: str) -> str:
    file = path.parent / "prompts" / f"{item}.txt"
    own = file.parent.resolve() in file.resolve().parents  # an id from a file must not lead out of the folder
    return file.read_text(encoding="utf-8").strip() if own and file.is_file() else ""


def _questions(item: Item) -> list[dpg_bench.Question]:
    return [dpg_bench.Question(item.id, n, tuple(p), c, text) for n, p, c, text in item.data["questions"]]


def _answer(answers: Answers, text: str) -> str:
    return answers[Question.of(ASK, question=text)]


def _broad(category: str) -> str:
    return category.split("-")[0].strip()
