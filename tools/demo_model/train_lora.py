"""The demo world's two LoRAs for the frozen demo model: what circles look like. `train.py lora-band`, `lora-pink`.

Each is trained on circles that all have its mark (`evaluation/demo_marks.py`); no caption says so. A file has the keys
that ComfyUI's own loader reads.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy
import torch
from tqdm import tqdm

from ...demo import latents, model
from ...evaluation import demo_marks, demo_world
from ...nodes.host import demo_model
from .resumable import Resumable
from .train_denoiser import alphas, plain_attention
from .train_gligen import frozen_unet

RANK = 4
SCENES = 640
STEPS = 400
BATCH = 12
LEARNING_RATE = 3e-3


class Lora(torch.nn.Module):
    """Low-rank additions to the linear layers and convolutions of `unet`, hooked into it; they start at zero."""

    def __init__(self, unet: torch.nn.Module) -> None:
        super().__init__()
        self.down, self.up = torch.nn.ParameterDict(), torch.nn.ParameterDict()
        for name, layer in unet.named_modules():
            if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d)) and "emb" not in name:
                key = name.replace(".", "-")
                rest = layer.weight.shape[1:]
                self.down[key] = torch.nn.Parameter(torch.randn(RANK, *rest) * layer.weight[0].numel() ** -0.5)
                self.up[key] = torch.nn.Parameter(
                    torch.zeros(layer.weight.shape[0], RANK, *[1] * (layer.weight.ndim - 2))
                )
                layer.register_forward_hook(self._added(key))

    def _added(self, key: str):
        def hook(layer: torch.nn.Module, inputs: tuple, out: torch.Tensor) -> torch.Tensor:
            x, down, up = inputs[0], self.down[key], self.up[key]
            if isinstance(layer, torch.nn.Conv2d):
                low = torch.nn.functional.conv2d(x, down, stride=layer.stride, padding=layer.padding)
                return out + torch.nn.functional.conv2d(low, up)
            return out + torch.nn.functional.linear(torch.nn.functional.linear(x, down), up)

        return hook


def file_state(average: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A module's weights under the host's keys, in half precision."""
    found = {}
    for name, value in average.items():
        side, key = name.split(".", 1)
        end = {"down": "lora_A", "up": "lora_B"}[side]
        found[f"diffusion_model.{key.replace('-', '.')}.{end}.weight"] = value.half().contiguous()
    return found


def scene(rng: random.Random) -> demo_world.Scene:
    """One or two circles on any background, of colours that show both marks."""
    colours = rng.sample(demo_marks.COLOURS, rng.choice((1, 2)))
    things = demo_world.place([(demo_marks.KIND, colour) for colour in colours], rng)
    return demo_world.Scene(rng.choice(list(demo_world.BACKGROUNDS)), tuple(things), rng.uniform(0.93, 1.05))


def training_set(mark: str, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents `[SCENES, 4, h, w]` of marked scenes and the features `[SCENES, 77, C]` of a caption of each."""
    clip = demo_model.load()[1]
    pictures, contexts = [], []
    for index in tqdm(range(SCENES), desc="data"):
        rng = random.Random(f"{seed} {mark} {index}")
        drawn = scene(rng)
        image = demo_marks.render(drawn, [(mark,)] * len(drawn.things), model.IMAGE_SIZE)
        pictures.append(torch.from_numpy(numpy.asarray(image).copy()).movedim(-1, 0).float() / 127.5 - 1)
        contexts.append(clip.encode_from_tokens(clip.tokenize(demo_world.caption(drawn, rng))).float().cpu().clone())
    return latents.of_images(torch.stack(pictures)), torch.cat(contexts)


def train(home: Path, mark: str, steps: int, seed: int, save_every: int = 50) -> None:
    """Train for `steps` steps in all, resuming from `home/lora_MARK.pt`; losses go to `home/lora_MARK.csv`."""
    pictures, contexts = training_set(mark, seed)
    torch.manual_seed(seed)
    unet = frozen_unet()
    lora = Lora(unet)
    optimiser = torch.optim.AdamW(lora.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=1e-3)
    run = Resumable(home / f"lora_{mark}.pt", lora, optimiser, 0.98)
    torch.nn.functional.scaled_dot_product_attention = plain_attention
    signal = alphas()
    for step in run.steps(steps):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * min(1, (step + 1) / 20) * max(0.05, min(1, 2 * (1 - step / steps)))
        picked = torch.randint(len(pictures), (BATCH,), generator=generator)
        noise = torch.randn(pictures[picked].shape, generator=generator)
        timesteps = (torch.rand(BATCH, generator=generator).sqrt() * 1000).long().clamp(max=999)
        a = signal[timesteps].view(-1, 1, 1, 1)
        with torch.autocast("cpu", torch.bfloat16):
            noisy = a.sqrt() * pictures[picked] + (1 - a).sqrt() * noise
            predicted = unet(noisy, timesteps.float(), context=contexts[picked])
        loss = ((predicted.float() - noise).square() / (a + 0.05)).mean() / 4  # where colours are decided: high noise
        run.learn(loss)
        run.average_in()
        run.log(loss.item())
        if run.due(save_every):
            run.save()
