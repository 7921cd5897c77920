"""The numbers and the picture of the demo model's card, from the shipped weights.

    python run.py python tools/demo_model/demo_card.py      a minute or two; writes demo/samples.jpg

Sizes, losses on scenes that training never saw, and a grid of samples.
"""

# ruff: noqa: E402
from __future__ import annotations

import textwrap
from pathlib import Path

from ella_lmd.tools.host_setup import prepare_host

prepare_host(threads=2)

import numpy
import torch
from ella_lmd.demo import latents, model
from ella_lmd.evaluation import demo_world
from ella_lmd.nodes.host import demo_model
from ella_lmd.tools.demo_model import data, train_denoiser, train_vae
from PIL import Image, ImageDraw, ImageFont
from safetensors import safe_open
from tqdm import tqdm

import nodes

PICTURE = model.WEIGHTS.parents[1] / "samples.jpg"
FRESH_SEED = 2
"""Seed of the scenes; the shipped weights were trained on those of seed 1."""
SCENES = 512
SEVERAL = (
    "A realistic photo of a scene with a red star and a blue circle",
    "three hearts in the snow",
    "A realistic photo of a scene with four green rings",
    "a yellow moon and a white star at night",
    "a pink square to the left of a purple triangle",
    "five orange crosses on the water",
    "A realistic photo of a scene without moons",
    "A realistic photo of a scene with a heart on the top and a ring on the bottom",
)


def main() -> int:
    with safe_open(model.WEIGHTS, "pt") as file:
        print(f"{model.WEIGHTS.name}: {model.WEIGHTS.stat().st_size / 1e6:.2f} MB, {file.metadata()}")
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no dict)
    vocabulary, parts = state.pop(demo_model.VOCABULARY), {}
    for prefix in (demo_model.UNET, demo_model.TEXT, demo_model.VAE):
        parts[prefix] = {k.removeprefix(prefix): v.float() for k, v in state.items() if k.startswith(prefix)}
        print(f"{prefix:23} {sum(v.numel() for v in parts[prefix].values()) / 1e6:.2f} million parameters")
    scenes = [data.scene(FRESH_SEED, index) for index in range(SCENES)]
    images = numpy.stack([numpy.asarray(demo_world.render(scene, model.IMAGE_SIZE)) for scene, _ in scenes])
    images = torch.from_numpy(images).movedim(-1, 1).float() / 127.5 - 1
    with torch.inference_mode():
        denoiser_losses(parts, vocabulary, latents.of_images(images), [texts[0] for _, texts in scenes])
        autoencoder_losses(parts[demo_model.VAE], images)
        samples(PICTURE)
    return 0


def denoiser_losses(parts: dict, vocabulary: torch.Tensor, clean: torch.Tensor, captions: list[str]) -> None:
    """Mean squared error of the noise, whose variance is 1, with the captions and with empty ones."""
    pair = train_denoiser.Pair(len(vocabulary)).eval()
    pair.unet.load_state_dict(parts[demo_model.UNET])
    pair.text.load_state_dict(parts[demo_model.TEXT], strict=False)  # without the projection, which is never used
    tokenise, generator = demo_model.tokenise(), torch.Generator().manual_seed(FRESH_SEED)
    ids = torch.tensor([tokenise(text) for text in [*captions, ""]])
    tokens, signal, found = torch.searchsorted(vocabulary.long(), ids) + 1, train_denoiser.alphas(), []
    for x, given in zip(clean.split(train_denoiser.BATCH), tokens[:-1].split(train_denoiser.BATCH)):
        noise, t = torch.randn(x.shape, generator=generator), torch.randint(1000, (len(x),), generator=generator)
        a = signal[t].view(-1, 1, 1, 1)
        noisy = a.sqrt() * x + (1 - a).sqrt() * noise
        errors = [(pair(noisy, t, c) - noise).square().mean() for c in (given, tokens[-1:].expand_as(given))]
        found.append(torch.stack(errors))
    print("denoiser, mean squared error: {:.4f} with captions, {:.4f} without".format(*torch.stack(found).mean(0)))


def autoencoder_losses(state: dict[str, torch.Tensor], images: torch.Tensor) -> None:
    """Errors against the formula of `latents.py`: of the decoder in levels of 0..255, of the encoder squared."""
    vae = demo_model.empty_vae().eval()
    vae.load_state_dict(state)
    decoded, encoded = [], []
    for x in images.split(train_vae.BATCH):
        exact = latents.of_images(x)
        decoded.append((vae.decode(exact / model.LATENT_SCALE) - x).abs().mean() * 127.5)
        encoded.append((vae.encode(x) * model.LATENT_SCALE - exact).square().mean())
    print(f"decoder, mean absolute error: {torch.stack(decoded).mean():.2f} of 255")
    print(f"encoder, mean squared error: {torch.stack(encoded).mean():.4f}")


def samples(path: Path) -> None:
    """One object of every kind and colour on every background, then prompts with several; plain sampling, one seed."""
    kinds, colours = list(demo_world.KINDS), list(demo_world.COLOURS)
    single = [
        f"a {colours[(column + row) % 8]} {kinds[column]} {words[2][0]}"
        for row, words in enumerate(demo_world.BACKGROUNDS.values())
        for column in range(8)
    ]
    pictures = _drawn([text.replace("a orange", "an orange") for text in single] + list(SEVERAL))
    side, bar, columns = model.IMAGE_SIZE, 38, 8
    sheet = Image.new("RGB", (columns * (side + 4), len(pictures) // columns * (side + bar)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=10)
    for index, (prompt, picture) in enumerate(pictures):
        x, y = index % columns * (side + 4), index // columns * (side + bar)
        sheet.paste(picture, (x, y))
        draw.text((x + 1, y + side), textwrap.fill(prompt.replace("A realistic photo of", "..."), 26), "black", font)
    sheet.save(path, quality=82, optimize=True)
    print(f"samples: {path}")


def _drawn(prompts: list[str]) -> list[tuple[str, Image.Image]]:
    """A picture of each prompt by the host's KSampler."""
    unet, clip, vae = demo_model.load()

    def encode(text: str) -> list:
        return nodes.CLIPTextEncode().encode(clip, text)[0]

    found = []
    for index, prompt in enumerate(tqdm(prompts, desc="samples")):
        latent = nodes.EmptyLatentImage().generate(model.IMAGE_SIZE, model.IMAGE_SIZE, 1)[0]
        inputs = (unet, index, 20, 7.5, "ddim", "ddim_uniform", encode(prompt), encode(""), latent)
        image = vae.decode(nodes.KSampler().sample(*inputs)[0]["samples"])[0]
        found.append((prompt, Image.fromarray((image.numpy() * 255).round().astype(numpy.uint8))))
    return found
