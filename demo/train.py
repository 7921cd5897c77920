"""Trains the demo model on pictures of `demo/world.py`, on the CPU; both stages resume where they stopped.

    python run.py python demo/train.py denoiser     text encoder and denoiser; hours
    python run.py python demo/train.py vae          autoencoder; half an hour; the two may run side by side
    python run.py python demo/train.py export       the averaged weights, in half precision, into demo/weights

Checkpoints, losses (denoiser.csv) and sample grids are written every few minutes.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def prepare(threads: int) -> None:
    """Make the pack and the host importable, as `tools/pack.py` does, and set the number of CPU threads."""
    spec = importlib.util.spec_from_file_location("ella_lmd_pack", ROOT / "tools" / "pack.py")
    pack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    pack.register()
    host = os.environ.get("COMFYUI_PATH") or str(Path.home() / ".cache/ella-lmd/ComfyUI-0.30.0")
    sys.path[:] = [host] + [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "demo")]
    sys.argv = [sys.argv[0], "--cpu", "--use-pytorch-cross-attention"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import torch

    torch.set_num_threads(threads)


def export(home: Path) -> None:
    """Write the averaged weights of all stages in half precision to demo/weights."""
    import torch
    from ella_lmd.demo import model
    from ella_lmd.nodes.host import demo_model
    from safetensors.torch import save_file

    denoiser = torch.load(home / "denoiser.pt")
    parts = {
        demo_model.UNET: {k.removeprefix("unet."): v for k, v in denoiser["average"].items() if k.startswith("unet.")},
        demo_model.TEXT: {
            k.removeprefix("text."): v
            for k, v in denoiser["average"].items()
            if k.startswith("text.") and "text_projection" not in k
        },
        demo_model.VAE: torch.load(home / "vae.pt")["average"],
    }
    state = {prefix + key: value.half().contiguous() for prefix, part in parts.items() for key, value in part.items()}
    state[demo_model.VOCABULARY] = torch.load(home / "data.pt")["vocabulary"].int()
    model.WEIGHTS.parent.mkdir(exist_ok=True)
    save_file(state, model.WEIGHTS, {"denoiser_steps": str(denoiser["step"])})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    home = Path(os.environ.get("ELLA_LMD_HOME", "~/.cache/ella-lmd")).expanduser() / "train"
    parser.add_argument("stage", choices=("denoiser", "vae", "export"))
    parser.add_argument("--steps", type=int, help="train up to this many steps in all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--home", type=Path, default=home, help="where checkpoints, losses and sample grids go")
    parser.add_argument("--rank", type=int, default=0, help="denoiser only: which of several processes this one is")
    parser.add_argument("--workers", type=int, default=1, help="denoiser only: how many processes share every batch")
    options = parser.parse_args()
    options.home.mkdir(parents=True, exist_ok=True)
    prepare(options.threads)
    if options.stage == "export":
        return export(options.home)
    from ella_lmd.demo import train_denoiser, train_vae

    if options.stage == "vae":
        return train_vae.train(options.home, options.steps or train_vae.STEPS, options.seed)
    steps = options.steps or train_denoiser.STEPS
    train_denoiser.train(options.home, steps, options.seed, rank=options.rank, workers=options.workers)


if __name__ == "__main__":
    main()
