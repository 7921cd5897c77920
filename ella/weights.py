"""Prompt weights for LLM adapters: the tokens' distance from those of the empty text, scaled by what each token reads.

Shapes in comments: B batch, N tokens for the U-Net, L text rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .adapter import LLMAdapter
from .rollout import compression_attention

LEAST, MOST = 1e-3, 4.0


def token_weights(read: Tensor, weights: Tensor, mask: Tensor | None = None) -> Tensor:
    """How far each token goes: (B, N), between 0.001 and 4.

    Args:
        read: how much each token reads of each text row (B, N, L); each adds up to 1.
        weights: of the text rows (B, L), 1 for none. Only their ratios count: they are divided by their mean.
        mask: which rows are text (B, L); None means all.
    """
    real = torch.ones_like(weights) if mask is None else mask.to(weights)
    clamped = weights.clamp(LEAST, MOST) * real
    mean = clamped.sum(dim=-1, keepdim=True) / real.sum(dim=-1, keepdim=True).clamp_min(1)
    return (read @ (clamped / mean).to(read)[..., None])[..., 0].clamp(LEAST, MOST)


def weighted_rows(tokens: Tensor, weights: Tensor, base: Tensor) -> Tensor:
    """Tokens (B, L, W) that are rows of the text, weighted one by one (B, L): base + weight (token - base).

    `base` (1 or B, L, W): the tokens of the empty text, and of the masked pads that follow it.
    """
    scaled = base + weights[..., None].to(tokens) * (tokens - base)
    return torch.where(weights[..., None] == 1, tokens, scaled)


def weighted(
    model: LLMAdapter,
    features: Tensor,
    weights: Tensor,
    empty: Tensor,
    mask: Tensor | None = None,
    empty_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `model(features, mask)` gives, with weights: tokens (B, N, W), pooled vectors (B, P), and `token_weights`.

    Each token becomes empty + v (token - empty), where `empty` (1 or B, K, D) are the features of the empty text.
    """
    tokens, read = compression_attention(model, features, mask)
    base, _ = model(empty, empty_mask)
    v = token_weights(read, weights, mask)
    tokens = base + v[..., None] * (tokens - base)
    return tokens, model.pool(tokens), v
