"""One guided iteration: the pack's against the published implementation itself, in time and memory.

    git clone https://github.com/TonyLianLong/LLM-groundedDiffusion FOLDER
    python run.py python -m pip install --no-deps --target FOLDER/packages diffusers==0.18.0 transformers==4.44.2 \\
        tokenizers==0.19.1 huggingface_hub==0.25.2 easydict importlib_metadata zipp matplotlib contourpy cycler \\
        fonttools kiwisolver pyparsing python-dateutil six
    python run.py bench reference FOLDER [--packages FOLDER/packages] [--rounds 3] [--size 64]
                                         [--device cpu] [--dtype fp32] [--threads 1]

The published code (LLM-groundedDiffusion@cef2a90) runs in a process of its own, its device strings replaced and nothing
else; the pack runs in ComfyUI's U-Net in this one. Both have the same random weights in SD1.5's shape, the same latent,
timestep, prompt encoding, boxes and tokens, and the same energy; energies and gradients must agree. They take turns, and
each measures its own time (see measure.seconds) and the memory that one iteration takes beyond the weights. Exit status
0 only if the pack takes at most GOAL_TIME of the time and GOAL_MEMORY of the memory; 2 if the checkout or its packages
are missing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ella_lmd.tools.bench import guidance, measure, random_models

GOAL_TIME, GOAL_MEMORY = 0.30, 0.50
TIMESTEP = 981  # the first of DDIM's 50


class Reference:
    """The other process. `ask` returns its answer to one request."""

    def __init__(self, job: dict):
        command = [sys.executable, str(Path(__file__).with_name("reference_worker.py")), json.dumps(job)]
        environment = {**os.environ, "TRANSFORMERS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, request: str) -> Any:
        print(json.dumps(request), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the published implementation ended with an error, see above")
        return json.loads(line)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def missing(checkout: Path, packages: Path) -> str | None:
    """What stands in the way of running the published code, or None."""
    if not (checkout / "models" / "pipelines.py").exists():
        return f"no checkout of LLM-groundedDiffusion in {checkout}"
    if not (packages / "diffusers").is_dir():
        return f"its packages are not in {packages}"
    return None


def published_weights(model: Any, width: int) -> dict:
    """The U-Net's weights under the names that the published implementation gives them."""
    import comfy.utils

    config = random_models.unet_config(random_models.SD15, width)
    ours = model.model.diffusion_model.state_dict()
    return {theirs: ours[name] for theirs, name in comfy.utils.unet_to_diffusers(config).items() if name in ours}


def compare(args: Any, folder: Path) -> dict[str, Any]:
    import torch

    dtype = random_models.dtype_of(args.dtype)
    model = random_models.unet(random_models.SD15, dtype, args.width)
    torch.save(published_weights(model, args.width), folder / "weights.pt")
    target, positive = guidance.target_and_conditioning(random_models.SD15)
    sigma = float(model.model.model_sampling.sigma(torch.tensor(TIMESTEP)))

    def measured(guide, x, step):
        torch.save(
            {
                "latents": x.float().cpu() / (sigma**2 + 1) ** 0.5, "prompt": target.conditioning[0][0],
                "boxes": [[(b.x, b.y, b.x + b.w, b.y + b.h) for b in o.boxes] for o in target.objects],
                "positions": [list(o.positions) for o in target.objects],
            },
            folder / "given.pt",
        )  # fmt: skip
        job = {
            "checkout": str(args.checkout), "packages": str(args.packages), "device": args.device,
            "threads": args.threads, "width": args.width, "given": str(folder / "given.pt"),
            "weights": str(folder / "weights.pt"), "result": str(folder / "result.pt"),
        }  # fmt: skip
        _, evaluate, _ = guide.arguments(step)
        other = Reference(job)
        theirs = torch.load(other.ask("result"))
        energy, gradient = evaluate(x)
        gradient = gradient.float().cpu() * (sigma**2 + 1) ** 0.5  # both with respect to the published latents
        times: dict[str, list[float]] = {"pack": [], "published": []}
        for _ in range(args.rounds):
            times["pack"].append(measure.seconds(lambda: evaluate(x), args.device))
            times["published"].append(other.ask("seconds"))
        memory = {"pack": measure.peak_bytes(lambda: evaluate(x), args.device), "published": other.ask("memory")}
        other.close()
        truth = theirs["gradient"].float().cpu()
        return {
            "times": times, "memory": memory, "energies": (float(energy), float(theirs["energy"])),
            "difference": float((gradient - truth).norm() / truth.norm()),
        }  # fmt: skip

    return guidance.probe(model, target, positive, args.size, 1, measured, sigma)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, nargs="?", default=Path("LLM-groundedDiffusion"))
    parser.add_argument("--packages", type=Path, help="where diffusers 0.18 is; by default CHECKOUT/packages")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=64, help="side of the latent; 64 is an image of 512 px")
    parser.add_argument("--width", type=int, default=random_models.FULL_WIDTH, help="channels of the first level")
    random_models.add_device_options(parser)
    args = parser.parse_args()
    args.packages = args.packages or args.checkout / "packages"
    if problem := missing(args.checkout, args.packages):
        print(f"{problem}: python run.py bench reference --help tells how to get it")
        return 2
    random_models.find_host(args)
    import torch

    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        found = compare(args, Path(folder))
    times, memory, agree = found["times"], found["memory"], guidance.AGREE[args.dtype]
    print(f"SD1.5's U-Net at width {args.width}, {args.size}x{args.size} latent, {args.dtype}, {args.device}")
    for name in times:
        print(f"{name:12}{statistics.median(times[name]):8.2f} s {measure.mebibytes(memory[name]):>12}")
    print(f"energies {found['energies'][0]:.5f} and {found['energies'][1]:.5f}, gradients differ by", end=" ")
    print(f"{found['difference']:.1e} (at most {agree:g})")
    time, low, high = measure.ratio(times, "pack", "published")
    space = memory["pack"] / memory["published"]
    print(
        f"time {time:.3f} of the published implementation's ({low:.3f} to {high:.3f}; at most {GOAL_TIME}), "
        f"memory {space:.3f} (at most {GOAL_MEMORY})"
    )
    return 0 if found["difference"] <= agree and time <= GOAL_TIME and space <= GOAL_MEMORY else 1
