"""LLM adapters for SDXL: a language model's features -> tokens and a pooled vector, as SDXL reads them from CLIP.

Shapes in comments: B batch, L text rows, D text width, W width (2048), M input positions (512), T output tokens (308), P pooled (1280).
The network of RouWei-Gemma, RouWei-T5Gemma and their relatives; names as in the files with separate q, k and v.
It has no time input: one text gives one conditioning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .connector import _stored


@dataclass(frozen=True)
class AdapterConfig:
    """The sizes of one adapter; the defaults are those of RouWei-Gemma."""

    width: int = 2048
    input_dim: int = 1152
    positions: int = 512
    tokens: int = 308
    pooled: int = 1280
    mlp: int = 8192
    wide: int = 2
    narrow: int = 3
    heads: int = 16
    projection: bool = True
    input_norm: bool = False

    def __post_init__(self) -> None:
        for size in fields(self):
            if getattr(self, size.name) < (1 if size.type == "int" else 0):
                raise ValueError(f"AdapterConfig: {size.name} must be at least 1, got {getattr(self, size.name)!r}")
        if self.width % self.heads:
            raise ValueError(f"An adapter of width {self.width} cannot have {self.heads} attention heads.")

    @property
    def longest(self) -> int:
        """How many tokens of a text the adapter reads."""
        return self.positions


class Attention(nn.Module):
    """Multi-head attention with separate projections, so that a LoRA of each finds a layer of its own."""

    def __init__(self, width: int, heads: int, operations: Any = nn, **kw: Any):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (operations.Linear(width, width, **kw) for _ in range(4))

    def forward(self, query: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """query (B, N, W) reads source (B, L, W) where mask (B, L), true for rows that count, lets it."""
        q, k, v = map(self._heads, (self.q_proj(query), self.k_proj(source), self.v_proj(source)))
        allowed = None if mask is None else mask[:, None, None, :]
        return self.out_proj(F.scaled_dot_product_attention(q, k, v, allowed).transpose(1, 2).flatten(2))

    def probabilities(self, query: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """How much each query attends to each row of the source: (B, heads, N, L), for the same inputs as `forward`."""
        q, k = self._heads(self.q_proj(query)), self._heads(self.k_proj(source))
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None, :], -torch.inf)
        return scores.softmax(dim=-1)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, rows, W / heads)


class AdapterBlock(nn.Module):
    """A transformer block with the norms before attention and MLP."""

    def __init__(self, width: int, heads: int, mlp: int, operations: Any = nn, **kw: Any):
        super().__init__()
        self.attn = Attention(width, heads, operations, **kw)
        self.norm1 = operations.LayerNorm(width, **kw)
        self.norm2 = operations.LayerNorm(width, **kw)
        self.mlp = nn.Sequential(
            operations.Linear(width, mlp, **kw),
            nn.GELU(),
            operations.Linear(mlp, width, **kw),
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        normed = self.norm1(x)
        x = x + self.attn(normed, normed, mask)
        return x + self.mlp(self.norm2(x))


class LLMAdapter(nn.Module):
    """The whole adapter.

    Args:
        config: the sizes.
        operations: where `Linear` and `LayerNorm` come from; a host may pass layers that cast and move their weights.
        cast: `(parameter, like) -> tensor` for the few parameters that are in no layer.
        dtype, device: of the parameters.
    """

    def __init__(
        self,
        config: AdapterConfig,
        *,
        operations: Any = nn,
        cast: Callable[[Tensor, Tensor], Tensor] = _stored,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ):
        super().__init__()
        self.config, self.cast = config, cast
        width, heads = config.width, config.heads
        kw: dict[str, Any] = {"dtype": dtype, "device": device}

        def blocks(count: int) -> nn.ModuleList:
            return nn.ModuleList(AdapterBlock(width, heads, config.mlp, operations, **kw) for _ in range(count))

        if config.input_norm:
            self.input_norm = operations.LayerNorm(config.input_dim, **kw)
        if config.projection:
            self.seq_projection = operations.Linear(config.input_dim, width, **kw)
        self.input_position_embeddings = nn.Parameter(torch.empty(1, config.positions, width, **kw))
        self.wide_attention_blocks = blocks(config.wide)
        self.compression_queries = nn.Parameter(torch.empty(1, config.tokens, width, **kw))
        self.compression_attention = Attention(width, heads, operations, **kw)
        self.compression_gate = nn.Sequential(operations.Linear(2 * width, width, **kw), nn.Sigmoid())
        self.compression_norm = operations.LayerNorm(width, **kw)
        self.output_position_embeddings = nn.Parameter(torch.empty(1, config.tokens, width, **kw))
        self.narrow_attention_blocks = blocks(config.narrow)
        self.pooling_token = nn.Parameter(torch.empty(1, 1, width, **kw))
        self.pooling_attention = Attention(width, heads, operations, **kw)
        self.pooled_projection = nn.Sequential(
            operations.Linear(width, width, **kw),
            operations.LayerNorm(width, **kw),
            nn.GELU(),
            nn.Identity(),  # dropout in training; keeps the number of the layer that follows
            operations.Linear(width, config.pooled, **kw),
        )

    def forward(self, features: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Features (B, L, D) and which rows count (B, L) -> tokens (B, T, W) and pooled vectors (B, P).

        Rows after the last input position are not read. Rows that the mask leaves out change nothing, so a single text
        is cheapest without any. Computes in the dtype of the features. Raises ValueError on any other shape, and for a
        text without a row that counts.
        """
        check_features(features, mask, self.config.input_dim, self.config.positions)
        features = features[:, : self.config.positions]
        mask = None if mask is None else mask[:, : self.config.positions].bool()
        h = self.input_norm(features) if self.config.input_norm else features
        h = self.seq_projection(h) if self.config.projection else h
        h = h + self.cast(self.input_position_embeddings, h)[:, : h.shape[1]]
        for block in self.wide_attention_blocks:
            h = block(h, mask)
        z = self._compress(h, mask)
        for block in self.narrow_attention_blocks:
            z = block(z)
        return z, self.pool(z)

    def pool(self, z: Tensor) -> Tensor:
        """Tokens (B, T, W) -> pooled vectors (B, P)."""
        token = self.cast(self.pooling_token, z).expand(len(z), -1, -1)
        return self.pooled_projection(self.pooling_attention(token, z)[:, 0])

    def _compress(self, h: Tensor, mask: Tensor | None) -> Tensor:
        """Text rows of any number -> T tokens: learned queries read them, and a gate mixes what they read with themselves."""
        queries = self.cast(self.compression_queries, h).expand(len(h), -1, -1)
        read = self.compression_attention(queries, h, mask)
        gate = self.compression_gate(torch.cat([queries, read], dim=-1))
        mixed = gate * read + (1 - gate) * queries
        return self.compression_norm(mixed) + self.cast(self.output_position_embeddings, h)


def check_features(features: Tensor, mask: Tensor | None, width: int, rows: int | None = None) -> None:
    """Raise ValueError unless features are (B, L, `width`), and the mask (B, L) leaves one of a text's first `rows`."""
    if features.ndim != 3 or features.shape[1] < 1 or features.shape[2] != width:
        raise ValueError(
            f"The adapter reads text features of shape (batch, tokens, {width}), it received "
            f"{tuple(features.shape)}. Use the text encoder that it was trained with."
        )
    if mask is None:
        return
    if mask.shape != features.shape[:2]:
        raise ValueError(f"The mask has shape {tuple(mask.shape)} for features of {tuple(features.shape)}.")
    if not mask[:, :rows].bool().any(dim=1).all():
        raise ValueError("The mask leaves no row of a text that the adapter could read.")
