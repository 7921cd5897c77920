"""The training set: scenes drawn once, kept as latents, with several tokenised captions each. `train.py` makes it."""

from __future__ import annotations

import random
from pathlib import Path

import numpy
import torch
from tqdm import tqdm

from ...demo import latents, model
from ...evaluation import demo_world
from ...nodes.host import demo_model

CAPTIONS = 4
CHUNK = 256


def scene(seed: int, index: int) -> tuple[demo_world.Scene, list[str]]:
    """Scene number `index` of the training set of a seed, and its captions."""
    rng = random.Random(f"{seed} scene {index}")
    found = demo_world.sample_scene(rng)
    return found, [demo_world.caption(found, rng) for _ in range(CAPTIONS)]


def make(path: Path, count: int, seed: int) -> dict[str, torch.Tensor]:
    """Latents `[count, 4, h, w]` (fp16), token rows `[count, CAPTIONS, 77]` (int16) and the vocabulary, kept in `path`.

    A token row holds indices into the vocabulary (sorted ids of SD1's tokenizer); index 0 is the unknown token.
    """
    if path.exists():
        return torch.load(path)
    tokenise = demo_model.tokenise()
    pictures, tokens = [], []
    for start in tqdm(range(0, count, CHUNK), desc="data"):
        scenes = [scene(seed, index) for index in range(start, min(start + CHUNK, count))]
        images = numpy.stack([numpy.asarray(demo_world.render(s, model.IMAGE_SIZE)) for s, _ in scenes])
        pictures.append(latents.of_images(torch.from_numpy(images).movedim(-1, 1).float() / 127.5 - 1).half())
        tokens += [[tokenise(text) for text in texts] for _, texts in scenes]
    ids = torch.tensor(tokens)
    vocabulary = ids.unique()
    found = {
        "latents": torch.cat(pictures),
        "tokens": (torch.searchsorted(vocabulary, ids) + 1).short(),
        "vocabulary": vocabulary,
        "empty": (torch.searchsorted(vocabulary, torch.tensor(tokenise(""))) + 1).short(),
    }
    torch.save(found, path)
    return found
