"""Attention rollout: how much of each token that the U-Net reads comes from each token of the text. An estimate.

ELLA's connector and the LLM adapters give the U-Net learned tokens that have read the text, so the U-Net's attention
says nothing about words by itself. Rollout (arXiv 2005.00928) follows the attention of their blocks back to the text, as
if values were only passed on: a residual sum is taken as `share` of the branch and the rest of the stream.

Shapes in comments: B batch, N tokens for the U-Net, L text tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .adapter import LLMAdapter
from .connector import TimestepAwareConnector

SHARE = 0.5


def connector_attention(model: TimestepAwareConnector, features: Tensor, timesteps: Tensor | float) -> list[Tensor]:
    """The probabilities (B, heads, N, N + L) of every block, for inputs as the connector takes them."""
    with _watched(model.connector.perceiver_blocks) as seen:
        model(features, timesteps)
    return seen


def connector_rollout(
    model: TimestepAwareConnector, features: Tensor, timesteps: Tensor | float, share: float = SHARE
) -> tuple[Tensor, Tensor]:
    """Features (B, L, D) and timesteps -> (text (B, N, L), latents (B, N, N)): where each token comes from.

    The rows of both together add up to 1. `share`: of the attention in each residual sum, 0..1.
    """
    latents = text = None
    for attention in connector_attention(model, features, timesteps):
        step = attention.mean(dim=1)
        count = step.shape[1]
        own, read = step[..., :count], step[..., count:]
        if latents is None or text is None:
            latents, text = torch.eye(count).to(own).expand_as(own), torch.zeros_like(read)
        latents, text = _passed(latents, own @ latents, share), _passed(text, read + own @ text, share)
    assert latents is not None and text is not None, "a connector has at least one block"
    return text, latents


def adapter_rollout(
    model: LLMAdapter, features: Tensor, mask: Tensor | None = None, share: float = SHARE
) -> tuple[Tensor, Tensor]:
    """Features (B, L, D) and mask (B, L) as the adapter takes them -> (text (B, N, L), learned (B, N)).

    `text`: where each token comes from; exactly 0 for rows that the mask leaves out and for those after the last
    position. `learned`: what comes from no text, but from the learned queries. A row and its `learned` add up to 1.
    """
    with (
        _watched(model.wide_attention_blocks) as wide,
        _reading(model.compression_attention) as compression,
        _outputs(model.compression_gate) as gates,
        _watched(model.narrow_attention_blocks) as narrow,
    ):
        model(features, mask)
    text = compression[0].mean(dim=1)
    for attention in reversed(wide):
        text = _passed(text, text @ attention.mean(dim=1), share)
    gate = gates[0].mean(dim=-1)  # (B, N)
    text, learned = gate[..., None] * text, 1 - gate
    for attention in narrow:
        step = attention.mean(dim=1)
        text = _passed(text, step @ text, share)
        learned = _passed(learned, (step @ learned[..., None])[..., 0], share)
    return nn.functional.pad(text, (0, features.shape[1] - text.shape[-1])), learned


def compression_attention(model: LLMAdapter, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The adapter's tokens (B, N, W), and how much each reads of each text row, mean over heads (B, N, L)."""
    with _reading(model.compression_attention) as seen:
        tokens, _ = model(features, mask)
    return tokens, nn.functional.pad(seen[0].mean(dim=1), (0, features.shape[1] - seen[0].shape[-1]))


def _passed(stream: Tensor, branch: Tensor, share: float) -> Tensor:
    return (1 - share) * stream + share * branch


@contextmanager
def _watched(blocks: Sequence[Any] | nn.ModuleList) -> Iterator[list[Tensor]]:
    """Collects the probabilities of the blocks' attention, in the order in which they run."""
    with _reading(*(block.attn for block in blocks)) as seen:
        yield seen


@contextmanager
def _reading(*modules: Any) -> Iterator[list[Tensor]]:
    seen: list[Tensor] = []

    def look(module: Any, args: tuple) -> None:
        given = args if args[2:] != (None,) else args[:2]
        seen.append(module.probabilities(*given).float())

    hooks = [m.register_forward_pre_hook(look) for m in modules]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _outputs(module: nn.Module) -> Iterator[list[Tensor]]:
    seen: list[Tensor] = []
    hook = module.register_forward_hook(lambda _module, _args, out: seen.append(out.float()))
    try:
        yield seen
    finally:
        hook.remove()
