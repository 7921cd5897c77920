"""ELLA's timestep-aware semantic connector: text features and a diffusion timestep -> tokens for cross-attention.

Shapes in comments: B batch, L text tokens, M the tokens of several texts joined, N latents (64 in the released model), D text width (2048), W width (768).
Source: arXiv 2403.05135, section 3.1 and figure 3; parameter names as in the released SD1.5 checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-6
MLP_RATIO = 4


@dataclass(frozen=True)
class ConnectorConfig:
    """The sizes of one connector; the defaults are those of the released SD1.5 model."""

    width: int = 768
    layers: int = 6
    heads: int = 8
    latents: int = 64
    input_dim: int = 2048
    time_channels: int = 320
    time_dim: int = 768

    def __post_init__(self) -> None:
        for size in fields(self):
            value = getattr(self, size.name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"ConnectorConfig: {size.name} must be a whole number of at least 1, got {value!r}")
        if self.width % self.heads:
            raise ValueError(f"A connector of width {self.width} cannot have {self.heads} attention heads.")
        if self.time_channels % 2:
            raise ValueError(f"The number of sinusoid channels must be even; this connector has {self.time_channels}.")


def sinusoid(timesteps: Tensor, channels: int) -> Tensor:
    """(B,) timesteps, fractions allowed -> (B, channels) in float32: all cosines, then all sines."""
    half = channels // 2
    index = torch.arange(half, dtype=torch.float32, device=timesteps.device)
    frequencies = torch.exp(index * (-math.log(10000.0) / half))
    angles = timesteps.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def squared_relu(x: Tensor) -> Tensor:
    """relu(x)², elementwise, in any shape: the connector's activation."""
    return F.relu(x).square()


def _stored(weight: Tensor, like: Tensor) -> Tensor:
    """A raw parameter in the dtype and on the device of the computation."""
    return weight.to(dtype=like.dtype, device=like.device)


class TimeEmbedding(nn.Module):
    """Sinusoid (B, 1, channels) -> time embedding (B, 1, out); the result is not activated."""

    def __init__(self, channels: int, out: int, operations: Any = nn, **kw: Any):
        super().__init__()
        self.linear_1 = operations.Linear(channels, out, **kw)
        self.linear_2 = operations.Linear(out, out, **kw)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(x)))


class AdaLayerNorm(nn.Module):
    """Layer norm without weights of its own: shift and scale come from the time embedding (AdaLN, no gate)."""

    def __init__(self, width: int, time_dim: int, operations: Any = nn, **kw: Any):
        super().__init__()
        self.linear = operations.Linear(time_dim, 2 * width, **kw)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        shift, scale = self.linear(F.silu(time)).chunk(2, dim=-1)  # rows of the weight: shift first
        return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=NORM_EPS), 1 + scale)


class LatentAttention(nn.Module):
    """Multi-head attention with the parameter names of torch.nn.MultiheadAttention; no mask, no dropout."""

    def __init__(self, width: int, heads: int, operations: Any = nn, cast: Callable = _stored, **kw: Any):
        super().__init__()
        self.heads = heads
        self.cast = cast
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width, **kw))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width, **kw))
        self.out_proj = operations.Linear(width, width, **kw)

    def forward(self, query: Tensor, text: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """query (B, N, W) attends to itself and to the text: (B, L, W), or (1, M, W) with the B rows' lengths."""
        width = query.shape[-1]
        weight, bias = self.cast(self.in_proj_weight, query), self.cast(self.in_proj_bias, query)
        q, k, v = (self._heads(x) for x in F.linear(query, weight, bias).chunk(3, dim=-1))
        text_k, text_v = (self._heads(x) for x in F.linear(text, weight[width:], bias[width:]).chunk(2, dim=-1))
        if lengths is None:
            out = F.scaled_dot_product_attention(q, torch.cat([k, text_k], dim=2), torch.cat([v, text_v], dim=2))
        else:
            own = zip(q.split(1), k.split(1), v.split(1), text_k.split(lengths, dim=2), text_v.split(lengths, dim=2))
            out = torch.cat(
                [
                    F.scaled_dot_product_attention(q, torch.cat([k, tk], 2), torch.cat([v, tv], 2))
                    for q, k, v, tk, tv in own
                ]
            )
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def probabilities(self, query: Tensor, text: Tensor) -> Tensor:
        """How much each query attends to the N queries and to the text: (B, heads, N, N + L), as in `forward`."""
        size = 2 * query.shape[-1]
        weight, bias = self.cast(self.in_proj_weight, query)[:size], self.cast(self.in_proj_bias, query)[:size]
        rows = torch.cat([query, text], dim=1)
        q, k = (self._heads(x) for x in F.linear(rows, weight, bias).chunk(2, dim=-1))
        q = q[:, :, : query.shape[1]]
        return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, tokens, W / heads)


class Mlp(nn.Module):
    """Two linear layers with squared ReLU between: [..., width] -> [..., width]."""

    def __init__(self, width: int, operations: Any = nn, **kw: Any):
        super().__init__()
        self.c_fc = operations.Linear(width, MLP_RATIO * width, **kw)
        self.c_proj = operations.Linear(MLP_RATIO * width, width, **kw)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(squared_relu(self.c_fc(x)))


class ConnectorBlock(nn.Module):
    """The latents attend to themselves and to the text, then pass an MLP; the text itself is never changed."""

    def __init__(
        self, width: int, heads: int, time_dim: int, operations: Any = nn, cast: Callable = _stored, **kw: Any
    ):
        super().__init__()
        self.attn = LatentAttention(width, heads, operations, cast, **kw)
        self.ln_1 = AdaLayerNorm(width, time_dim, operations, **kw)
        self.ln_2 = AdaLayerNorm(width, time_dim, operations, **kw)
        self.ln_ff = AdaLayerNorm(width, time_dim, operations, **kw)
        self.mlp = Mlp(width, operations, **kw)

    def forward(self, latents: Tensor, text: Tensor, time: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """latents (B, N, W), text already projected (B, L, W), time (B, 1, T) -> (B, N, W).

        With `lengths`, text is (1, M, W), the rows' texts one after the other, and time (1, 1, T).
        """
        latents = latents + self.attn(self.ln_1(latents, time), self.ln_2(text, time), lengths)
        return latents + self.mlp(self.ln_ff(latents, time))


class LatentResampler(nn.Module):
    """The part of the checkpoint under `connector.`: learned latents that read the text through the blocks."""

    def __init__(self, config: ConnectorConfig, operations: Any = nn, cast: Callable = _stored, **kw: Any):
        super().__init__()
        self.cast = cast
        self.latents = nn.Parameter(torch.empty(config.latents, config.width, **kw))
        self.time_aware_linear = operations.Linear(config.time_dim, config.width, **kw)
        self.proj_in = operations.Linear(config.input_dim, config.width, **kw)
        self.perceiver_blocks = nn.ModuleList(
            ConnectorBlock(config.width, config.heads, config.time_dim, operations, cast, **kw)
            for _ in range(config.layers)
        )

    def forward(self, features: Tensor, time: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        latents = self.cast(self.latents, features) + self.time_aware_linear(F.silu(time))  # (B, N, W)
        latents = latents.expand(len(lengths or features), -1, -1)
        text = self.proj_in(features)
        for block in self.perceiver_blocks:
            latents = block(latents, text, time, lengths)
        return latents


class TimestepAwareConnector(nn.Module):
    """The whole connector; its state dict has exactly the keys of the released file.

    Args:
        config: the sizes.
        operations: where `Linear` comes from; a host may pass layers that cast and move their weights.
        cast: `(parameter, like) -> tensor` for the few parameters that are not in a Linear.
        dtype, device: of the parameters.
    """

    def __init__(
        self,
        config: ConnectorConfig,
        *,
        operations: Any = nn,
        cast: Callable[[Tensor, Tensor], Tensor] = _stored,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ):
        super().__init__()
        self.config = config
        kw = {"dtype": dtype, "device": device}
        self.time_embedding = TimeEmbedding(config.time_channels, config.time_dim, operations, **kw)
        self.connector = LatentResampler(config, operations, cast, **kw)

    def forward(self, features: Tensor | Sequence[Tensor], timesteps: Tensor | float) -> Tensor:
        """Features (B, L, D) with any L >= 1, timesteps scalar, (1,) or (B,) -> tokens (B, N, W).

        Several texts (1, L, D) of different lengths may be given as a list, with one timestep for all: they share
        every product with a weight, and each still reads itself alone.

        Nothing is masked: rows for padding are read like any other. A fractional timestep is used as it is.
        Computes in the dtype of the features. Raises ValueError on any other shape.
        """
        lengths = None
        if not isinstance(features, Tensor):
            lengths = [x.shape[1] for x in features]
            features = torch.cat(list(features), dim=1)
        if features.ndim != 3 or features.shape[1] < 1 or features.shape[2] != self.config.input_dim:
            raise ValueError(
                f"The connector reads text features of shape (batch, tokens, {self.config.input_dim}), it received "
                f"{tuple(features.shape)}. Use the text encoder that it was trained with (FLAN-T5-XL for SD1.5)."
            )
        t = torch.as_tensor(timesteps, device=features.device).reshape(-1)
        if t.shape[0] not in (1, features.shape[0]):
            raise ValueError(f"The connector needs 1 or {features.shape[0]} timesteps, it received {t.shape[0]}.")
        time = sinusoid(t, self.config.time_channels).to(features.dtype)[:, None]  # (1 or B, 1, channels)
        return self.connector(features, self.time_embedding(time), lengths)
