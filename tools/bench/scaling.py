"""How LMD's cost grows with the number of objects, the size of the latent and the batch.

    python run.py bench scaling [--objects 1 2 4 8 16] [--sizes 64 96 128] [--batches 1 2 4] [--width 160]
                                [--plot FILE] [--device cpu] [--dtype fp32] [--threads 1]

In SD1.5's U-Net at a reduced width with random weights. Guided iterations and passes with classifier-free guidance are
timed at every size and, at the smallest one, every batch, in turn (median of --rounds). Whole images are made through
the nodes with --steps steps at --image-size, in which every part of the schedule appears in proportion, so that fifty
steps cost 50 / steps times as much; --published of these numbers of objects are also made by the published schedule of
work (tools/bench/naive_image.py). Exit status 0 only if a run (an object's, or the whole image's) costs no more with the most
objects than with one, within 10 %, and an iteration no more per image in a batch than alone.
"""

from __future__ import annotations

import argparse
import functools
import statistics
from pathlib import Path
from typing import Any

from ella_lmd.tools.bench import guidance, image, measure, random_models

WITHIN = 1.10
ITERATION, PASS = "guided iteration", "CFG pass"


def per_step(model: Any, size: int, batch: int, rounds: int, device: str) -> dict[str, float]:
    """Seconds of one guided iteration and of one pass with classifier-free guidance, and the iteration's memory."""
    import comfy.samplers
    import torch

    target, positive = guidance.target_and_conditioning(random_models.SD15)

    def measured(guide, x, step):
        _, evaluate, _ = guide.arguments(step)
        guider, options = guide.run.guider, guide.run.model_options
        if device == "cpu":
            options = guidance.with_fused(options)

        def cfg():
            with torch.inference_mode():
                conds = [guider.conds["positive"], guider.conds["negative"]]
                comfy.samplers.calc_cond_batch(guider.inner_model, conds, x, step.sigma, options)

        times = measure.alternate({ITERATION: lambda: evaluate(x), PASS: cfg}, rounds, device)
        found = {name: statistics.median(values) for name, values in times.items()}
        return {**found, "memory": measure.peak_bytes(lambda: evaluate(x), device)}

    return guidance.probe(model, target, positive, size, batch, measured)


def whole_images(model: Any, args: Any) -> dict[str, list[tuple[int, float]]]:
    """{how: [(objects, seconds)]} for images by the nodes, and by the published schedule of work."""
    from ella_lmd.lmd.sampling.options import LMDOptions, SamplingSettings
    from ella_lmd.nodes.host.lmd.object_stage import sigmas_of
    from ella_lmd.nodes.host.lmd.run_cache import OBJECT_RUNS
    from ella_lmd.tools.bench.naive_image import naive_image

    clip = random_models.clip_l()
    settings, options = SamplingSettings(1, args.steps, 7.5, "ddim", "ddim_uniform"), LMDOptions()

    def nodes(layout):
        OBJECT_RUNS.clear()
        image.by_nodes(model, clip, layout, settings, options)

    def published(layout):
        naive_image(model, clip, layout, settings, options, sigmas_of(model, settings))

    found: dict[str, list[tuple[int, float]]] = {"nodes": [], "published": []}
    nodes(image.layout_of(1, args.image_size))  # first touch of all memory
    for count in args.objects:
        layout = image.layout_of(count, args.image_size)
        found["nodes"].append((count, measure.seconds(functools.partial(nodes, layout), args.device)))
        if count in args.published:
            found["published"].append((count, measure.seconds(functools.partial(published, layout), args.device)))
    return found


def draw(images: dict, sizes: dict, steps: int, image_size: int, path: Path) -> None:
    from ella_lmd.tools.bench import chart

    title = f"One image, {steps} steps, {image_size}x{image_size} latent"
    objects = chart.line_chart(title, "objects", "seconds", {n: p for n, p in images.items() if p})
    series = {
        name: [(side, found[name]) for (side, batch), found in sizes.items() if batch == 1]
        for name in (ITERATION, PASS)
    }
    chart.side_by_side([objects, chart.line_chart("One evaluation, batch 1", "latent side", "seconds", series)], path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--published", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96, 128])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--width", type=int, default=160, help="channels of the first level; 320 is SD1.5")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--plot", type=Path, help="draw the plot into this file")
    random_models.add_device_options(parser)
    args = parser.parse_args()
    random_models.find_host(args)
    import torch

    pairs = [(s, b) for s in args.sizes for b in args.batches if b == 1 or s == min(args.sizes)]
    with torch.inference_mode():
        model = random_models.unet(random_models.SD15, random_models.dtype_of(args.dtype), args.width)
        sizes = {(s, b): per_step(model, s, b, args.rounds, args.device) for s, b in pairs}
        images = whole_images(model, args)
    print(f"SD1.5's U-Net at width {args.width}, {args.dtype}, {args.device}")
    print("| latent | batch | guided iteration | CFG pass | iteration / pass | memory of an iteration |")
    print("| --- | --- | --- | --- | --- | --- |")
    for (size, batch), found in sizes.items():
        print(
            f"| {size}x{size} | {batch} | {found[ITERATION]:.2f} s | {found[PASS]:.2f} s | "
            f"{found[ITERATION] / found[PASS]:.2f} | {measure.mebibytes(found['memory'])} |"
        )
    print("| objects | nodes | a run | published | ratio |\n| --- | --- | --- | --- | --- |")
    published = dict(images["published"])
    for count, taken in images["nodes"]:
        theirs = f"{published[count]:.1f} s | {taken / published[count]:.2f}" if count in published else "|"
        print(f"| {count} | {taken:.1f} s | {taken / (count + 1):.2f} s | {theirs} |")
    if args.plot:
        draw(images, sizes, args.steps, args.image_size, args.plot)
    (few, first), (most, last) = images["nodes"][0], images["nodes"][-1]
    by_objects = last / (most + 1) / (first / (few + 1))
    small = min(args.sizes)
    largest = max(args.batches)
    by_batch = sizes[small, largest][ITERATION] / largest / sizes[small, 1][ITERATION]
    print(
        f"a run costs {by_objects:.3f} with {most} objects of what it costs with {few}, an iteration per image "
        f"{by_batch:.3f} in a batch of {largest} of what it costs alone (each at most {WITHIN})"
    )
    return 0 if max(by_objects, by_batch) <= WITHIN else 1
