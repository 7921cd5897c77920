"""Stage one of the training: the autoencoder between pictures and latents. `train.py vae` calls it."""

from __future__ import annotations

import random

import numpy
import torch

from ...demo import latents, model
from ...evaluation import demo_world
from ...nodes.host import demo_model
from .resumable import Resumable

STEPS = 2600
CROPPED_STEPS = 1200
"""Steps on squares cut from the pictures; the rest sees whole ones, which sharpens their borders."""
BATCH = 16
CROP = 64
LEARNING_RATE = 1e-3


def pictures(count: int, rng: random.Random, crop: int | None = None) -> torch.Tensor:
    """`count` random scenes `[count, 3, size, size]` in -1..1; with `crop`, squares of that side, two from a scene."""
    found = []
    while len(found) < count:
        image = numpy.asarray(demo_world.render(demo_world.sample_scene(rng), model.IMAGE_SIZE))
        for _ in range(2 if crop else 1):
            if crop:
                y, x = rng.randrange(image.shape[0] - crop + 1), rng.randrange(image.shape[1] - crop + 1)
            found.append(image[y : y + crop, x : x + crop] if crop else image)
    return torch.from_numpy(numpy.stack(found[:count])).movedim(-1, 1).float() / 127.5 - 1


def losses(vae: torch.nn.Module, images: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Decoding error, from slightly noisy latents of the formula, and error of the encoder against the formula.

    The noise makes neighbouring latents decode alike, so the decoder forgives the denoiser's small errors.
    """
    target = latents.of_images(images)
    strength = 0.3 * torch.rand(len(images), 1, 1, 1, generator=generator).square()
    noisy = target + strength * torch.randn(target.shape, generator=generator)
    error = vae.decode(noisy / model.LATENT_SCALE).float() - images
    encoded = vae.encode(images).float() * model.LATENT_SCALE
    return error.abs().mean() + error.square().mean(), (encoded - target).square().mean()


def train(home, steps: int, seed: int, save_every: int = 100) -> None:
    """Train for `steps` steps in all, resuming from `home/vae.pt`; writes the EMA weights there too."""
    torch.manual_seed(seed)
    vae = demo_model.empty_vae()
    demo_model.initialise(vae)
    with torch.no_grad():  # let both ends start with numbers of about unit size
        vae.quant_conv.weight.mul_(1 / model.LATENT_SCALE)
        vae.post_quant_conv.weight.mul_(model.LATENT_SCALE)
    optimiser = torch.optim.AdamW(vae.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
    run = Resumable(home / "vae.pt", vae, optimiser, 0.995)
    for step in run.steps(steps):
        rng = random.Random(f"{seed} vae {step}")
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        lr = LEARNING_RATE * min(1, (step + 1) / 50) * max(0.05, min(1, 2 * (1 - step / steps)))
        for group in optimiser.param_groups:
            group["lr"] = lr
        images = pictures(BATCH, rng, CROP) if step < CROPPED_STEPS else pictures(BATCH // 4, rng)
        with torch.autocast("cpu", torch.bfloat16):
            decoding, encoding = losses(vae, images, generator)
        run.learn(decoding + 0.2 * encoding)
        run.average_in()
        run.bar.set_postfix(decoding=f"{decoding.item():.4f}", encoding=f"{encoding.item():.4f}")
        if run.due(save_every):
            run.save()
            preview(home, run.average)


def preview(home, weights: dict[str, torch.Tensor]) -> None:
    """Write rows of pictures, decoded from the formula, and encoded and decoded, to `home/vae.png`."""
    from PIL import Image

    vae = demo_model.empty_vae()
    vae.load_state_dict(weights)
    images = pictures(16, random.Random("vae preview"))
    with torch.no_grad():
        decoded = vae.decode(latents.of_images(images) / model.LATENT_SCALE).clamp(-1, 1)
        both = vae.decode(vae.encode(images)).clamp(-1, 1)
    rows = torch.cat([images[:8], decoded[:8], both[:8], images[8:], decoded[8:], both[8:]])
    grid = rows.unflatten(0, (6, 8)).permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)
    Image.fromarray(((grid + 1) * 127.5).round().byte().numpy()).save(home / "vae.png")
