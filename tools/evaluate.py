"""The published tables on your checkpoint: plan a run, draw its images, judge them, report. Every stage resumes.

    python run.py evaluate run RUN --benchmark lmd --row plain --row lmd --layouts offline --judge owlvit
    python run.py evaluate plan|draw|ask|report RUN ...     one stage alone
    python run.py evaluate import RUN --benchmark dpg --source FILES --row "their model" FOLDER --grid
    python run.py evaluate merge RUN OTHER OTHER

docs/evaluation.md says what each benchmark needs and costs. Exit status 0 when all that was asked for is there, else 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ella_lmd.evaluation import judges, lanes, layouts, report, run, sheet, stages
from ella_lmd.evaluation.benchmarks import BENCHMARKS, benchmark
from ella_lmd.evaluation.images import graphs

EPILOGUE = f"""rows: {", ".join(graphs.ROWS)}
  NAME=ROW,setting=value,...            a row with other settings; options.X=value sets an input of LMD Options
  NAME=FILE.json,prompt=6.text,...      a workflow in API form; its inputs by node id, title or class

layouts:
{layouts.HELP}

judges:
{judges.HELP}"""


def planned(args: argparse.Namespace, state: run.Run) -> None:
    """Write the manifest."""
    chosen = benchmark(args.benchmark)
    settings = graphs.DEFAULTS | {k: v for k in graphs.DEFAULTS if (v := getattr(args, k)) is not None}
    rows = [stages.row_plan(text, settings, state.keep_graph, load_workflow(args)) for text in args.row or ["plain"]]
    source = layouts.layout_source(args.layouts) if args.layouts else None
    repeats = args.images or chosen.images
    label = (args.layouts or "").split("/")[-1]
    new, refused = stages.plan(
        state, chosen, items_of(args), rows, source, label, run.code_state(), repeats, args.seed_offset
    )
    say(f"{new} new jobs, {len(state.jobs)} in all")
    for item, why in list(refused.items())[:10]:
        say(f"no layout for {item}: {why}")
    if refused:
        say(f"{len(refused)} prompts have no layout; their rows will say so")


def items_of(args: argparse.Namespace) -> list[tuple[int, object]]:
    """The benchmark's items with their places, as many as were asked for."""
    found = list(enumerate(benchmark(args.benchmark).items(args.source)))
    if args.tasks:
        found = [(i, item) for i, item in found if item.task in args.tasks]
    if args.count:
        seen: dict[str, int] = {}
        kept = []
        for place, item in found:
            seen[item.task] = seen.get(item.task, 0) + 1
            if seen[item.task] <= args.count:
                kept.append((place, item))
        found = kept
    if not found:
        raise ValueError(f"no prompt is left of {args.benchmark}: see --tasks and --count")
    return found


def load_workflow(args: argparse.Namespace):
    """Reads an API workflow, or converts a saved one with the description of the nodes of a server."""

    def load(path: Path) -> dict:
        data = json.loads(path.read_text(encoding="utf-8"))
        if "nodes" not in data:
            return data
        if not args.servers:
            raise ValueError(f"{path} is saved for the browser: name a server with --servers, or export it (API)")
        import urllib.request

        from ella_lmd.tools.workflows import graph

        with urllib.request.urlopen(args.servers[0].rstrip("/") + "/object_info", timeout=60) as reply:
            return graph.to_api(data, json.load(reply))

    return load


def drawn(args: argparse.Namespace, state: run.Run) -> bool:
    """Draw what is missing; False where some of it could not be drawn."""
    missing = state.missing()
    if not missing:
        say("every image is drawn")
        return True
    state.require_code(run.code_state())
    workflows = {name: state.graph(name) for j in missing if (name := j.settings.get("workflow"))}
    if args.servers:
        from ella_lmd.evaluation.images.servers import ServerLane

        found: list = [ServerLane(url, workflows.__getitem__) for url in args.servers]
    else:
        device = device_of(args)
        arguments = {"workflows": workflows, "device": device, "models": args.models, "threads": args.threads}
        found = worker_lanes(args, lanes.Spec("evaluation.images.here:Executor", arguments), device)
    with bar(len(missing), "images") as progress:
        stages.draw(state, found, progress, stages.alone)
    for why in sorted(set(state.failures().values())):
        say(f"failed: {why}")
    return not state.missing()


def asked(args: argparse.Namespace, state: run.Run) -> bool:
    """Put the open questions to every panel; False where some were not answered."""
    complete = True
    for panel in args.judge or ():
        work = sum(1 for _ in stages.open_questions(state, panel, args.only))
        device = device_of(args)
        spec = lanes.Spec("evaluation.stages:AnswerWorker", {"panel": panel, "device": device})
        with bar(work, " + ".join(judges.labels(panel))) as progress:
            refused = stages.ask(state, panel, worker_lanes(args, spec, device) if work else [], progress, args.only)
        for question, why in list(refused.items())[:10]:
            say(f"unanswered: {question}: {why}")
        if refused:
            say(f"{len(refused)} questions are unanswered; the same command asks them again")
        complete &= not refused
    return complete


def worker_lanes(args: argparse.Namespace, spec: lanes.Spec, device: str) -> list:
    """One lane per worker: Ray's actors, processes, or this process."""
    if args.ray is not None:
        from ella_lmd.evaluation import ray_lanes

        ray = ray_lanes.connect(args.ray)
        count = args.workers or int(ray.cluster_resources().get("GPU" if device == "cuda" else "CPU", 1))
        return [ray_lanes.RayLane(ray, i, spec, float(device == "cuda")) for i in range(count)]
    if args.devices:
        return [lanes.Process(i, spec, {"CUDA_VISIBLE_DEVICES": d}) for i, d in enumerate(args.devices.split(","))]
    if args.workers > 1:
        return [lanes.Process(i, spec) for i in range(args.workers)]
    return [lanes.Here(spec)]


def reported(args: argparse.Namespace, state: run.Run) -> None:
    """Write report.md, report.json and a sheet for every panel."""
    told = report.summary(state)
    if not told["tables"]:
        raise ValueError(f"{args.run} has no answers yet: ask a judge first, with ask RUN --judge JUDGE")
    text = report.markdown(told)
    (args.run / "report.md").write_text(text, encoding="utf-8")
    (args.run / "report.json").write_text(json.dumps(told, indent=1, ensure_ascii=False), encoding="utf-8")
    print(text)
    for number, panel in enumerate(state.panels.records):
        path = args.run / f"sheet-{panel['benchmark']}-{number}.png"
        if sheet.of_run(state, benchmark(panel["benchmark"]), panel["judges"], path):
            say(f"pictures: {path}")


def brought_in(args: argparse.Namespace, state: run.Run) -> None:
    count = stages.bring_in(state, benchmark(args.benchmark), items_of(args), args.row[0], args.folder, args.grid)
    say(f"{count} images taken")


def merged(args: argparse.Namespace, state: run.Run) -> None:
    run.merge(state, [run.Run(folder) for folder in args.others])
    say(f"{len(state.jobs)} jobs, {len(state.drawn())} images, {len(state.answers.records)} answers")


def device_of(args: argparse.Namespace) -> str:
    if args.device:
        return args.device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class bar:
    """A progress bar over all lanes; a function that adds to it."""

    def __init__(self, total: int, text: str) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=total, desc=text, disable=None)

    def __enter__(self):
        return self._bar.update

    def __exit__(self, *_) -> None:
        self._bar.close()


STAGES = {
    "plan": (planned,), "draw": (drawn,), "ask": (asked,), "report": (reported,), "import": (brought_in,),
    "merge": (merged,), "run": (planned, drawn, asked, reported),
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="run.py evaluate",
        description=__doc__,
        epilog=EPILOGUE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = found.add_subparsers(dest="verb", required=True)
    for verb in STAGES:
        own = verbs.add_parser(verb, epilog=EPILOGUE, formatter_class=argparse.RawDescriptionHelpFormatter)
        own.add_argument("run", type=Path, help="the run's folder")
        if verb in ("plan", "run", "import"):
            choose_items(own)
        if verb in ("plan", "run"):
            choose_settings(own)
        if verb in ("plan", "draw", "ask", "run"):
            choose_machines(own)
        if verb in ("ask", "run"):
            own.add_argument("--judge", action="append", help="a judge or a panel; may be given several times")
            own.add_argument("--only", default="", help="ask about one benchmark of the run")
        if verb == "import":
            own.add_argument("folder", type=Path, help="FOLDER/<item>.png, FOLDER/<item>/<n>.png, .../samples/<n>.png")
            own.add_argument("--grid", action="store_true", help="each file is a grid of 2 x 2")
        if verb == "merge":
            own.add_argument("others", type=Path, nargs="+", help="the runs to bring into it")
    return found


def choose_items(own: argparse.ArgumentParser) -> None:
    own.add_argument("--benchmark", required=True, choices=list(BENCHMARKS))
    own.add_argument("--source", type=Path, help="your copy of the benchmark's public files")
    own.add_argument("--tasks", nargs="+", help="only these tasks")
    own.add_argument("--count", type=int, default=0, help="at most so many prompts of each task")
    own.add_argument("--row", action="append", help="a row; may be given several times (default plain)")


def choose_settings(own: argparse.ArgumentParser) -> None:
    own.add_argument("--layouts", default="", help="where layouts come from, for the rows that need them")
    own.add_argument("--images", type=int, default=0, help="images per prompt (default: as published)")
    own.add_argument("--seed-offset", type=int, default=0)
    for name, default in graphs.DEFAULTS.items():
        own.add_argument(f"--{name}", type=type(default), help=f"(default {default})")


def choose_machines(own: argparse.ArgumentParser) -> None:
    own.add_argument("--servers", nargs="+", help="ComfyUI servers with this pack that draw, one job each at a time")
    own.add_argument("--ray", nargs="?", const="", metavar="ADDRESS", help='on Ray, here or on a cluster ("auto")')
    own.add_argument("--workers", type=int, default=0, help="processes or Ray actors (default 1; all that Ray has)")
    own.add_argument("--devices", default="", help="a process on each of these GPUs, such as 0,1")
    own.add_argument("--device", choices=("cpu", "cuda"), help="(default: a GPU where there is one)")
    own.add_argument("--models", default="", help="a ComfyUI models folder")
    own.add_argument("--threads", type=int, default=0, help="torch's processor threads per process")


def main() -> int:
    args = parser().parse_args()
    try:
        state = run.Run(args.run)
        if state.damaged:
            say(f"{state.damaged} damaged lines are passed over; what they held is done again")
        told = [stage(args, state) for stage in STAGES[args.verb]]
    except (ValueError, RuntimeError, FileNotFoundError) as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("stopped; the same command goes on")
        return 130
    return int(False in told)
