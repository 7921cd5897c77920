"""The stages of a run: plan, draw, ask. Each does what is missing and can be stopped at any moment."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from . import judges
from .benchmarks import benchmark as benchmark_named
from .benchmarks.base import Answers, Benchmark, Item, Question
from .images import graphs
from .judges.base import ask_all
from .layouts import Source, exact_json
from .run import GIVEN, Job, Run
from .spread import Lane, spread

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
Progress = Callable[[int], None]


@dataclass(frozen=True)
class RowPlan:
    """A row of the table: its name, what draws it, and its settings."""

    name: str
    settings: dict
    layout: bool


def row_plan(text: str, settings: dict, keep: Callable[[dict], str], load: Callable[[Path], dict]) -> RowPlan:
    """A row by its written form: `lmd`, `quick=lmd,preset=fast` or `mine=graph.json,prompt=6.text,seed=3.seed`.

    A comma within a value is written `\\,`.

    `settings` are the run's; `keep` keeps a workflow that `load` has read and gives its name.
    """
    head, *changes = (part.replace("\\,", ",") for part in re.split(r"(?<!\\),", text))
    name, _, base = head.rpartition("=")
    base, name = base.strip(), (name or base).strip()
    pairs = dict(change.split("=", 1) for change in changes if "=" in change)
    if len(pairs) < len(changes):
        raise ValueError(f"{text!r}: what follows a comma must be name=value")
    if base.endswith(".json"):
        places = {k: v for k, v in pairs.items() if "." in v}
        own = {k: _value(v) for k, v in pairs.items() if k not in places}
        workflow = load(Path(base))
        for place in places.values():
            graphs.find(workflow, place.rsplit(".", 1)[0])
        settings = settings | own | {"workflow": keep(workflow), "inputs": places}
        return RowPlan(name, settings, "layout" in places)
    if base not in graphs.ROWS:
        raise ValueError(f"there is no row {base!r}; there are {', '.join(graphs.ROWS)}, and workflows (*.json)")
    row = graphs.ROWS[base]
    settings = settings | graphs.OWN.get(row.own, {}) | {"base": base}
    for key, value in pairs.items():
        if key.startswith("options."):
            changed = settings.get("options", {}) | {key.removeprefix("options."): _value(value)}
            settings = settings | {"options": changed}
        elif key in settings or key == "negative":
            settings = settings | {key: _value(value)}
        else:
            raise ValueError(f"the row {base!r} has no setting {key!r}; it has {', '.join(settings)}")
    return RowPlan(name, settings, row.layout)


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text, text)


def plan(
    run: Run,
    benchmark: Benchmark,
    items: Sequence[tuple[int, Item]],
    rows: Sequence[RowPlan],
    source: Source | None,
    label: str,
    code: str,
    repeats: int = 1,
    offset: int = 0,
) -> tuple[int, dict[str, str]]:
    """Write the manifest. `items` are numbered by their place in the benchmark; `label` names the source of layouts.

    Returns how many jobs are new, and why items have no layout; their jobs are planned all the same, so that the
    report tells of them.
    """
    run.require_code(code)
    run.keep_items(benchmark.name, (item for _, item in items))
    layouts: dict[tuple, dict | None] = {}
    refused: dict[str, str] = {}
    jobs = []
    for index, item in items:
        for row in rows:
            size = row.settings.get("width", 512), row.settings.get("height", 512)
            if row.layout and (item.id, size) not in layouts:
                layouts[item.id, size] = _layout(source, item, size, refused)
            layout = layouts[item.id, size] if row.layout else None
            settings = row.settings | ({"layouts": label} if row.layout else {})
            for repeat in range(repeats):
                seed = benchmark.seed(index, repeat, offset)
                jobs.append(
                    Job(benchmark.name, item.id, item.task, item.prompt, seed, row.name, layout, settings, code)
                )
    return run.plan(jobs), refused


def _layout(source: Source | None, item: Item, size: tuple[int, int], refused: dict[str, str]) -> dict | None:
    try:
        if source is None:
            raise ValueError("a row needs layouts: name their source with --layouts")
        return exact_json(replace(source(item, *size), prompt=item.prompt))
    except ValueError as error:
        refused[item.id] = str(error)
        return None


def draw(
    run: Run, lanes: Sequence[Lane], progress: Progress, group: Callable[[Sequence[Job]], list[list[Job]]]
) -> None:
    """Draw what is missing; `group` brings together the jobs that a worker had better do at once."""

    def done(jobs: list[Job], found: list[tuple[str, Image.Image, dict]], lane: str) -> None:
        codes = {job.key: job.code for job in jobs}
        for key, image, took in found:
            run.add_image(key, image, **took, lane=lane, code=codes[key])
        progress(len(jobs))

    def failed(jobs: list[Job], why: str) -> None:
        for job in jobs:
            run.add_failure(job.key, why)
        progress(len(jobs))

    spread(group(run.missing()), lanes, done, failed)


def alone(jobs: Sequence[Job]) -> list[list[Job]]:
    """Each job in a batch of its own."""
    return [[job] for job in jobs]


class AnswerWorker:
    """A worker: an image with its item and what is known of it in, `(question, judge, answer, error)` out."""

    def __init__(self, panel: str, device: str = "cpu") -> None:
        self.panel = judges.panel(panel, device)

    def do(self, job: Asked) -> list[tuple[Question, str, Any, str]]:
        with Image.open(io.BytesIO(job.png)) as image:
            return ask_all(self.panel, image.convert("RGB"), benchmark_named(job.benchmark), job.item, job.known)

    def close(self) -> None:
        self.panel.close()


@dataclass
class Asked:
    """An image to be asked about; its file is read when its turn comes."""

    sha: str
    path: Path
    benchmark: str
    item: Item
    known: Answers

    @property
    def png(self) -> bytes:
        """The picture's bytes, from memory or from its file."""
        return self._png if self._png is not None else self.path.read_bytes()

    _png: bytes | None = None

    def __getstate__(self) -> dict:  # another machine does not have the file
        return self.__dict__ | {"_png": self.png}


def known_answers(run: Run, names: Sequence[str]) -> dict[str, dict[Question, Any]]:
    """The answers of these judges, by image."""
    found: dict[str, dict[Question, Any]] = {}
    for record in run.answers.records:
        question = record.get("question")
        if record.get("judge") in names and "answer" in record and isinstance(question, str) and " " in question:
            found.setdefault(record.get("sha", ""), {}).setdefault(Question(*question.split(" ", 1)), record["answer"])
    return found


def open_questions(run: Run, panel: str, benchmark: str = "") -> Iterator[Asked]:
    """The images with questions that the panel has not answered."""
    known, seen = known_answers(run, judges.labels(panel)), set()
    items = {name: run.items(name) for name in {job.benchmark for job in run.jobs.values()}}
    for key, record in run.drawn().items():
        job = run.jobs[key]
        if (benchmark and job.benchmark != benchmark) or (record["sha"], job.item) in seen:
            continue
        seen.add((record["sha"], job.item))
        item, answers = items[job.benchmark][job.item], known.get(record["sha"], {})
        if any(q not in answers for q in benchmark_named(job.benchmark).questions(item, answers)):
            yield Asked(record["sha"], run.file(record["sha"]), job.benchmark, item, answers)


def ask(run: Run, panel: str, lanes: Sequence[Lane], progress: Progress, benchmark: str = "") -> dict[str, str]:
    """Put every open question to the panel; returns why questions stay open, by image and question."""
    refused: dict[str, str] = {}

    def done(job: Asked, found: list[tuple[Question, str, Any, str]], _lane: str) -> None:
        lines = []
        for question, judge, answer, error in found:
            if error:
                refused[f"{job.item.id}: {question.text[:80]}"] = error
            else:
                lines.append({"sha": job.sha, "question": question.text, "judge": judge, "answer": answer})
        run.answers.extend(lines)
        progress(1)

    def failed(job: Asked, why: str) -> None:
        refused[job.item.id] = why
        progress(1)

    work = list(open_questions(run, panel, benchmark))
    for name in {job.benchmark for job in run.jobs.values() if benchmark in ("", job.benchmark)}:
        run.keep_panel(name, judges.labels(panel))
    spread(work, lanes, done, failed)
    return refused


def bring_in(
    run: Run, benchmark: Benchmark, items: Sequence[tuple[int, Item]], row: str, folder: Path, grid: bool
) -> int:
    """Take images that were made elsewhere as a row; returns how many were found.

    An item's images are FOLDER/<item>.png, FOLDER/<item>/<n>.png or FOLDER/<item>/samples/<n>.png, of any usual
    format; with `grid`, each file is DPG-Bench's grid of 2 x 2.
    """
    run.keep_items(benchmark.name, (item for _, item in items))
    have, count = run.drawn(), 0
    for index, item in items:
        tiles = [tile for path in _files(folder, item.id) for tile in _tiles(path, grid)]
        for repeat, image in enumerate(tiles):
            job = Job(
                benchmark.name, item.id, item.task, item.prompt, benchmark.seed(index, repeat, 0), row, None,
                {"made": "elsewhere"}, GIVEN,
            )  # fmt: skip
            run.plan([job])
            if job.key not in have:
                run.add_image(job.key, image, code=GIVEN)
            count += 1
    return count


def _files(folder: Path, item: str) -> list[Path]:
    for suffix in PICTURES:
        if (folder / f"{item}{suffix}").is_file():
            return [folder / f"{item}{suffix}"]
    for place in (folder / item / "samples", folder / item):
        if found := sorted(path for path in place.glob("*") if path.suffix.lower() in PICTURES):
            return found
    return []


def _tiles(path: Path, grid: bool) -> Iterator[Image.Image]:
    with Image.open(path) as image:
        whole = image.convert("RGB")
    if not grid:
        yield whole
        return
    width, height = whole.width // 2, whole.height // 2
    for y in (0, height):
        for x in (0, width):
            yield whole.crop((x, y, x + width, y + height))
