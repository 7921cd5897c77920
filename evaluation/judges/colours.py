"""CLIP as a judge of colours, as GenEval has it: the colour whose texts lie nearest to an object's crop."""

from __future__ import annotations

from PIL import Image

from ..benchmarks.base import COLOUR, Question
from .detectors import short

TEXTS = ("a photo of a {colour} {name}", "a photo of a {colour}-colored {name}", "a photo of a {colour} object")


class ClipColours:
    """Answers which of the given colours an object in a box has, by CLIP."""

    kinds = frozenset((COLOUR,))

    def __init__(self, source: str, device: str = "cpu") -> None:
        from transformers import CLIPModel, CLIPProcessor

        self.model = CLIPModel.from_pretrained(source).to(device).eval()
        self.processor, self.device = CLIPProcessor.from_pretrained(source), device
        self.name = f"clip {short(source)}"
        self._texts: dict = {}

    def answer(self, image: Image.Image, question: Question) -> str:
        import torch

        colours, name = question["colours"], question["name"]
        with torch.inference_mode():
            texts = self._classifier(name, colours)
            pixels = self.processor(images=crop(image, question["box"]), return_tensors="pt").to(self.device)
            seen = _features(self.model.get_image_features(**pixels))
            best = (texts @ (seen / seen.norm(dim=-1, keepdim=True))[0]).argmax()
        return colours[int(best)]

    def _classifier(self, name: str, colours: list[str]):
        """[colours, width]: the mean of each colour's unit text features, again of length 1."""
        if name not in self._texts:
            texts = [t.format(colour=colour, name=name) for colour in colours for t in TEXTS]
            tokens = self.processor(text=texts, return_tensors="pt", padding=True, truncation=True).to(self.device)
            found = _features(self.model.get_text_features(**tokens))
            found = (found / found.norm(dim=-1, keepdim=True)).reshape(len(colours), len(TEXTS), -1).mean(1)
            self._texts[name] = found / found.norm(dim=-1, keepdim=True)
        return self._texts[name]

    def close(self) -> None:
        pass


def _features(found):
    """transformers 5 gives an output object, older ones the features themselves."""
    return getattr(found, "pooler_output", found)


def crop(image: Image.Image, box: list[float]) -> Image.Image:
    """The box of an image, at least one pixel of it."""
    x0, x1 = (round(v * image.width) for v in (box[0], box[2]))
    y0, y1 = (round(v * image.height) for v in (box[1], box[3]))
    x0, y0 = min(max(x0, 0), image.width - 1), min(max(y0, 0), image.height - 1)
    return image.convert("RGB").crop((x0, y0, min(max(x1, x0 + 1), image.width), min(max(y1, y0 + 1), image.height)))
