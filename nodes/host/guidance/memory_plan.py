"""How much memory guidance may take: how many images at once, and what is computed twice when memory is short."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import comfy.model_management
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from torch import Tensor
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from .attention import Layer, transformer_of
from .foreign_patches import Way
from .grad_weights import Aliases
from .masked_lora import recomputable

log = logging.getLogger(__name__)

GRADIENT_SHARE = 7.0  # what one image of a guided pass takes at most, in units of `pass_memory` (docs/performance.md)
HOST_SHARE = 0.01 * 2**20  # bytes per latent cell, byte of a number and memory_usage_factor; model_base.memory_required
ADVICE = (
    "layout guidance ran out of memory although it already works image by image and computes its blocks twice. Make "
    "the image or the batch smaller, guide fewer or deeper layers (the layers of LMD Options), or give ComfyUI more "
    "room: close other programs, or start it with --lowvram"
)


class GuidanceOutOfMemory(comfy.model_management.OOM_EXCEPTION):
    """Even the leanest guided pass does not fit. The host's own kind of error, so that it unloads its models."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device, or the machine when it computes on the CPU, had no memory left."""
    return comfy.model_management.is_oom(error) or "DefaultCPUAllocator: can't allocate memory" in str(error)


@dataclass
class Economy:
    """One sampler run's way of computing gradients; it only ever becomes leaner.

    `rows`: images per pass, None before the first pass. `checkpoint`: compute the blocks a second time in the backward
    pass instead of keeping what happened in them. `aliases`: kept from pass to pass, until the run ends. `retried`:
    memory ran out in a pass, so that it was computed in other batches than planned. `way`: how other nodes' patches are
    treated.
    """

    rows: int | None = None
    checkpoint: bool = False
    aliases: Aliases = field(default_factory=Aliases)
    retried: bool = False
    way: Way = field(default_factory=Way)

    def plan(self, model: Any, x: Tensor) -> None:
        """Before the first pass: what the host's figures of free memory allow for images like those of `x`."""
        if self.rows is not None:
            return
        free = model.current_patcher.get_free_memory(x.device)
        fit = _images_in(free, model, x.shape)
        self.checkpoint = fit == 0
        self.rows = max(1, fit)
        if self.checkpoint:
            log.info("little free memory (%.1f GB): guiding with %s", free / 2**30, self)

    def leaner(self, images: int) -> bool:
        """Take the next leaner way for so many images; False if this was the leanest."""
        rows = images if self.rows is None else min(self.rows, images)
        if rows > 1:
            self.rows = rows // 2
        elif not self.checkpoint:
            self.checkpoint = True
        else:
            return False
        self.retried = True
        return True

    def __str__(self) -> str:
        images = f"{self.rows} image{'s' * (self.rows != 1)} at a time"
        return images + ", the blocks computed twice" * self.checkpoint


def pass_memory(model: Any, shape: Sequence[int]) -> float:
    """The host's estimate, in bytes, for one image [_, C, h, w] in an ordinary pass with fused attention.

    The host itself takes another figure where it has no such attention; the guided pass always has. A backward pass
    keeps something of every transformer block: SDXL has 70 of them and is counted three times as high as SD1.5 with 16.
    """
    size = comfy.model_management.dtype_size(model.get_dtype_inference())
    blocks = sum(isinstance(m, BasicTransformerBlock) for m in model.diffusion_model.modules())
    deep = max(1.0, 1 + (blocks - 16) / 27)
    return math.prod(shape[2:]) * size * model.memory_usage_factor * HOST_SHARE * deep


def images_that_fit(model: Any, shape: Sequence[int]) -> int:
    """How many images like `shape` [_, C, h, w] fit in one guided pass of this MODEL, by the host's figures.

    Counted is the memory that is left when the host has unloaded the other models and loaded this one; if that is not
    much, half of the memory: the host then streams a part of the weights, which more images per pass pay back. On the
    CPU it is half of what the machine has free: its weights lie there already, and other programs live there too.
    """
    management, device = comfy.model_management, model.load_device
    free = management.get_free_memory(device)
    if management.is_device_cpu(device):
        free /= 2
    else:
        loaded = sum(m.model_loaded_memory() for m in management.current_loaded_models if m.device == device)
        free += loaded - management.extra_reserved_memory()
        free = max(free - model.model_size(), free / 2)
    return _images_in(free, model.model, shape)


def _images_in(free: float, model: Any, shape: Sequence[int]) -> int:
    return int(free / (pass_memory(model, shape) * GRADIENT_SHARE))


@contextlib.contextmanager
def recomputed(unet: torch.nn.Module, layers: Sequence[Layer]) -> Iterator[None]:
    """Gradient checkpointing for every residual and transformer block but the guided ones, which are read in passing.

    The recomputation is a part of the backward pass, so that has to happen in here too.
    """
    guided = {transformer_of(unet, layer) for layer in layers}
    blocks = [m for m in unet.modules() if isinstance(m, (ResBlock, BasicTransformerBlock)) and m not in guided]
    before = [(block, block.__dict__.get("forward")) for block in blocks]
    try:
        for block in blocks:
            block.__dict__["forward"] = functools.partial(_checkpointed, block.forward)
        # To its end: stopped in the middle, a block would leave a streamed weight pinned.
        with set_checkpoint_early_stop(False):
            yield
    finally:
        for block, forward in before:
            block.__dict__.pop("forward", None)
            if forward is not None:
                block.__dict__["forward"] = forward


def _checkpointed(forward: Callable, *args: Any, **kwargs: Any) -> Any:
    # The host counts its blocks in one dict that it hands down; the second time must see what the first one saw.
    kept, named = [_kept(a) for a in args], {k: _kept(v) for k, v in kwargs.items()}
    return checkpoint(recomputable(forward), *kept, use_reentrant=False, preserve_rng_state=False, **named)


def _kept(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else value
