"""Records where each phrase is attended to while any sampler runs: a patch on MODEL that changes no result."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import comfy.patcher_extension
import torch
from torch import Tensor

from ....lmd.layout import Layout
from ....lmd.pictures.attention_record import AttentionRecord, Look, joined
from .attention import AttentionReader, Layer, Reading, RowsUnknown, resolve_layers
from .guide import guidance_target, holding
from .text_attention import TextReader, TextReading
from .transformers import is_transformer

log = logging.getLogger(__name__)
KEY = "lmd_attention_record"


# Turns a layer's probabilities [B, S, T] for an entry, mean over heads, and the call's options into maps [B, P, S].
Read = Callable[[Tensor, dict], Tensor]


class Watch:
    """Fills `record` during every run of a model that `watched` patched; the latest run counts.

    `find` gets a run's guider and says how to read the maps of each positive entry that holds the phrases, by its uuid;
    `unfound` is told where there is none.
    """

    def __init__(
        self, record: AttentionRecord, layers: Sequence[Layer] | str, find: Callable[[Any], Mapping[Any, Read]],
        unfound: str,
    ):  # fmt: skip
        self.record, self.find, self.unfound = record, find, unfound
        self.entries: Mapping[Any, Read] = {}
        self.latest: dict[Any, Tensor] = {}
        self.size = (0, 0)  # of the run's latent, height and width
        as_transformer = isinstance(layers, str)
        self.reader: Any = TextReader(layers, self._see_text) if as_transformer else AttentionReader(layers, self._see)

    def start(self, guider: Any, steps: int) -> None:
        """Find the phrases in this run's positive conditioning; without them nothing is recorded."""
        self.record.looks.clear()
        self.latest.clear()
        self.record.steps = steps
        self.entries = self.find(guider)
        if not self.entries:
            log.warning("attention is not recorded: %s", self.unfound)

    def _see(self, reading: Reading | RowsUnknown) -> None:
        if isinstance(reading, RowsUnknown):
            if self.entries:
                log.warning("attention is not recorded: %s", reading)
            self.entries = {}
            return
        for chunk in reading.positive():
            read = self.entries.get(reading.entry(chunk))
            if read and not self._whole(reading):
                return
            if read:
                maps = read(reading.probabilities(chunk).mean(1), reading.options)
                self.latest[reading.layer] = maps.unflatten(-1, reading.grid)
                return

    def _see_text(self, uuid: Any, reading: TextReading) -> None:
        read = self.entries.get(uuid)
        if isinstance(read, _Columns):
            probs = reading.probabilities(read.all).mean(1)
            self.latest[reading.block] = read.among(probs, read.all).unflatten(-1, reading.grid)

    def _whole(self, reading: Reading) -> bool:
        """Whether the call shows the whole latent; if not, say so once and record nothing in this run."""
        seen = tuple(reading.options.get("original_shape", self.size)[-2:])
        if seen != self.size:
            log.warning(
                "attention is not recorded: a node on the model gives the U-Net a part of %d x %d latent cells of %d x %d "
                "(tiles or context windows)", *seen[::-1], *self.size[::-1],
            )  # fmt: skip
            self.entries = {}
            self.latest.clear()
        return seen == self.size

    def commit(self, step: int) -> None:
        """Called once a step is denoised: the call right before opened it."""
        if self.latest:
            del self.record.looks[step:]
            self.record.looks.append(Look(step + 1, joined(list(self.latest.values())).cpu()))
            self.latest.clear()

    def sampler_sample(self, executor, guider, sigmas, extra_args, callback, noise, *args, **kwargs):
        """Runs the sampler and keeps the attention of every step; the latent is untouched."""
        self.size = tuple(noise.shape[-2:])
        if not all(self.record.canvas):
            self.record.canvas = self.size[::-1]  # only its shape counts
        self.start(guider, len(sigmas) - 1)

        def told(step, x0, x, total_steps):
            self.commit(step)
            if callback is not None:
                callback(step, x0, x, total_steps)

        return executor(guider, sigmas, extra_args, told, noise, *args, **kwargs)


def recorded(model: Any, clip: Any, layout: Layout, prompt: str = "", layers: str = "auto") -> tuple[Any, list, Any]:
    """`(a clone of MODEL that records, the prompt's conditioning, the AttentionRecord)`.

    With an empty layout `model` itself is returned. Raises PhraseNotFound (a ValueError) for a phrase that the prompt
    lacks.
    """
    target, positive = guidance_target(clip, layout, prompt, layers)
    objects = target.objects
    record = AttentionRecord(
        (layout.width, layout.height), tuple(o.phrase for o in objects), tuple(o.boxes for o in objects),
        tuple(o.numbers for o in objects),
    )  # fmt: skip
    if not objects:
        return model, positive, record

    def find(guider: Any) -> dict[Any, Read]:
        return {
            cond["uuid"]: _Columns([list(o.positions) for o in objects])
            for cond, objects in holding(guider.conds.get("positive") or [], target)
            if cond.get("area") is None
        }

    unfound = (
        "the positive conditioning was not encoded from the recorded prompt. Use the recorder's own positive output, or "
        "give the recorder the same prompt"
    )
    return watched(model, record, find, unfound, layers), positive, record


def watched(
    model: Any, record: AttentionRecord, find: Callable[[Any], Mapping[Any, Read]], unfound: str, layers: str = "auto"
) -> Any:
    """A clone of MODEL that fills `record` in every run; `find` and `unfound` as for Watch."""
    network = model.model.diffusion_model
    watch = Watch(record, layers if is_transformer(network) else resolve_layers(layers, network), find, unfound)
    patched = model.clone()
    watch.reader.read(patched, f"{KEY}_reader")
    kind = comfy.patcher_extension.WrappersMP.SAMPLER_SAMPLE
    patched.remove_wrappers_with_key(kind, KEY)
    patched.add_wrapper_with_key(kind, KEY, watch.sampler_sample)
    return patched


class _Columns:
    """Reads each phrase's map as the mean over its columns."""

    def __init__(self, columns: Sequence[list[int]]):
        self.columns = columns
        self.all = sorted({c for own in columns for c in own})

    def __call__(self, probs: Tensor, _options: dict) -> Tensor:
        return self.among(probs, range(probs.shape[-1]))

    def among(self, probs: Tensor, held: Sequence[int]) -> Tensor:
        """Maps [B, P, S] from probabilities [B, S, ...] that hold these columns."""
        return torch.stack([probs[..., [held.index(c) for c in own]].mean(-1) for own in self.columns], 1)
