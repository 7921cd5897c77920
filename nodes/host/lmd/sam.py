"""Segment Anything as a host-managed model: files in models/sams, safe loading, the right variant by its weights."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.model_patcher
import folder_paths
import torch
from torch import Tensor

from .. import model_files

FOLDER = "sams"
EXTENSIONS = (".pth", ".pt", ".safetensors")
FILES = "sam_vit_b_01ec64.pth, sam_vit_l_0b3195.pth or sam_vit_h_4b8939.pth"
REMEDY = f"Put {FILES} into models/sams and choose it in LMDSAMLoader (SAM 2, HQ-SAM and MobileSAM have other weights)."
_VARIANT_BY_DEPTH = {12: "vit_b", 24: "vit_l", 32: "vit_h"}


def register_folder() -> None:
    """Add models/sams to the folders that are there, keeping what others put under that key."""
    folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))
    paths, extensions = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (paths, set(extensions) | set(EXTENSIONS))


def names() -> list[str]:
    """The SAM files that are there; one entry that says what is missing if there are none."""
    found = [n for n in folder_paths.get_filename_list(FOLDER) if n.lower().endswith(EXTENSIONS)]
    return found or [f"(put {FILES} into {' or '.join(folder_paths.get_folder_paths(FOLDER))})"]


class _Holder(torch.nn.Module):
    """The host's patcher sets `device` on its model; on Sam itself that is a read-only property."""

    def __init__(self, sam: torch.nn.Module):
        super().__init__()
        self.sam = sam


@dataclass(frozen=True, eq=False)
class SamModel:
    """A loaded SAM; `patcher` is the host's handle for moving it between devices."""

    patcher: Any
    variant: str

    def propose(
        self, image: Tensor, point: tuple[float, float] | None = None, box: tuple[float, ...] | None = None
    ) -> tuple[Tensor, list[float]]:
        """Three masks [3, H, W] (boolean) with their predicted IoU for an image [H, W, 3] in 0..1.

        `point` is (x, y), `box` (x0, y0, x1, y1), in pixels.
        """
        import numpy as np
        from segment_anything import SamPredictor

        comfy.model_management.load_models_gpu([self.patcher])
        predictor = SamPredictor(self.patcher.model.sam)
        predictor.set_image((image.clamp(0, 1) * 255).round().byte().cpu().numpy())
        found, confidence, _ = predictor.predict(
            point_coords=None if point is None else np.array([point]),
            point_labels=None if point is None else np.array([1]),
            box=None if box is None else np.array(box),
            multimask_output=True,
        )
        return torch.from_numpy(found), [float(c) for c in confidence]


def load(name: str) -> SamModel:
    """Load a SAM by its file name; raises ValueError that says what the file seems to be instead."""
    from segment_anything import sam_model_registry

    path = folder_paths.get_full_path(FOLDER, name)
    if path is None:
        raise ValueError(
            f'there is no SAM file "{name}": put {FILES} into {" or ".join(folder_paths.get_folder_paths(FOLDER))} '
            "and refresh the browser"
        )
    state, _ = model_files.load(path, REMEDY)
    blocks = {int(m[1]) for m in (re.match(r"image_encoder\.blocks\.(\d+)\.", k) for k in state) if m}
    variant = _VARIANT_BY_DEPTH.get(1 + max(blocks, default=-1))
    if variant is None:
        raise model_files.wrong_kind(path, state, "an original Segment Anything checkpoint", REMEDY)
    model = sam_model_registry[variant](checkpoint=None)
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        fault = str(error).splitlines()[-1].strip()
        raise model_files.refused(path, f"looks like SAM {variant} but does not fit ({fault})", REMEDY) from None
    model_files.check_numbers(path, state, state, REMEDY)
    model.eval()
    patcher = comfy.model_patcher.ModelPatcher(
        _Holder(model),
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )
    return SamModel(patcher, variant)
