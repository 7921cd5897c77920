"""A run is a folder of data: what to draw, what was drawn, what was seen in it. Every stage reads and appends lines.

manifest.jsonl   one `Job` a line
images.jsonl     one line per drawn image: its job's key, the hash of its pixels' file, what it took
answers.jsonl    one line per image, question and judge
items.jsonl      the benchmarks' items, as they were when the run was planned
panels.jsonl     which judges were asked together
images/          the files, named by the hash of their pixels
graphs/          the workflows of rows that name one, by their hash
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from PIL import Image

from .benchmarks.base import Item
from .lines import Lines, digest

ROOT = Path(__file__).resolve().parent.parent
DRAWING = ("lmd/**/*.py", "ella/**/*.py", "nodes/**/*.py", "demo/*.py", "demo/weights/**/*", "evaluation/images/*.py")
GIVEN = "given"
"""The code state of images that were made elsewhere."""


def code_state(patterns: Iterable[str] = DRAWING, root: Path = ROOT) -> str:
    """A hash of everything that decides what is drawn, so that results of different programs are never mixed."""
    files = sorted({path for pattern in patterns for path in root.glob(pattern) if path.is_file()})
    named = "".join(f"{p.relative_to(root)} {hashlib.sha256(p.read_bytes()).hexdigest()}\n" for p in files)
    return hashlib.sha256(named.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Job:
    """One image to draw. `settings` hold all that the row needs beside prompt, layout and seed."""

    benchmark: str
    item: str
    task: str
    prompt: str
    seed: int
    row: str
    layout: dict | None = None
    settings: dict = field(default_factory=dict)
    code: str = ""

    @property
    def key(self) -> str:
        """What identifies the image: every field but the version of the code."""
        return digest({name: value for name, value in asdict(self).items() if name != "code"})

    @classmethod
    def read(cls, record: dict) -> Job:
        """The job that a record describes; fields of other versions are ignored."""
        return cls(**{name: record[name] for name in cls.__dataclass_fields__})


class Run:
    """The folder of a run. Raises ValueError where its parts come from different states of the code."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = Lines(folder / "manifest.jsonl")
        self.images, self.answers = Lines(folder / "images.jsonl"), Lines(folder / "answers.jsonl")
        self.item_lines, self.panels = Lines(folder / "items.jsonl"), Lines(folder / "panels.jsonl")
        self.jobs: dict[str, Job] = {}
        self.unreadable = 0
        for record in self.manifest.records:
            try:
                job = Job.read(record)
            except (KeyError, TypeError):
                self.unreadable += 1
                continue
            self.jobs[job.key] = job

    @property
    def _files(self) -> tuple[Lines, ...]:
        return self.manifest, self.images, self.answers, self.item_lines, self.panels

    @property
    def damaged(self) -> int:
        """How many lines of all files could not be read."""
        return self.unreadable + sum(lines.damaged for lines in self._files)

    def codes(self) -> set[str]:
        """The versions of the code that this run's images were drawn with."""
        drawn = {str(record.get("code")) for record in self.images.records if "error" not in record}
        return ({job.code for job in self.jobs.values()} | drawn) - {GIVEN}

    def require_code(self, state: str) -> None:
        """Refuse to add images of one state of the code to those of another."""
        if others := self.codes() - {state}:
            raise ValueError(
                f"{self.folder} was begun with another state of the code ({', '.join(sorted(others))}; this one is "
                f"{state}), and results must not be mixed: name another folder, or only answer and report this one"
            )

    def items(self, benchmark: str) -> dict[str, Item]:
        """A benchmark's items by their id."""
        own = [r for r in self.item_lines.records if r.get("benchmark") == benchmark]
        return {r["id"]: Item(*(r[name] for name in Item.__dataclass_fields__)) for r in own if "id" in r}

    def keep_items(self, benchmark: str, items: Iterable[Item]) -> None:
        """Writes down the items that are not yet in the run."""
        have = self.items(benchmark)
        self.item_lines.extend([{"benchmark": benchmark, **asdict(i)} for i in items if i.id not in have])

    def keep_panel(self, benchmark: str, judges: list[str]) -> None:
        """Writes down which judges a benchmark has."""
        record = {"benchmark": benchmark, "judges": judges}
        if record not in self.panels.records:
            self.panels.add(record)

    def plan(self, jobs: Iterable[Job]) -> int:
        """Add the jobs that are not there yet; returns how many those are."""
        new = {job.key: job for job in jobs if job.key not in self.jobs}
        self.manifest.extend([asdict(job) for job in new.values()])
        self.jobs |= new
        return len(new)

    def drawn(self) -> dict[str, dict]:
        """The image line of each job that has one, the first that was written."""
        found: dict[str, dict] = {}
        for record in self.images.records:
            if "error" not in record and record.get("key") in self.jobs and isinstance(record.get("sha"), str):
                found.setdefault(record["key"], record)
        return found

    def failures(self) -> dict[str, str]:
        """Why a job has no image, as far as it was tried."""
        done = self.drawn()
        return {r["key"]: r["error"] for r in self.images.records if "error" in r and r.get("key") not in done}

    def missing(self) -> list[Job]:
        """The jobs without an image, in the manifest's order; a line whose file is gone and unjudged counts for nothing."""
        done, judged = self.drawn(), {record.get("sha") for record in self.answers.records}
        there = {k for k, r in done.items() if r["sha"] in judged or self.file(r["sha"]).exists()}
        return [job for key, job in self.jobs.items() if key not in there and job.code != GIVEN]

    def file(self, sha: str) -> Path:
        """Where the image with this checksum lies."""
        return self.folder / "images" / f"{sha}.png"

    def add_image(self, key: str, image: Image.Image, **more: object) -> None:
        """Keep an image: first the file, whole or not at all, then its line."""
        image = image.convert("RGB")
        sha = hashlib.sha256(b"%d %d " % image.size + image.tobytes()).hexdigest()[:32]
        path = self.file(sha)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(f".{os.getpid()}.part")
            image.save(part, "PNG")
            os.replace(part, path)
        self.images.add({"key": key, "sha": sha, **more})

    def add_failure(self, key: str, error: str) -> None:
        """Writes down that a job failed, and why."""
        self.images.add({"key": key, "error": error})

    def keep_graph(self, graph: dict) -> str:
        """Keep a workflow beside the run; returns the name under which a job's settings refer to it."""
        name = digest(graph)
        path = self.folder / "graphs" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(graph, indent=1))
        return name

    def graph(self, name: str) -> dict:
        """A workflow that was copied into the run."""
        return json.loads((self.folder / "graphs" / f"{name}.json").read_text())


def merge(target: Run, sources: Iterable[Run]) -> None:
    """Bring runs together in `target`. Raises ValueError where they were drawn by different states of the code."""
    sources = list(sources)
    states = {run.folder: run.codes() for run in (target, *sources)}
    if len(set().union(*states.values())) > 1:
        told = "; ".join(f"{folder}: {', '.join(sorted(codes))}" for folder, codes in states.items() if codes)
        raise ValueError(f"these runs were drawn by different states of the code and can't be merged ({told})")
    for run in sources:
        target.plan(run.jobs.values())
        for path in (run.folder / "graphs").glob("*.json"):
            target.keep_graph(json.loads(path.read_text()))
        have = target.drawn()
        for key, record in run.drawn().items():
            if key in have:
                continue
            path = run.file(record["sha"])
            if path.exists():
                with Image.open(path) as image:
                    target.add_image(**record, image=image)
            else:
                target.images.add(record)
        for record in run.item_lines.records + run.panels.records:
            lines = target.item_lines if "id" in record else target.panels
            if record not in lines.records:
                lines.extend([record])
        known = {_answer_key(record) for record in target.answers.records}
        new = {_answer_key(r): r for r in run.answers.records if _answer_key(r) not in known}
        target.answers.extend(list(new.values()))


def _answer_key(record: dict) -> tuple:
    return record.get("sha"), record.get("question"), record.get("judge")
