"""What a benchmark is: items to draw, questions about an image, and a score from their answers."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..lines import canonical

DETECT, ASK, PROBABILITY, COLOUR = "detect", "ask", "probability", "colour"


@dataclass(frozen=True)
class Question:
    """One question about an image; `about` is JSON text, so that equal questions are equal.

    DETECT  about {"queries": [text, ...]}            -> [{"label": index, "score": 0..1, "box": [x0, y0, x1, y1]}, ...]
    ASK     about {"question": text}                  -> the answer's text
    PROBABILITY about {"question", "answers": [...]}  -> 0..1, how likely one of the answers is
    COLOUR  about {"name", "box", "colours": [...]}   -> one of the colours

    Boxes are in 0..1 of the image; detections come from the best score down.
    """

    kind: str
    about: str

    @classmethod
    def of(cls, kind: str, **about: Any) -> Question:
        """A question of this kind; its details are kept as canonical JSON, so that equal questions compare equal."""
        return cls(kind, canonical(about))

    def __getitem__(self, name: str) -> Any:
        return json.loads(self.about)[name]

    @property
    def text(self) -> str:
        """The question as one line, for the answers' file."""
        return f"{self.kind} {self.about}"


Answers = Mapping[Question, Any]


@dataclass(frozen=True)
class Item:
    """One prompt; `data` is what its benchmark needs to ask about it and to judge, as JSON."""

    id: str
    task: str
    prompt: str
    layout: dict | None = None
    data: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """An image's score in 0..1, and scores of its parts by category."""

    score: float
    parts: tuple[tuple[str, float], ...] = ()
    detections: tuple = ()


@dataclass(frozen=True)
class Published:
    """A published row: percent by task, and where it stands."""

    name: str
    values: dict[str, float]
    judge: str
    source: str


class Benchmark(ABC):
    """A benchmark by its `name`. Files that it reads are the user's own copies; nothing is downloaded."""

    name = ""
    title = ""
    images = 1  # per prompt, as published
    over_tasks = False  # the overall score is the mean over tasks, not over prompts
    needs = ""  # which file `items` reads, for messages
    detector_thresholds: Mapping[str, tuple[float, float]] = {}
    published: Sequence[Published] = ()

    @abstractmethod
    def items(self, source: Path | None) -> list[Item]:
        """All prompts. Raises ValueError naming the file and the line that can't be read."""

    @abstractmethod
    def questions(self, item: Item, answers: Answers) -> list[Question]:
        """All questions that can be put, given the answers so far; when none of them is open, the item is answered."""

    @abstractmethod
    def verdict(self, item: Item, answers: Answers, judge: str) -> Verdict:
        """The score of an image of which every question was answered; `judge` is the panel's name."""

    def seed(self, index: int, repeat: int, offset: int) -> int:
        """The seed of an image: LMD's rule, which gives every prompt and repeat its own (docs/lmd.md, 5.3)."""
        return index + 6789 * repeat + offset

    def further(self, found: Mapping[str, Sequence[Mapping[Question, Any]]], items: Mapping[str, Item]) -> dict:
        """Further figures of a row from the answers to each item's images, by name."""
        return {}


def source_file(source: Path | None, needs: str, *names: str) -> Path:
    """The file itself, or the first of `names` in a folder. Raises ValueError saying what is needed."""
    if source is None:
        raise ValueError(f"this benchmark reads your own copy of its public files: give {needs} with --source")
    if source.is_file():
        return source
    for name in names:
        if (source / name).is_file():
            return source / name
    raise ValueError(f"{source} is neither a file nor a folder with {' or '.join(names)}: give {needs} with --source")


def json_lines(path: Path) -> list[dict]:
    """The objects of a JSON Lines file. Raises ValueError naming the first line that is none."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}, is not JSON: {error}") from None
        if not isinstance(record, dict):
            raise ValueError(f"{path}, line {number}, must be a JSON object, got {line[:80]}")
        found.append(record)
    return found
