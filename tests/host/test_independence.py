"""Objects of one batch never influence each other: what is not known to be per image has them run one at a time."""

import logging
from dataclasses import replace

import comfy.hooks
import comfy.patcher_extension
import comfy.samplers
import pytest
import torch
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.sampling.guidance import GuidanceOptions
from ella_lmd.lmd.sampling.options import LMDOptions, SamplingSettings
from ella_lmd.nodes.host.ella.recompute import RecomputeOptions, patch_model
from ella_lmd.nodes.host.lmd import object_stage, run_cache
from ella_lmd.nodes.host.lmd.independence import hooks_per_image, not_per_image

LAYOUT = Layout(
    128,
    128,
    (LayoutObject("a red circle", Box(0.05, 0.35, 0.4, 0.55)), LayoutObject("a blue star", Box(0.55, 0.35, 0.4, 0.55))),
    background="a photo of grass",
)
SETTINGS = SamplingSettings(seed=7, steps=4, cfg=4.0, sampler="ddim", scheduler="ddim_uniform")
OPTIONS = LMDOptions(guidance=GuidanceOptions(loss_scale=0.5, loss_threshold=0.0, max_iter=(1,)))
DOWNSCALE = {
    "block_number": 3, "downscale_factor": 2.0, "start_percent": 0.0, "end_percent": 0.35,
    "downscale_after_skip": True, "downscale_method": "bicubic", "upscale_method": "bicubic",
}  # fmt: skip
PER_IMAGE = {
    "RescaleCFG": {"multiplier": 0.7},
    "FreeU": {"b1": 1.1, "b2": 1.2, "s1": 0.9, "s2": 0.2},
    "FreeU_V2": {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2},
    "PatchModelAddDownscale": DOWNSCALE,
    "PerturbedAttentionGuidance": {"scale": 2.0},
    "CFGZeroStar": {},
    "CFGNorm": {"strength": 1.0},
    "Epsilon Scaling": {"scaling_factor": 1.02},
    "ModelSamplingDiscrete": {"sampling": "eps", "zsnr": True},
}
MIXING = {
    "PerpNeg": {"neg_scale": 1.0},
    "Mahiro": {},
    "TomePatchModel": {"ratio": 0.3},
    "LazyCache": {"reuse_threshold": 0.2, "start_percent": 0.15, "end_percent": 0.95, "verbose": False},
    "TemporalScoreRescaling": {"tsr_k": 0.95, "tsr_sigma": 1.0},
    "RenormCFG": {"cfg_trunc": 100.0, "renorm_cfg": 1.0},
    "HyperTile": {"tile_size": 64, "swap_size": 2, "max_depth": 0, "scale_depth": False},
}


@pytest.fixture(autouse=True)
def empty_cache():
    run_cache.OBJECT_RUNS.clear()


@pytest.fixture
def batches(monkeypatch) -> list[int]:
    """How many objects each sampler run has from now on."""
    sizes = []
    original = object_stage.ObjectStage._together

    def counting(self, jobs):
        sizes.append(len(jobs))
        return original(self, jobs)

    monkeypatch.setattr(object_stage.ObjectStage, "_together", counting)
    return sizes


def objects_of(loaded, model, at_once):
    run_cache.OBJECT_RUNS.clear()
    return object_stage.sample_objects(model, loaded[1], LAYOUT, SETTINGS, replace(OPTIONS, objects_at_once=at_once))


def patched(loaded, extra_nodes, name, values):
    node = extra_nodes[name]
    if name == "PerpNeg":
        values = {**values, "empty_conditioning": loaded[1].encode_from_tokens_scheduled(loaded[1].tokenize(""))}
    if hasattr(node, "define_schema"):
        output = node.execute(model=loaded[0], **values)
        return getattr(output, "result", output)[0]
    return getattr(node(), node.FUNCTION)(model=loaded[0], **values)[0]


@pytest.mark.parametrize("name", PER_IMAGE)
def test_patches_that_are_known_to_be_per_image_keep_the_batch(demo, extra_nodes, batches, name):
    model = patched(demo, extra_nodes, name, PER_IMAGE[name])
    assert not_per_image(model) is None
    alone, together = objects_of(demo, model, 1), objects_of(demo, model, 2)
    assert batches == [1, 1, 2]
    for a, b in zip(alone.runs, together.runs):
        assert torch.allclose(a.result, b.result, atol=1e-3 * float(a.result.abs().max()))


@pytest.mark.parametrize("name", MIXING)
def test_patches_that_may_mix_a_batch_run_objects_alone_even_if_told_otherwise(
    demo, extra_nodes, batches, caplog, name
):
    model = patched(demo, extra_nodes, name, MIXING[name])
    with caplog.at_level(logging.INFO):
        found = objects_of(demo, model, 2)
    assert batches == [1, 1] and len(found.runs) == 2
    assert sum("run one at a time" in record.message for record in caplog.records) == 1


def test_a_lora_and_ella_keep_the_batch(demo):
    model = demo[0].clone()
    key = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    assert model.add_patches({key: ("diff", (torch.ones_like(model.model.state_dict()[key]) * 0.01,))})
    assert not_per_image(model) is None
    assert not_per_image(patch_model(model, RecomputeOptions())) is None


def unknown_models(base):
    """One MODEL for each place where a stranger's code can hang."""

    def stranger(*args, **kwargs):
        raise AssertionError("never called")

    wrappers, callbacks = comfy.patcher_extension.WrappersMP, comfy.patcher_extension.CallbacksMP
    places = {
        "cfg function": lambda m: m.set_model_sampler_cfg_function(stranger),
        "post cfg": lambda m: m.set_model_sampler_post_cfg_function(stranger),
        "pre cfg": lambda m: m.set_model_sampler_pre_cfg_function(stranger),
        "function wrapper": lambda m: m.set_model_unet_function_wrapper(stranger),
        "attention": lambda m: m.set_model_attn2_replace(stranger, "middle", 0),
        "attention output": lambda m: m.set_model_attn1_output_patch(stranger),
        "override": lambda m: m.model_options["transformer_options"].update(optimized_attention_override=stranger),
        "wrapper": lambda m: m.add_wrapper(wrappers.DIFFUSION_MODEL, stranger),
        "callback": lambda m: m.add_callback(callbacks.ON_PRE_RUN, stranger),
        "injection": lambda m: m.set_injections("x", [comfy.patcher_extension.PatcherInjection(stranger, stranger)]),
        "object": lambda m: m.add_object_patch("extra_conds", stranger),
        "sampling": lambda m: m.add_object_patch("model_sampling", type("Own", (), {})()),
        "module": lambda m: m.add_object_patch("diffusion_model.out", type("Own", (torch.nn.Sequential,), {})()),
        "context windows": lambda m: m.model_options.update(context_handler=type("Handler", (), {})()),
        "forced hooks": lambda m: setattr(m, "forced_hooks", hook_group()),
    }
    for place, change in places.items():
        model = base.clone()
        change(model)
        yield place, model


def hook_group():
    group = comfy.hooks.HookGroup()
    group.add(comfy.hooks.TransformerOptionsHook(transformers_dict={}))
    return group


def test_a_strangers_code_anywhere_on_the_model_is_seen(demo, monkeypatch):
    assert not_per_image(demo[0]) is None
    for place, model in unknown_models(demo[0]):
        assert not_per_image(model) is not None, place
    assert not hooks_per_image(hook_group()) and hooks_per_image(None)
    monkeypatch.setattr(comfy.samplers, "cfg_function", lambda *args, **kwargs: None)
    assert "ComfyUI's own cfg_function" in not_per_image(demo[0])


def test_a_changed_network_is_seen(demo):
    out = demo[0].model.diffusion_model.out
    handle = out.register_forward_hook(lambda *args: None)
    try:
        assert "changed forward" in not_per_image(demo[0])
    finally:
        handle.remove()
    assert not_per_image(demo[0]) is None
