"""DPG-Bench scoring (arXiv 2403.05135, section 4): from the judge's answers to the published numbers.

The released scorer has defects (specification of ELLA, section 8). `reference=True` keeps them, for numbers that can be
compared with published ones; `reference=False` corrects them. Report both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

Answer = Callable[[str, int], str]  # (question, tile) -> the judge's answer


@dataclass(frozen=True)
class Question:
    """One row of dpg_bench.csv."""

    item: str
    number: int
    parents: tuple[int, ...]
    category: str  # such as "attribute - color"
    text: str


@dataclass
class DpgReport:
    """Scores between 0 and 1; DPG's headline number is 100 times `mean`."""

    items: dict[str, float] = field(default_factory=dict)
    tiles: dict[str, list[float]] = field(default_factory=dict)
    raw: dict[str, list[dict[int, float]]] = field(default_factory=dict)  # per tile, before zeroing
    failed: dict[str, str] = field(default_factory=dict)
    broad: dict[str, float] = field(default_factory=dict)
    detailed: dict[str, float] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """The mean score of all items, 0..1; 0 without items."""
        return sum(self.items.values()) / len(self.items) if self.items else 0.0


def questions(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[Question]:
    """The questions in the rows of the CSV; ValueError names a missing column."""
    wanted = ("item_id", "proposition_id", "dependency", "tuple", "question_natural_language")
    if absent := [name for name in wanted if name not in header]:
        raise ValueError(f"dpg_bench.csv lacks the columns {', '.join(absent)}; it has {', '.join(header)}.")
    item, number, parents, category, text = (header.index(name) for name in wanted)
    return [
        Question(
            row[item],
            int(row[number]),
            tuple(p for p in (int(x) for x in str(row[parents]).split(",")) if p != 0),
            row[category].split("(")[0].strip(),
            row[text],
        )
        for row in rows
    ]


def score(rows: Sequence[Question], answer: Answer, tiles: int, reference: bool = False) -> DpgReport:
    """Score every item that the rows name.

    Args:
        rows: all questions, those of an item one after the other.
        answer: asks the judge about a tile; only the exact answer "yes" counts.
        tiles: how many of an image's tiles are scored, 1 to 4.
        reference: keep the released scorer's defects: the first row is not read, a parent that comes after its child
            counts with its raw score, and categories are taken from the last tile alone.
    """
    by_item: dict[str, list[Question]] = {q.item: [] for q in rows}
    for q in rows[1:] if reference else rows:
        by_item[q.item].append(q)
    report, pooled = DpgReport(), {}
    for item, asked in by_item.items():
        numbers = {q.number for q in asked}
        lost = sorted({p for q in asked for p in q.parents} - numbers)
        if not asked or lost:
            report.failed[item] = f"question {lost[0]} is missing" if lost else "it has no questions"
            continue
        raw = [{q.number: float(answer(q.text, tile) == "yes") for q in asked} for tile in range(tiles)]
        report.raw[item] = raw
        report.tiles[item] = [_tile(asked, values, reference) for values in raw]
        report.items[item] = sum(report.tiles[item]) / tiles
        for values in raw[-1:] if reference else raw:
            for q in asked:
                pooled.setdefault(q.category, []).append(values[q.number])
    report.detailed = {name: sum(v) / len(v) for name, v in pooled.items()}
    broad: dict[str, list[float]] = {}
    for name, values in pooled.items():
        broad.setdefault(name.split("-")[0].strip(), []).extend(values)
    report.broad = {name: sum(v) / len(v) for name, v in broad.items()}
    return report


def _tile(asked: Sequence[Question], raw: Mapping[int, float], reference: bool) -> float:
    """Mean over the questions, where one whose parent scores 0 scores 0 too."""
    final = dict(raw)
    # One pass in the order of the file; corrected: until nothing changes, so that the order does not matter.
    for _ in range(1 if reference else len(asked)):
        for q in asked:
            if any(final[p] == 0 for p in q.parents):
                final[q.number] = 0.0
    return sum(final.values()) / len(final)
