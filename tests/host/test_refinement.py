"""Refinement by SDXL's refiner: the stock nodes' noise levels, and layout guidance on a model with CLIP-G alone."""

import folder_paths
import pytest
import test_models
import torch
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.sampling.guidance import GuidanceOptions
from ella_lmd.lmd.sampling.options import LMDOptions
from ella_lmd.lmd.sampling.refinement import ASCORE, SAMPLER, SCHEDULER, Refinement
from ella_lmd.nodes.host.guidance.guide import EnergyTrace, guidance_target, patch_guidance
from ella_lmd.nodes.host.guidance.token_positions import tokenizer
from ella_lmd.nodes.lmd_guidance import LayoutGuidance
from safetensors.torch import save_file

import nodes

LAYOUT = Layout(
    128, 128, (LayoutObject("a cat", Box(0.05, 0.3, 0.4, 0.5)), LayoutObject("a dog", Box(0.55, 0.3, 0.4, 0.5))),
    background="a photo of a garden", prompt="a garden with a cat beside a dog",
)  # fmt: skip


@pytest.fixture(scope="module")
def refiner():
    """(MODEL, CLIP): the layout of SDXL's refiner, small and random."""
    with torch.inference_mode():
        model = nodes.UNETLoader().load_unet(test_models.diffusion_model("refiner").name, "default")[0]
        return model, test_models.refiner_clip()


@pytest.fixture(scope="module")
def encode(refiner, extra_nodes):
    def one(text, ascore):
        return extra_nodes["CLIPTextEncodeSDXLRefiner"].execute(refiner[1], ascore, 192, 192, text).args[0]

    return one


LATE = LMDOptions(guidance=GuidanceOptions(loss_threshold=0.0, max_iter=(2,), max_index_step=50))


def picture():
    """The latent of a finished picture, finer than the layout's canvas."""
    return {"samples": torch.randn(1, 4, 24, 24, generator=torch.Generator().manual_seed(3))}


def refined(model, positive, negative, steps=1, denoise=0.5):
    inputs = (model, 7891, steps, 5.0, SAMPLER, SCHEDULER, positive, negative, picture())
    return nodes.KSampler().sample(*inputs, denoise=denoise)[0]["samples"]


def test_the_stock_nodes_have_the_published_noise_levels(demo, extra_nodes):
    import comfy.samplers

    model = demo[0]
    for strength in (0.1, 0.3, 0.35, 0.5, 0.7, 0.99):
        own = Refinement(strength)
        stock = comfy.samplers.KSampler(model, own.steps, "cpu", SAMPLER, SCHEDULER, strength).sigmas
        assert own.one_ksampler and torch.allclose(stock, torch.tensor(own.sigmas), atol=1e-5, rtol=1e-6)
    own = Refinement(0.15)
    stock = comfy.samplers.KSampler(model, own.steps, "cpu", SAMPLER, SCHEDULER, 0.15).sigmas
    assert not own.one_ksampler and not torch.allclose(stock, torch.tensor(own.sigmas), atol=1e-3)
    planned = extra_nodes["BasicScheduler"].execute(model, SCHEDULER, 50, 1.0).args[0]
    split = extra_nodes["SplitSigmas"].execute(planned, 50 - own.steps).args[1]
    assert torch.allclose(split, torch.tensor(own.sigmas), atol=1e-5)


def test_the_refiner_is_guided_by_clip_g_alone(refiner, encode):
    """With its own caption, in which the layout's prompt does not stand, and in a finer latent than the layout's."""
    model, clip = refiner
    before = {k: v.clone() for k, v in model.model.state_dict().items()}
    positive, negative = encode(LAYOUT.prompt, ASCORE), encode("blurry", 2.5)
    results = []
    for strength in (0.0, 1.0):
        given = (model, clip, LAYOUT, "", strength, 0.0, 1.0, "reference", LATE)
        guided, _, trace = LayoutGuidance.execute(*given).args
        results.append(refined(guided, positive, negative))
    assert torch.equal(results[0], refined(model, positive, negative))
    assert torch.isfinite(results[1]).all() and not torch.equal(*results)
    first, second = (float(e) for _, _, e in trace.rows)
    assert second < first
    assert all(torch.equal(v, before[k]) for k, v in model.model.state_dict().items())


def test_the_caption_itself_is_guided_where_it_names_the_objects(refiner, encode, caplog):
    model, clip = refiner
    target, _ = guidance_target(clip, LAYOUT, LAYOUT.prompt)
    guided = patch_guidance(model, target, LATE.guidance, EnergyTrace())
    with caplog.at_level("INFO"):
        refined(guided, encode(LAYOUT.prompt, ASCORE), encode("blurry", 2.5))
    assert "the positive conditioning, which holds the guided prompt" in caplog.text


def test_positions_are_those_of_the_encoder_that_is_there(refiner, tmp_path):
    """A textual inversion for CLIP-G alone is two tokens there, and none for the L that the refiner has not."""
    clip = refiner[1]
    save_file({"clip_g": torch.randn(2, 1280)}, tmp_path / "gonly.safetensors")
    own = [clip.tokenizer.clip_l, clip.tokenizer.clip_g]
    before = [t.embedding_directory for t in own]
    try:
        for t in own:
            t.embedding_directory = [str(tmp_path), *folder_paths.get_folder_paths("embeddings")]
        text = "embedding:gonly with a dog"
        found = {content: i for i, content in tokenizer(clip)(text)}
        (dog,) = (t for t, _ in clip.tokenizer.clip_g.tokenize_with_weights("dog")[0][1:2])
        encoded = [t if isinstance(t, int) else None for t, _ in clip.tokenize(text)["g"][0]]
        assert found[dog] == encoded.index(dog) == 5
    finally:
        for t, folders in zip(own, before):
            t.embedding_directory = folders


def test_the_preset_refinement_guides_to_the_end_where_the_published_schedule_has_ended(demo, caplog):
    model, clip, _ = demo
    layout = Layout(128, 128, (LayoutObject("a red star", Box(0.1, 0.1, 0.5, 0.5)),), background="a scene")
    latent = {"samples": torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))}
    found = {}
    for preset in ("reference", "refinement"):
        guided, positive, trace = LayoutGuidance.execute(model, clip, layout, "", 1.0, 0.0, 1.0, preset).args
        how = (guided, 1, 6, 5.0, SAMPLER, SCHEDULER, positive, positive, latent)
        found[preset] = nodes.KSampler().sample(*how, denoise=0.3)[0]["samples"], [step for step, _, _ in trace.rows]
    how = (model, *how[1:])
    assert torch.equal(found["reference"][0], nodes.KSampler().sample(*how, denoise=0.3)[0]["samples"])
    assert found["reference"][1] == [] and "layout guidance did nothing in this run" in caplog.text
    assert found["refinement"][1] == list(range(6)) and not torch.equal(found["refinement"][0], found["reference"][0])
