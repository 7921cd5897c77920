"""Trains the demo model on pictures of `evaluation/demo_world.py`, on the CPU; all stages resume where they stopped.

    python run.py python tools/demo_model/train.py denoiser     text encoder and denoiser; hours
    python run.py python tools/demo_model/train.py vae          autoencoder; half an hour; the two may run side by side
    python run.py python tools/demo_model/train.py export       the averaged weights, in half precision, into demo/weights
    python run.py python tools/demo_model/train.py transformer  a transformer on the same text features; hours
    python run.py python tools/demo_model/train.py export-transformer   its averaged weights, into demo/weights
    python run.py python tools/demo_model/train.py gligen       a GLIGEN adapter for the shipped denoiser; an hour
    python run.py python tools/demo_model/train.py export-gligen     its averaged weights, into demo/weights
    python run.py python tools/demo_model/train.py lora-band    a LoRA for the shipped denoiser; minutes; and lora-pink
    python run.py python tools/demo_model/train.py export-loras     both, into demo/weights

Checkpoints, losses (denoiser.csv) and sample grids are written every few minutes.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ella_lmd.tools.host_setup import HOME, prepare_host

STAGES = (
    "denoiser", "vae", "transformer", "gligen", "lora-band", "lora-pink", "export", "export-transformer", "export-gligen",
    "export-loras",
)  # fmt: skip


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


def export_gligen(home: Path) -> None:
    """Write the averaged weights of the GLIGEN adapter in half precision to demo/weights."""
    import torch
    from ella_lmd.demo import model
    from ella_lmd.tools.demo_model import train_gligen
    from safetensors.torch import save_file

    saved = torch.load(home / "gligen.pt")
    save_file(train_gligen.file_state(saved["average"]), model.GLIGEN_WEIGHTS, {"gligen_steps": str(saved["step"])})


def export_transformer(home: Path) -> None:
    """Write the averaged weights of the transformer in half precision to demo/weights."""
    import torch
    from ella_lmd.demo import model
    from ella_lmd.nodes.host import demo_model
    from safetensors.torch import save_file

    saved = torch.load(home / "transformer.pt")
    state = {demo_model.UNET + key: value.half().contiguous() for key, value in saved["average"].items()}
    save_file(state, model.TRANSFORMER_WEIGHTS, {"transformer_steps": str(saved["step"])})


def export_loras(home: Path) -> None:
    """Write the averaged weights of both LoRAs in half precision to demo/weights."""
    import torch
    from ella_lmd.demo import model
    from ella_lmd.tools.demo_model import train_lora
    from safetensors.torch import save_file

    for mark, path in model.LORAS.items():
        path.parent.mkdir(exist_ok=True)
        saved = torch.load(home / f"lora_{mark}.pt")
        save_file(train_lora.file_state(saved["average"]), path, {"steps": str(saved["step"])})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--steps", type=int, help="train up to this many steps in all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--home", type=Path, default=HOME / "train", help="where checkpoints, losses and sample grids go"
    )
    parser.add_argument("--rank", type=int, default=0, help="denoiser only: which of several processes this one is")
    parser.add_argument("--workers", type=int, default=1, help="denoiser only: how many processes share every batch")
    options = parser.parse_args()
    options.home.mkdir(parents=True, exist_ok=True)
    prepare_host("--use-pytorch-cross-attention", threads=options.threads)
    if options.stage == "export":
        return export(options.home)
    if options.stage == "export-transformer":
        return export_transformer(options.home)
    if options.stage == "export-gligen":
        return export_gligen(options.home)
    if options.stage == "export-loras":
        return export_loras(options.home)
    if options.stage.startswith("lora-"):
        from ella_lmd.tools.demo_model import train_lora

        mark = options.stage.removeprefix("lora-")
        return train_lora.train(options.home, mark, options.steps or train_lora.STEPS, options.seed)
    from ella_lmd.tools.demo_model import train_denoiser, train_vae

    if options.stage == "transformer":
        from ella_lmd.tools.demo_model import train_transformer

        return train_transformer.train(options.home, options.steps or train_transformer.STEPS, options.seed)
    if options.stage == "gligen":
        from ella_lmd.tools.demo_model import train_gligen

        return train_gligen.train(options.home, options.steps or train_gligen.STEPS, options.seed)
    if options.stage == "vae":
        return train_vae.train(options.home, options.steps or train_vae.STEPS, options.seed)
    steps = options.steps or train_denoiser.STEPS
    train_denoiser.train(options.home, steps, options.seed, rank=options.rank, workers=options.workers)
