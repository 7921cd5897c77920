"""A contact sheet: per prompt its layout and every row's image, framed by its verdict, with what was detected."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from .benchmarks.base import Benchmark
from .report import job_verdicts
from .run import Run

SIDE, GAP, TITLE, CAPTION = 224, 8, 24, 36
RIGHT, WRONG, LAYOUT = "#007A33", "#C00000", "#0072B2"


def sheet(run: Run, benchmark: Benchmark, judges: Sequence[str], path: Path, most: int = 24) -> bool:
    """Draw up to `most` prompts, spread over the items that every row has; False where there is none."""
    drawn = run.drawn()
    cells: dict[tuple[str, int], dict[str, tuple]] = {}
    for key, (job, verdict) in job_verdicts(run, benchmark, judges).items():
        if (file := run.file(drawn[key]["sha"])).exists():
            cells.setdefault((job.item, job.seed), {}).setdefault(job.row, (job, verdict, file))
    rows = list(dict.fromkeys(name for found in cells.values() for name in found))
    whole = [place for place, found in cells.items() if len(found) == len(rows)]
    if not whole:
        return False
    chosen = whole[:: max(1, len(whole) // most)][:most]
    image = Image.new("RGB", ((SIDE + GAP) * (len(rows) + 1) + GAP, (SIDE + TITLE + CAPTION) * len(chosen)), "white")
    for index, place in enumerate(chosen):
        _line(image, index * (SIDE + TITLE + CAPTION), [cells[place][name] for name in rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return True


def _line(image: Image.Image, top: int, found: Sequence[tuple]) -> None:
    pen, small = ImageDraw.Draw(image), ImageFont.load_default(13)
    pen.text((GAP, top + 4), found[0][0].prompt[:200], "black", ImageFont.load_default(16))
    top += TITLE
    layout = next((job.layout for job, _, _ in found if job.layout), None)
    pen.rectangle([GAP, top, GAP + SIDE - 1, top + SIDE - 1], "#F2F0EA")
    for thing in (layout or {}).get("objects", ()):
        x, y, w, h = thing["box"]
        _frame(pen, (x, y, x + w, y + h), GAP, top, LAYOUT, 3)
        pen.text((GAP + x * SIDE + 4, top + y * SIDE + 4), thing["phrase"], LAYOUT, small)
    for column, (job, verdict, file) in enumerate(found, 1):
        left = GAP + column * (SIDE + GAP)
        with Image.open(file) as picture:
            image.paste(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC), (left, top))
        for name, *box in verdict.detections[:20]:
            _frame(pen, box, left, top, "black")
            pen.text((left + box[0] * SIDE + 3, top + box[1] * SIDE + 2), str(name), "black", small)
        colour = RIGHT if verdict.score >= 0.5 else WRONG
        _frame(pen, (0, 0, 1, 1), left, top, colour, 4)
        text = textwrap.shorten(f"{job.row}: {100 * verdict.score:.0f}", SIDE // 7)
        pen.text((left, top + SIDE + 4), text, colour, small)


def _frame(pen: ImageDraw.ImageDraw, box: Sequence[float], left: int, top: int, colour: str, width: int = 2) -> None:
    x0, y0, x1, y1 = (min(max(v, 0.0), 1.0) * SIDE for v in box)
    pen.rectangle([left + x0, top + y0, left + max(x1 - 1, x0), top + max(y1 - 1, y0)], outline=colour, width=width)
