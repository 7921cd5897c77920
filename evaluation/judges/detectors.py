"""Object detectors of transformers: OWL-ViT and OWLv2 find any text, Mask2Former COCO's classes."""

from __future__ import annotations

from typing import Any

from PIL import Image

from ..benchmarks.base import DETECT, Question

LEAST, MOST = 0.05, 200
"""Which detections an answer keeps; a benchmark's own threshold comes later and needs no new look at the image."""


class Owl:
    """OWL-ViT or OWLv2: a box's score is the sigmoid of its best query's logit, its label that query."""

    kinds = frozenset((DETECT,))

    def __init__(self, kind: str, source: str, device: str = "cpu") -> None:
        import transformers

        classes = {
            "owlvit": (transformers.OwlViTForObjectDetection, transformers.OwlViTProcessor),
            "owlv2": (transformers.Owlv2ForObjectDetection, transformers.Owlv2Processor),
        }
        model, processor = classes[kind]
        self.kind, self.device = kind, device
        self.model = model.from_pretrained(source).to(device).eval()
        self.processor = processor.from_pretrained(source)
        self.name = f"{kind} {short(source)}"

    def answer(self, image: Image.Image, question: Question) -> list[dict]:
        import torch

        image = image.convert("RGB")
        inputs = self.processor(text=[question["queries"]], images=image, return_tensors="pt", truncation=True)
        with torch.inference_mode():
            found = self.model(**inputs.to(self.device))
        # OWLv2 pads to a square, and its own processor takes that back.
        sizes = torch.tensor([[image.height, image.width]], device=self.device)
        (result,) = self.processor.post_process_grounded_object_detection(found, threshold=LEAST, target_sizes=sizes)
        scale = (image.width, image.height) * 2
        boxes = [[v / s for v, s in zip(box, scale, strict=True)] for box in result["boxes"].tolist()]
        return listed(boxes, result["scores"].tolist(), result["labels"].tolist(), self.kind)

    def close(self) -> None:
        pass


class Mask2Former:
    """Instance segmentation with COCO's classes, GenEval's kind of detector; boxes are those of the masks."""

    kinds = frozenset((DETECT,))
    kind = "mask2former"

    def __init__(self, source: str, device: str = "cpu") -> None:
        from transformers import AutoImageProcessor, Mask2FormerForUniversalSegmentation

        self.model = Mask2FormerForUniversalSegmentation.from_pretrained(source).to(device).eval()
        self.processor, self.device = AutoImageProcessor.from_pretrained(source), device
        self.name = f"mask2former {short(source)}"
        self.classes = {text.lower(): number for number, text in self.model.config.id2label.items()}

    def answer(self, image: Image.Image, question: Question) -> list[dict]:
        import torch

        labels = [self._class(query) for query in question["queries"]]
        inputs = self.processor(images=image.convert("RGB"), return_tensors="pt")
        with torch.inference_mode():
            found = self.model(**inputs.to(self.device))
        (result,) = self.processor.post_process_instance_segmentation(
            found, threshold=LEAST, target_sizes=[(image.height, image.width)], return_binary_maps=True
        )
        masks = result["segmentation"]
        boxes, scores, own = [], [], []
        for index, part in enumerate(result["segments_info"]):
            if part["label_id"] in labels and masks is not None and bool(masks[index].any()):
                boxes.append(_mask_box(masks[index]))
                scores.append(float(part["score"]))
                own.append(labels.index(part["label_id"]))
        return listed(boxes, scores, own, self.kind)

    def _class(self, query: str) -> int:
        name = query.removeprefix("a photo of ").removeprefix("a ").removeprefix("an ")
        if name not in self.classes:
            raise ValueError(f"{self.name} knows no class {name!r}; it finds COCO's classes only")
        return self.classes[name]

    def close(self) -> None:
        pass


def short(source: str) -> str:
    """A model's own name, without the folder or the account it is from."""
    return source.rstrip("/").rsplit("/", 1)[-1]


def listed(boxes: list, scores: list[float], labels: list[int], kind: str) -> list[dict[str, Any]]:
    """The detections as a DETECT answer."""
    rows = sorted(zip(scores, labels, boxes, strict=True), key=lambda row: -row[0])[:MOST]
    return [
        {"label": int(label), "score": round(float(score), 6), "box": [round(float(v), 6) for v in box], "by": kind}
        for score, label, box in rows
    ]


def _mask_box(mask) -> list[float]:
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    height, width = mask.shape
    edges = (columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height)
    return [float(v) for v in edges]
