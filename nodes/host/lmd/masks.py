"""Foreground masks for finished object runs: from attention, from SAM, from the box, or from any other node."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ....lmd.sampling import compose, masks
from ....lmd.sampling.object_runs import ObjectRun, ObjectRuns, attention_mask, box_mask
from .sam import SamModel

ATTENTION_IN_BOX, ATTENTION, BOX = "attention inside box", "attention", "box"
SAM_POINT, SAM_BOX, GIVEN, SAM_LAYOUT_BOX = "SAM, point", "SAM, box", "masks input", "SAM, layout box"
SOURCES = (ATTENTION_IN_BOX, ATTENTION, BOX, SAM_POINT, SAM_BOX, GIVEN, SAM_LAYOUT_BOX)


def decode(objects: ObjectRuns, vae: Any) -> Tensor:
    """The objects' own images [N * B, H, W, 3] in 0..1, object by object."""
    if not objects.runs:
        raise ValueError("the layout has no objects, so there are no object images: name things in the prompt")
    images = vae.decode(torch.cat([run.result for run in objects.runs]))
    return images.flatten(0, 1) if images.ndim == 5 else images  # of one frame each


def new_masks(
    objects: ObjectRuns,
    source: str,
    threshold: float,
    min_confidence: float = 0.85,
    min_iou: float = 0.25,
    sam: SamModel | None = None,
    vae: Any = None,
    given: Tensor | None = None,
) -> ObjectRuns:
    """The runs with masks from `source` (one of SOURCES). Raises ValueError naming an input that is missing."""
    height, width = objects.noise.shape[-2:]
    size = (height, width)
    if source == BOX:
        return objects.with_masks([box_mask(r.box, height, width)[None] for r in objects.runs])
    if source == GIVEN:
        return objects.with_masks(_given(objects, given, size))
    if source in (ATTENTION, ATTENTION_IN_BOX):
        inside = source == ATTENTION_IN_BOX
        return objects.with_masks(
            [attention_mask(r.mask_attention, r.box, height, width, inside, threshold=threshold) for r in objects.runs]
        )
    missing = [name for name, value in (("sam_model", sam), ("vae", vae)) if value is None]
    if missing:
        raise ValueError(
            f'the mask source "{source}" needs the input {" and ".join(missing)}, which is not connected: connect '
            "Load SAM Model and a VAE, or choose an attention mask"
        )
    assert sam is not None
    images = decode(objects, vae)
    batch = objects.settings.batch
    chosen = []
    for i, run in enumerate(objects.runs):
        own = images[i * batch : (i + 1) * batch]
        found = [_sam_mask(sam, own[b], run, b, size, source, threshold, min_confidence, min_iou) for b in range(batch)]
        chosen.append(torch.stack(found))
    return objects.with_masks(chosen)


def _given(objects: ObjectRuns, given: Tensor | None, size: tuple[int, int]) -> list[Tensor]:
    batch, count = objects.settings.batch, len(objects.runs)
    if given is None and not count:
        return []
    received = 0 if given is None else len(given)
    if given is None or received not in (count, count * batch):
        raise ValueError(
            f"one mask per object image is needed, {count * batch} in the order of the object images, got {received}: "
            "make them from the images that LMD Object Images gives"
        )
    on_grid = F.interpolate(given[:, None].float(), size=size, mode="bilinear", antialias=True)[:, 0] > 0.5
    return list(on_grid.split(received // count)) if count else []


def _sam_mask(
    sam: SamModel, image: Tensor, run: ObjectRun, b: int, size: tuple[int, int], source: str, threshold: float,
    min_confidence: float, min_iou: float,
) -> Tensor:  # fmt: skip
    """SAM's best proposal for one image [H, W, 3] on the latent grid (docs/lmd.md, 5.6, steps 2 to 7; 12.4 by layout box)."""
    if source == SAM_LAYOUT_BOX:
        full, confidence = sam.propose(image, box=masks.box_prompt(run.box, *image.shape[:2]))
        return _chosen(full, confidence, masks.rasterised(run.box, *size), size, min_confidence, min_iou)
    use_box = source == SAM_BOX
    attention = run.mask_attention[:, b]
    options = masks.BOX if use_box else masks.MaskOptions(threshold=threshold)
    start = round(masks.AGGREGATE_FROM * len(attention))
    smoothed = masks.smooth(masks.aggregate(attention, start), options.sigma)
    coarse = masks.coarse_mask(smoothed, options)
    cell_x, cell_y = image.shape[1] / smoothed.shape[1], image.shape[0] / smoothed.shape[0]
    if use_box and coarse.any():
        x0, y0, x1, y1 = compose.grown_cells(coarse)
        full, confidence = sam.propose(image, box=(x0 * cell_x, y0 * cell_y, x1 * cell_x, y1 * cell_y))
    else:
        column, row = masks.peak(smoothed)
        full, confidence = sam.propose(image, point=(column * cell_x, row * cell_y))
    return _chosen(full, confidence, coarse, size, min_confidence, min_iou)


def _chosen(
    full: Tensor, confidence: list[float], coarse: Tensor, size: tuple[int, int], min_confidence: float, min_iou: float
) -> Tensor:
    candidates = [masks.reduce(m, *size) for m in full]
    return candidates[masks.select(candidates, confidence, coarse, min_confidence, min_iou)]
