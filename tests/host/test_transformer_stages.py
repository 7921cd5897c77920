"""Two-stage LMD on transformers: small random models of the host's own classes, with small text encoders of its own."""

import logging
from dataclasses import replace

import pytest
import torch
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.pictures.attention_record import AttentionRecord
from ella_lmd.lmd.sampling.guidance import GuidanceOptions
from ella_lmd.lmd.sampling.options import LMDOptions
from ella_lmd.nodes.host.guidance.attention import UnsupportedModel
from ella_lmd.nodes.host.lmd.run_cache import OBJECT_RUNS
from ella_lmd.nodes.lmd_compose import LatentComposer
from ella_lmd.nodes.lmd_inspect import LMDAttentionRecorder
from ella_lmd.nodes.lmd_sample import BoxGroundedSampler, LMDObjectMasks
from ella_lmd.tests import transformer_models
from ella_lmd.tests.host.test_transformers import text_encoder
from ella_lmd.tests.transformer_models import FAMILIES, Family

import nodes

LAYOUT = Layout(
    128, 128,
    (LayoutObject("a red circle", Box(0.0, 0.2, 0.4, 0.4)), LayoutObject("a blue star", Box(0.6, 0.3, 0.35, 0.5))),
    background="a photo of a street",
)  # fmt: skip
POOLED = {"pooled_output": torch.zeros(1, 64)}
# Family -> (changes of its configuration for a text encoder of width 64, which one, latent shape).
CASES = {
    "Flux": ({"context_in_dim": 64, "vec_in_dim": 64, "in_channels": 16, "out_channels": 16}, "Flux", (16, 16, 16)),
    "Flux 2": ({"context_in_dim": 64, "in_channels": 128, "out_channels": 128}, "Qwen-Image", (128, 8, 8)),
    "Qwen-Image": ({"joint_attention_dim": 64}, "Qwen-Image", (4, 1, 16, 16)),
    "Z-Image": ({"cap_feat_dim": 64}, "Z-Image", (4, 16, 16)),
    "SD3": ({"adm_in_channels": 64, "context_embedder_config": {
        "target": "torch.nn.Linear", "params": {"in_features": 64, "out_features": 192}}}, "Flux", (4, 16, 16)),
    "Anima": ({"crossattn_emb_channels": 64}, "Qwen-Image", (4, 1, 16, 16)),
    "Wan": ({"text_dim": 64, "text_len": 80}, "Qwen-Image", (4, 1, 16, 16)),
}  # fmt: skip
TWICE = LMDOptions(guidance=GuidanceOptions(loss_scale=5.0, max_index_step=50, max_iter=(2,)))
OFF = LMDOptions(guidance=GuidanceOptions(loss_scale=0.0))


def small(name):
    """(MODEL, CLIP) of a case."""
    changes, encoder, latent = CASES[name]
    family = FAMILIES[name]
    family = replace(family, config={**family.config, **changes}, latent=latent, width=64)
    model = transformer_models.model(family)
    model.model.latent_format.spacial_downscale_ratio = 128 // latent[-1]
    return model, text_encoder(encoder), family


def stages(model, clip, options=TWICE, steps=4, layout=LAYOUT, frozen=0.5, batch=1):
    OBJECT_RUNS.clear()
    how = (3, steps, 3.0, "euler", "simple", "reference", batch)
    objects = BoxGroundedSampler.execute(model, clip, layout, *how, options=options).args[0]
    return objects, LatentComposer.execute(model, clip, objects, frozen).args[0]["samples"]


@pytest.mark.parametrize("name", CASES)
def test_both_stages_run_and_leave_the_model_as_it_was(name):
    model, clip, family = small(name)
    before = {k: v.clone() for k, v in model.model.state_dict().items()}
    objects, samples = stages(model, clip)
    assert samples.shape == (1, *family.latent) and torch.isfinite(samples).all()
    assert objects.noise.shape == (1, *family.latent)
    for run in objects.runs:
        energies = {s: [float(e) for t, _, e in run.energies if t == s] for s, _, _ in run.energies}
        falls = [e[-1] < e[0] for e in energies.values()]
        assert len(falls) >= 3 and all(falls), energies
        assert all(torch.isfinite(a).all() and a.shape[:2] == (4, 1) for a in run.attention.values())
        assert 0 < run.mask.float().mean() < 1
    after = model.model.state_dict()
    assert all(torch.equal(after[k], before[k]) for k in before)
    # Without guidance and without anything frozen, the composition is the stock sampler's own run from its noise.
    _, free = stages(model, clip, OFF, frozen=0.0)
    assert not torch.equal(free, samples)


@pytest.mark.parametrize("name", ["Flux 2", "Qwen-Image"])
def test_an_object_that_is_not_guided_is_the_stock_samplers_picture(name):
    model, clip, _ = small(name)
    objects, _ = stages(model, clip, OFF)
    run = objects.runs[0]
    encode = nodes.CLIPTextEncode()
    from ella_lmd.lmd.prompts import object_negative

    conds = encode.encode(clip, run.item.prompt)[0], encode.encode(clip, object_negative(LAYOUT, True))[0]
    latent = {"samples": torch.zeros_like(run.noise)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("comfy.sample.prepare_noise", lambda *_: run.noise)
        plain = nodes.common_ksampler(model, 3, 4, 3.0, "euler", "simple", *conds, latent)[0]["samples"]
    torch.testing.assert_close(run.result, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["Flux", "Anima"])
def test_frozen_cells_are_the_objects_own_at_the_same_noise(name):
    """With everything frozen to the end, the composed latent is each object's result where its mask is."""
    model, clip, _ = small(name)
    one = replace(LAYOUT, objects=LAYOUT.objects[:1])
    options = replace(TWICE, centre=False, align=False)
    objects, samples = stages(model, clip, options, layout=one, frozen=1.0)
    (run,) = objects.runs
    latent = run.latents[-1, 0]
    inside = samples[0][..., run.mask[0]]
    torch.testing.assert_close(inside, latent[..., run.mask[0]], rtol=1e-4, atol=1e-4)


def test_objects_at_once_and_batches_are_as_one_by_one():
    model, clip, _ = small("Z-Image")
    together, _ = stages(model, clip, replace(TWICE, objects_at_once=2), batch=2)
    alone, _ = stages(model, clip, replace(TWICE, objects_at_once=1), batch=2)
    for a, b in zip(together.runs, alone.runs, strict=True):
        torch.testing.assert_close(a.result, b.result, rtol=1e-3, atol=1e-3)
        assert a.result.shape[0] == 2


def test_a_model_whose_attention_cannot_be_read_composes_by_boxes_without_guidance(caplog):
    config = {"hidden_size": 64, "num_attention_heads": 4, "num_layers": 2, "ffn_hidden_size": 64, "in_channels": 4,
              "out_channels": 4, "text_in_dim": 64, "rope_axes_dim": (4, 6, 6)}  # fmt: skip
    model = transformer_models.model(Family("ErnieImage", config, (4, 16, 16), width=64))
    clip = text_encoder("Qwen-Image")
    with pytest.raises(UnsupportedModel, match="ErnieImageModel cannot be reached"):
        stages(model, clip)
    with caplog.at_level(logging.WARNING):
        objects, samples = stages(model, clip, OFF)
    assert "masks are their boxes" in caplog.text and torch.isfinite(samples).all()
    boxes = LMDObjectMasks.execute(objects, "box", 0.25).args[0]
    assert all(torch.equal(a.mask, b.mask) for a, b in zip(objects.runs, boxes.runs, strict=True))


@pytest.mark.parametrize("name", ["Flux", "Wan"])
def test_the_recorder_sees_each_phrase_at_each_step_and_changes_nothing(name):
    model, clip, family = small(name)
    patched, positive, record = LMDAttentionRecorder.execute(model, clip, LAYOUT).args
    assert isinstance(record, AttentionRecord)
    negative = nodes.CLIPTextEncode().encode(clip, "blurry")[0]

    def sample(m):
        latent = {"samples": torch.zeros(2, *family.latent)}
        return nodes.common_ksampler(m, 1, 3, 3.0, "euler", "simple", positive, negative, latent)[0]["samples"]

    assert torch.equal(sample(patched), sample(model))
    assert [look.step for look in record.looks] == [1, 2, 3]
    assert all(look.maps.shape[:2] == (2, 2) and torch.isfinite(look.maps).all() for look in record.looks)
