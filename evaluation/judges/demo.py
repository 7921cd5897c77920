"""The demo world's detector as a judge."""

from __future__ import annotations

from PIL import Image

from ..benchmarks.base import DETECT, Question


class DemoDetector:
    """Detects the demo world's objects by their pixels."""

    name = "demo detector"
    kinds = frozenset((DETECT,))

    def answer(self, image: Image.Image, question: Question) -> list[dict]:
        from ..demo_detector import detect

        return [
            {"kind": d.kind, "colour": d.colour, "box": [float(v) for v in d.box], "score": float(d.score)}
            for d in detect(image)
        ]

    def close(self) -> None:
        pass
