"""The demo world's GLIGEN adapter: gated self-attention beside the frozen demo model. `train.py gligen` calls it.

The file has the host's layout of GLIGEN's pruned files, so the stock loader reads it. What is learned: `position_net`
(box and phrase to a grounding token, null tokens too) and one fuser per transformer of the denoiser.
Source: Li et al., GLIGEN (arXiv 2301.07093), sections 3 and 4; the classes are the host's (comfy/gligen.py).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.gligen
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from tqdm import tqdm

from ...demo import model
from ...evaluation import demo_world
from ...lmd.english import inflection
from ...nodes.host import demo_model
from ...nodes.host.guidance import grounding
from . import data
from .resumable import Resumable
from .train_denoiser import BATCH, alphas, batch, plain_attention, training_set
from .train_transformer import frozen_text

STEPS = 900
LEARNING_RATE, GATE_RATE = 1.5e-3, 1e-2
"""Of the weights, and of the gates, which start shut (tanh(0) = 0) and let nothing else learn until they open."""
MOST, WORDINGS = 5, 4
NULL_RATE, NULL_RATE_EMPTY = 0.1, 0.5
"""Share of pictures without boxes, and of those among the pictures without caption: the negative half of a call."""
DROP_RATE = 0.05
"""Share of single boxes left out."""
BLANK_RATE = 0.15
"""Share of captions emptied beside those that the denoiser's own training empties, so that the boxes must speak."""


def empty_gligen() -> comfy.gligen.Gligen:
    """The host's module with random weights and shut gates, in float32."""
    network = comfy.gligen.load_gligen({key: torch.zeros(shape) for key, shape in shapes().items()})
    demo_model.initialise(network)
    for p in (network.position_net.null_positive_feature, network.position_net.null_position_feature):
        torch.nn.init.zeros_(p)
    return network


def fuser_names() -> list[str]:
    """The prefixes of the fusers in the file, in the order in which the denoiser runs its transformers."""
    names = [n for n, m in demo_model.empty_unet().named_modules() if isinstance(m, SpatialTransformer)]
    return [f"{name}.transformer_blocks.0.fuser." for name in names]


def shapes() -> dict[str, tuple[int, ...]]:
    """The file's keys that tell the host's loader the sizes, with their shapes."""
    widths = [int(m.norm.num_channels) for m in demo_model.empty_unet().modules() if isinstance(m, SpatialTransformer)]
    found: dict[str, tuple[int, ...]] = {
        f"{name}linear.weight": (width, model.CONTEXT) for name, width in zip(fuser_names(), widths, strict=True)
    }
    return found | {
        "position_net.null_positive_feature": (model.CONTEXT,),
        "position_net.linears.4.weight": (model.CONTEXT, 512),
    }


def file_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A module's weights under the keys of GLIGEN's pruned files, in half precision."""
    names = fuser_names()
    found = {}
    for key, value in state.items():
        if key.startswith("module_list."):
            _, index, rest = key.split(".", 2)
            key = names[int(index)] + rest
        found[key] = value.half().contiguous()
    return found


@dataclass(frozen=True)
class Boxes:
    """Per scene its boxes `[N, 5, 4]` (fractions, x0 y0 x1 y1), whether there is one `[N, 5]`, and `WORDINGS` phrases of
    each as rows `[N, 5, WORDINGS]` of `features` `[P, C]`, pooled as LMD+ pools them."""

    boxes: torch.Tensor
    mask: torch.Tensor
    phrases: torch.Tensor
    features: torch.Tensor


def phrase(thing: demo_world.Thing, group: list[demo_world.Thing], rng: random.Random) -> str:
    """What a layout calls one object: by itself ("a red star") or, as LMD+ does, by its group ("two red stars")."""
    together = len(group) > 1 and rng.random() < 0.6
    alike = not together or all(other.colour == thing.colour for other in group)
    words = f"{thing.colour} {thing.kind}" if alike and rng.random() < 0.65 else thing.kind
    if together:
        return f"{demo_world.NUMBERS[len(group)]} {inflection.plural(words)}"
    return inflection.with_article(words) if rng.random() < 0.9 else words


def make_boxes(path: Path, count: int, seed: int) -> Boxes:
    """The boxes of the training set's scenes, kept in `path`."""
    if path.exists():
        return Boxes(**torch.load(path))
    rows: dict[str, int] = {}
    boxes, mask = torch.zeros(count, MOST, 4), torch.zeros(count, MOST)
    phrases = torch.zeros(count, MOST, WORDINGS, dtype=torch.int16)
    for index in tqdm(range(count), desc="boxes"):
        scene, rng = data.scene(seed, index)[0], random.Random(f"{seed} phrases {index}")
        for i, thing in enumerate(scene.things):
            group = [other for other in scene.things if other.kind == thing.kind]
            boxes[index, i], mask[index, i] = torch.tensor(thing.box), 1.0
            words = [phrase(thing, group, rng) for _ in range(WORDINGS)]
            phrases[index, i] = torch.tensor([rows.setdefault(w, len(rows)) for w in words])
    clip = demo_model.load()[1]
    with torch.no_grad():
        features = torch.cat([grounding.phrase_embedding(clip, w) for w in rows]).cpu().clone()
    found = {"boxes": boxes, "mask": mask, "phrases": phrases, "features": features}
    torch.save(found, path)
    return Boxes(**found)


def slots(
    found: Boxes, picked: torch.Tensor, blank: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, ...]:
    """Boxes `[B, 30, 4]`, mask `[B, 30]` and phrase features `[B, 30, C]` of scenes; `blank` are rows without caption."""

    def chance(rate: Any, *shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator) < rate

    size = len(picked)
    boxes, mask = torch.zeros(size, grounding.MOST_BOXES, 4), torch.zeros(size, grounding.MOST_BOXES)
    features = torch.zeros(size, grounding.MOST_BOXES, found.features.shape[1])
    wording = torch.randint(WORDINGS, (size, MOST, 1), generator=generator)
    boxes[:, :MOST] = found.boxes[picked]
    none = chance(torch.where(blank, NULL_RATE_EMPTY, NULL_RATE), size)
    mask[:, :MOST] = found.mask[picked] * ~chance(DROP_RATE, size, MOST) * ~none[:, None]
    features[:, :MOST] = found.features[found.phrases[picked].gather(2, wording)[..., 0].long()]
    return boxes, mask, features


class Grounded(torch.nn.Module):
    """The frozen denoiser with the adapter in it: `forward(noisy, timesteps, context, *slots)` predicts the noise."""

    def __init__(self, network: comfy.gligen.Gligen, unet: torch.nn.Module) -> None:
        super().__init__()
        self.network, self.unet = network, unet

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor, *slots: torch.Tensor):
        fuse = self.network._set_position(*slots)
        options = {"patches": {"middle_patch": [fuse]}}
        return self.unet(noisy, timesteps.float(), context=context, transformer_options=options)


def learning_rate(step: int, steps: int) -> float:
    """A factor: short warm-up, constant, then linear to a twentieth over the last half."""
    return min(1, (step + 1) / 20) * max(0.05, min(1, 2 * (1 - step / steps)))


def frozen_unet() -> torch.nn.Module:
    """The shipped denoiser."""
    unet = demo_model.load()[0].model.diffusion_model
    fresh = demo_model.empty_unet()
    fresh.load_state_dict({k: v.float() for k, v in unet.state_dict().items()})
    return fresh.requires_grad_(False)


def training_batch(found: dict[str, torch.Tensor], boxes: Boxes, generator: torch.Generator):
    """Latents, token rows and grounding slots of `BATCH` scenes."""
    again = torch.Generator()
    again.set_state(generator.get_state())
    picked = torch.randint(len(found["latents"]), (BATCH,), generator=again)  # the scenes that `batch` draws next
    clean, tokens = batch(found, generator)
    tokens[torch.rand(BATCH, generator=generator) < BLANK_RATE] = found["empty"]
    blank = (tokens == found["empty"]).all(1)
    return clean, tokens, slots(boxes, picked, blank, generator)


def loss_of(predicted: torch.Tensor, noise: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """Squared error of the noise, weighted towards high noise, where an object's place is decided."""
    return ((predicted.float() - noise).square() / (a + 0.05)).mean() / 4


def optimiser_of(network: torch.nn.Module) -> torch.optim.AdamW:
    """AdamW with a group of its own for the gates; `rate` is a group's full learning rate."""
    gates = [p for n, p in network.named_parameters() if "alpha_" in n]
    others = [p for n, p in network.named_parameters() if "alpha_" not in n]
    groups = [{"params": others, "rate": LEARNING_RATE}, {"params": gates, "rate": GATE_RATE, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=1e-3)


def error(whole: Grounded, text: torch.nn.Module, drawn: tuple, signal: torch.Tensor, generator: torch.Generator):
    """The loss on one batch of `training_batch`, with noise levels more often high than low."""
    clean, tokens, grounded = drawn
    noise = torch.randn(clean.shape, generator=generator)
    timesteps = (torch.rand(BATCH, generator=generator).sqrt() * 1000).long().clamp(max=999)
    a = signal[timesteps].view(-1, 1, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            context = text(tokens.int())[0]
        predicted = whole(a.sqrt() * clean + (1 - a).sqrt() * noise, timesteps, context, *grounded)
    return loss_of(predicted, noise, a)


def train(home: Path, steps: int, seed: int, save_every: int = 100) -> None:
    """Train for `steps` steps in all, resuming from `home/gligen.pt`; losses go to `home/gligen.csv`."""
    found = training_set(home, seed)
    boxes = make_boxes(home / "gligen_data.pt", len(found["latents"]), seed)
    torch.manual_seed(seed)
    text, whole = frozen_text(found), Grounded(empty_gligen(), frozen_unet())
    optimiser = optimiser_of(whole.network)
    run = Resumable(home / "gligen.pt", whole.network, optimiser, 0.99)
    torch.nn.functional.scaled_dot_product_attention = plain_attention
    signal = alphas()
    for step in run.steps(steps):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        for group in optimiser.param_groups:
            group["lr"] = group["rate"] * learning_rate(step, steps)
        loss = error(whole, text, training_batch(found, boxes, generator), signal, generator)
        run.learn(loss)
        run.average_in()
        run.log(loss.item())
        if run.due(save_every):
            run.save()
