"""How much of a word's attention lies inside its box, in the demo model's object runs: is there anything to transfer?

    python run.py python tools/demo_model/demo_attention.py

For objects of benchmark prompts 100 to 105 of each task, which no table uses: the share of the word token's attention
(all heads, the guided steps) inside the box of the object's own picture, and after the shift inside the layout's box,
beside the share of the canvas that the box covers.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from ella_lmd.tools.bench import table, table_rows

FIRST, COUNT, STEPS = 100, 106, 20


def share(attention: Any, box: Any, steps: int) -> tuple[float, float]:
    """(share of the attention [N, B, heads, h, w] of the first `steps` inside the box, share of cells inside it)."""
    from ella_lmd.lmd.sampling.object_runs import box_mask

    inside = box_mask(box, *attention.shape[-2:])
    found = attention[:steps].mean((0, 1, 2))
    return float(found[inside].sum() / found.sum()), float(inside.float().mean())


def main() -> None:
    table_rows.start_host(1)
    import torch
    from ella_lmd.lmd.sampling.object_runs import compose_runs
    from ella_lmd.nodes.host.lmd.run_cache import OBJECT_RUNS

    found = defaultdict(list)
    for _, number, prompt in table.numbered_prompts(COUNT):
        if number < FIRST:
            continue
        OBJECT_RUNS.clear()
        with torch.inference_mode():
            case = table_rows.Case(*table_rows._host[:2], table_rows.layout_of("truth", prompt), number, STEPS)
            objects = case.objects(table_rows.options())
            steps = objects.options.exact_steps(STEPS)
            for run, shifted in zip(objects.runs, compose_runs(objects).attention):
                for layer, attention in run.attention.items():
                    own, moved = share(attention, run.box, steps), share(shifted[layer], run.item.box, steps)
                    found[layer].append((*own, *moved))
    print(f"{'layer':10}{'objects':>8}{'own picture':>13}{'its box':>9}{'shifted':>9}{'its box':>9}")
    for layer, shares in found.items():
        print(
            f"{layer:10}{len(shares):8}"
            + "".join(f"{sum(s) / len(s):{w}.2f}" for s, w in zip(zip(*shares), (13, 9, 9, 9)))
        )
