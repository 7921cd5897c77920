"""Jina CLIP v2 adapters for SDXL (V2 of the network): one token for each token of the text, and a pooled vector.

Shapes in comments: B batch, L text rows, D text width (1024), W width (2048), P pooled (1280).
No resampler and no time input: row i of the result is token i of the text, mixed with the others by a few blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from .adapter import AdapterBlock, Attention, check_features
from .connector import _stored

TRAINED_LENGTH = 512  # texts were cut to this or a multiple of it; positions beyond are those of padding


@dataclass(frozen=True)
class JinaAdapterConfig:
    """The sizes of one adapter; the defaults are those of the current release.

    positions: 0 for an adapter without position embeddings. mean_pooled: width of the layer that reads the mean of the
    text's features, 0 for an adapter that pools its own rows by attention.
    """

    width: int = 2048
    input_dim: int = 1024
    pooled: int = 1280
    mlp: int = 8192
    blocks: int = 4
    heads: int = 16
    pooler_heads: int = 8
    positions: int = 0
    mean_pooled: int = 0

    def __post_init__(self) -> None:
        for size in fields(self):
            least = 0 if size.name in ("positions", "mean_pooled") else 1
            if getattr(self, size.name) < least:
                raise ValueError(
                    f"JinaAdapterConfig: {size.name} must be at least {least}, got {getattr(self, size.name)!r}"
                )
        for heads in (self.heads,) if self.mean_pooled else (self.heads, self.pooler_heads):
            if self.width % heads:
                raise ValueError(f"An adapter of width {self.width} cannot have {heads} attention heads.")

    @property
    def longest(self) -> int:
        """How many tokens of a text the adapter was trained to read."""
        return self.positions // TRAINED_LENGTH * TRAINED_LENGTH or self.positions or TRAINED_LENGTH


class AttentionPooler(nn.Module):
    """One learned query reads all rows: (B, L, W) -> (B, W)."""

    def __init__(self, width: int, heads: int, operations: Any, cast: Callable[[Tensor, Tensor], Tensor], **kw: Any):
        super().__init__()
        self.cast = cast
        self.query = nn.Parameter(torch.empty(1, 1, width, **kw))
        self.attn = Attention(width, heads, operations, **kw)
        self.norm = operations.LayerNorm(width, **kw)

    def forward(self, rows: Tensor, mask: Tensor | None = None) -> Tensor:
        query = self.cast(self.query, rows).expand(len(rows), -1, -1)
        return self.norm(self.attn(query, rows, mask)[:, 0])


class JinaAdapter(nn.Module):
    """The whole adapter; attention has separate projections, whatever the file has.

    Args:
        config: the sizes.
        operations: where `Linear`, `LayerNorm` and `Embedding` come from; a host may pass its own.
        cast: `(parameter, like) -> tensor` for the one parameter that is in no layer.
        dtype, device: of the parameters.
    """

    def __init__(
        self,
        config: JinaAdapterConfig,
        *,
        operations: Any = nn,
        cast: Callable[[Tensor, Tensor], Tensor] = _stored,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ):
        super().__init__()
        self.config = config
        width, kw = config.width, {"dtype": dtype, "device": device}

        def projection(read: int, hidden: int, out: int) -> nn.Sequential:
            return nn.Sequential(
                operations.Linear(read, hidden, **kw),
                operations.LayerNorm(hidden, **kw),
                nn.GELU(),
                nn.Identity(),  # dropout in training; keeps the number of the layer that follows
                operations.Linear(hidden, out, **kw),
            )

        self.seq_projection = projection(config.input_dim, width, width)
        if config.positions:
            self.positional_embedding = operations.Embedding(config.positions, width, **kw)
        self.attention_blocks = nn.ModuleList(
            AdapterBlock(width, config.heads, config.mlp, operations, **kw) for _ in range(config.blocks)
        )
        if config.mean_pooled:
            self.pooled_projection = projection(config.input_dim, config.mean_pooled, config.pooled)
        else:
            self.attention_pooler = AttentionPooler(width, config.pooler_heads, operations, cast, **kw)
            self.pooled_projection = operations.Linear(width, config.pooled, **kw)

    def forward(
        self, features: Tensor, mask: Tensor | None = None, mean_pooled: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features (B, L, D) and which rows count (B, L) -> tokens (B, L, W) and pooled vectors (B, P).

        `mean_pooled` (B, D) is read only by adapters that have no pooling of their own; None is the mean of the rows
        that count. Rows that the mask leaves out change no other row and should not be used. Computes in the dtype of
        the features. Raises ValueError on any other shape, for more rows than the adapter has positions, and for a text
        without a row that counts.
        """
        check_features(features, mask, self.config.input_dim)
        mask = None if mask is None else mask.bool()
        h = self.seq_projection(features)
        if self.config.positions:
            h = h + self._positions(h)
        for block in self.attention_blocks:
            h = block(h, mask)
        if not self.config.mean_pooled:
            return h, self.pooled_projection(self.attention_pooler(h, mask))
        return h, self.pooled_projection(_mean(features, mask) if mean_pooled is None else mean_pooled)

    def _positions(self, h: Tensor) -> Tensor:
        rows = h.shape[1]
        if rows > self.config.positions:
            raise ValueError(f"The adapter reads at most {self.config.positions} tokens, it received {rows}.")
        return self.positional_embedding(torch.arange(rows, device=h.device)).to(h.dtype)


def _mean(features: Tensor, mask: Tensor | None) -> Tensor:
    """The mean of the rows that count: (B, L, D) -> (B, D)."""
    if mask is None:
        return features.mean(dim=1)
    counted = mask[..., None].to(features.dtype)
    return (features * counted).sum(dim=1) / counted.sum(dim=1)
