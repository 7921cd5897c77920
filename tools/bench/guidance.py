"""One guided iteration: the pack's against the published way of computing it, in time and memory.

    python run.py bench guidance [--models sd15 sdxl flux z-image] [--rounds 5] [--size SIDE] [--width 320]
                                 [--device cpu] [--dtype fp32] [--threads 1]

Everything happens inside a real sampler run of the host, in a U-Net of the published size with random weights, at its
first step, on the same latent. Compared, in turn, in one process: the engine as the nodes drive it, and when memory is
short (its blocks computed twice); the naive iteration (whole U-Net forward with gradients, plain attention, every
cross-attention map kept); a leaner one (whole forward, fused attention, the guided maps only); for scale a plain forward
pass, with the attention that the host chooses and with PyTorch's fused one, which both LMD stages use on a CPU. Energies
and gradients must agree. The floor is the arithmetic of the layers up to the last guided one, forward and backward, over
that of the naive iteration. flux and z-image are transformers of those layouts, smaller than the published ones, whose
blocks are never computed twice. Exit status 0 only if the engine takes at most GOAL_TIME of the naive time, is within 10 %
of the floor, and takes at most GOAL_MEMORY of the naive memory, for every model.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass
from typing import Any

from ella_lmd.tools.bench import measure, random_models

GOAL_TIME, GOAL_MEMORY, ABOVE_FLOOR = 0.60, 0.50, 1.10
AGREE = {"fp32": 1e-3, "bf16": 0.1, "fp16": 0.02}  # relative difference of gradients; half precision rounds each layer
ENGINE, TWICE, NAIVE, LEANER = "engine", "blocks twice", "naive", "leaner"
FORWARD, FUSED = "forward", "fused forward"


class Measured(BaseException):
    """The probe is done; the rest of the sampler run is not needed."""


@dataclass
class Figures:
    """What was found for one model; `counted_with` is the unit of nodes/host/guidance/memory_plan.py, in bytes for the whole batch."""

    times: dict[str, list[float]]
    floor: float
    memory: dict[str, int]
    counted_with: float
    difference: dict[str, float]
    energies: dict[str, float]


def target_and_conditioning(family: str, prompt_tokens: int = 77) -> tuple[Any, list]:
    """Two boxed phrases of a prompt whose encoding is random numbers: (Target, CONDITIONING)."""
    import torch
    from ella_lmd.lmd.layout import Box
    from ella_lmd.lmd.sampling.energy import GuidedObject
    from ella_lmd.nodes.host.guidance.guide import Target

    transformer = family in random_models.TRANSFORMERS
    context = random_models.TEXT_WIDTH if transformer else random_models.unet_config(family)["context_dim"]
    rows = random_models.TEXT_ROWS.get(family, prompt_tokens)
    encoding = torch.randn(1, rows, context, generator=torch.Generator().manual_seed(1))
    objects = (
        GuidedObject("a red apple", (Box(0.05, 0.3, 0.4, 0.5),), (5, 6, 7), 7),
        GuidedObject("a blue vase", (Box(0.55, 0.2, 0.4, 0.6),), (9, 10, 11), 11),
    )
    pooled = {random_models.SDXL: 1280, random_models.FLUX: 768}.get(family)
    extra = {"pooled_output": torch.zeros(1, pooled)} if pooled else {}
    return Target(objects, [[encoding, extra]], (512, 512)), [[encoding, extra]]


def probe(model: Any, target: Any, positive: list, size: int, batch: int, measured: Any, sigma: float = 14.0) -> Any:
    """Run the host's sampler until its first step, at `sigma`, and call `measured(guide, x, step)` there; returns its
    answer.
    """
    import comfy.sample
    import comfy.samplers
    import torch
    from ella_lmd.lmd.sampling.guidance import GuidanceOptions
    from ella_lmd.nodes.host.guidance import guide as guides
    from ella_lmd.nodes.host.guidance.step_hooks import add_step_hook

    found = []

    class Hook:
        def __init__(self, run: Any):
            self.guide = guides.Guide(run, target, GuidanceOptions(), guides.EnergyTrace())

        def before_step(self, x, step):
            found.append(measured(self.guide, x, step))
            raise Measured

    patched = model.clone()
    add_step_hook(patched, "bench", Hook)
    guides.reserve_memory(patched, "bench")
    channels = model.get_model_object("latent_format").latent_channels
    noise = torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(2))
    sampler = comfy.samplers.sampler_object("euler")
    sigma = min(sigma, float(model.get_model_object("model_sampling").sigma_max))
    sigmas = torch.tensor([sigma, sigma / 2, 0.0])
    try:
        comfy.sample.sample_custom(
            patched, noise, 7.5, sampler, sigmas, positive, positive, torch.zeros_like(noise), disable_pbar=True, seed=1
        )
    except Measured:
        return found[0]
    raise AssertionError("the sampler did not call its hook")


def with_fused(model_options: dict) -> dict:
    """The options of a pass that has PyTorch's fused attention, as in both LMD stages on a CPU."""
    from ella_lmd.nodes.host.guidance.attention import fused

    to = {**model_options["transformer_options"], "optimized_attention_override": fused}
    return {**model_options, "transformer_options": to}


def calls_at(guide: Any, x: Any, step: Any) -> dict[str, Any]:
    """The iterations that are compared, as functions without arguments that return (energy, gradient)."""
    import comfy.samplers
    import torch
    from ella_lmd.tools.bench.naive_guidance import Naive

    guider, options = guide.run.guider, guide.run.model_options
    _, evaluate, _ = guide.arguments(step)
    if guide.layers is None:
        return transformer_calls_at(guide, x, step)

    def twice() -> Any:
        economy = guide.run.economy
        planned, economy.checkpoint = economy.checkpoint, True
        try:
            return evaluate(x)
        finally:
            economy.checkpoint = planned

    def naive(how: Naive) -> Any:
        return lambda: how.iteration(
            guider, x, step.sigma, options, guide.layers, guide.target.objects, guide.guidance.options.energy
        )

    def forward(options: dict) -> None:
        with torch.inference_mode():
            comfy.samplers.calc_cond_batch(guider.inner_model, [guider.conds["positive"]], x, step.sigma, options)

    return {
        ENGINE: lambda: evaluate(x), TWICE: twice, NAIVE: naive(Naive()), LEANER: naive(Naive(fused=True)),
        FORWARD: lambda: forward(options), FUSED: lambda: forward(with_fused(options)), "floor": naive(Naive(early_exit=True)),
    }  # fmt: skip


def transformer_calls_at(guide: Any, x: Any, step: Any) -> dict[str, Any]:
    """The same of a transformer, whose blocks are not computed twice."""
    from ella_lmd.nodes.host.guidance.transformers import guided_blocks
    from ella_lmd.tools.bench.naive_transformer import NaiveText, plain_forward

    guider, options = guide.run.guider, guide.run.model_options
    _, evaluate, _ = guide.arguments(step)
    (cond,) = guider.conds["positive"]
    blocks = guided_blocks(guide.target.layers, guide.run.text_calls(cond, x, step.sigma))

    def naive(how: NaiveText) -> Any:
        return lambda: how.iteration(
            guider, x, step.sigma, options, blocks, guide.target.objects, guide.guidance.options.energy
        )

    return {
        ENGINE: lambda: evaluate(x), NAIVE: naive(NaiveText()), LEANER: naive(NaiveText(fused=True)),
        FORWARD: lambda: plain_forward(guider, x, step.sigma, options),
        FUSED: lambda: plain_forward(guider, x, step.sigma, with_fused(options)),
        "floor": naive(NaiveText(early_exit=True)),
    }  # fmt: skip


def compare(guide: Any, x: Any, step: Any, rounds: int, device: str) -> Figures:
    from ella_lmd.nodes.host.guidance.memory_plan import pass_memory

    calls = calls_at(guide, x, step)
    results = {name: calls[name]() for name in (ENGINE, TWICE, NAIVE, LEANER) if name in calls}
    truth = results[NAIVE][1].float()
    difference = {n: float((g.float() - truth).norm() / truth.norm()) for n, (_, g) in results.items()}
    energies = {name: float(e.mean()) for name, (e, _) in results.items()}
    floor = measure.flops(calls.pop("floor")) / measure.flops(calls[NAIVE])
    memory = {name: measure.peak_bytes(call, device) for name, call in calls.items()}
    times = measure.alternate(calls, rounds, device, warm_up=False)  # all of them have run above
    counted_with = len(x) * pass_memory(guide.run.guider.inner_model, x.shape)
    return Figures(times, floor, memory, counted_with, difference, energies)


def report(family: str, figures: Figures, dtype: str) -> tuple[bool, str]:
    """Print the table of one model; (whether its goals hold, its figures in one line)."""
    from ella_lmd.nodes.host.guidance.memory_plan import GRADIENT_SHARE

    times, memory = figures.times, figures.memory
    print(f"{'':14}{'seconds':>10}{'over naive':>12}{'range':>18}{'memory':>12}{'over naive':>12}{'energy':>10}")
    for name in times:
        middle, low, high = measure.ratio(times, name, NAIVE)
        energy = f"{figures.energies[name]:10.4f}" if name in figures.energies else ""
        print(
            f"{name:14}{statistics.median(times[name]):10.3f}{middle:12.3f}{f'{low:.3f} to {high:.3f}':>18}"
            f"{measure.mebibytes(memory[name]):>12}{memory[name] / memory[NAIVE]:12.3f}{energy}"
        )
    agree = all(d <= AGREE[dtype] for d in figures.difference.values())
    differences = ", ".join(f"{n} {d:.1e}" for n, d in figures.difference.items() if n != NAIVE)
    print(f"gradients differ from the naive one by {differences} (at most {AGREE[dtype]:g})")
    units = {name: f"{memory[name] / figures.counted_with:.2f}" for name in (ENGINE, TWICE) if name in memory}
    print(
        f"in units of the host's estimate of a pass the engine takes {units[ENGINE]} (the nodes count with "
        f"{GRADIENT_SHARE:g})" + (f", with blocks computed twice {units[TWICE]}" if TWICE in units else "")
    )
    time, space = measure.ratio(times, ENGINE, NAIVE)[0], memory[ENGINE] / memory[NAIVE]
    leaner = measure.ratio(times, ENGINE, LEANER)[0]
    limit = min(GOAL_TIME, ABOVE_FLOOR * figures.floor)
    line = (
        f"{family}: time {time:.3f} of naive (at most {limit:.3f}; floor {figures.floor:.3f}), {leaner:.3f} of leaner, "
        f"memory {space:.3f} of naive (at most {GOAL_MEMORY})"
    )
    return agree and time <= limit and space <= GOAL_MEMORY, line


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models",
        nargs="+",
        choices=(random_models.SD15, random_models.SDXL, *random_models.TRANSFORMERS),
        default=["sd15", "sdxl"],
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, help="side of the latent; by default 64 (512 px), SDXL on a GPU 128")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--width", type=int, default=random_models.FULL_WIDTH, help="channels of the first level")
    random_models.add_device_options(parser)
    args = parser.parse_args()
    random_models.find_host(args)
    import torch

    holds, lines = True, []
    for family in args.models:
        size = args.size or (128 if family == random_models.SDXL and args.device != "cpu" else 64)
        with torch.inference_mode():
            make = random_models.transformer if family in random_models.TRANSFORMERS else random_models.unet
            model = make(family, random_models.dtype_of(args.dtype), args.width)
            target, positive = target_and_conditioning(family)

            def measured(guide, x, step):
                return compare(guide, x, step, args.rounds, args.device)

            figures = probe(model, target, positive, size, args.batch, measured)
        print(f"{family}, width {args.width}, {size}x{size} latent, batch {args.batch}, {args.dtype}")
        good, line = report(family, figures, args.dtype)
        holds, lines = holds and good, [*lines, line]
        del model, figures
    print("; ".join(lines))
    return 0 if holds else 1
