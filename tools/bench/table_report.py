"""What `bench_table.py` prints and draws from its records: the table, and a sheet of pictures to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy
from ella_lmd.evaluation import demo_world, statistics
from ella_lmd.evaluation import sheet as contact

Records = dict[tuple[str, int], dict]
"""One row's records by `(task, number)`."""


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95 % Wilson score interval of a success rate, in percent."""
    low, high = statistics.wilson(successes, trials)
    return 100 * low, 100 * high


def rate(records: Sequence[dict]) -> float:
    """Successes in percent."""
    return 100 * sum(r["verdict"] for r in records) / len(records)


def margin(rows: dict[str, Records], better: str = "full", than: str = "plain") -> float:
    """By how many points one row beats another, over the prompts that both have."""
    both = rows[better].keys() & rows[than].keys()
    return rate([rows[better][k] for k in both]) - rate([rows[than][k] for k in both])


def obeyed(layout, detections: Sequence[Sequence]) -> int:
    """How many objects of a layout were found, each by a detection of its own, with their centre inside their box."""
    left, hits = list(detections), 0
    for thing in layout.objects:
        x0, y0, x1, y1 = thing.box.corners
        words = thing.phrase.split()
        for found in left:
            kind, colour, box, _ = found
            x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            if words[-1] == kind and words[-2:-1] in (["a"], ["an"], [colour]) and x0 <= x <= x1 and y0 <= y <= y1:
                left.remove(found)
                hits += 1
                break
    return hits


def colour_shares(layout, picture) -> list[float]:
    """Per object of a layout that has a colour, the share of the picture's pixels in it that lie in boxes of that colour.

    A measure of places for a model whose shapes are not recognised; 0 where hardly a pixel has the colour.
    """
    pixels = numpy.asarray(picture.convert("RGB")).astype(int)
    height, width, _ = pixels.shape
    shares = []
    for colour, rgb in demo_world.COLOURS.items():
        own = [thing.box for thing in layout.objects if f" {colour} " in f" {thing.phrase} "]
        inside = numpy.zeros((height, width), bool)
        for box in own:
            y0, y1, x0, x1 = box.cells(height, width)
            inside[max(y0, 0) : y1, max(x0, 0) : x1] = True
        near = numpy.abs(pixels - numpy.array(rgb)).sum(-1) < 90
        share = float((near & inside).sum() / near.sum()) if near.sum() > 40 else 0.0
        shares += [share] * len(own)
    return shares


def table(rows: dict[str, Records], tasks: Sequence[str], layout: Callable) -> str:
    """Successes in percent, and the share of the layout's objects that are in their boxes (`layout` of a prompt).

    `to full` and `time`, relative to plain sampling, are over the prompts that both rows have.
    """
    lines = [
        f"{'':22}{'prompts':>8}"
        + "".join(f"{task:>13}" for task in tasks)
        + f"{'overall':>10}{'95 %':>14}{'in box':>8}{'to full':>9}{'time':>8}"
    ]
    for name, records in rows.items():
        rates = ""
        for task in tasks:
            own = [r for (t, _), r in records.items() if t == task]
            rates += f"{rate(own):13.0f}" if own else f"{'-':>13}"
        good, count = sum(r["verdict"] for r in records.values()), len(records)
        low, high = wilson(good, count)
        both = records.keys() & rows.get("plain", {}).keys()
        plans = [(layout(r["prompt"]), r["detections"]) for r in records.values()]
        things = sum(len(plan.objects) for plan, _ in plans)
        hits = sum(obeyed(plan, found) for plan, found in plans)
        times = [sum(r[k]["seconds"] for k in both) for r in (records, rows.get("plain", {}))]
        lines.append(
            f"{name:22}{count:8}{rates}{100 * good / count:10.1f}{f'{low:.1f} to {high:.1f}':>14}"
            + (f"{100 * hits / things:8.0f}" if things else f"{'-':>8}")
            + (f"{margin(rows, name, 'full'):+9.1f}" if "full" in rows and name != "full" else " " * 9)
            + (f"{times[0] / times[1]:7.1f}x" if both else "")
        )
    return "\n".join(lines)


def sheet(
    path: Path, rows: dict[str, Records], keys: Sequence[tuple[str, int]], layout: Callable, picture: Callable
) -> None:
    """Per prompt its layout and every row's picture, framed by its verdict, with the objects that were found in it.

    `layout` gives the Layout of a prompt, `picture` the image of a record.
    """
    lines = []
    for key in keys:
        cells = []
        for name, records in rows.items():
            record = records[key]
            seen = ", ".join(f"{hue} {kind}" for kind, hue, _, _ in record["detections"]) or "nothing found"
            caption = f"{name}: {'yes' if record['verdict'] else 'no'}; {seen}"
            boxes = [(box, "") for _, _, box, _ in record["detections"]]
            cells.append(contact.Cell(picture(record), record["verdict"], caption, boxes))
        prompt = next(r[key]["prompt"] for r in rows.values())
        lines.append(contact.Line(prompt, layout(prompt), cells))
    contact.draw(path, lines)
