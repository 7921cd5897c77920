"""Draws the pictures on which the demo world's detector is checked against labels made by eye.

    python run.py python tools/demo_model/demo_pictures.py          tests/data/held_out_pictures.png and .json; half an hour
    python run.py python tools/demo_model/demo_pictures.py --view   from that sheet: enlarged, numbered pages in output/held_out
    python run.py python tools/demo_model/demo_pictures.py --score  how far the detector agrees with the labels

84 pictures by the demo model, the first of 96 shuffled recipes, half plain sampling and half full LMD: ten benchmark
prompts of each task and method (the numbers 200 to 219, which no table uses, with layouts from the truth and the planner
in turn) and 16 freer prompts on all backgrounds; 20 and 50 steps in turn; seeds from 770,000 on. The pages show no
prompts, so that who labels them does not know what was asked for. The labels, tests/data/held_out_labels.json, are
written by hand.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from pathlib import Path

from ella_lmd.evaluation.layouts import exact_json
from ella_lmd.evaluation.run import Job
from ella_lmd.tools import pack
from ella_lmd.tools.bench import table_rows
from PIL import Image, ImageDraw
from tqdm import tqdm

SHEET = pack.ROOT / "tests" / "data" / "held_out_pictures.png"
LABELS = SHEET.with_name("held_out_labels.json")
PAGES = pack.ROOT / "output" / "held_out"
SIDE, COLUMNS = 128, 12
FIRST_PROMPT, FIRST_SEED = 200, 770_000
COUNT = 84
"""How many of the shuffled recipes are drawn."""
FREE = (
    "three hearts in the snow",
    "a red circle on the grass",
    "A photo of a beach with two orange stars and a blue moon",
    "a purple cross high in the air",
    "A scene with a white moon and two yellow stars at night",
    "four green rings on a lake",
    "a snowy field with a blue square",
    "A picture of a park with a pink heart, a white circle and a yellow triangle",
    "two moons in the desert",
    "a bright sky with a green triangle above a red ring",
    "a dark night with a pink ring",
    "A realistic photo of the sea with five white crosses",
    "a yellow triangle to the left of a purple square in winter",
    "some stars on a lawn",
    "a blue heart and an orange square on a beach",
    "three red triangles and a white ring in the sky",
)


def recipes() -> list[dict]:
    """What every picture is made of, in the order of the sheet: task, prompt, row of the table, layouts, steps, seed."""
    from ella_lmd.evaluation import demo_benchmark

    wanted = demo_benchmark.prompts(FIRST_PROMPT + 20)
    asked = [(t, p) for task in demo_benchmark.TASKS for t, p in [x for x in wanted if x[0] == task][FIRST_PROMPT:]]
    asked += [("free", prompt) for prompt in FREE]
    found = []
    for index, (task, prompt) in enumerate(asked):
        layouts = "planner" if task == "free" or index % 4 < 2 else "truth"
        row = ("plain", "full")[(index + index // 6) % 2]  # FREE goes through the six backgrounds in turn
        steps = (20, 50)[index // 4 % 2]
        recipe = {"task": task, "prompt": prompt, "row": row, "layouts": layouts, "steps": steps}
        found.append(recipe | {"seed": FIRST_SEED + index})
    random.Random("held out").shuffle(found)
    return found[:COUNT]


def job_of(recipe: dict) -> Job:
    """A recipe as the table's worker takes it."""
    row, prompt = recipe["row"], recipe["prompt"]
    layout = None if row == table_rows.PLAIN else exact_json(table_rows.layout_of(recipe["layouts"], prompt))
    how = {"steps": recipe["steps"], "cfg": table_rows.CFG}
    how |= {"sampler": table_rows.SAMPLER, "scheduler": table_rows.SCHEDULER}
    return Job("held out", str(recipe["seed"]), recipe["task"], prompt, recipe["seed"], row, layout, how)


def draw(path: Path) -> None:
    """Draw every recipe's picture into one sheet, and keep the recipes beside it."""
    worker, made = table_rows.Worker(), recipes()
    sheet = Image.new("RGB", (COLUMNS * SIDE, -(-len(made) // COLUMNS) * SIDE))
    for index, r in enumerate(tqdm(made, desc="pictures")):
        [(_, picture, _)] = worker.do([job_of(r)])
        sheet.paste(picture, (index % COLUMNS * SIDE, index // COLUMNS * SIDE))
        if index % COLUMNS == COLUMNS - 1:
            sheet.save(path)
    sheet.save(path, optimize=True)
    path.with_suffix(".json").write_text("[\n" + ",\n".join(json.dumps(r) for r in made) + "\n]\n")


def view(path: Path) -> None:
    """Pages of twelve pictures, three times enlarged, with their numbers and nothing else."""
    sheet, scale = Image.open(path), 3
    PAGES.mkdir(parents=True, exist_ok=True)
    count = sheet.width // SIDE * (sheet.height // SIDE)
    for first in range(0, count, 12):
        page = Image.new("RGB", (4 * (SIDE * scale + 6), 3 * (SIDE * scale + 22)), "white")
        for place, index in enumerate(range(first, min(first + 12, count))):
            x, y = index % COLUMNS * SIDE, index // COLUMNS * SIDE
            picture = sheet.crop((x, y, x + SIDE, y + SIDE)).resize((SIDE * scale,) * 2, Image.Resampling.LANCZOS)
            left, top = place % 4 * (SIDE * scale + 6), place // 4 * (SIDE * scale + 22)
            page.paste(picture, (left, top + 18))
            ImageDraw.Draw(page).text((left + 4, top + 2), str(index), "black")
        page.save(PAGES / f"page-{first // 12:02d}.png")
    print(f"pages: {PAGES}")


def score(path: Path) -> None:
    """Print recall, precision and agreement of verdicts, by task and by method."""
    from ella_lmd.evaluation import demo_detector, demo_labels

    made = json.loads(path.with_suffix(".json").read_text())
    seen = [[demo_labels.parse(text) for text in texts] for texts in json.loads(LABELS.read_text())]
    found = [demo_detector.detect(picture) for picture in demo_labels.pictures(Image.open(path))]
    print(
        f"{'':16}{'pictures':>9}{'clear':>7}{'found':>7}{'extra':>7}{'unclear':>9}{'verdicts':>10}{'agree':>7}{'open':>6}{'strict':>8}"
    )
    groups = [
        (name, lambda r, n=name: r["task"] == n) for name in ("negation", "numeracy", "attribution", "spatial", "free")
    ]
    groups += [(name, lambda r, n=name: r["row"] == n) for name in ("plain", "full")] + [("all", lambda _recipe: True)]
    for name, chosen in groups:
        counts = Counter()
        for recipe, things, detections in zip(made, seen, found, strict=True):
            if chosen(recipe):
                counts += demo_labels.tally(recipe["prompt"] if recipe["task"] != "free" else None, things, detections)
        print(
            f"{name:16}"
            + "".join(f"{counts[k]:{w}}" for k, w in zip(demo_labels.TALLIED, (9, 7, 7, 7, 9, 10, 7, 6, 8)))
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--view", action="store_true", help="only make the pages for the eye")
    parser.add_argument("--score", action="store_true", help="only compare the detector with the labels")
    parser.add_argument("--to", type=Path, default=SHEET)
    options = parser.parse_args()
    if options.score:
        score(options.to)
        return 0
    if not options.view:
        draw(options.to)
    view(options.to)
    return 0
