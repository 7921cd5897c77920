"""Records where each phrase is attended to while any sampler runs: a patch on MODEL that changes no result."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import comfy.patcher_extension
import torch
from torch import Tensor

from ....lmd.layout import Layout
from ....lmd.pictures.attention_record import AttentionRecord, Look, joined
from .attention import COND, Layer, add_patches, attention_output, probabilities, resolve_layers
from .guide import Target, guidance_target, holding

log = logging.getLogger(__name__)
KEY = "lmd_attention_record"


class Watch:
    """Fills `record` during every run of a model that `watched` patched; the latest run counts."""

    def __init__(self, record: AttentionRecord, target: Target):
        self.record, self.target = record, target
        self.entry: Any = None  # the uuid of the positive conditioning that holds the phrases
        self.columns: list[list[int]] = []
        self.latest: dict[Layer, Tensor] = {}

    def start(self, guider: Any, steps: int) -> None:
        """Find the phrases in this run's positive conditioning; without them nothing is recorded."""
        self.record.looks.clear()
        self.latest.clear()
        self.record.steps, self.entry = steps, None
        for cond, objects in holding(guider.conds.get("positive") or [], self.target):
            if cond.get("area") is None:
                self.entry = cond["uuid"]
                self.columns = [list(o.positions) for o in objects]
                return
        log.warning(
            "attention is not recorded: the positive conditioning was not encoded from the recorded prompt. Use the "
            "recorder's own positive output, or give the recorder the same prompt"
        )

    def patch(self, layer: Layer, previous: Callable | None) -> Callable:
        def replace(q, k, v, extra_options):
            # Passes with gradients are guidance at work; the ordinary pass of the same step follows.
            if self.entry is not None and not torch.is_grad_enabled():
                self._see(layer, q, k, extra_options)
            return attention_output(previous, q, k, v, extra_options)

        return replace

    def _see(self, layer: Layer, q: Tensor, k: Tensor, extra_options: dict) -> None:
        marks, entries = extra_options["cond_or_uncond"], extra_options["uuids"]
        for i, (mark, entry) in enumerate(zip(marks, entries)):
            if mark == COND and entry == self.entry:
                query, key = (x.chunk(len(marks))[i] for x in (q, k))
                probs = probabilities(query, key, extra_options["n_heads"]).mean(1)  # [B, S, T]
                height, width = extra_options["activations_shape"][-2:]
                maps = torch.stack([probs[..., columns].mean(-1) for columns in self.columns], 1)
                self.latest[layer] = maps.unflatten(-1, (height, width))

    def commit(self, step: int) -> None:
        """Called once a step is denoised: the call right before opened it."""
        if self.latest:
            del self.record.looks[step:]
            self.record.looks.append(Look(step + 1, joined(list(self.latest.values())).cpu()))
            self.latest.clear()

    def sampler_sample(self, executor, guider, sigmas, extra_args, callback, *args, **kwargs):
        self.start(guider, len(sigmas) - 1)

        def told(step, x0, x, total_steps):
            self.commit(step)
            if callback is not None:
                callback(step, x0, x, total_steps)

        return executor(guider, sigmas, extra_args, told, *args, **kwargs)


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
    found = resolve_layers(layers, model.model.diffusion_model)
    watch = Watch(record, target)
    patched = model.clone()
    add_patches(patched.model_options["transformer_options"], found, watch.patch)
    kind = comfy.patcher_extension.WrappersMP.SAMPLER_SAMPLE
    patched.remove_wrappers_with_key(kind, KEY)
    patched.add_wrapper_with_key(kind, KEY, watch.sampler_sample)
    return patched, positive, record
