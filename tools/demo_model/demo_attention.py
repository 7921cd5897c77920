"""How much of a word's attention lies inside its box, in every layer of the demo model: where could a mask be read?

    python run.py python tools/demo_model/demo_attention.py [--count 6] [--unguided]

For objects of benchmark prompts from number 100 on, which no table uses, each in a run of its own: the share of the
word token's attention (all heads, the steps that masks are read from) inside the box that the object is drawn in,
beside the share of the layer's cells that the box covers. `--unguided` draws the objects without guidance.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import replace
from typing import Any

from ella_lmd.tools.bench import table_rows

FIRST, STEPS = 100, 20


def all_layers(unet: Any) -> tuple:
    """Every cross-attention layer of a U-Net, in running order."""
    from ella_lmd.nodes.host.guidance import attention

    return tuple(attention.Layer(*key) for key in attention._cross_attention_levels(unet))


def share(maps: list, box: Any) -> tuple[float, float]:
    """(share of the attention [steps, h, w] inside the box, share of cells inside it), over the steps of masks."""
    import torch
    from ella_lmd.lmd.sampling.masks import AGGREGATE_FROM
    from ella_lmd.lmd.sampling.object_runs import box_mask

    found = torch.stack(maps[round(AGGREGATE_FROM * len(maps)) :]).mean(0)
    inside = box_mask(box, *found.shape)
    return float(found[inside].sum() / found.sum()), float(inside.float().mean())


def measure(case: table_rows.Case, options: Any, found: dict) -> None:
    """Adds `(share, box)` of every object of the case to `found[layer]`."""
    from ella_lmd.lmd.prompts import Group, object_prompts
    from ella_lmd.nodes.host.guidance.attention import AttentionReader
    from ella_lmd.nodes.host.guidance.token_positions import guided_objects, tokenizer
    from ella_lmd.nodes.lmd_sample import BoxGroundedSampler

    layers = all_layers(case.model.model.diffusion_model)
    for thing in case.layout.objects:
        layout = replace(case.layout, objects=(thing,))
        (item,) = object_prompts(layout)
        group = Group(item.phrase, item.word, (item.box,), item.span)
        (guided,) = guided_objects([group], item.prompt, tokenizer(case.clip))
        maps: dict[Any, list] = defaultdict(list)

        def see(reading, word=guided.word, maps=maps):
            for chunk in reading.positive()[:1]:
                probs = reading.probabilities(chunk)[0, :, :, word].mean(0)
                maps[reading.layer].append(probs.unflatten(-1, reading.grid).clone())

        model = case.model.clone()
        AttentionReader(layers, see).read(model, "demo_attention")
        inputs = (model, case.clip, layout, case.seed, *case.how, "reference")
        (run,) = BoxGroundedSampler.execute(*inputs, options=options).args[0].runs
        for layer, own in maps.items():
            found[layer].append(share(own, run.box))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=6, help="prompts of each task (default 6)")
    parser.add_argument("--unguided", action="store_true", help="draw the objects without guidance")
    args = parser.parse_args()
    table_rows.Worker()
    import torch
    from ella_lmd.evaluation import demo_benchmark
    from ella_lmd.nodes.host import demo_model

    found: dict[Any, list] = defaultdict(list)
    chosen = [(n // 4, p) for n, (_, p) in enumerate(sorted_by_number(demo_benchmark.prompts(FIRST + args.count)))]
    options = table_rows.options(guided=not args.unguided)
    with torch.inference_mode():
        models = demo_model.load()
        for number, prompt in (pair for pair in chosen if pair[0] >= FIRST):
            case = table_rows.Case(*models[:2], table_rows.layout_of("truth", prompt), number, STEPS)
            measure(case, options, found)
    print(f"{'layer':10}{'objects':>8}{'in its box':>12}{'the box':>9}{'ratio':>7}")
    for layer, shares in found.items():
        inside, box = (sum(s) / len(s) for s in zip(*shares))
        print(f"{layer!s:10}{len(shares):8}{inside:12.3f}{box:9.3f}{inside / box:7.2f}")


def sorted_by_number(prompts: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The prompts of all tasks, number by number."""
    count = len(prompts) // len(demo_tasks())
    return [prompts[task * count + i] for i in range(count) for task in range(len(demo_tasks()))]


def demo_tasks() -> tuple[str, ...]:
    from ella_lmd.evaluation.demo_benchmark import TASKS

    return TASKS
