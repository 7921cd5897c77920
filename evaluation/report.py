"""The report of a run: per benchmark and panel a table with intervals and paired tests, in Markdown and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .benchmarks import benchmark as benchmark_named
from .benchmarks.base import Answers, Benchmark, Verdict
from .lines import digest
from .run import Job, Run
from .stages import known_answers
from .statistics import interval, sign_test


@dataclass
class RowResult:
    """What is known of one row: each item's verdicts in the order of their seeds."""

    name: str
    settings: dict
    items: dict[str, list[Verdict]] = field(default_factory=dict)
    tasks: dict[str, str] = field(default_factory=dict)
    answers: dict[str, list[Answers]] = field(default_factory=dict)
    planned: int = 0
    drawn: list[dict] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)

    @property
    def judged(self) -> int:
        """How many images have been judged."""
        return sum(map(len, self.items.values()))

    def scores(self, task: str = "") -> dict[str, float]:
        """Each item's mean score, 0..1."""
        own = {i: [v.score for v in vs] for i, vs in self.items.items() if task in ("", self.tasks[i])}
        return {item: sum(values) / len(values) for item, values in own.items()}


def rows_of(run: Run, benchmark: Benchmark, judges: Sequence[str]) -> list[RowResult]:
    """The rows of a benchmark with the verdicts of a panel; an image with an open question has none."""
    known, drawn, failures = known_answers(run, judges), run.drawn(), run.failures()
    items, panel = run.items(benchmark.name), " + ".join(judges)
    found: dict[tuple[str, str], RowResult] = {}
    jobs = sorted((j for j in run.jobs.values() if j.benchmark == benchmark.name), key=lambda j: j.seed)
    for job in jobs:
        row = found.setdefault((job.row, digest(job.settings)), RowResult(job.row, job.settings))
        row.planned += 1
        record = drawn.get(job.key)
        if record is None:
            _count(row, failures.get(job.key, "not drawn yet"))
            continue
        row.drawn.append(record)
        item, answers = items[job.item], known.get(record["sha"], {})
        if any(question not in answers for question in benchmark.questions(item, answers)):
            _count(row, "not judged yet")
            continue
        row.items.setdefault(item.id, []).append(benchmark.verdict(item, answers, panel))
        row.answers.setdefault(item.id, []).append(answers)
        row.tasks[item.id] = item.task
    _tell_apart(list(found.values()))
    order = list(dict.fromkeys(job.row for job in run.jobs.values()))
    return sorted(found.values(), key=lambda row: order.index(row.name.split(" [")[0]))


def _count(row: RowResult, reason: str) -> None:
    reason = reason.splitlines()[0][:160] if reason else "unknown"
    row.reasons[reason] = row.reasons.get(reason, 0) + 1


def _tell_apart(rows: list[RowResult]) -> None:
    """Rows of one name and different settings get names of their own."""
    for name in {row.name for row in rows}:
        same = [row for row in rows if row.name == name]
        if len(same) > 1:
            differ = {k for row in same for k in row.settings if len({str(r.settings.get(k)) for r in same}) > 1}
            for row in same:
                told = ", ".join(f"{k} {row.settings.get(k)}" for k in sorted(differ))
                row.name = f"{name} [{told}]"


def summary(run: Run) -> dict:
    """The whole report as JSON."""
    panels = {(p["benchmark"], tuple(p["judges"])): None for p in run.panels.records}
    tables = [_table(run, benchmark_named(name), judges) for name, judges in panels]
    return {
        "tables": tables,
        "code": sorted({job.code for job in run.jobs.values()}),
        "machines": sorted({r["on"] for r in run.drawn().values() if r.get("on")}),
        "damaged lines": run.damaged,
        "jobs": len(run.jobs),
        "images": len(run.drawn()),
    }


def _table(run: Run, benchmark: Benchmark, judges: Sequence[str]) -> dict:
    rows = rows_of(run, benchmark, judges)
    plain = next((row for row in rows if row.name.split(" [")[0] == "plain"), None)
    items = run.items(benchmark.name)
    tasks = list(dict.fromkeys(item.task for item in items.values()))
    return {
        "benchmark": benchmark.name,
        "title": benchmark.title,
        "judge": " + ".join(judges),
        "tasks": tasks if len(tasks) > 1 else [],
        "rows": [
            _row(benchmark, row, plain, tasks) | {"further": benchmark.further(row.answers, items)} for row in rows
        ],
        "published": [vars(p) for p in benchmark.published],
    }


def _row(benchmark: Benchmark, row: RowResult, plain: RowResult | None, tasks: Sequence[str]) -> dict:
    scores = row.scores()
    by_task = {task: list(row.scores(task).values()) for task in tasks}
    means = {task: 100 * sum(v) / len(v) for task, v in by_task.items() if v}
    told: dict[str, Any] = {
        "row": row.name, "settings": row.settings, "planned": row.planned, "drawn": len(row.drawn),
        "judged": row.judged, "missing": row.reasons, "prompts": len(scores), "tasks": means,
        "categories": _categories(row),
    }  # fmt: skip
    if scores:
        (low, high), kind = interval(list(scores.values()))
        mean = sum(means.values()) / len(means) if benchmark.over_tasks else 100 * sum(scores.values()) / len(scores)
        told |= {"overall": mean, "interval": [100 * low, 100 * high], "interval kind": kind}
        if benchmark.over_tasks:
            told["over prompts"] = 100 * sum(scores.values()) / len(scores)
    if plain and plain is not row and scores:
        told["against plain"] = _against(scores, plain.scores())
    return told | _cost(row.drawn)


def _against(scores: dict[str, float], plain: dict[str, float]) -> dict:
    """The paired sign test over the prompts that both rows have."""
    both = [(scores[item], plain[item]) for item in scores if item in plain]
    better, worse, p = sign_test(both)
    gain = 100 * sum(a - b for a, b in both) / len(both) if both else 0.0
    return {"prompts": len(both), "gain": gain, "better": better, "worse": worse, "p": p}


def _categories(row: RowResult) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for verdicts in row.items.values():
        for verdict in verdicts:
            for name, value in verdict.parts:
                found.setdefault(name, []).append(value)
    return {name: 100 * sum(values) / len(values) for name, values in sorted(found.items())}


def _cost(drawn: Sequence[dict]) -> dict:
    """Seconds and memory per image, as far as they were measured and an image shared no sampling with another row."""
    seconds = [r["seconds"] for r in drawn if isinstance(r.get("seconds"), (int, float)) and not r.get("shared")]
    peaks = [r["peak_mib"] for r in drawn if isinstance(r.get("peak_mib"), (int, float))]
    return {
        "seconds per image": sum(seconds) / len(seconds) if seconds else None,
        "peak MiB": max(peaks) if peaks else None,
    }


def markdown(told: dict) -> str:
    """The report as Markdown."""
    lines = ["# Report", ""]
    lines += [f"{told['images']} of {told['jobs']} images are drawn."]
    if told["damaged lines"]:
        lines.append(f"{told['damaged lines']} damaged lines were passed over.")
    for table in told["tables"]:
        lines += ["", *_markdown_table(table)]
    lines += ["", "## How it was made", "", f"Code state: {', '.join(told['code'])}.", ""]
    lines += [f"- {machine}" for machine in told["machines"]]
    return "\n".join(lines) + "\n"


def _cells(*cells: object) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _number(value: float | None, form: str = ".1f") -> str:
    return "-" if value is None else format(value, form)


def _markdown_table(table: dict) -> list[str]:
    names = table["tasks"] or sorted({name for row in table["rows"] for name in row["categories"]})
    part = "tasks" if table["tasks"] else "categories"
    head = ["row", "prompts", *names, "all", "95 %", "against plain", "p", "s / image", "peak MiB"]
    lines = [f"## {table['title']}, judged by {table['judge']}", "", _cells(*head), _cells(*["---"] * len(head))]
    for row in table["rows"]:
        low, high = row.get("interval", (None, None))
        against = row.get("against plain")
        lines.append(
            _cells(
                row["row"], row["prompts"], *(_number(row[part].get(name)) for name in names),
                _number(row.get("overall")), f"{_number(low)} to {_number(high)} ({row.get('interval kind', '-')})",
                f"{against['gain']:+.1f} ({against['better']} better, {against['worse']} worse)" if against else "-",
                _number(against["p"], ".2g") if against else "-",
                _number(row["seconds per image"], ".2f"), _number(row["peak MiB"], ".0f"),
            )
        )  # fmt: skip
    lines += _notes(table)
    return lines + _published(table, names)


def _notes(table: dict) -> list[str]:
    lines = [""]
    for row in table["rows"]:
        for reason, count in row["missing"].items():
            lines.append(f"- {row['row']}: {count} of {row['planned']} images are missing here: {reason}")
        for name, value in row["further"].items():
            if isinstance(value, (int, float)):
                lines.append(f"- {row['row']}: {name} {value:.2f}".removesuffix(".00"))
        settings = ", ".join(f"{k} {v}" for k, v in sorted(row["settings"].items()) if k != "base")
        lines.append(f"- {row['row']}: {settings}")
    return lines


def _published(table: dict, names: Sequence[str]) -> list[str]:
    if not table["published"]:
        return []
    columns = [n for n in names if any(n in p["values"] for p in table["published"])]
    head = ["published", *columns, "all", "judge", "source"]
    lines = ["", "Published numbers, to be compared only where judge and settings are the same:", ""]
    lines += [_cells(*head), _cells(*["---"] * len(head))]
    for p in table["published"]:
        values = (_number(p["values"].get(name)) for name in columns)
        lines.append(_cells(p["name"], *values, _number(p["values"].get("overall")), p["judge"], p["source"]))
    return lines


def job_verdicts(run: Run, benchmark: Benchmark, judges: Sequence[str]) -> dict[str, tuple[Job, Verdict]]:
    """Each judged job with its verdict, by key."""
    known, items, found = known_answers(run, judges), run.items(benchmark.name), {}
    for key, record in run.drawn().items():
        job = run.jobs[key]
        if job.benchmark != benchmark.name:
            continue
        item, answers = items[job.item], known.get(record["sha"], {})
        if all(question in answers for question in benchmark.questions(item, answers)):
            found[key] = job, benchmark.verdict(item, answers, " + ".join(judges))
    return found
