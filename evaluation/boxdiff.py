"""BoxDiff's loss, for comparisons with LMD on equal terms (docs/lmd.md, 8.2). The ratio loss is in energy.py."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..lmd.sampling.energy import AttentionMap, GuidedObject, union_mask


def boxdiff_loss(
    maps: Sequence[AttentionMap],
    objects: Sequence[GuidedObject],
    top_p: float = 0.2,
    corner_width: int = 1,
    smooth: bool = True,
) -> Tensor:
    """The loss (a scalar) of BoxDiff on equally sized maps with every token column [1, H, S, 77]."""
    height, width = maps[0].height, maps[0].width
    attention = torch.cat([m.probs for m in maps], dim=1).mean((0, 1))  # S P
    image = torch.softmax(100 * attention[:, 1:-1], dim=-1).reshape(height, width, -1)
    total = image.new_zeros(())
    for o in objects:
        mask = union_mask(o.boxes, height, width, image).reshape(height, width)
        corner_x, corner_y = _corners(o, height, width, corner_width, image)
        inside = int(mask.sum())
        for p in o.positions:
            a = image[..., p - 1]
            if smooth:
                a = _smooth(a)
            fg = (a * mask).flatten().topk(int(top_p * inside)).values.mean()
            bg = (a * (1 - mask)).flatten().topk(int(top_p * (mask.numel() - inside))).values.mean()
            total = total + (1 - fg).clamp(min=0) + bg.clamp(min=0)
            total = total + ((a.amax(0) - mask.amax(0)).abs() * corner_x).mean()
            total = total + ((a.amax(1) - mask.amax(1)).abs() * corner_y).mean()
    return total


def _corners(o: GuidedObject, height: int, width: int, reach: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """1 on the columns (rows) within `reach` of a box's left and right (top and bottom) edge; the end is exclusive."""
    x, y = like.new_zeros(width), like.new_zeros(height)
    for box in o.boxes:
        y0, y1, x0, x1 = box.cells(height, width)
        for axis, size, edges in ((x, width, (x0, x1)), (y, height, (y0, y1))):
            for edge in edges:
                axis[max(edge - reach, 0) : min(edge + reach + 1, size)] = 1
    return x, y


def _smooth(a: Tensor) -> Tensor:
    """3 x 3 kernel proportional to exp(-(d / (2 * 0.5))^2) per axis, reflected borders."""
    line = torch.exp(-(torch.tensor([-1.0, 0.0, 1.0], dtype=a.dtype, device=a.device) ** 2))
    kernel = torch.outer(line, line)
    padded = F.pad(a[None, None], (1, 1, 1, 1), mode="reflect")
    return F.conv2d(padded, (kernel / kernel.sum())[None, None])[0, 0]
