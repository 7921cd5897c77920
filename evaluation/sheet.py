"""Contact sheets: per prompt its layout and every row's image, framed by its verdict, with what was detected."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..lmd.layout import Layout
from .benchmarks.base import Benchmark
from .report import job_verdicts
from .run import Run

SIDE, GAP, TITLE, CAPTION, COLUMNS = 256, 8, 24, 36, 2
RIGHT, WRONG, LAYOUT = "#007A33", "#C00000", "#0072B2"


@dataclass(frozen=True)
class Cell:
    """One image: whether it is good, its caption, and boxes (x_min, y_min, x_max, y_max in 0..1) with their names."""

    image: Image.Image
    good: bool
    caption: str
    boxes: Sequence[tuple[Sequence[float], str]] = ()


@dataclass(frozen=True)
class Line:
    """One line of the sheet: a prompt, its layout, and a picture per row of the report."""

    prompt: str
    layout: Layout | None
    cells: Sequence[Cell]


def draw(path: Path, lines: Sequence[Line]) -> None:
    """Lines of equally many cells, in two columns."""
    width, height = (SIDE + GAP) * (len(lines[0].cells) + 1) + 2 * GAP, SIDE + TITLE + CAPTION + 2 * GAP
    down = -(-len(lines) // COLUMNS)
    image = Image.new("RGB", (width * min(COLUMNS, len(lines)), height * down), "white")
    for index, line in enumerate(lines):
        _line(image, line, GAP + index // down * width, GAP + index % down * height)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _line(image: Image.Image, line: Line, left: int, top: int) -> None:
    pen = ImageDraw.Draw(image)
    title = textwrap.shorten(line.prompt, (SIDE + GAP) * (len(line.cells) + 1) // 8, placeholder=" ...")
    pen.text((left, top), title, "black", ImageFont.load_default(16))
    top += TITLE
    _layout(pen, line.layout, left, top)
    for column, cell in enumerate(line.cells, 1):
        x, colour = left + column * (SIDE + GAP), RIGHT if cell.good else WRONG
        image.paste(cell.image.resize((SIDE, SIDE), Image.Resampling.BICUBIC), (x, top))
        for box, name in cell.boxes:
            _frame(pen, box, x, top, "black")
            pen.text((x + box[0] * SIDE + 3, top + box[1] * SIDE + 2), name, "black", ImageFont.load_default(13))
        _frame(pen, (0, 0, 1, 1), x, top, colour, 4)
        _write(pen, x, top + SIDE + 4, cell.caption, colour)


def _layout(pen: ImageDraw.ImageDraw, layout: Layout | None, left: int, top: int) -> None:
    pen.rectangle([left, top, left + SIDE - 1, top + SIDE - 1], "#F2F0EA")
    if layout is None:
        return _write(pen, left, top + SIDE + 4, "no layout")
    for thing in layout.objects:
        _frame(pen, thing.box.corners, left, top, LAYOUT, 3)
        at = (left + thing.box.centre[0] * SIDE, top + thing.box.centre[1] * SIDE)
        words = textwrap.fill(thing.phrase, 9)
        pen.text(at, words, LAYOUT, ImageFont.load_default(13), anchor="mm", align="center")
    _write(pen, left, top + SIDE + 4, f"not: {layout.negative}" if layout.negative else "layout")


def _write(pen: ImageDraw.ImageDraw, left: int, top: int, text: str, colour: str = "black") -> None:
    for line, part in enumerate(textwrap.wrap(text, SIDE // 7, max_lines=2, placeholder=" ...")):
        pen.text((left, top + 16 * line), part, colour, ImageFont.load_default(13))


def _frame(pen: ImageDraw.ImageDraw, box: Sequence[float], left: int, top: int, colour: str, width: int = 2) -> None:
    x0, y0, x1, y1 = (min(max(v, 0.0), 1.0) * SIDE for v in box)
    pen.rectangle([left + x0, top + y0, left + max(x1 - 1, x0), top + max(y1 - 1, y0)], outline=colour, width=width)


def of_run(run: Run, benchmark: Benchmark, judges: Sequence[str], path: Path, most: int = 24) -> bool:
    """A sheet of up to `most` prompts, spread over those that every row has; False where there is none."""
    drawn = run.drawn()
    places: dict[tuple[str, int], dict[str, tuple]] = {}
    for key, (job, verdict) in job_verdicts(run, benchmark, judges).items():
        if (file := run.file(drawn[key]["sha"])).exists():
            places.setdefault((job.item, job.seed), {}).setdefault(job.row, (job, verdict, file))
    rows = list(dict.fromkeys(name for found in places.values() for name in found))
    whole = [found for found in places.values() if len(found) == len(rows)]
    if whole:
        step = -(-len(whole) // most)
        draw(path, [_of_jobs([found[name] for name in rows]) for found in whole[::step]])
    return bool(whole)


def _of_jobs(found: Sequence[tuple]) -> Line:
    cells = []
    for job, verdict, file in found:
        boxes = [(box, str(name)) for name, *box in verdict.detections[:20]]
        with Image.open(file) as image:
            cells.append(
                Cell(image.convert("RGB"), verdict.score >= 0.5, f"{job.row}: {100 * verdict.score:.0f}", boxes)
            )
    layout = next((job.layout for job, *_ in found if job.layout), None)
    return Line(found[0][0].prompt, Layout.from_json(layout) if layout else None, cells)
