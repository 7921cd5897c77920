"""Segment Anything: found in models/sams, loaded safely, recognised by its weights, used with the published prompts."""

import os
import pickle

import folder_paths
import pytest
import torch
from ella_lmd.lmd.layout import Box, Layout
from ella_lmd.lmd.prompts import ObjectPrompt
from ella_lmd.lmd.sampling.object_runs import ObjectRun, ObjectRuns, box_mask
from ella_lmd.lmd.sampling.options import LMDOptions, SamplingSettings
from ella_lmd.nodes.host.lmd import masks, sam


@pytest.fixture(scope="module")
def sams(tmp_path_factory):
    """A folder with a real ViT-B SAM of random weights, and files that are something else."""
    folder = tmp_path_factory.mktemp("sams")
    sam.register_folder()
    folder_paths.add_model_folder_path("sams", str(folder))
    from segment_anything import sam_model_registry

    torch.manual_seed(0)
    state = sam_model_registry["vit_b"](checkpoint=None).state_dict()
    torch.save(state, folder / "sam_vit_b_test.pth")
    torch.save({"first_stage_model.decoder.conv_in.weight": torch.zeros(2)}, folder / "vae.pth")
    torch.save({k: v for k, v in state.items() if "mask_decoder.iou" not in k}, folder / "part.pth")
    return folder


def test_the_folder_is_extended_and_lists_its_files(sams):
    assert {"sam_vit_b_test.pth", "vae.pth"} <= set(sam.names())
    assert folder_paths.get_folder_paths("sams")[0].endswith(os.path.join("models", "sams"))


def test_an_empty_folder_says_what_belongs_where(monkeypatch):
    monkeypatch.setattr(folder_paths, "get_filename_list", lambda key: [])
    (entry,) = sam.names()
    assert "sam_vit_b_01ec64.pth" in entry and os.path.join("models", "sams") in entry


@pytest.mark.parametrize(
    ("name", "words"),
    [("vae.pth", "not an original Segment Anything checkpoint.*a VAE"), ("part.pth", "looks like SAM vit_b"),
     ("nothing.pth", 'no SAM file "nothing.pth"')],
)  # fmt: skip
def test_a_wrong_file_says_what_it_seems_to_be(sams, name, words):
    with pytest.raises(ValueError, match=words):
        sam.load(name)


def test_a_file_with_code_in_it_is_not_run(sams, tmp_path):
    trap = tmp_path / "ran"

    class Trap:
        def __reduce__(self):
            return open, (str(trap), "w")

    torch.save({"image_encoder.blocks.0.x": Trap()}, sams / "trap.pth")
    with pytest.raises((pickle.UnpicklingError, RuntimeError, ValueError)):
        sam.load("trap.pth")
    assert not trap.exists()


class FlatVae:
    """Decodes to a picture with a bright square; SAM's weights are random, so only the plumbing can be checked."""

    def decode(self, latents):
        image = torch.zeros(len(latents), 128, 128, 3)
        image[:, 32:96, 32:96] = 1
        return image


def test_point_and_box_prompts_give_a_mask_on_the_latent_grid(sams):
    box = Box(0.25, 0.25, 0.5, 0.5)
    attention = torch.zeros(4, 1, 2, 4, 4)
    attention[..., 1:3, 1:3] = 1
    run = ObjectRun(
        ObjectPrompt("a cat", "a cat", "cat", box), box, torch.zeros(1, 4, 16, 16), torch.zeros(5, 1, 4, 16, 16),
        {"input.8": attention}, torch.zeros(1, 4, 16, 16), box_mask(box, 16, 16)[None], (),
    )  # fmt: skip
    settings = SamplingSettings(1, 4, 7.5, "ddim", "ddim_uniform")
    objects = ObjectRuns(Layout(128, 128), settings, LMDOptions(), torch.zeros(1, 4, 16, 16), (run,))
    model = sam.load("sam_vit_b_test.pth")
    assert model.variant == "vit_b"
    full, confidence = model.propose(FlatVae().decode(run.result)[0], point=(64, 64))
    assert full.shape == (3, 128, 128) and full.dtype == torch.bool and len(confidence) == 3
    changed = masks.new_masks(objects, masks.SAM_BOX, 0.25, sam=model, vae=FlatVae())
    assert changed.runs[0].mask.shape == (1, 16, 16) and changed.runs[0].mask.any()
