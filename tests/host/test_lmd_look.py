"""What LMD shows of itself: recorded attention, contact sheets, energies per object, previews while it runs."""

import logging

import comfy.utils
import latent_preview
import pytest
import torch
from comfy.cli_args import LatentPreviewMethod, args
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.sampling.guidance import GuidanceOptions
from ella_lmd.lmd.sampling.options import LMDOptions, SamplingSettings
from ella_lmd.nodes import lmd_compose, lmd_guidance, lmd_inspect, lmd_sample
from ella_lmd.nodes.host.guidance.attention import COND, add_patches, probabilities, resolve_layers
from ella_lmd.nodes.host.guidance.attention_recorder import recorded
from ella_lmd.nodes.host.guidance.guide import EnergyTrace, guidance_target, patch_guidance
from ella_lmd.nodes.host.lmd import overall_stage, run_cache

import nodes

LAYOUT = Layout(
    128,
    128,
    (
        LayoutObject("a red circle", Box(0.05, 0.3, 0.4, 0.5)),
        LayoutObject("a blue star", Box(0.55, 0.3, 0.4, 0.5)),
        LayoutObject("a red circle", Box(0.4, 0.02, 0.2, 0.2)),
    ),
    background="a photo of a grass scene",
)
SETTINGS = SamplingSettings(seed=3, steps=5, cfg=5.0, sampler="ddim", scheduler="ddim_uniform", batch=2)
TWICE = GuidanceOptions(loss_scale=2.0, loss_threshold=0.0, max_index_step=50, max_iter=(2,))
OPTIONS = LMDOptions(guidance=TWICE)


@pytest.fixture(autouse=True)
def empty_cache():
    run_cache.OBJECT_RUNS.clear()


def sample(model, positive, clip, sampler="euler", steps=4, batch=2):
    negative = nodes.CLIPTextEncode().encode(clip, "blurry")[0]
    latent = {"samples": torch.zeros(batch, 4, 16, 16)}
    return nodes.common_ksampler(model, 5, steps, 5.0, sampler, "normal", positive, negative, latent)[0]["samples"]


@pytest.fixture(scope="module")
def two_stages(demo):
    """(objects, recorded attention, latent) of both stages with the recorder before the composer."""
    with torch.inference_mode():
        model, clip, _ = demo
        objects = overall_stage.sample_objects(model, clip, LAYOUT, SETTINGS, OPTIONS)
        watched, _, record = recorded(model, clip, LAYOUT)
        latent, trace, _ = overall_stage.compose_and_sample(watched, clip, objects)
        return objects, record, latent, trace


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "heun", "uni_pc"])
def test_recording_changes_nothing_and_sees_every_step(demo, sampler):
    model, clip, _ = demo
    watched, positive, record = recorded(model, clip, LAYOUT)
    before = model.model_options["transformer_options"].get("patches_replace")
    assert torch.equal(sample(watched, positive, clip, sampler), sample(model, positive, clip, sampler))
    assert [look.step for look in record.looks] == [1, 2, 3, 4] and record.steps == 4
    assert record.phrases == ("a blue star", "two red circles") and record.numbers == ((2,), (1, 3))
    assert all(look.maps.shape[:2] == (2, 2) and torch.isfinite(look.maps).all() for look in record.looks)
    assert model.model_options["transformer_options"].get("patches_replace") == before


def test_the_recorded_maps_are_the_models_own_probabilities(demo):
    """Against a plain patch that looks at the positive half of the batch itself, step by step."""
    model, clip, _ = demo
    target, positive = guidance_target(clip, LAYOUT, "")
    layers = resolve_layers("auto", model.model.diffusion_model)
    seen = {layer: [] for layer in layers}

    def make(layer, previous):
        def replace(q, k, v, extra_options):
            marks = extra_options["cond_or_uncond"]
            i = marks.index(COND)
            own = probabilities(q.chunk(len(marks))[i], k.chunk(len(marks))[i], extra_options["n_heads"])
            size = extra_options["activations_shape"][-2:]
            seen[layer].append(own.mean(1)[..., list(target.objects[1].positions)].mean(-1).unflatten(-1, tuple(size)))
            from comfy.ldm.modules.attention import optimized_attention

            return optimized_attention(q, k, v, heads=extra_options["n_heads"])

        return replace

    patched = model.clone()
    add_patches(patched.model_options["transformer_options"], layers, make)
    sample(patched, positive, clip)
    watched, positive, record = recorded(model, clip, LAYOUT)
    sample(watched, positive, clip)
    largest = max(maps[0].shape[-1] for maps in seen.values())
    for step, look in enumerate(record.looks):
        own = [maps[step] for maps in seen.values()]
        fitted = [torch.nn.functional.interpolate(m[:, None], (largest, largest), mode="bilinear")[:, 0] for m in own]
        assert torch.allclose(look.maps[:, 1], torch.stack(fitted).mean(0), atol=1e-6)


def test_the_recorder_sees_the_composition_and_leaves_it_as_it_is(demo, two_stages):
    model, clip, _ = demo
    objects, record, latent, _ = two_stages
    plain, _, _ = overall_stage.compose_and_sample(model, clip, objects)
    assert torch.equal(latent, plain)
    assert len(record.looks) == SETTINGS.steps and record.looks[0].maps.shape[0] == 2


def test_guidance_raises_the_recorded_share_inside(demo):
    model, clip, _ = demo

    def share(base):
        watched, positive, record = recorded(base, clip, LAYOUT)
        sample(watched, positive, clip, steps=6)
        return sum(record.share_inside(look, b, p) for look in record.looks for b in (0, 1) for p in (0, 1))

    target, _ = guidance_target(clip, LAYOUT, "")
    assert share(patch_guidance(model, target, TWICE, EnergyTrace())) > share(model)


def test_the_latest_run_counts_and_a_second_one_starts_anew(demo):
    model, clip, _ = demo
    watched, positive, record = recorded(model, clip, LAYOUT)
    sample(watched, positive, clip, steps=6)
    first = [look.maps.clone() for look in record.looks]
    sample(watched, positive, clip, steps=3, batch=1)
    assert len(first) == 6 and len(record.looks) == 3 and record.looks[0].maps.shape[0] == 1


def test_another_prompt_records_nothing_and_says_why(demo, caplog):
    model, clip, _ = demo
    watched, _, record = recorded(model, clip, LAYOUT)
    other = nodes.CLIPTextEncode().encode(clip, "a photo of a red ring at night")[0]
    with caplog.at_level(logging.WARNING):
        ours = sample(watched, other, clip)
    assert "attention is not recorded" in caplog.text and record.looks == []
    assert torch.equal(ours, sample(model, other, clip))
    (sheet,) = lmd_inspect.LMDAttentionOverlay.execute(record, "film", 5).result
    assert sheet.shape[0] == 1


def test_without_objects_the_model_is_the_users_own(demo):
    model, clip, _ = demo
    same, _, record = recorded(model, clip, Layout(128, 128, (), "a photo of a grass scene"))
    assert same is model and record.phrases == ()


def test_a_combined_prompt_with_areas_is_recorded_where_the_prompt_is(demo):
    model, clip, _ = demo
    watched, positive, record = recorded(model, clip, LAYOUT)
    extra = nodes.CLIPTextEncode().encode(clip, "a green ring")[0]
    area = nodes.ConditioningSetArea().append(extra, 64, 64, 0, 0, 1.0)[0]
    sample(watched, area + positive, clip)
    both = [look.maps for look in record.looks]
    assert len(both) == 4
    watched, positive, record = recorded(model, clip, LAYOUT)
    sample(watched, positive, clip)
    assert torch.allclose(both[0], record.looks[0].maps, atol=1e-5), "the first step sees the same latent"


def test_every_picture_node_gives_one_image_per_batch_image(demo, two_stages):
    _, clip, vae = demo
    objects, record, latent, _ = two_stages
    images = vae.decode(latent)
    (sheets,) = lmd_inspect.LMDContactSheet.execute(objects, vae, images).result
    (overlay,) = lmd_inspect.LMDAttentionOverlay.execute(record, "sheet", 5, images).result
    (own,) = lmd_inspect.LMDAttentionOverlay.execute(objects, "sheet", 3, lmd_sample.decode(objects, vae)).result
    (film,) = lmd_inspect.LMDAttentionOverlay.execute(record, "film", 5, images).result
    assert [len(x) for x in (sheets, overlay, own, film)] == [2, 2, 2, SETTINGS.steps]
    for picture in (sheets, overlay, own, film):
        assert picture.dtype == torch.float32 and picture.shape[3] == 3 and 0 <= picture.min() < picture.max() <= 1
    assert not torch.equal(sheets[0], sheets[1]) and not torch.equal(film[0], film[-1])


def test_each_objects_energy_is_traced_and_their_mean_is_the_total(demo, two_stages):
    model, clip, _ = demo
    target, positive = guidance_target(clip, LAYOUT, "")
    trace = EnergyTrace()
    sample(patch_guidance(model, target, TWICE, trace), positive, clip)
    for found in (trace, two_stages[3]):
        assert found.phrases == ("a blue star", "two red circles") and len(found.parts) == len(found.rows) > 3
        for (_, _, energy), parts in zip(found.rows, found.parts):
            assert parts.shape == (2, 2) and torch.allclose(parts.mean(0), energy, atol=1e-5)
        curves, numbers = found.curves()
        assert [name for name, _ in curves] == ["all objects", "2 a blue star", "1, 3 two red circles"]
        assert numbers == [0, 2, 1]


def test_the_plots_name_every_object(demo, two_stages):
    model, clip, _ = demo
    with_objects = lmd_compose.LatentComposer.execute(model, clip, two_stages[0], 0.5).result[1]
    guided, positive, trace = lmd_guidance.LayoutGuidance.execute(
        model, clip, LAYOUT, "", 1.0, 0.0, 1.0, "reference"
    ).result
    sample(guided, positive, clip)
    assert trace.numbers == ((2,), (1, 3))
    assert [name for name, _ in trace.curves()[0]] == ["all objects", "2 a blue star", "1, 3 two red circles"]
    (plot,) = lmd_guidance.LMDEnergyPlot.execute(trace, None).result
    assert plot.shape[1:] == with_objects.shape[1:]


def test_both_stages_show_previews_after_every_step(demo, monkeypatch):
    """Through the host's previewer, also between guided steps; one picture per step and run, of the latent's shape."""
    model, clip, _ = demo
    monkeypatch.setattr(args, "preview_method", LatentPreviewMethod.Auto)
    shown = []

    def hook(value, total, preview, **kwargs):
        if preview is not None:
            shown.append((value, total, preview))

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    assert latent_preview.get_previewer(model.load_device, model.model.latent_format) is not None
    settings = SamplingSettings(seed=3, steps=5, cfg=5.0, sampler="ddim", scheduler="ddim_uniform")
    objects = overall_stage.sample_objects(model, clip, LAYOUT, settings, OPTIONS)
    first = list(shown)
    overall_stage.compose_and_sample(model, clip, objects)
    second = shown[len(first) :]
    assert all(r.energies for r in objects.runs), "the steps were guided"
    assert len(first) >= settings.steps and len(second) == settings.steps
    values = [value for value, _, _ in shown]
    assert values == sorted(values) and {total for _, total, _ in shown} == {(len(LAYOUT.objects) + 1) * settings.steps}
    for _, _, (kind, picture, _) in shown:
        assert kind == "JPEG" and picture.size == (16, 16)


def test_every_input_and_output_has_a_tooltip():
    for node in lmd_inspect.NODES:
        schema = node.GET_SCHEMA()
        assert schema.description and schema.search_aliases
        for item in schema.inputs + schema.outputs:
            assert item.tooltip, (schema.node_id, item.id or item.display_name)
