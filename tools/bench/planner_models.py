"""`run.py bench planner --server NAME`: a language model of this machine's list, raw, after re-ask and after repair."""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

from ella_lmd.evaluation import lmd_benchmark
from ella_lmd.lmd.planner import quality
from ella_lmd.lmd.planner.dialogue import NoLayoutError, Request
from ella_lmd.tools.bench import free_judge
from ella_lmd.tools.host_setup import HOME, prepare_host

STAGES = ("raw", "after re-ask", "after repair")
TASK_SHARE = 38 / 40  # after re-ask
# Twice GPT-4's shares (0/30, 0/30, 0/30, 1/30) and half its median coverage, after repair.
WORST, LEAST_COVERAGE = (0.0, 0.0, 0.0, 2 / 30), 0.23 / 2
_USER = HOME / "server" / "user"


def host(user: Path):
    """The pack's own client, inside the real ComfyUI's modules."""
    prepare_host()
    import folder_paths

    folder_paths.set_user_directory(str(user))
    from ella_lmd.nodes.host.llm import plan, servers

    return plan, servers


def chosen(per_task: int) -> list[tuple[str, str]]:
    """`per_task` different prompts of each task, as far as there are that many; the same ones every time."""
    out = []
    for task in lmd_benchmark.TASKS:
        prompts = sorted({p for t, p in lmd_benchmark.prompts() if t == task})
        random.Random(0).shuffle(prompts)
        out += [(task, prompts[i % len(prompts)]) for i in range(per_task)]
    return out


def ask_all(plan, prompts: list[str]) -> list[tuple]:
    """(layout or None) at the three stages, per prompt."""
    out = []
    start = time.monotonic()
    for i, prompt in enumerate(prompts):
        try:
            outcome = plan(prompt)
            out.append((outcome.first, outcome.chosen, outcome.layout))
        except NoLayoutError:
            out.append((None, None, None))
        print(f"  {i + 1}/{len(prompts)} in {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    return out


def measures(layouts: list) -> tuple[float, ...]:
    s = quality.summarise([x for x in layouts if x is not None])
    n = max(s.layouts, 1)
    return s.wanted_in_negative / n, s.boxed_in_background / n, s.overlapping / n, s.uniform / n, s.coverage


def table(title: str, rows: list[tuple[str, list[str]]]) -> None:
    print(f"\n| {title} | " + " | ".join(STAGES) + " |\n|---|" + "---|" * len(STAGES))
    for name, cells in rows:
        print(f"| {name} | " + " | ".join(cells) + " |")


def quality_rows(stages: list[list]) -> list[tuple[str, list[str]]]:
    names = ("wanted noun in the negative prompt", "boxed noun in the background", "overlap", "boxes all alike")
    values = [measures(x) for x in stages]
    rows = [(n, [f"{v[k]:.0%}" for v in values]) for k, n in enumerate(names)]
    return [*rows, ("median coverage", [f"{v[4]:.2f}" for v in values])]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench planner", description=__doc__)
    parser.add_argument("--server", required=True, help="a name from the list in USER/__ella_lmd/servers.json")
    parser.add_argument("--user", type=Path, default=_USER, help="ComfyUI's user folder")
    parser.add_argument("--per-task", type=int, default=20, help="benchmark prompts per task (20: 80 in all)")
    parser.add_argument("--free", type=int, default=1000, help="how many of the free prompts")
    parser.add_argument("--re-asks", type=int, default=1)
    args = parser.parse_args(argv)
    llm_plan, servers = host(args.user)
    server = servers.named(args.server)
    decoding = llm_plan.Decoding()

    def plan(prompt: str):
        return llm_plan.with_server(server, Request(prompt, reasks=args.re_asks), decoding)

    prompts = chosen(args.per_task)
    found = ask_all(plan, [p for _, p in prompts])
    stages = [[f[k] for f in found] for k in range(3)]
    rows, totals = [], [0, 0, 0]
    for task in lmd_benchmark.TASKS:
        cells = []
        for k, layouts in enumerate(stages):
            mine = [(p, x) for (t, p), x in zip(prompts, layouts) if t == task]
            right = sum(x is not None and lmd_benchmark.predicate(p, x) for p, x in mine)
            totals[k] += right
            cells.append(f"{right}/{len(mine)}")
        rows.append((task, cells))
    rows.append(("all four", [f"{t}/{len(prompts)}" for t in totals]))
    rows.append(("unreadable", [str(sum(x is None for x in layouts)) for layouts in stages]))
    positive = [[x for (t, _), x in zip(prompts, layouts) if t != "negation"] for layouts in stages]
    table(f"benchmark, {server.name} {server.model}", rows + quality_rows(positive))
    good = totals[1] >= TASK_SHARE * len(prompts)
    final = measures(positive[2])
    good &= all(v <= w + 1e-9 for v, w in zip(final, WORST)) and final[4] >= LEAST_COVERAGE
    free = free_judge.load()[: args.free]
    if free:
        found = ask_all(plan, [p["prompt"] for p in free])
        stages = [[f[k] for f in found] for k in range(3)]
        right = [
            sum(x is not None and not free_judge.complaints(x, w) for x, w in zip(layouts, free)) for layouts in stages
        ]
        rows = [("as expected", [f"{r}/{len(free)}" for r in right])]
        table(f"free prompts, {server.name} {server.model}", rows + quality_rows(stages))
    print("\nall goals hold" if good else "\na goal is missed")
    return 0 if good else 1
