"""A vision language model of transformers as a judge: answers, probabilities of answers, colours of crops."""

from __future__ import annotations

import re

from PIL import Image

from ..benchmarks.base import ASK, COLOUR, PROBABILITY, Question
from .colours import crop
from .detectors import short

YES_OR_NO = "{question} Answer with yes or no."


class Vlm:
    """A vision language model in this process: yes or no, probabilities of answers, colours."""

    kinds = frozenset((ASK, PROBABILITY, COLOUR))

    def __init__(self, source: str, device: str = "cpu", dtype: str = "auto") -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self.model = AutoModelForImageTextToText.from_pretrained(source, dtype=dtype).to(device).eval()
        self.processor, self.device = AutoProcessor.from_pretrained(source), device
        self.name = f"vlm {short(source)}"

    def answer(self, image: Image.Image, question: Question) -> str | float:
        image = image.convert("RGB")
        if question.kind == COLOUR:
            text = colour_text(question)
            return chosen(self._generate(crop(image, question["box"]), text), question["colours"])
        if question.kind == ASK:
            return plain(self._generate(image, YES_OR_NO.format(question=question["question"])))
        return self._probability(image, question["question"], question["answers"])

    def _inputs(self, image: Image.Image, text: str):
        content = [{"type": "image", "image": image}, {"type": "text", "text": text}]
        found = self.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt",
        )  # fmt: skip
        return found.to(self.device)

    def _generate(self, image: Image.Image, text: str) -> str:
        import torch

        inputs = self._inputs(image, text)
        with torch.inference_mode():
            tokens = self.model.generate(**inputs, max_new_tokens=8, do_sample=False)
        (written,) = self.processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return written

    def _probability(self, image: Image.Image, text: str, answers: list[str]) -> float:
        """The summed probability that the answer begins with the first token of one of `answers`."""
        import torch

        inputs = self._inputs(image, text)
        with torch.inference_mode():
            found = self.model.generate(
                **inputs, max_new_tokens=1, do_sample=False, output_scores=True, return_dict_in_generate=True
            )
        odds = torch.softmax(found.scores[0][0].float(), -1)
        encoded = [self.processor.tokenizer.encode(a, add_special_tokens=False) for a in answers]
        return float(sum(odds[token] for token in {ids[0] for ids in encoded if ids}))

    def close(self) -> None:
        pass


def plain(text: str) -> str:
    """An answer's first word, in small letters: "Yes." is "yes"."""
    word = re.search(r"[^\W_]+", text)
    return word[0].lower() if word else ""


def colour_text(question: Question) -> str:
    """The question after an object's colour, with the possible answers."""
    return f"What colour is the {question['name']}? Answer with one of: {', '.join(question['colours'])}."


def chosen(text: str, choices: list[str]) -> str:
    """The first of the choices that an answer names, else its first word, which is then none of them."""
    words = re.findall(r"[^\W_]+", text.lower())
    return next((word for word in words if word in choices), plain(text))
