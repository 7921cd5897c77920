"""A whole LMD image: the nodes against the published schedule of work, and again with one object edited.

    python run.py bench image [--objects 4] [--steps 50] [--size 32] [--width 96] [--at-once 4] [--rounds 1]
                              [--device cpu] [--dtype bf16] [--threads 2]

Compared, in turn, in one process, with the same U-Net, text encoder, layout, seed and sampler (DDIM): both stages as the
nodes run them, with the published options and with the option stop_early, each once from nothing and once after one
object of the layout was renamed (the others come from the cache); and the published schedule of work
(tools/naive_image.py): objects one after the other, every step with classifier-free guidance, every guided iteration a
whole forward pass with gradients. The U-Net has SD1.5's layout at a reduced width and random weights, whose energies
stay above the threshold: every allowed iteration is computed on both sides (65 per object and 65 for the whole at 50
steps), the most that guidance can cost. The floor is the arithmetic of the passes and iterations that a way makes, each
iteration up to the last guided layer and back, over the published arithmetic. Exit status 0 only if with stop_early the
image takes at most GOAL of the published time, and the edited one at most GOAL_EDITED.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parent))
import bench_guidance
import measure
import random_models

GOAL, GOAL_EDITED = 0.40, 0.20
THINGS = ("apple", "vase", "clock", "chair", "horse", "boat", "lamp", "bird", "car", "dog", "cup", "kite", "sofa",
          "bus", "cat", "pear")  # fmt: skip


PUBLISHED, WHOLE, EARLY, ONE_EDITED = "published schedule of work", "nodes", "nodes, stop_early", ", one object edited"


def layout_of(count: int, size: int, first: str = "red") -> Any:
    """`count` differently named objects on a grid, on a canvas of `size` latent cells; `first` is the first's colour."""
    from ella_lmd.lmd.layout import Box, Layout, LayoutObject

    columns = max(1, round(count**0.5 + 0.49))
    side = 1 / columns
    objects = tuple(
        LayoutObject(
            f"a {first if i == 0 else 'blue'} {THINGS[i]}",
            Box((i % columns + 0.1) * side, (i // columns + 0.1) * side, 0.8 * side, 0.8 * side),
        )
        for i in range(count)
    )
    return Layout(size * 8, size * 8, objects, "a photo of a room")


def by_nodes(model: Any, clip: Any, layout: Any, settings: Any, options: Any) -> tuple[Any, int]:
    """Both stages as the nodes run them: (latent, guided iterations of all runs, cached ones included)."""
    from ella_lmd.nodes.host.lmd import compose_and_sample, sample_objects

    objects = sample_objects(model, clip, layout, settings, options)
    latent, trace, _ = compose_and_sample(model, clip, objects)
    return latent, sum(len(run.energies) for run in objects.runs) + len(trace.rows)


def arithmetic(model: Any, size: int) -> tuple[float, float]:
    """What a naive guided iteration, and one that ends after the last guided layer, cost in forward passes of one image,
    counted in multiplications.
    """
    from naive_guidance import Naive, plain_forward

    target, positive = bench_guidance.target_and_conditioning(random_models.SD15)

    def measured(guide: Any, x: Any, step: Any) -> tuple[float, float]:
        guider, options = guide.run.guider, guide.run.model_options

        def iteration(how: Naive) -> int:
            energy = guide.guidance.options.energy
            return measure.flops(
                lambda: how.iteration(guider, x, step.sigma, options, guide.layers, target.objects, energy)
            )

        forward = measure.flops(lambda: plain_forward(guider, x, step.sigma, options))
        return iteration(Naive()) / forward, iteration(Naive(early_exit=True)) / forward

    return bench_guidance.probe(model, target, positive, size, 1, measured)


def floors(args: Any, naive: float, least: float, iterations: int) -> dict[str, float]:
    """The share of the published arithmetic that each way cannot go below, if it makes as many guided iterations.

    `naive` and `least` are the cost of an iteration (see `arithmetic`), `iterations` how many there are for all runs.
    """
    from ella_lmd.lmd.options import LMDOptions

    runs, each = args.objects + 1, iterations / (args.objects + 1)
    whole = 2 * args.steps + each * least
    early = 2 * LMDOptions().exact_steps(args.steps) + each * least
    published = runs * (2 * args.steps + each * naive)
    found = {
        PUBLISHED: published, WHOLE: runs * whole, WHOLE + ONE_EDITED: 2 * whole,
        EARLY: args.objects * early + whole, EARLY + ONE_EDITED: early + whole,
    }  # fmt: skip
    return {name: work / published for name, work in found.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=4)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--size", type=int, default=32, help="side of the latent; 32 is an image of 256 px")
    parser.add_argument("--width", type=int, default=96, help="channels of the first level; 320 is SD1.5")
    parser.add_argument("--at-once", type=int, default=4, help="objects in one batch; 0: by free memory")
    parser.add_argument("--rounds", type=int, default=1)
    random_models.add_device_options(parser, "bf16")
    parser.set_defaults(threads=2)
    args = parser.parse_args()
    random_models.find_host(args)
    import torch

    with torch.inference_mode():
        model = random_models.unet(random_models.SD15, random_models.dtype_of(args.dtype), args.width)
        times, work = compare(args, model)
        floor = floors(args, *arithmetic(model, args.size), work[PUBLISHED])
    print(
        f"{args.objects} objects, {args.steps} steps, {args.size}x{args.size} latent, width {args.width}, {args.dtype}"
    )
    print(f"{'':38}{'seconds':>9}{'over published':>16}{'floor':>8}{'iterations':>12}")
    for name in times:
        middle = measure.ratio(times, name, PUBLISHED)[0]
        print(f"{name:38}{statistics.median(times[name]):9.1f}{middle:16.3f}{floor[name]:8.3f}{work[name]:12}")
    image, edited = (measure.ratio(times, name, PUBLISHED)[0] for name in (EARLY, EARLY + ONE_EDITED))
    print(
        f"with stop_early an image takes {image:.3f} of the published time (at most {GOAL}), with one object edited "
        f"{edited:.3f} (at most {GOAL_EDITED})"
    )
    return 0 if image <= GOAL and edited <= GOAL_EDITED else 1


def compare(args: Any, model: Any) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Seconds of every round, and the guided iterations of each kind (those of cached objects included)."""
    from ella_lmd.lmd.options import LMDOptions, SamplingSettings
    from ella_lmd.nodes.host.cache import OBJECT_RUNS
    from ella_lmd.nodes.host.lmd import sigmas_of
    from naive_image import naive_image

    clip = random_models.clip_l()
    settings = SamplingSettings(1, args.steps, 7.5, "ddim", "ddim_uniform")
    options = LMDOptions(objects_at_once=args.at_once)
    layout, edited = layout_of(args.objects, args.size), layout_of(args.objects, args.size, "green")
    work: dict[str, int] = {}

    def published(how: Any = settings) -> None:
        _, done = naive_image(model, clip, layout, how, options, sigmas_of(model, how))
        work[PUBLISHED] = done.iterations

    def nodes(name: str, layout: Any, options: Any, how: Any = settings, fresh: bool = True) -> None:
        if fresh:
            OBJECT_RUNS.clear()
        work[name] = by_nodes(model, clip, layout, how, options)[1]

    few, early = replace(settings, steps=2), replace(options, stop_early=True)
    published(few), nodes(WHOLE, layout, options, few)  # first touch of all memory
    calls = {
        PUBLISHED: published,
        WHOLE: lambda: nodes(WHOLE, layout, options),
        WHOLE + ONE_EDITED: lambda: nodes(WHOLE + ONE_EDITED, edited, options, fresh=False),
        EARLY: lambda: nodes(EARLY, layout, early),
        EARLY + ONE_EDITED: lambda: nodes(EARLY + ONE_EDITED, edited, early, fresh=False),
    }
    return measure.alternate(calls, args.rounds, args.device, warm_up=False), work


if __name__ == "__main__":
    sys.exit(main())
