"""GenEval 2 (arXiv 2512.16853): Soft-TIFA, the probability of the right answer to a question per atom of a prompt.

The rules follow facebookresearch/GenEval2@a6e82d2 evaluation.py; its judge is Qwen3-VL-8B-Instruct.
"""

from __future__ import annotations

import math
from pathlib import Path

from .base import PROBABILITY, Answers, Benchmark, Item, Question, Verdict, json_lines, source_file

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class GenEval2(Benchmark):
    """GenEval 2: the probability that a vision model answers each question right."""

    name, title = "geneval2", "GenEval 2"
    needs = "geneval2_data.jsonl"

    def items(self, source: Path | None) -> list[Item]:
        path = source_file(source, self.needs, "geneval2_data.jsonl")
        found = []
        for number, record in enumerate(json_lines(path)):
            try:
                pairs = [[str(question), str(answer)] for question, answer in record["vqa_list"]]
                skills = [str(skill) for skill in record["skills"]]
                if len(skills) != len(pairs) or not pairs:
                    raise ValueError(f"{len(pairs)} questions, {len(skills)} skills")
                data = {"questions": pairs, "skills": skills}
                found.append(Item(f"{number:04}", f"atoms {record['atom_count']}", record["prompt"], None, data))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {number + 1}, lacks what GenEval 2 needs: {error!r}") from None
        return found

    def questions(self, item: Item, answers: Answers) -> list[Question]:
        return list(dict.fromkeys(_question(*pair) for pair in item.data["questions"]))

    def verdict(self, item: Item, answers: Answers, judge: str) -> Verdict:
        """The geometric mean over the atoms (prompt level); the parts are the atoms themselves by skill."""
        values = [float(answers[_question(*pair)]) for pair in item.data["questions"]]
        whole = math.exp(sum(map(math.log, values)) / len(values)) if min(values) > 0 else 0.0
        return Verdict(whole, tuple(zip(item.data["skills"], values, strict=True)))


def _question(question: str, answer: str) -> Question:
    """The question as the release words it, with the spellings of its answer that count."""
    if question.startswith("How many"):
        digits = str(NUMBERS.index(answer)) if answer in NUMBERS else "other"
        words = [answer, answer.capitalize(), digits]
    else:
        words = ["Yes", "yes"]
    wanted = [prefix + word for word in words for prefix in ("", " ")]
    return Question.of(PROBABILITY, question=f"{question} Answer in one word.", answers=wanted)
