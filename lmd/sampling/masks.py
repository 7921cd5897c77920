"""The foreground mask of one object from its attention, and the choice among SAM's proposals (docs/lmd.md, 5.6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import checks
from ..layout import Box

AGGREGATE_FROM = 0.2  # the reference averages attention from step 10 of 50 on


@dataclass(frozen=True)
class MaskOptions:
    """`sigma`: smoothing in cells; `threshold`: of the min-max normalised map; `open_cells`: erosion, then dilation."""

    sigma: float = 1.5
    threshold: float = 0.25
    open_cells: int = 0

    def __post_init__(self) -> None:
        checks.number(self, "sigma", 0)
        checks.number(self, "threshold", 0, 1)
        checks.whole(self, "open_cells", 0)


POINT = MaskOptions()
BOX = MaskOptions(sigma=0.1, threshold=0.05, open_cells=1)


def aggregate(attention: Tensor, start: int) -> Tensor:
    """Word-token attention [steps, H, h, w] -> its mean over the steps from `start` on and over heads [h, w]."""
    return attention[start:].mean((0, 1))


def smooth(attention: Tensor, sigma: float) -> Tensor:
    """Gaussian smoothing of [h, w] with mirrored borders, in float64."""
    from scipy.ndimage import gaussian_filter

    return torch.from_numpy(gaussian_filter(attention.double().cpu().numpy(), sigma=sigma))


def coarse_mask(smoothed: Tensor, options: MaskOptions = POINT) -> Tensor:
    """The thresholded attention, boolean [h, w]. A constant map gives an empty mask."""
    span = smoothed.max() - smoothed.min()
    if span <= 0:
        return torch.zeros_like(smoothed, dtype=torch.bool)
    mask = (smoothed - smoothed.min()) / span > options.threshold
    if options.open_cells:
        from scipy.ndimage import binary_dilation, binary_erosion

        opened = binary_erosion(mask.numpy(), iterations=options.open_cells)
        mask = torch.from_numpy(binary_dilation(opened, iterations=options.open_cells))
    return mask


def peak(smoothed: Tensor) -> tuple[int, int]:
    """(column, row) of the strongest cell: SAM's point prompt is that cell's top-left corner."""
    first = int(torch.nonzero(smoothed.flatten() == smoothed.max())[0])  # argmax promises no order among ties
    row, column = divmod(first, smoothed.shape[1])
    return column, row


def upsample(mask: Tensor, height: int, width: int) -> Tensor:
    """Nearest-neighbour enlargement of a boolean mask."""
    return F.interpolate(mask[None, None].float(), size=(height, width), mode="nearest")[0, 0] > 0


def reduce(mask: Tensor, height: int, width: int) -> Tensor:
    """A boolean mask on a coarser grid: bilinear without antialias, then "not zero"; so central pixels decide (5.6)."""
    return F.interpolate(mask[None, None].float(), size=(height, width), mode="bilinear")[0, 0] > 0


def rasterised(box: Box, height: int, width: int) -> Tensor:
    """The box on a grid of cells, boolean [h, w]; empty where it is smaller than a cell."""
    y0, y1, x0, x1 = box.cells(height, width)
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = True
    return mask


def box_prompt(box: Box, height: int, width: int) -> tuple[int, int, int, int]:
    """SAM's box prompt (x0, y0, x1, y1) in whole pixels of an image, clipped to it (docs/lmd.md, 12.4)."""
    y0, y1, x0, x1 = box.cells(height, width)
    return min(max(x0, 0), width), min(max(y0, 0), height), min(max(x1, 0), width), min(max(y1, 0), height)


def iou(a: Tensor, b: Tensor, eps: float = 1e-6) -> float:
    """Intersection over union of two boolean masks of one size."""
    return float((a & b).sum()) / (float((a | b).sum()) + eps)


def select(
    candidates: Sequence[Tensor],
    confidences: Sequence[float],
    coarse: Tensor,
    min_confidence: float = 0.85,
    min_iou: float = 0.25,
) -> int:
    """The largest candidate, those with a low predicted IoU or little in common with the attention held back.

    candidates: boolean masks on the latent grid; coarse: boolean, any coarser or equal grid. Source: 5.6, step 7.
    """
    sizes = [int(c.sum()) for c in candidates]
    largest = max(sizes)
    scores = []
    for candidate, confidence, size in zip(candidates, confidences, sizes):
        overlap = iou(reduce(candidate, *coarse.shape), coarse)
        scores.append(size - largest * (confidence < min_confidence) - largest * (overlap < min_iou))
    return max(range(len(scores)), key=scores.__getitem__)
