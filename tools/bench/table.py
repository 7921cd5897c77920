"""The paper's table on the demo model: plain sampling against LMD, its parts and Backward Guidance, in four tasks.

    python run.py bench table                  100 prompts per task, every row, true layouts and the planner's
    python run.py bench table --quick          10 prompts per task, true layouts, plain and full LMD only
    python run.py bench table --report         what a run has so far; with --rejudge its pictures are looked at anew

Every row has the same prompts, layouts and seeds. A picture counts if the classical detector finds in it what the
prompt asks for. Printed: successes per task, the 95 % Wilson interval of the total, and processor seconds relative to
plain sampling; a row's seconds include its objects even where they were shared with another row.

Results go to --results, line by line, and pictures and contact sheets into the folder beside it: a run that was stopped
goes on where it was, and what is there is printed first. Exit status 0 only if full LMD beats plain sampling by MARGIN
points (QUICK_MARGIN with --quick) with every kind of layouts.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import json
import multiprocessing
import random
import sys
from collections import Counter
from pathlib import Path

from ella_lmd.tools import pack
from ella_lmd.tools.bench import table_report, table_rows

ROOT = pack.ROOT
MARGIN, QUICK_MARGIN = 39.7, 20.0
QUICK = {"count": 10, "layouts": ["truth"], "rows": ["plain", "full"]}
SAMPLING = {"sampler": table_rows.SAMPLER, "scheduler": table_rows.SCHEDULER}
SOURCES = (
    "lmd/**/*.py",
    "nodes/**/*.py",
    "demo/model.py",
    "evaluation/demo_benchmark.py",
    "demo/weights/*",
    "tools/bench/table_rows.py",
)


def code_state() -> str:
    """A hash of everything that decides what is drawn, so that results of different programs are never mixed."""
    files = sorted(path for pattern in SOURCES for path in ROOT.glob(pattern))
    return hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)).hexdigest()[:12]


class Results:
    """A file of JSON lines, one per picture, and a folder of the same name with the pictures."""

    def __init__(self, path: Path):
        self.path, self.folder = path, path.with_suffix("")
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        self.records = [json.loads(line) for line in lines if line.endswith("}")]
        if len(self.records) < len(lines):  # a killed run can cut its last line
            self.write()

    def write(self) -> None:
        self.path.write_text("".join(json.dumps(record) + "\n" for record in self.records))

    def add(self, record: dict, picture) -> None:
        from PIL import Image

        name = "-".join(str(v) for v in key_of(record)).replace(" ", "_")
        record["picture"] = f"{name}.png"
        Image.fromarray(picture).save(self.folder / record["picture"])
        self.records.append(record)
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def picture(self, record: dict):
        from PIL import Image

        return Image.open(self.folder / record["picture"]).convert("RGB")

    def rejudge(self, workers: int) -> int:
        """Look at every picture anew; returns how many verdicts changed."""
        from tqdm import tqdm

        paths = [str(self.folder / record["picture"]) for record in self.records]
        before = [record["verdict"] for record in self.records]
        with contextlib.ExitStack() as stack:
            found = map(look, paths)
            if workers > 1:
                pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(workers))
                found = pool.imap(look, paths, chunksize=8)
            found = tqdm(found, total=len(paths), desc="judging", disable=None)
            for record, detections in zip(self.records, found, strict=True):
                record |= judged(record["prompt"], detections)
        self.write()
        return sum(old != record["verdict"] for old, record in zip(before, self.records, strict=True))

    def rows(self, kind: str, how: tuple, names: list[str], numbers: range) -> dict[str, table_report.Records]:
        """The records of each row for one kind of layouts (plain sampling knows none); rows without any are left out."""
        found: dict[str, table_report.Records] = {name: {} for name in names}
        for r in self.records:
            wanted = key_of(r)[:-3] == (layouts_key(kind, r["row"]), *how) and r["number"] in numbers
            if wanted and r["row"] in found:
                found[r["row"]][r["task"], r["number"]] = r
        return {name: records for name, records in found.items() if records}


def key_of(record: dict) -> tuple:
    """What makes a picture: the layouts, how it was sampled, and the task, number and row."""
    how = record["steps"], record.get("cfg", table_rows.CFG), *(record.get(k, d) for k, d in SAMPLING.items())
    return record["layouts"], *how, record["task"], record["number"], record["row"]


def layouts_key(kind: str, row: str) -> str:
    return "none" if row == table_rows.PLAIN else kind


def look(path: str) -> list:
    from ella_lmd.evaluation import demo_detector
    from PIL import Image

    return demo_detector.detect(Image.open(path))


def judged(prompt: str, detections: list) -> dict:
    from ella_lmd.evaluation import demo_benchmark

    listed = [[d.kind, d.colour, [round(v, 4) for v in d.box], round(d.score, 4)] for d in detections]
    return {"verdict": demo_benchmark.verdict(prompt, detections), "detections": listed}


def numbered_prompts(count: int) -> list[tuple[str, int, str]]:
    """`(task, number, prompt)` in an order of which every beginning is a fair sample of the tasks."""
    from ella_lmd.evaluation import demo_benchmark

    seen: Counter[str] = Counter()
    found = []
    for task, prompt in demo_benchmark.prompts(count):
        found.append((task, seen[task], prompt))
        seen[task] += 1
    return sorted(found, key=lambda item: item[1])


def how_of(args: argparse.Namespace) -> tuple[int, float, str, str]:
    return args.steps, args.cfg, args.sampler, args.scheduler


def fill(results: Results, args: argparse.Namespace) -> None:
    """Sample what the results do not have yet; a prompt's number is its seed in every row."""
    from tqdm import tqdm

    state = code_state()
    if {r["code"] for r in results.records} - {state}:
        sys.exit(
            f"{results.path} has results of another state of the code, which must not be mixed with new ones: name "
            "another file with --results, delete this one, or only print it with --report"
        )
    have, how = {key_of(r) for r in results.records}, how_of(args)
    jobs, places = [], {}
    for kind in args.layouts:
        for task, number, prompt in numbered_prompts(args.count):
            missing = [n for n in args.rows if (layouts_key(kind, n), *how, task, number, n) not in have]
            have |= {(layouts_key(kind, n), *how, task, number, n) for n in missing}
            if missing:
                jobs.append((kind, prompt, number, args.steps, missing, *how[1:]))
                places[kind, prompt, number] = task
    if not jobs:
        return
    with multiprocessing.get_context("spawn").Pool(
        min(args.workers, len(jobs)), table_rows.start_host, (args.threads,)
    ) as pool:
        work = tqdm(pool.imap_unordered(table_rows.sample, jobs), total=len(jobs), desc="prompts", disable=None)
        for (kind, prompt, number, steps, *_), found in work:
            for name, picture, detections, seconds in found:
                record = {"layouts": layouts_key(kind, name), "steps": steps, "task": places[kind, prompt, number]}
                record |= {"cfg": args.cfg, "sampler": args.sampler, "scheduler": args.scheduler}
                record |= {"number": number, "row": name, "prompt": prompt, "seconds": round(seconds, 3), "code": state}
                results.add(record | judged(prompt, detections), picture)


def sample_of(keys: set[tuple[str, int]], count: int) -> list[tuple[str, int]]:
    """`count` of the prompts for a sheet, drawn alike from every task, in the order of the tasks; always the same."""
    from ella_lmd.evaluation.demo_benchmark import TASKS

    chosen = []
    for task in TASKS:
        own = sorted(key for key in keys if key[0] == task)
        chosen += sorted(random.Random(f"sheet {task}").sample(own, min(len(own), max(1, count // len(TASKS)))))
    return chosen


def report(results: Results, args: argparse.Namespace) -> float:
    """Prints the tables and draws the sheets; returns the smallest margin of full LMD over plain sampling."""
    from ella_lmd.evaluation.demo_benchmark import TASKS
    from ella_lmd.evaluation.lmd_benchmark import predicate

    margins = []
    for kind in args.layouts:
        rows = results.rows(kind, how_of(args), args.rows, range(args.count))
        if not rows:
            continue
        plan = functools.lru_cache(None)(functools.partial(table_rows.layout_of, kind))
        how = f"{args.steps} steps, CFG {args.cfg:g}, {args.sampler} {args.scheduler}"
        print(f"\n{how}, layouts: {kind}\n{table_report.table(rows, TASKS, plan)}")
        if kind == "planner":
            right = Counter(
                t for t, _, p in numbered_prompts(args.count) if predicate(p, table_rows.layout_of(kind, p))
            )
            print(f"layouts that are right, of {args.count}: " + ", ".join(f"{t} {right[t]}" for t in TASKS))
        shown = {name: rows[name] for name in ("plain", "full") if name in rows} or rows
        common = set.intersection(*(set(r) for r in shown.values()))
        if common:
            keys = sample_of(common, args.sheet)
            path = results.folder / f"sheet-{kind}.png"
            table_report.sheet(path, shown, keys, plan, results.picture)
            print(f"pictures: {path}")
        if {"plain", "full"} <= rows.keys() and common:
            margins.append(table_report.margin(rows))
    return min(margins, default=0.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="prompts per task (default 100)")
    parser.add_argument("--steps", type=int, default=20, help="sampling steps (default 20)")
    parser.add_argument("--cfg", type=float, default=table_rows.CFG, help=f"(default {table_rows.CFG})")
    for name, default in SAMPLING.items():
        parser.add_argument(f"--{name}", default=default, help=f"(default {default})")
    parser.add_argument("--layouts", nargs="+", choices=("truth", "planner"), default=["truth", "planner"])
    parser.add_argument("--rows", nargs="+", choices=list(table_rows.ROWS), default=list(table_rows.ROWS))
    parser.add_argument("--quick", action="store_true", help="the size for every change, always from the start")
    parser.add_argument("--results", type=Path, help="JSON lines (default output/table.jsonl)")
    parser.add_argument("--report", action="store_true", help="sample nothing, print what is there")
    parser.add_argument("--rejudge", action="store_true", help="sample nothing, judge the kept pictures again")
    parser.add_argument("--sheet", type=int, default=24, help="prompts on a contact sheet (default 24)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process (default 1)")
    args = parser.parse_args()
    if args.quick:
        vars(args).update(QUICK)
    path = args.results or ROOT / "output" / f"table{'-quick' if args.quick else ''}.jsonl"
    if args.quick and not (args.report or args.rejudge):
        path.unlink(missing_ok=True)  # a test of this program must not read results of an older one
    results = Results(path)
    if args.rejudge:
        print(f"{results.rejudge(args.workers)} of {len(results.records)} verdicts changed")
    elif not args.report:
        fill(results, args)
    margin, least = report(results, args), QUICK_MARGIN if args.quick else MARGIN
    print(f"full LMD above plain sampling by {margin:+.1f} points (at least {least})")
    return 0 if margin >= least else 1
