"""A judge answers questions about images; a panel is one or more judges that answer all kinds of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from PIL import Image

from ..benchmarks.base import Answers, Benchmark, Item, Question


class Judge(Protocol):
    """`name` stands beside every number that the judge takes part in; `kinds` are the questions that it can answer."""

    name: str
    kinds: frozenset[str]

    def answer(self, image: Image.Image, question: Question) -> Any:
        """The answer as JSON. Raises ValueError when there is none."""
        ...

    def close(self) -> None:
        """Frees what the judge holds."""


class Panel:
    """Judges together: a question goes to the first of them that answers its kind."""

    def __init__(self, judges: Sequence[Judge]) -> None:
        self.judges = list(judges)

    @property
    def name(self) -> str:
        """The judges' names, joined by "+"."""
        return " + ".join(judge.name for judge in self.judges)

    def judge_of(self, question: Question) -> Judge:
        """The first judge that answers this kind of question; ValueError if none does."""
        for judge in self.judges:
            if question.kind in judge.kinds:
                return judge
        raise ValueError(f"none of the judges {self.name} answers questions of the kind {question.kind!r}")

    def close(self) -> None:
        """Closes every judge."""
        for judge in self.judges:
            judge.close()


def ask_all(
    panel: Panel, image: Image.Image, benchmark: Benchmark, item: Item, known: Answers
) -> list[tuple[Question, str, Any, str]]:
    """Put every question that is open, and those that follow from answers: `(question, judge, answer, error)`."""
    answers, new = dict(known), []
    tried: set[Question] = set()
    while open_ := [q for q in benchmark.questions(item, answers) if q not in answers and q not in tried]:
        for question in open_:
            tried.add(question)
            judge = panel.judge_of(question)
            try:
                answers[question] = judge.answer(image, question)
            except ValueError as error:
                new.append((question, judge.name, None, str(error)))
            else:
                new.append((question, judge.name, answers[question], ""))
    return new
