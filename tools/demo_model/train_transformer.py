"""The demo world's transformer: the denoiser alone, on the demo model's own text features. `train.py transformer`.

The host's NextDiT (the class of Lumina 2 and Z-Image: joint attention, rotary positions, text rows first) learns the
velocity of a straight flow, x_t = (1 - t) x_0 + t noise, as that class is sampled by the host.
"""

from __future__ import annotations

from pathlib import Path

import comfy_kitchen
import comfy_kitchen.backends.eager.rope
import torch

from ...demo import model
from ...nodes.host import demo_model
from .resumable import Resumable
from .train_denoiser import batch, learning_rate, plain_attention, training_set

STEPS = 12000
ROPE_KERNELS = (
    "apply_rope", "apply_rope1", "rms_rope", "rms_rope1",
    "rms_rope_split_half", "rms_rope_split_half1", "apply_rope_split_half", "apply_rope_split_half1",
)  # fmt: skip


def plain_rope() -> None:
    """Rotary positions by plain PyTorch in this process: the host's kernels have no gradient."""
    for name in ROPE_KERNELS:
        setattr(comfy_kitchen, name, getattr(comfy_kitchen.backends.eager.rope, name))


def initialise(module: torch.nn.Module) -> None:
    """Random starting weights; modulations and the last layer start at zero, as in published transformers."""
    for name, p in module.named_parameters():
        if p.ndim >= 2:
            torch.nn.init.xavier_uniform_(p)
        elif name.endswith("weight"):
            torch.nn.init.ones_(p)
        else:
            torch.nn.init.zeros_(p)
    for block in module.layers:
        torch.nn.init.zeros_(block.adaLN_modulation[-1].weight)
    for p in module.final_layer.linear.parameters():
        torch.nn.init.zeros_(p)


def frozen_text(found: dict[str, torch.Tensor]) -> torch.nn.Module:
    """The shipped text encoder, whose rows are the training set's vocabulary. Raises ValueError for another one."""
    state = demo_model.text_state()
    if not torch.equal(found["vocabulary"].int(), state.pop(demo_model.VOCABULARY).int()):
        raise ValueError("the training set has another vocabulary than the shipped text encoder")
    text = demo_model.empty_text(len(found["vocabulary"]))
    text.load_state_dict({k: v.float() for k, v in state.items()}, strict=False)
    return text.eval().requires_grad_(False)


def train(home: Path, steps: int, seed: int, save_every: int = 250) -> None:
    """Train for `steps` steps in all, resuming from `home/transformer.pt`; losses go to `home/transformer.csv`."""
    found = training_set(home, seed)
    torch.manual_seed(seed)
    plain_rope()
    torch.nn.functional.scaled_dot_product_attention = plain_attention
    text, net = frozen_text(found), demo_model.empty_transformer()
    initialise(net)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
    run = Resumable(home / "transformer.pt", net, optimiser, 0.999)
    for step in run.steps(steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, steps)
        loss = loss_of(net, text, found, torch.Generator().manual_seed(seed * 1_000_003 + step))
        run.learn(loss)
        run.average_in()
        run.log(loss.item())
        if run.due(save_every):
            run.save()


def loss_of(net, text, found: dict[str, torch.Tensor], generator: torch.Generator) -> torch.Tensor:
    """Mean squared error of the velocity on one random batch; times lean towards the middle, as in published flows."""
    clean, tokens = batch(found, generator)
    with torch.no_grad():
        context = text(tokens.int())[0]
    noise = torch.randn(clean.shape, generator=generator)
    t = torch.sigmoid(torch.randn(len(clean), generator=generator) + 0.3)
    level = t.view(-1, 1, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        velocity = net((1 - level) * clean + level * noise, t, context, model.TEXT["max_position_embeddings"])
    return (velocity.float() - (noise - clean)).square().mean()
