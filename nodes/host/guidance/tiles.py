"""Passes in which another node calls the U-Net on parts of the latent: tiles, context windows.

Each call is placed by its content, which is noise and so occurs once, and its attention is put where it belongs on the
canvas. So the energy is that of the whole canvas, and every tile sees its part of the boxes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import comfy.patcher_extension
import torch
from torch import Tensor

from ....lmd.sampling.energy import AttentionMap
from .attention import Capture, Layer, LayersDone
from .transformers import TextCapture

KEY = "lmd_tiles"
APPLY_MODEL = comfy.patcher_extension.WrappersMP.APPLY_MODEL
MOST_CANDIDATES = 64

Place = tuple[Tensor, Tensor]  # the rows and the columns of the canvas that a tile shows


class NotATile(Exception):
    """The U-Net was called on something that is no part of the latent."""


class Tiles:
    """Collects the attention of every call of a guided pass on `canvas` [B, C, h, w], and joins it in `capture`."""

    def __init__(self, capture: Capture | TextCapture, canvas: Tensor):
        self.capture, self.canvas = capture, canvas.detach()
        self._calls: list[tuple[Place, dict[Layer, AttentionMap]]] = []

    def patch(self, transformer_options: dict) -> None:
        """Watch the U-Net's calls; `transformer_options` must be the caller's own copy."""
        wrappers = transformer_options.get("wrappers", {})
        outermost = {KEY: [self._apply_model], **wrappers.get(APPLY_MODEL, {})}
        transformer_options["wrappers"] = {**wrappers, APPLY_MODEL: outermost}

    def _apply_model(self, executor: Callable, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if x.shape == self.canvas.shape:
            return executor(x, *args, **kwargs)
        batch = len(self.canvas)
        if len(x) % batch:
            raise NotATile
        places = [place(self.canvas, tile) for tile in x.detach().split(batch)]
        self.capture.maps = {}
        with contextlib.suppress(LayersDone):
            executor(x, *args, **kwargs)
        for i, found in enumerate(places):
            rows = slice(i * batch, (i + 1) * batch)
            maps = {k: AttentionMap(m.probs[rows], m.height, m.width) for k, m in self.capture.maps.items()}
            self._calls.append((found, maps))
        self.capture.maps = {}
        return torch.zeros_like(x)  # the pass is made for its attention alone

    def finish(self) -> None:
        """After the pass: the maps of all tiles as those of the whole canvas."""
        if self._calls:
            layers = self._calls[0][1]
            self.capture.maps = {k: _joined([(p, maps[k]) for p, maps in self._calls], self.canvas) for k in layers}


def place(canvas: Tensor, tile: Tensor) -> Place:
    """Where `tile` [B, C, th, tw] lies on `canvas` [B, C, h, w]: its rows and columns, in any order; else NotATile."""
    if tile.shape[:2] != canvas.shape[:2]:
        raise NotATile
    whole, part = canvas[0, 0], tile[0, 0]
    for y, x in (whole == part[0, 0]).nonzero()[:MOST_CANDIDATES].tolist():
        columns = whole[y][None, :] == part[0][:, None]
        rows = whole[:, x][None, :] == part[:, 0][:, None]
        if columns.any(1).all() and rows.any(1).all():
            found = rows.float().argmax(1), columns.float().argmax(1)
            if torch.equal(canvas[:, :, found[0]][..., found[1]], tile):
                return found
    raise NotATile


def _joined(parts: Sequence[tuple[Place, AttentionMap]], canvas: Tensor) -> AttentionMap:
    """Attention of tiles as one map of the canvas; where tiles overlap, their mean."""
    (rows, columns), first = parts[0]
    height = max(1, round(canvas.shape[-2] * first.height / len(rows)))
    width = max(1, round(canvas.shape[-1] * first.width / len(columns)))
    batch, heads, _, tokens = first.probs.shape
    total = first.probs.new_zeros(batch, heads, height * width, tokens)
    count = first.probs.new_zeros(height * width)
    for (rows, columns), m in parts:
        y = _cells(rows, m.height, canvas.shape[-2], height)
        x = _cells(columns, m.width, canvas.shape[-1], width)
        cells = (y[:, None] * width + x[None, :]).flatten()
        total = total.index_add(2, cells, m.probs)
        count = count.index_add(0, cells, torch.ones_like(cells, dtype=count.dtype))
    return AttentionMap(total / count.clamp(min=1)[:, None], height, width)


def _cells(places: Tensor, cells: int, whole: int, grid: int) -> Tensor:
    """The canvas's cells (of `grid` over `whole` latent cells) that a tile's `cells` lie in, by their middles."""
    middles = (
        ((torch.arange(cells, device=places.device) + 0.5) * len(places) / cells).long().clamp(max=len(places) - 1)
    )
    return (places[middles] * grid // whole).clamp(max=grid - 1)


def without_tiles(model_options: dict) -> tuple[dict, str]:
    """The options for a pass over the whole canvas at once, and the names of what is left out of it."""
    options, names = dict(model_options), []
    for key in ("model_function_wrapper", "context_handler"):
        found = options.pop(key, None)
        if found is not None:
            names.append(getattr(found, "__qualname__", type(found).__name__))
    return options, ", ".join(names)


def refuse_tiles(model: Any, height: int, width: int, where: str) -> None:
    """Patch `model` (a clone that the caller owns) so that the U-Net sees whole latents of `height` x `width` only.

    For runs whose attention is recorded, call by call. A tile raises ValueError.
    """

    def whole(executor: Callable, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if tuple(x.shape[-2:]) != (height, width):
            raise ValueError(
                f"{where} needs the model to see the whole picture of {width} x {height} latent cells, but a node on the "
                f"model (tiles or context windows) gives it a part of {x.shape[-1]} x {x.shape[-2]}: connect the model "
                "from before that node. Layout Guidance works with it"
            )
        return executor(x, *args, **kwargs)

    to = model.model_options["transformer_options"]
    wrappers = to.get("wrappers", {})
    to["wrappers"] = {**wrappers, APPLY_MODEL: {KEY: [whole], **wrappers.get(APPLY_MODEL, {})}}
