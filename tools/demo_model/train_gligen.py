"""The demo world's GLIGEN adapter: gated self-attention beside the frozen demo model. `train.py gligen` calls it.

The file has the host's layout of GLIGEN's pruned files, so the stock loader reads it. What is learned: `position_net`
(box and phrase to a grounding token, null tokens too) and one fuser per transformer of the denoiser.

The published recipe, gates shut and no loss but the noise's, moved nothing in 475 steps here, for two reasons. A shut
gate lets no other weight learn. And an attention can only find the cells of a box if cells know where they are, linearly:
the frozen denoiser has no position code, and the best linear reading of a cell's row and column from its features explains
a fifth to four fifths of their variance where a nonlinear one explains 0.6 to 0.95. So gates start open, with zeros behind
them, and two more losses, which fade, teach each fuser's feed-forward to make places readable (`not_knowing`) and the
attention to use that (`looking`). The boxes first mattered after some 300 steps of 16 pictures, and placed objects after 600.

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
from .train_denoiser import alphas, plain_attention, training_set
from .train_transformer import frozen_text

STEPS, BATCH = 1800, 16
LEARNING_RATE, GATE_RATE = 1.5e-3, 2e-3
"""Of the weights, and of the gates."""
OPEN_GATE = 0.5
"""The gates' start. Open from the first step, with the branches behind them at zero: the plain model, yet every weight
hears of the loss."""
MOST, WORDINGS = 5, 4
NULL_RATE, NULL_RATE_EMPTY = 0.08, 0.15
"""Share of pictures without boxes, and of those among the pictures without caption: the negative half of a call."""
DROP_RATE = 0.05
"""Share of single boxes left out."""
BLANK_RATE = 0.4
"""Share of captions emptied, so that the boxes must speak."""
LATE, LATE_RATE = 580, 0.05
"""Timesteps below `LATE` get this share of the pictures: LMD+ takes the adapter out after four tenths of the steps."""
SHORT = "position_net.linears.2.weight"
"""The largest tensor by far; with it in 8 bits, which the host's loader reads too, the file is below 3 MB."""
KEPT = 512
"""Scenes at the end of the training set that measure and never train."""
LOOK_RATE, KNOW_RATE = 0.03, 0.05
"""Weights of `looking`, which teaches the cells of a box to look at its token, and of `not_knowing`, which teaches cells
where they are."""


def empty_gligen() -> comfy.gligen.Gligen:
    """The host's module in float32: open gates, random weights, and zeros where a branch ends."""
    network: Any = comfy.gligen.load_gligen({key: torch.zeros(shape) for key, shape in shapes().items()})
    demo_model.initialise(network)
    for p in (network.position_net.null_positive_feature, network.position_net.null_position_feature):
        torch.nn.init.zeros_(p)
    for fuser in network.module_list:
        for p in (fuser.alpha_attn, fuser.alpha_dense):
            torch.nn.init.constant_(p, OPEN_GATE)
        for last in (fuser.attn.to_out[0], fuser.ff.net[-1]):
            torch.nn.init.zeros_(last.weight)
            torch.nn.init.zeros_(last.bias)
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
    """A module's weights under the keys of GLIGEN's pruned files, in half precision, and `SHORT` in 8 bits."""
    names = fuser_names()
    found = {}
    for key, value in state.items():
        if key.startswith("module_list."):
            _, index, rest = key.split(".", 2)
            key = names[int(index)] + rest
        found[key] = value.to(torch.float8_e4m3fn if key == SHORT else torch.float16).contiguous()
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
    """The frozen denoiser with the adapter in it: `forward(noisy, timesteps, context, *slots)` predicts the noise.

    Of every fuser, `looks` are then the attention weights `[B, cells, cells + 30]`, the mean of its heads, and `cells`
    the features `[B, cells, C]` that it leaves.
    """

    def __init__(self, network: comfy.gligen.Gligen, unet: torch.nn.Module) -> None:
        super().__init__()
        self.network, self.unet = network, unet
        self.looks: list[torch.Tensor] = []
        self.cells: list[torch.Tensor] = []

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor, *slots: torch.Tensor):
        tokens = self.network.position_net(*slots)
        self.looks, self.cells = [], []

        def fuse(x: torch.Tensor, extra_options: dict) -> torch.Tensor:
            return self.fuse(self.network.module_list[extra_options["transformer_index"]], x, tokens.to(x))

        options = {"patches": {"middle_patch": [fuse]}}
        return self.unet(noisy, timesteps.float(), context=context, transformer_options=options)

    def fuse(self, fuser: Any, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """The host's gated self-attention, written out for its attention weights."""
        cells, attn = x.shape[1], fuser.attn
        both = fuser.norm1(torch.cat([x, fuser.linear(tokens)], dim=1))
        q, k, v = (
            layer(part).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for layer, part in ((attn.to_q, both[:, :cells]), (attn.to_k, both), (attn.to_v, both))
        )
        weights = (q @ k.transpose(-1, -2) * attn.dim_head**-0.5).float().softmax(-1)
        self.looks.append(weights.mean(1))
        x = x + torch.tanh(fuser.alpha_attn) * attn.to_out((weights.to(v.dtype) @ v).transpose(1, 2).flatten(2))
        x = x + torch.tanh(fuser.alpha_dense) * fuser.ff(fuser.norm2(x))
        self.cells.append(x)
        return x


def not_knowing(cells: list[torch.Tensor]) -> torch.Tensor:
    """How badly a cell's row and column can be read off its features by the best linear reading, 0 to 1.

    The attention of a fuser sees no more than that.
    """
    total = torch.zeros(())
    for x in cells:
        side, channels = int(x.shape[1] ** 0.5), x.shape[2]
        one, all_of = torch.eye(side), torch.ones(side, 1)
        place = torch.cat([torch.kron(one, all_of), torch.kron(all_of, one)], dim=1) - 1 / side
        wanted = place.repeat(len(x), 1)
        read = torch.nn.functional.layer_norm(x.float(), (channels,)).flatten(0, 1)
        read = torch.cat([read, torch.ones(len(read), 1)], dim=1)
        with torch.no_grad():
            best = torch.linalg.solve(read.T @ read + torch.eye(channels + 1), read.T @ wanted)
        total = total + (read @ best - wanted).square().mean() / wanted.square().mean()
    return total / len(cells)


def looking(looks: list[torch.Tensor], boxes: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Cross entropy between where cells look and the boxes that they lie in; elsewhere they should look at null tokens."""
    total = torch.zeros(())
    for weights in looks:
        side = int(weights.shape[1] ** 0.5)
        inside = coverage(boxes, side) * mask[..., None]  # [B, 30, cells]
        outside = (1 - inside.sum(1)).clamp(min=0)
        slots = weights[..., -boxes.shape[1] :].transpose(1, 2)
        null = (slots * (1 - mask[..., None])).sum(1)
        found = (inside * (slots + 1e-6).log()).sum(1) + outside * (null + 1e-6).log()
        total = total - found.mean()
    return total / len(looks)


def coverage(boxes: torch.Tensor, side: int) -> torch.Tensor:
    """The share of each cell `[B, 30, side * side]` that a box covers."""
    edges = torch.arange(side + 1) / side
    low, high = edges[:-1], edges[1:]

    def along(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return ((torch.minimum(b[..., None], high) - torch.maximum(a[..., None], low)) * side).clamp(min=0)

    x, y = along(boxes[..., 0], boxes[..., 2]), along(boxes[..., 1], boxes[..., 3])
    return (y[..., None] * x[..., None, :]).flatten(2)


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
    """Latents, token rows and grounding slots of `BATCH` scenes; the last `KEPT` scenes are never drawn."""
    picked = torch.randint(len(found["latents"]) - KEPT, (BATCH,), generator=generator)
    return scenes(found, boxes, picked, generator)


def scenes(found: dict[str, torch.Tensor], boxes: Boxes, picked: torch.Tensor, generator: torch.Generator):
    """Latents, token rows and grounding slots of these scenes, with captions and boxes left out at the rates above."""
    size = len(picked)
    which = torch.randint(data.CAPTIONS, (size,), generator=generator)
    tokens = found["tokens"][picked, which].clone()
    blank = torch.rand(size, generator=generator) < BLANK_RATE
    tokens[blank] = found["empty"]
    return found["latents"][picked].float(), tokens, slots(boxes, picked, blank, generator)


def loss_of(predicted: torch.Tensor, noise: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """Squared error of the noise, weighted towards high noise, where an object's place is decided."""
    return ((predicted.float() - noise).square() / (a + 0.02)).mean() / 4


def optimiser_of(network: torch.nn.Module) -> torch.optim.AdamW:
    """AdamW with a group of its own for the gates; `rate` is a group's full learning rate."""
    gates = [p for n, p in network.named_parameters() if "alpha_" in n]
    others = [p for n, p in network.named_parameters() if "alpha_" not in n]
    groups = [{"params": others, "rate": LEARNING_RATE}, {"params": gates, "rate": GATE_RATE, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=1e-3)


def timesteps(size: int, generator: torch.Generator) -> torch.Tensor:
    """Noise levels `[size]`, mostly those at which LMD+ has the adapter on."""
    late = torch.rand(size, generator=generator) < LATE_RATE
    drawn = torch.rand(size, generator=generator)
    return torch.where(late, drawn * LATE, LATE + drawn * (1000 - LATE)).long()


def error(whole: Grounded, text: torch.nn.Module, drawn: tuple, signal: torch.Tensor, generator: torch.Generator):
    """The losses on one batch of `training_batch`: of the noise, of `looking` and `not_knowing`."""
    clean, tokens, grounded = drawn
    noise = torch.randn(clean.shape, generator=generator)
    level = timesteps(len(clean), generator)
    a = signal[level].view(-1, 1, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            context = text(tokens.int())[0]
        predicted = whole(a.sqrt() * clean + (1 - a).sqrt() * noise, level, context, *grounded)
    return loss_of(predicted, noise, a), looking(whole.looks, *grounded[:2]), not_knowing(whole.cells)


def train(home: Path, steps: int, seed: int, save_every: int = 150) -> None:
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
        loss, look, know = error(whole, text, training_batch(found, boxes, generator), signal, generator)
        help_rate = max(0.05, min(1, 1.5 - 2.5 * step / steps))
        run.learn(loss + help_rate * (LOOK_RATE * look + KNOW_RATE * know))
        run.average_in()
        run.log(loss.item())
        if run.due(save_every):
            print(f" {step + 1}: looking {look.item():.3f}, not knowing {know.item():.3f}")
            print(f" {measure(whole, text, found, boxes, signal)}", flush=True)
            run.save()


@torch.no_grad()
def measure(whole: Grounded, text: torch.nn.Module, found: dict, boxes: Boxes, signal: torch.Tensor) -> str:
    """The loss on 96 kept scenes with one noise: as they are, and with the boxes or the phrases of others in the slots."""
    generator = torch.Generator().manual_seed(0)
    picked = torch.arange(len(found["latents"]) - KEPT, len(found["latents"]))[:96]
    clean, tokens, (box, mask, phrases) = scenes(found, boxes, picked, generator)
    other = torch.roll(torch.arange(len(picked)), 1)
    cases = {
        "own boxes": (box, mask, phrases),
        "others' boxes": (box[other], mask[other], phrases[other]),
        "others' phrases": (box, mask, phrases[other]),
    }
    losses = {}
    for name, case in cases.items():
        again = torch.Generator().manual_seed(1)
        losses[name] = error(whole, text, (clean, tokens, case), signal, again)[0].item()
    return ", ".join(f"{name} {value:.5f}" for name, value in losses.items())
