"""Stage two of the training: text encoder and denoiser together. `train.py denoiser` calls it."""

from __future__ import annotations

import functools
import types
from pathlib import Path

import torch

from ...demo import model
from ...nodes.host import demo_model
from . import data
from .resumable import Resumable

SCENES = 32768
STEPS = 6400
BATCH = 32
LEARNING_RATE = 8e-4
EMPTY_RATE = 0.1
"""Share of captions replaced by the empty one, for classifier-free guidance."""
FOREIGN_RATE = 0.05
"""Share of captions replaced by a list of unknown words, which must count as empty: negative prompts are such lists."""
UNKNOWN_RATE = 0.1
"""Share of captions in which one token becomes the unknown one, so that foreign words do little harm."""

GRID_PROMPTS = (
    "A realistic photo of a scene with a red star",
    "a blue circle on the grass",
    "A realistic photo of a scene with a yellow heart and a green square",
    "a white moon at night",
    "A realistic photo of a scene with three orange crosses",
    "A realistic photo of a beach with two purple triangles",
    "A realistic photo of a scene with a pink ring on the left and a blue star on the right",
    "four hearts in the sky",
)


def alphas() -> torch.Tensor:
    """Cumulative products of SD's noise schedule: 1000 steps, betas scaled-linear from 0.00085 to 0.012."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


def out_of_place(layer, x, mask=None, optimized_attention=None):
    """The host's CLIPLayer.forward without its in-place additions, which autograd refuses."""
    x = x + layer.self_attn(layer.layer_norm1(x), mask, optimized_attention)
    return x + layer.mlp(layer.layer_norm2(x))


def plain_attention(q, k, v, attn_mask=None, **_):
    """Scaled dot-product attention written out: for these short sequences, in bfloat16 on a CPU, forward and backward
    together take a third of the time of PyTorch's fused one (0.57 instead of 0.81 seconds for a whole step)."""
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
    if attn_mask is not None:
        scores = scores + attn_mask
    return torch.matmul(scores.softmax(-1).to(v.dtype), v)


class Pair(torch.nn.Module):
    """Text encoder and denoiser as one module: `forward(noisy, timesteps, tokens)` predicts the noise."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.text = demo_model.empty_text(vocabulary)
        self.unet = demo_model.empty_unet()
        for layer in self.text.text_model.encoder.layers:
            layer.forward = types.MethodType(out_of_place, layer)

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        context = self.text(tokens.int())[0]
        return self.unet(noisy, timesteps.float(), context=context)


def training_set(home: Path, seed: int) -> dict[str, torch.Tensor]:
    """The scenes of `data.make` in `home`, with the comma's index in their vocabulary."""
    found = data.make(home / "data.pt", SCENES, seed)
    comma = demo_model.tokenise()(",")[1]
    found["comma"] = (torch.searchsorted(found["vocabulary"], comma) + 1).short()
    return found


def batch(found: dict[str, torch.Tensor], generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Random latents `[BATCH, 4, h, w]` and token rows `[BATCH, 77]`."""

    def below(high: int) -> torch.Tensor:
        return torch.randint(high, (BATCH,), generator=generator)

    def chance(rate: float) -> torch.Tensor:
        return torch.rand(BATCH, generator=generator) < rate

    picked, which = below(len(found["latents"])), below(data.CAPTIONS)
    tokens = found["tokens"][picked, which].clone()
    unknown = chance(UNKNOWN_RATE)
    position = 1 + below(10)
    tokens[unknown.nonzero()[:, 0], position[unknown]] = 0
    for row in chance(FOREIGN_RATE).nonzero()[:, 0]:
        tokens[row] = foreign(found, generator)
    tokens[chance(EMPTY_RATE)] = found["empty"]
    return found["latents"][picked].float(), tokens


def foreign(found: dict[str, torch.Tensor], generator: torch.Generator) -> torch.Tensor:
    """A token row `[77]` of 1 to 50 unknown words, some followed by commas."""
    start, end = found["empty"][:2]
    row = torch.full_like(found["empty"], end.item())
    length = int(torch.randint(1, 51, (1,), generator=generator))
    commas = torch.rand(length, generator=generator) < 0.3
    row[0], row[1 : 1 + length] = start, torch.where(commas, found["comma"], 0)
    return row


def learning_rate(step: int, steps: int) -> float:
    """Short warm-up, constant, then linear to a twentieth over the last third."""
    return LEARNING_RATE * min(1, (step + 1) / 200) * max(0.05, min(1, 3 * (1 - step / steps)))


def average_gradients(module: torch.nn.Module, workers: int) -> None:
    """Make every worker's gradients their mean over all workers."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    torch.distributed.all_reduce(flat)
    for gradient, part in zip(gradients, (flat / workers).split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def train(
    home: Path,
    steps: int,
    seed: int,
    save_every: int = 200,
    grid_every: int = 400,
    rank: int = 0,
    workers: int = 1,
    port: int = 29517,
) -> None:
    """Train for `steps` steps in all, resuming from `home/denoiser.pt`; losses go to `home/denoiser.csv`.

    With several `workers`, each is a process with its own `rank` that takes its part of every batch; only rank 0
    writes files. The result is that of one worker, up to rounding.
    """
    if workers > 1:
        torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=workers)
    found = training_set(home, seed)
    torch.manual_seed(seed)
    pair = Pair(len(found["vocabulary"]))
    demo_model.initialise(pair)
    optimiser = torch.optim.AdamW(pair.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
    run = Resumable(home / "denoiser.pt", pair, optimiser, 0.999)
    torch.nn.functional.scaled_dot_product_attention = plain_attention
    signal = alphas()
    exchange = functools.partial(average_gradients, workers=workers) if workers > 1 else None
    for step in run.steps(steps):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, steps)
        clean, tokens = batch(found, generator)
        noise = torch.randn(clean.shape, generator=generator)
        timesteps = torch.randint(1000, (BATCH,), generator=generator)
        clean, tokens, noise, timesteps = (x[rank::workers] for x in (clean, tokens, noise, timesteps))
        a = signal[timesteps].view(-1, 1, 1, 1)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = pair(a.sqrt() * clean + (1 - a).sqrt() * noise, timesteps, tokens)
        loss = (predicted.float() - noise).square().mean()
        run.learn(loss, exchange)
        if rank > 0:
            continue
        run.average_in()
        run.log(loss.item())
        if run.due(save_every):
            run.save()
        if run.due(grid_every):
            preview(home, run.average, found, run.step)


@torch.no_grad()
def sample(pair: Pair, tokens: torch.Tensor, empty: torch.Tensor, seed: int = 0, steps: int = 25, scale: float = 5.0):
    """DDIM samples `[B, 4, h, w]` of token rows `[B, 77]` with classifier-free guidance."""
    side = model.IMAGE_SIZE // 8
    x = torch.randn(len(tokens), 4, side, side, generator=torch.Generator().manual_seed(seed))
    signal = alphas()
    visited = torch.arange(999, -1, -1000 // steps)
    both = torch.cat([empty.expand_as(tokens), tokens])
    for index, t in enumerate(visited):
        a = signal[t]
        b = signal[visited[index + 1]] if index + 1 < len(visited) else torch.tensor(1.0)
        without, with_text = pair(x.repeat(2, 1, 1, 1), t.expand(2 * len(x)), both).chunk(2)
        noise = without + scale * (with_text - without)
        x = b.sqrt() * (x - (1 - a).sqrt() * noise) / a.sqrt() + (1 - b).sqrt() * noise
    return x


def preview(home: Path, weights: dict[str, torch.Tensor], found: dict[str, torch.Tensor], step: int) -> None:
    """Write samples of `GRID_PROMPTS` (columns) with two seeds to `home/grid-STEP.png`, block colours as they are."""
    from PIL import Image

    from ...demo import latents

    pair = Pair(len(found["vocabulary"])).eval()
    pair.load_state_dict(weights)
    tokenise = demo_model.tokenise()
    rows = torch.searchsorted(found["vocabulary"], torch.tensor([tokenise(p) for p in GRID_PROMPTS])) + 1
    with torch.autocast("cpu", torch.bfloat16):
        drawn = torch.cat([sample(pair, rows, found["empty"].long(), seed) for seed in (0, 1)])
    vae = home / "vae.pt"
    if vae.exists():
        decoder = demo_model.empty_vae()
        decoder.load_state_dict(torch.load(vae)["average"])
        with torch.no_grad():
            images = decoder.decode(drawn / model.LATENT_SCALE)
    else:
        images = latents.block_colours(drawn).repeat_interleave(8, 2).repeat_interleave(8, 3)
    grid = images.clamp(-1, 1).unflatten(0, (2, -1)).permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)
    Image.fromarray(((grid + 1) * 127.5).round().byte().numpy()).save(home / f"grid-{step:05d}.png")
