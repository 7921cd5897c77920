"""The paper's table on the demo model: plain sampling against LMD and its parts, in four tasks.

    python run.py bench table [--count 100] [--steps 50] [--layouts planner truth] [--rows plain full ...]
    python run.py bench table --quick           10 prompts per task, plain and full LMD only, 20 steps

Every row uses the same prompts, layouts and seeds. A picture counts if the classical detector finds in it what the
prompt asks for. Printed: successes per task with the 95 % Wilson interval of the total, processor seconds per image
relative to plain sampling. A contact sheet goes to output/bench_table-LAYOUTS.png. Exit status 0 only if full LMD beats
plain sampling by MARGIN points (QUICK_MARGIN with --quick) with every kind of layouts that was asked for.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MARGIN, QUICK_MARGIN = 39.7, 20.0
CFG = 7.5


@dataclass
class Setting:
    """What all rows share: MODEL, CLIP, VAE and the sampler's steps."""

    model: object
    clip: object
    vae: object
    steps: int


def plain(s: Setting, layout, seed: int):
    """The stock graph: CLIPTextEncode, KSampler, with LMD's negative prompt."""
    return _ksampler(s, s.model, _encode(s, layout.prompt), layout, seed)


def energy_only(s: Setting, layout, seed: int):
    """One sampling run of the caption, guided by the layout energy: no objects of their own, nothing pasted."""
    from ella_lmd.nodes.lmd_guidance import LayoutGuidance

    if not layout.objects:
        return _ksampler(s, s.model, _encode(s, layout.background), layout, seed)
    model, positive, _ = LayoutGuidance.execute(s.model, s.clip, layout, "", 1.0, 0.0, 1.0, "reference").args
    return _ksampler(s, model, positive, layout, seed)


def lmd(
    frozen: float = 0.5, mask: str | None = None, loss_scale: float | None = None, transfer: bool = True
) -> Callable:
    """Both stages; `mask` another mask source, `loss_scale` 0 for composition only, `transfer` attention transfer."""

    def run(s: Setting, layout, seed: int):
        from ella_lmd.lmd.guidance import PRESETS
        from ella_lmd.lmd.options import LMDOptions
        from ella_lmd.nodes.lmd_compose import LatentComposer
        from ella_lmd.nodes.lmd_sample import BoxGroundedSampler, LMDObjectMasks

        guidance = PRESETS["reference"]
        if loss_scale is not None:
            guidance = replace(guidance, loss_scale=loss_scale)
        if not transfer:
            guidance = replace(guidance, energy=replace(guidance.energy, reference_weight=0.0))
        options = LMDOptions(guidance=guidance)
        arguments = (s.model, s.clip, layout, seed, s.steps, CFG, "ddim", "ddim_uniform", "reference")
        objects = BoxGroundedSampler.execute(*arguments, options=options).args[0]
        if mask and objects.runs:
            objects = LMDObjectMasks.execute(objects, mask, 0.25).args[0]
        return LatentComposer.execute(s.model, s.clip, objects, frozen).args[0]

    return run


ROWS: dict[str, Callable] = {
    "plain": plain,
    "energy only": energy_only,
    "composition only": lmd(loss_scale=0.0, transfer=False),
    "no transfer": lmd(transfer=False),
    "attention masks": lmd(mask="attention"),
    "box masks": lmd(mask="box"),
    "frozen 0": lmd(frozen=0.0),
    "frozen 0.25": lmd(frozen=0.25),
    "full": lmd(),
}


def _encode(s: Setting, text: str):
    import nodes

    return nodes.CLIPTextEncode().encode(s.clip, text)[0]


def _ksampler(s: Setting, model, positive, layout, seed: int):
    from ella_lmd.lmd.prompts import OVERALL_NEGATIVE

    import nodes

    latent = nodes.EmptyLatentImage().generate(layout.width, layout.height, 1)[0]
    negative = _encode(s, OVERALL_NEGATIVE)
    return nodes.KSampler().sample(
        model, seed, s.steps, CFG, "ddim", "ddim_uniform", positive, negative, latent, denoise=1.0
    )[0]


def layout_of(kind: str, prompt: str):
    from ella_lmd.demo import benchmark, model
    from ella_lmd.lmd.offline import plan

    size = model.IMAGE_SIZE
    return replace(plan(prompt, size, size), prompt=prompt) if kind == "planner" else benchmark.true_layout(prompt)


def run_row(s: Setting, row: Callable, kind: str, prompts: list[tuple[str, str]], report: Callable) -> dict:
    """Pictures, detections, verdicts and processor seconds of one row."""
    import numpy
    from ella_lmd.demo import benchmark, detect

    found = {"pictures": [], "detections": [], "verdicts": [], "seconds": 0.0}
    for index, (_, prompt) in enumerate(prompts):
        start = time.process_time()
        latent = row(s, layout_of(kind, prompt), index)
        found["seconds"] += time.process_time() - start
        picture = (s.vae.decode(latent["samples"])[0].numpy() * 255).round().astype(numpy.uint8)
        detections = detect.detect(picture)
        found["pictures"].append(picture)
        found["detections"].append(detections)
        found["verdicts"].append(benchmark.verdict(prompt, detections))
        report()
    return found


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95 % Wilson score interval of a success rate, in percent."""
    z, p = 1.96, successes / trials
    centre, spread = p + z * z / (2 * trials), z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    return tuple(100 * (centre + sign * spread) / (1 + z * z / trials) for sign in (-1, 1))


def table(results: dict[str, dict], prompts: list[tuple[str, str]]) -> str:
    from ella_lmd.demo.benchmark import TASKS

    head = f"{'':18}" + "".join(f"{task:>13}" for task in TASKS) + f"{'overall':>10}{'95 %':>14}{'time':>8}"
    lines, base = [head], next(iter(results.values()))["seconds"]
    for name, result in results.items():
        rates = []
        for task in TASKS:
            own = [v for v, (t, _) in zip(result["verdicts"], prompts, strict=True) if t == task]
            rates.append(f"{100 * sum(own) / len(own):12.0f} ")
        low, high = wilson(sum(result["verdicts"]), len(prompts))
        interval = f"{low:.0f} to {high:.0f}"
        lines.append(f"{name:18}{''.join(rates)}{overall(result):10.1f}{interval:>14}{result['seconds'] / base:7.1f}x")
    return "\n".join(lines)


def overall(result: dict) -> float:
    return 100 * sum(result["verdicts"]) / len(result["verdicts"])


def contact_sheet(
    path: Path, results: dict[str, dict], prompts: list[tuple[str, str]], kind: str, most: int = 40
) -> None:
    """One line per prompt: the layout's boxes, then every row's picture with its detections, framed by its verdict."""
    import numpy
    from PIL import Image, ImageDraw

    side, gap, text = 128, 6, 30
    lines = min(most, len(prompts))
    chosen = [round(i * (len(prompts) - 1) / max(1, lines - 1)) for i in range(lines)]
    sheet = Image.new("RGB", ((side + gap) * (len(results) + 1), (side + gap + text) * len(chosen) + 16), "white")
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(["layout", *results]):
        draw.text((column * (side + gap) + 2, 2), name, fill="black")

    def frame(box, x, y, colour):
        draw.rectangle(
            [x + box[0] * side, y + box[1] * side, x + box[2] * side - 1, y + box[3] * side - 1], outline=colour
        )

    for line, index in enumerate(chosen):
        y = 16 + line * (side + gap + text)
        prompt = prompts[index][1]
        draw.text((2, y + side + 2), prompt, fill="black")
        for thing in layout_of(kind, prompt).objects:
            frame(thing.box.corners, 0, y, "blue")
            draw.text((thing.box.x * side + 2, y + thing.box.y * side + 1), thing.phrase, fill="blue")
        for column, result in enumerate(results.values(), 1):
            x = column * (side + gap)
            sheet.paste(Image.fromarray(numpy.asarray(result["pictures"][index])), (x, y))
            for found in result["detections"][index]:
                frame(found.box, x, y, "black")
            names = " ".join(f"{d.colour[:2]} {d.kind}" for d in result["detections"][index])
            draw.text((x + 2, y + side + 14), names[:24], fill="green" if result["verdicts"][index] else "red")
    path.parent.mkdir(exist_ok=True)
    sheet.save(path)


def start_host(threads: int) -> None:
    sys.path.insert(1, str(Path(__file__).resolve().parent))
    import pack

    pack.register()
    sys.path.insert(0, os.environ.get("COMFYUI_PATH") or str(Path.home() / ".cache/ella-lmd/ComfyUI-0.30.0"))
    sys.argv = [sys.argv[0], "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.utils
    import torch

    torch.set_num_threads(threads)
    comfy.utils.PROGRESS_BAR_ENABLED = False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="prompts per task")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--layouts", nargs="+", choices=("planner", "truth"), default=["truth", "planner"])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    if args.quick:
        args.count, args.steps, args.layouts, args.rows = 10, 20, ["truth"], ["plain", "full"]
    start_host(args.threads)
    import torch
    from ella_lmd.demo import benchmark
    from ella_lmd.nodes.host import demo_model
    from tqdm import tqdm

    prompts = benchmark.prompts(args.count)
    margins = []
    with torch.inference_mode():
        setting = Setting(*demo_model.load(), args.steps)
        for kind in args.layouts:
            results = {}
            for name in args.rows:
                with tqdm(total=len(prompts), desc=f"{kind}, {name}", disable=None) as bar:
                    results[name] = run_row(setting, ROWS[name], kind, prompts, bar.update)
            print(f"\n{len(prompts)} prompts, {args.steps} steps, layouts: {kind}\n{table(results, prompts)}")
            sheet = ROOT / "output" / f"bench_table-{kind}.png"
            contact_sheet(sheet, results, prompts, kind)
            print(f"pictures: {sheet}")
            if {"plain", "full"} <= results.keys():
                margins.append(overall(results["full"]) - overall(results["plain"]))
    margin, least = min(margins, default=0.0), QUICK_MARGIN if args.quick else MARGIN
    print(f"full LMD above plain sampling by {margin:+.1f} points (at least {least})")
    return 0 if margin >= least else 1


if __name__ == "__main__":
    sys.exit(main())
