"""The paper's table on the demo model: plain sampling against LMD, its parts and Backward Guidance, in four tasks.

    python run.py bench table                  100 prompts per task, every row, true layouts and the planner's
    python run.py bench table --quick          10 prompts per task, true layouts, plain and full LMD only
    python run.py bench table --model transformer     the demo transformer: plain, guidance and full LMD
    python run.py bench table --report         what a run has so far; with --rejudge its pictures are looked at again

Every row has the same prompts, layouts and seeds. A picture counts if the classical detector finds in it what the
prompt asks for. Printed: successes per task, the 95 % Wilson interval of the total, and processor seconds relative to
plain sampling; a row's seconds include its objects even where they were shared with another row.

Results go to the folder --results, a run of evaluation/ with the pictures, and contact sheets: a run that was stopped
goes on where it was, and what is there is printed first. Exit status 0 only if full LMD beats plain sampling by MARGIN
points (QUICK_MARGIN with --quick) with every kind of layouts.
"""

from __future__ import annotations

import argparse
import functools
import random
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ella_lmd.evaluation import lanes, layouts, run, stages
from ella_lmd.evaluation.benchmarks import benchmark
from ella_lmd.evaluation.demo_benchmark import TASKS
from ella_lmd.evaluation.lmd_benchmark import predicate
from ella_lmd.tools import pack
from ella_lmd.tools.bench import table_report, table_rows

ROOT = pack.ROOT
MARGIN, QUICK_MARGIN = 39.7, 20.0
TRANSFORMER = {"sampler": "euler", "scheduler": "simple", "cfg": 5.0, "rows": ["plain", "energy only", "full"],
               "layouts": ["truth"]}  # fmt: skip
QUICK = {"count": 10, "layouts": ["truth"], "rows": ["plain", "full"]}
SAMPLING = {"sampler": table_rows.SAMPLER, "scheduler": table_rows.SCHEDULER}
UNET = {**SAMPLING, "cfg": table_rows.CFG, "rows": list(table_rows.ROWS), "layouts": ["truth", "planner"]}
JUDGE, DEMO = "demo", benchmark("demo")
SOURCES = (
    "lmd/**/*.py",
    "nodes/**/*.py",
    "demo/model.py",
    "evaluation/demo_benchmark.py",
    "demo/weights/**/*",
    "tools/bench/table_rows.py",
)


def layouts_key(kind: str, row: str) -> str:
    return "none" if row == table_rows.PLAIN else kind


def settings(args: argparse.Namespace, kind: str, row: str) -> dict:
    """A job's settings: how it is sampled, and which layouts it has."""
    how = {name: getattr(args, name) for name in ("steps", "cfg", "sampler", "scheduler")}
    how |= {"model": args.model} if args.model != table_rows.UNET else {}
    return how | {"layouts": layouts_key(kind, row)}


def items(count: int) -> list[tuple[int, object]]:
    """`count` prompts of each task with their places."""
    return list(enumerate(DEMO.items(None)))[: count * len(TASKS)]


def plan(state: run.Run, args: argparse.Namespace) -> None:
    """Write what is wanted into the manifest; a prompt's number is its seed in every row."""
    code, jobs = run.code_state(SOURCES), []
    state.require_code(code)
    state.keep_items(DEMO.name, (item for _, item in items(args.count)))
    for kind in args.layouts:
        for place, item in items(args.count):
            layout = layouts.exact_json(table_rows.layout_of(kind, item.prompt))
            for row in args.rows:
                own = None if row == table_rows.PLAIN else layout
                start = (DEMO.name, item.id, item.task, item.prompt, DEMO.seed(place, 0, 0), row, own)
                jobs.append(run.Job(*start, settings(args, kind, row), code))
    state.plan(jobs)


def together(jobs: Sequence[run.Job]) -> list[list[run.Job]]:
    """The jobs of one prompt, seed and layout: their rows share the object stage; plain sampling goes with any."""
    groups: dict[tuple, list[run.Job]] = {}
    homes: dict[tuple, tuple] = {}
    for job in sorted(jobs, key=lambda job: not job.layout):
        how = tuple(v for k, v in sorted(job.settings.items()) if k != "layouts")
        case = job.item, job.seed, how
        place = (*case, job.settings["layouts"])
        place = homes.setdefault(case, place) if not job.layout else place
        homes.setdefault(case, place)
        groups.setdefault(place, []).append(job)
    order = list(table_rows.ALL_ROWS)
    return [sorted(group, key=lambda job: order.index(job.row)) for group in groups.values()]


def workers(args: argparse.Namespace, place: str, **arguments: object) -> list[lanes.Process]:
    return [lanes.Process(number, lanes.Spec(place, arguments)) for number in range(args.workers)]


def fill(state: run.Run, args: argparse.Namespace) -> None:
    """Draw and judge what is missing."""
    from tqdm import tqdm

    plan(state, args)
    if missing := state.missing():
        with tqdm(total=len(missing), desc="pictures", disable=None) as bar:
            found = workers(args, "tools.bench.table_rows:Worker", threads=args.threads)
            stages.draw(state, found, bar.update, together)
    judge(state, args)
    for why in sorted(set(state.failures().values())):
        print(f"failed: {why}")


def judge(state: run.Run, args: argparse.Namespace) -> None:
    from tqdm import tqdm

    if work := sum(1 for _ in stages.open_questions(state, JUDGE)):
        with tqdm(total=work, desc="judging", disable=None) as bar:
            stages.ask(state, JUDGE, workers(args, "evaluation.stages:AnswerWorker", panel=JUDGE), bar.update)


def rejudge(state: run.Run, args: argparse.Namespace) -> tuple[run.Run, int]:
    """Look at every picture again; returns the run and how many verdicts changed."""
    before = {key: r["verdict"] for key, r in judged(state).items()}
    state.answers.path.unlink(missing_ok=True)
    state = run.Run(state.folder)
    judge(state, args)
    return state, sum(r["verdict"] != before.get(key, r["verdict"]) for key, r in judged(state).items())


def judged(state: run.Run) -> dict[str, dict]:
    """A record of every judged picture, by its job's key."""
    from ella_lmd.evaluation.benchmarks.demo import detections

    answers, drawn, found = stages.known_answers(state, [JUDGE]), state.drawn(), {}
    own = state.items(DEMO.name)
    for key, line in drawn.items():
        job, known = state.jobs[key], answers.get(line["sha"], {})
        (question,) = DEMO.questions(own[job.item], known)
        if question in known:
            seen = detections(known[question])
            found[key] = {
                "prompt": job.prompt, "seconds": line.get("seconds", 0.0), "sha": line["sha"],
                "verdict": bool(DEMO.verdict(own[job.item], known, JUDGE).score),
                "detections": [[d.kind, d.colour, [round(v, 4) for v in d.box], round(d.score, 4)] for d in seen],
            }  # fmt: skip
    return found


def rows_of(state: run.Run, args: argparse.Namespace, kind: str) -> dict[str, table_report.Records]:
    """The records of each row for one kind of layouts (plain sampling knows none); rows without any are left out."""
    found: dict[str, table_report.Records] = {name: {} for name in args.rows}
    for key, record in judged(state).items():
        job = state.jobs[key]
        wanted = job.row in found and job.settings == settings(args, kind, job.row) and job.seed < args.count
        if wanted:
            found[job.row][job.task, job.seed] = record
    return {name: records for name, records in found.items() if records}


def sample_of(keys: set[tuple[str, int]], count: int) -> list[tuple[str, int]]:
    """`count` of the prompts for a sheet, drawn alike from every task, in the order of the tasks; always the same."""
    chosen = []
    for task in TASKS:
        own = sorted(key for key in keys if key[0] == task)
        chosen += sorted(random.Random(f"sheet {task}").sample(own, min(len(own), max(1, count // len(TASKS)))))
    return chosen


def report(state: run.Run, args: argparse.Namespace) -> float:
    """Prints the tables and draws the sheets; returns the smallest margin of full LMD over plain sampling."""
    from PIL import Image

    margins = []
    for kind in args.layouts:
        rows = rows_of(state, args, kind)
        if not rows:
            continue
        layout = functools.lru_cache(None)(functools.partial(table_rows.layout_of, kind))
        how = f"{args.steps} steps, CFG {args.cfg:g}, {args.sampler} {args.scheduler}"
        print(f"\n{how}, layouts: {kind}\n{table_report.table(rows, TASKS, layout)}")
        if args.model != table_rows.UNET:
            print("objects with a colour, and the share of that colour's pixels inside their boxes:")
            for name, records in rows.items():
                shares = [share for r in records.values()
                          for share in table_report.colour_shares(layout(r["prompt"]), Image.open(state.file(r["sha"])))]  # fmt: skip
                print(f"{name:22}{len(shares):8}{100 * sum(shares) / max(1, len(shares)):13.0f}")
        if kind == "planner":
            right = Counter(
                i.task for _, i in items(args.count) if predicate(i.prompt, table_rows.layout_of(kind, i.prompt))
            )
            print(f"layouts that are right, of {args.count}: " + ", ".join(f"{t} {right[t]}" for t in TASKS))
        shown = {name: rows[name] for name in ("plain", "full") if name in rows} or rows
        common = set.intersection(*(set(r) for r in shown.values()))
        if common:
            keys = sample_of(common, args.sheet)
            path = state.folder / f"sheet-{kind}.png"
            table_report.sheet(path, shown, keys, layout, lambda record: Image.open(state.file(record["sha"])))
            print(f"pictures: {path}")
        if {"plain", "full"} <= rows.keys() and common:
            margins.append(table_report.margin(rows))
    return min(margins, default=0.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="prompts per task (default 100)")
    parser.add_argument("--steps", type=int, default=20, help="sampling steps (default 20)")
    parser.add_argument("--model", choices=table_rows.MODELS, default=table_rows.UNET, help="(default unet)")
    parser.add_argument(
        "--cfg", type=float, help=f"(default {table_rows.CFG}; {TRANSFORMER['cfg']} of the transformer)"
    )
    for name, default in SAMPLING.items():
        parser.add_argument(f"--{name}", help=f"(default {default}; {TRANSFORMER[name]} of the transformer)")
    parser.add_argument("--layouts", nargs="+", choices=("truth", "planner"))
    parser.add_argument("--rows", nargs="+", choices=list(table_rows.ALL_ROWS))
    parser.add_argument("--quick", action="store_true", help="the size for every change, always from the start")
    parser.add_argument("--results", type=Path, help="the run's folder (default output/table)")
    parser.add_argument("--report", action="store_true", help="sample nothing, print what is there")
    parser.add_argument("--rejudge", action="store_true", help="sample nothing, judge the kept pictures again")
    parser.add_argument("--sheet", type=int, default=24, help="prompts on a contact sheet (default 24)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process (default 1)")
    args = parser.parse_args()
    if args.quick:
        vars(args).update(QUICK)
    own = args.model != table_rows.UNET
    vars(args).update({k: v for k, v in (TRANSFORMER if own else UNET).items() if vars(args)[k] is None})
    name = f"table{f'-{args.model}' if own else ''}{'-quick' if args.quick else ''}"
    folder = (args.results or ROOT / "output" / name).with_suffix("")
    if args.quick and not (args.report or args.rejudge):
        shutil.rmtree(folder, ignore_errors=True)  # a test of this program must not read results of an older one
    state = run.Run(folder)
    if args.rejudge:
        state, changed = rejudge(state, args)
        print(f"{changed} of {len(state.drawn())} verdicts changed")
    elif not args.report:
        try:
            fill(state, args)
        except ValueError as error:
            sys.exit(f"{error} (--results FOLDER, --report)")
    margin, least = report(state, args), QUICK_MARGIN if args.quick else MARGIN
    print(f"full LMD above plain sampling by {margin:+.1f} points (at least {least})")
    return 0 if margin >= least else 1
