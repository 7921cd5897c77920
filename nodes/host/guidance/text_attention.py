"""Reads a transformer's attention to the text in the ordinary passes of a run, and changes no result. Source: docs/lmd.md, 11.

What attention.AttentionReader and WordAttention are to a U-Net, for models whose blocks are found from their calls.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.patcher_extension
import torch
from torch import Tensor

from .attention import COND, GUIDED_PASS, UnsupportedModel, WordAttention
from .sampler_run import text_calls
from .transformers import OVERRIDE, Blocks, by_heads, guided_blocks, text_probabilities

log = logging.getLogger(__name__)
WRAPPERS = comfy.patcher_extension.WrappersMP


@dataclass(frozen=True)
class TextReading:
    """One block's attention of one positive conditioning entry: `q` [B, H, rows, D] and `k`, in a call of the model."""

    block: str
    blocks: Blocks
    q: Tensor
    k: Tensor
    call: dict

    @property
    def grid(self) -> tuple[int, int]:
        """(height, width) of the image's patches."""
        return self.blocks.calls.height, self.blocks.calls.width

    def probabilities(self, columns: Sequence[int]) -> Tensor:
        """Softmax attention [B, H, S, P] to these rows of the conditioning, as guidance measures it."""
        return text_probabilities(self.blocks, self.q, self.k, self.call, columns)


class TextReader:
    """Hands the attention of some blocks to `see(uuid of the entry, reading)` in every ordinary pass of a run.

    `layers` are the guided blocks, "auto" or a list; with `mask`, the block that masks are read from comes first.
    `missing(reason)` hears of a model whose attention cannot be read; by default that is an error.
    """

    def __init__(
        self, layers: str, see: Callable[[Any, TextReading], None], mask: bool = False,
        missing: Callable[[UnsupportedModel], None] | None = None,
    ):  # fmt: skip
        self.layers, self.mask, self._see, self._missing = layers, mask, see, missing
        self.entries: dict[Any, Blocks] = {}
        self.number = -1

    def read(self, model: Any, key: str) -> None:
        """Patch `model` (a clone that the caller owns) to read in every run, from the moment when sampling starts."""
        model.remove_wrappers_with_key(WRAPPERS.SAMPLER_SAMPLE, key)
        model.add_wrapper_with_key(WRAPPERS.SAMPLER_SAMPLE, key, functools.partial(self._sampler_sample, key))

    def _sampler_sample(self, key, executor, guider, sigmas, extra_args, callback, noise, *args, **kwargs):
        options = extra_args["model_options"]
        try:
            self.entries = self._find(guider, options, sigmas, noise)
        except UnsupportedModel as error:
            if self._missing is None:
                raise
            self._missing(error)
            self.entries = {}
        to = dict(options["transformer_options"])
        to[OVERRIDE] = functools.partial(self._override, to.get(OVERRIDE))
        wrappers = to.get("wrappers", {})
        to["wrappers"] = {
            **wrappers,
            WRAPPERS.APPLY_MODEL: {key: [self._begin], **wrappers.get(WRAPPERS.APPLY_MODEL, {})},
        }
        extra_args = {**extra_args, "model_options": {**options, "transformer_options": to}}
        return executor(guider, sigmas, extra_args, callback, noise, *args, **kwargs)

    def _find(self, guider: Any, options: dict, sigmas: Tensor, noise: Tensor) -> dict[Any, Blocks]:
        sigma = sigmas[:1].to(noise.device)
        sampling = guider.inner_model.model_sampling
        x = sampling.noise_scaling(sigma, noise[:1].clone(), torch.zeros_like(noise[:1]))
        found = {}
        for cond in guider.conds.get("positive") or []:
            calls = text_calls(guider, options, cond, x, sigma)
            found[cond["uuid"]] = guided_blocks(self.layers, calls, self.mask)
        return found

    def _begin(self, executor: Callable, *args: Any, **kwargs: Any) -> Tensor:
        """A call of the model begins, so its attention calls are counted from 0."""
        self.number = -1
        return executor(*args, **kwargs)

    def _override(self, previous, function, q, k, v, heads, *args, **kwargs):
        self.number += 1
        options = kwargs.get("transformer_options") or {}
        if self.entries and not options.get(GUIDED_PASS):
            self._look(q, k, heads, {"mask": args[0] if args else None, **kwargs}, options)
        if previous is not None:
            return previous(function, q, k, v, heads, *args, **kwargs)
        return function(q, k, v, heads, *args, **kwargs)

    def _look(self, q: Tensor, k: Tensor, heads: int, call: dict, options: dict) -> None:
        marks = options["cond_or_uncond"]
        reshaped = bool(call.get("skip_reshape"))
        for i, mark in enumerate(marks):
            blocks = self.entries.get(options["uuids"][i]) if mark == COND else None
            number = None if blocks is None else blocks.block_at(self.number)
            if blocks is None or number is None:
                continue
            rows = slice(i * (len(q) // len(marks)), (i + 1) * (len(q) // len(marks)))
            mask = call.get("mask")
            own = {**call, "mask": mask[rows] if mask is not None and mask.ndim > 2 and len(mask) == len(q) else mask}
            name = blocks.name(number)
            own_q, own_k = (by_heads(x, heads, reshaped)[rows] for x in (q, k))
            reading = TextReading(name, blocks, own_q, own_k, own)
            self._see(options["uuids"][i], reading)


class TextWordAttention(WordAttention):
    """Keeps the attention of the latest ordinary call to one column per part of the positive rows, head by head.

    `needed`: without it, a model whose attention cannot be read leaves no maps, and the log says so.
    """

    def __init__(self, layers: str, columns: Sequence[int], needed: bool):
        super().__init__((), columns)
        self.reader = TextReader(layers, self._see_text, mask=True, missing=None if needed else self._none)

    def _none(self, error: UnsupportedModel) -> None:
        log.warning("objects' masks are their boxes, because attention cannot be read: %s", error)

    def _see_text(self, _uuid: Any, reading: TextReading) -> None:
        parts = reading.probabilities(sorted(set(self.columns))).chunk(len(self.columns))
        place = {c: i for i, c in enumerate(sorted(set(self.columns)))}
        own = [p[..., place[c]] for p, c in zip(parts, self.columns)]
        self.layers = reading.blocks.names
        self.latest[reading.block] = torch.cat(own).unflatten(-1, reading.grid)
