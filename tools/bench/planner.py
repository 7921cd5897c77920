"""Measures the offline planner, or with `--server NAME` a language model (see planner_models.py).

The offline planner: the four benchmark tasks, the quality measures and the free prompts.

Goals (exit status 0 only when all hold): 400/400 benchmark prompts; a wanted noun in the negative prompt, a boxed noun
in the background, an overlap and uniform boxes in at most 2 % of layouts each; median coverage at least GPT-4's; at least
90 % of the free prompts exactly as expected; 5 ms for half of the prompts and 60 ms for 99 of 100 (see user_prompts.py).
The last line is the share of free prompts.
"""

from __future__ import annotations

import sys

from ella_lmd.evaluation import lmd_benchmark
from ella_lmd.lmd.planner import quality, reply
from ella_lmd.lmd.planner.offline import plan
from ella_lmd.tools import pack
from ella_lmd.tools.bench import free_judge, user_prompts

# Published values of the LMD benchmark's language models. GPT-4: over all 400 replies for the tasks, over the 30
# positive prompts of the planner notes for the quality measures.
PUBLISHED = {
    "GPT-4": ((100, 100, 100, 100), (0 / 30, 0 / 30, 0 / 30, 1 / 30, 0.23)),
    "GPT-3.5": ((100, 97, 100, 99), None),
}
SHARE, COVERAGE, FREE = 0.02, 0.23, 0.90
CANVASES = [(512, 512), (768, 512), (512, 896)]


def row(name: str, tasks, measures) -> None:
    cells = "".join(f"{t:>12}" for t in tasks) if tasks else " " * 48
    print(f"{name:24}{cells}" + ("".join(f"{m:>12.2f}" for m in measures) if measures else "           -" * 5))


def shares(layouts) -> tuple[float, ...]:
    s = quality.summarise(layouts)
    n = max(s.layouts, 1)
    return s.wanted_in_negative / n, s.boxed_in_background / n, s.overlapping / n, s.uniform / n, s.coverage


def replies_row() -> None:
    """GPT-3.5's measures, computed from its published replies where they are at hand."""
    path = pack.ROOT.parent / "shared" / "data" / "lmd_replies_gpt-3.5-turbo.json"
    if path.exists():
        import json

        texts = [t for ts in json.loads(path.read_text()).values() for t in ts]
        layouts = [reply.to_layout(reply.parse(t), 512, 512) for t in texts]
        row("GPT-3.5 (replies)", PUBLISHED["GPT-3.5"][0], shares(layouts))
    else:
        row("GPT-3.5", *PUBLISHED["GPT-3.5"])


def main() -> int:
    if len(sys.argv) > 1:
        from ella_lmd.tools.bench import planner_models

        return planner_models.main(sys.argv[1:])
    print(f"{'':24}" + "".join(f"{t:>12}" for t in lmd_benchmark.TASKS)
          + "".join(f"{m:>12}" for m in ("neg. wanted", "bg. boxed", "overlap", "uniform", "coverage")))  # fmt: skip
    row("GPT-4 (published)", *PUBLISHED["GPT-4"])
    replies_row()
    prompts = lmd_benchmark.prompts()
    good = True
    for size in CANVASES:
        layouts = [plan(p, *size) for _, p in prompts]
        tasks = [
            sum(t == task and lmd_benchmark.predicate(p, x) for (t, p), x in zip(prompts, layouts))
            for task in lmd_benchmark.TASKS
        ]
        measures = shares(layouts)
        row(f"offline {size[0]}x{size[1]}", tasks, measures)
        good &= sum(tasks) == 400 and max(measures[:4]) <= SHARE and measures[4] >= COVERAGE
    free = free_judge.load()
    right = 0
    for size in CANVASES:
        layouts = [plan(p["prompt"], *size) for p in free]
        measures = shares(layouts)
        row(f"free {size[0]}x{size[1]}", (), measures)
        good &= max(measures[:4]) <= SHARE and measures[4] >= COVERAGE
        for wanted, layout in zip(free, layouts):
            wrong = free_judge.complaints(layout, wanted)
            right += not wrong
            if wrong and size == CANVASES[0]:
                print(f"  {wanted['prompt']}\n    - " + "\n    - ".join(wrong))
    share = right / (len(free) * len(CANVASES))
    good &= share >= FREE
    good &= user_prompts.measure()
    print("all goals hold" if good else "a goal is missed")
    print(f"free prompts as expected {share:.3f}")
    return 0 if good else 1
