"""LMD+: the host's GLIGEN adapter in both stages, on the tiny U-Net and adapter of the reference vectors' recipe."""

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import comfy.samplers
import pytest
import torch
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.prompts import overall_prompt
from ella_lmd.lmd.sampling.guidance import GuidanceOptions
from ella_lmd.lmd.sampling.options import PRESETS, SamplingSettings
from ella_lmd.nodes.host.guidance import grounding
from ella_lmd.nodes.host.guidance.guide import EnergyTrace, guidance_target, patch_guidance
from ella_lmd.nodes.host.lmd import object_stage, run_cache
from ella_lmd.nodes.host.lmd.overall_stage import box_slots, compose_and_sample
from ella_lmd.nodes.lmd_compose import LatentComposer
from ella_lmd.nodes.lmd_guidance import LayoutGuidance
from ella_lmd.nodes.lmd_options import LMDOptionsNode
from ella_lmd.nodes.lmd_sample import BoxGroundedSampler

import nodes

_spec = importlib.util.spec_from_file_location(
    "golden_lmd_plus_cases", Path(__file__).resolve().parents[1] / "golden" / "lmd_plus_cases.py"
)
cases = importlib.util.module_from_spec(_spec)
sys.modules["golden_lmd_plus_cases"] = cases
_spec.loader.exec_module(cases)

LAYOUT = Layout(
    128,
    128,
    (
        LayoutObject("a cat", Box(0.05, 0.3, 0.4, 0.5)),
        LayoutObject("a dog", Box(0.55, 0.3, 0.4, 0.5)),
        LayoutObject("a cat", Box(0.3, 0.02, 0.37, 0.23)),
    ),
    background="a photo of a garden",
)
SETTINGS = SamplingSettings(seed=7, steps=10, cfg=4.0, sampler="ddim", scheduler="ddim_uniform")
PLUS = replace(
    PRESETS["lmd+"],
    guidance=GuidanceOptions(loss_scale=0.5, loss_threshold=0.0, max_iter=(1,)),
    object_guidance=GuidanceOptions(loss_scale=0.5, loss_threshold=0.0, max_iter=(1,), max_index_step=30),
)


@pytest.fixture(autouse=True)
def empty_cache():
    run_cache.OBJECT_RUNS.clear()


@pytest.fixture(scope="module")
def tiny():
    with torch.inference_mode():
        return cases.tiny()


def sampled(tiny, layout=LAYOUT, settings=SETTINGS, options=PLUS, gligen=True):
    run_cache.OBJECT_RUNS.clear()
    return object_stage.sample_objects(
        tiny[0], tiny[2], layout, settings, options, gligen=tiny[1] if gligen else None
    )  # fmt: skip


@pytest.fixture
def calls(monkeypatch):
    """(sigma, a guided pass?, rows, tokens or None) of every call of the U-Net."""
    seen = []
    original = grounding._fuse

    def forward(adapter, share, executor, x, timesteps, *args, **kwargs):
        options = args[3]
        on = grounding.is_on(share, options)
        tokens = kwargs.get(grounding.KEY)
        seen.append((float(options["sigmas"][0]), bool(options.get(grounding.GUIDED_PASS)), len(x), on, tokens))
        return wrapped(adapter, share, executor, x, timesteps, *args, **kwargs)

    fused = []
    monkeypatch.setattr(grounding, "_fuse", lambda *args: (fused.append(args[1]), original(*args))[1])
    wrapped = grounding._forward
    monkeypatch.setattr(grounding, "_forward", forward)
    return SimpleNamespace(seen=seen, fused=fused)


@pytest.mark.parametrize("sampler", ["ddim", "heun", "dpmpp_2m", "dpm_2_ancestral", "uni_pc"])
def test_the_fusers_are_on_in_the_first_four_tenths_of_the_steps(tiny, calls, sampler):
    settings = replace(SETTINGS, sampler=sampler, scheduler="normal")
    objects = sampled(tiny, replace(LAYOUT, objects=LAYOUT.objects[:1]), settings)
    sigmas = objects.sigmas
    on = {sigma for sigma, _, _, on, _ in calls.seen if on}
    off = {sigma for sigma, _, _, on, _ in calls.seen if not on}
    assert min(on) > sigmas[4] * (1 + 1e-4) and max(off) <= sigmas[4] * (1 + 1e-4)
    assert all(any(abs(s - sigma) < 1e-3 * s for sigma in on) for s in sigmas[:4])
    guided = [(sigma, on) for sigma, guided, _, on, _ in calls.seen if guided]
    assert guided and all(on == (sigma > sigmas[4] * (1 + 1e-4)) for sigma, on in guided)


def test_a_fast_run_counts_its_own_steps(tiny, calls):
    objects = sampled(tiny, replace(LAYOUT, objects=LAYOUT.objects[:1]), options=replace(PLUS, fast_schedule=True))
    count = len(objects.sigmas) - 1
    assert count == 8
    ordinary = [on for _, guided, _, on, _ in calls.seen if not guided]
    assert ordinary == [True] * 3 + [False] * 5


def test_every_row_sees_its_own_boxes_and_guided_passes_none(tiny, calls):
    adapter = grounding.Adapter(tiny[1])
    objects = sampled(tiny, settings=replace(SETTINGS, steps=4), options=replace(PLUS, objects_at_once=3))
    compose_and_sample(tiny[0], tiny[2], objects, gligen=tiny[1])
    together = next(tokens for _, guided, rows, _, tokens in calls.seen if not guided and rows == 6)
    assert len({row.numpy().tobytes() for row in together}) == 4, "three boxes, and null tokens in the negative half"
    null = adapter.null[0]
    assert sum(torch.allclose(row, null, atol=1e-6) for row in together) == 3
    for tokens in calls.fused:
        if torch.is_tensor(tokens) and len(tokens) in (1, 3):  # passes of the positive half alone are guided ones
            assert all(torch.allclose(row, null, atol=1e-6) for row in tokens)


def test_objects_together_are_as_one_by_one_and_come_from_the_cache(tiny, monkeypatch):
    few = replace(SETTINGS, steps=4)
    alone = sampled(tiny, settings=few, options=replace(PLUS, objects_at_once=1))
    sizes = []
    original = object_stage.ObjectStage._together
    monkeypatch.setattr(
        object_stage.ObjectStage, "_together", lambda self, jobs: (sizes.append(len(jobs)), original(self, jobs))[1]
    )
    together = sampled(tiny, settings=few, options=replace(PLUS, objects_at_once=3))
    assert sizes == [3]
    for a, b in zip(alone.runs, together.runs):
        assert torch.allclose(a.result, b.result, atol=1e-3 * float(a.result.abs().max()))
        assert len(a.energies) == len(b.energies) > 0

    def again(layout=LAYOUT, gligen=tiny[1], options=PLUS):
        sizes.clear()
        return object_stage.sample_objects(tiny[0], tiny[2], layout, few, options, gligen=gligen)

    assert again().runs[0].result is together.runs[0].result and not sizes
    moved = replace(LAYOUT.objects[1], box=Box(0.5, 0.25, 0.4, 0.5))
    again(replace(LAYOUT, objects=(LAYOUT.objects[0], moved, LAYOUT.objects[2])))
    assert sizes == [1], "only the box that moved"
    again(options=replace(PLUS, gligen_share=0.5))
    assert sum(sizes) == 3
    again(gligen=None, options=replace(PLUS, needs_gligen=False))
    assert sum(sizes) == 3


def test_a_share_of_0_is_plain_lmd_bit_for_bit_and_the_adapter_is_left_as_it_was(tiny):
    before = {k: v.clone() for k, v in tiny[1].model.state_dict().items()}
    off = replace(PLUS, gligen_share=0.0, needs_gligen=False)
    layout, few = replace(LAYOUT, objects=LAYOUT.objects[:2]), replace(SETTINGS, steps=4)
    plain, grounded = (sampled(tiny, layout, few, off, gligen) for gligen in (False, True))
    for a, b in zip(plain.runs, grounded.runs):
        assert torch.equal(a.latents, b.latents) and torch.equal(a.result, b.result)
    composed = [compose_and_sample(tiny[0], tiny[2], plain, gligen=g)[0] for g in (None, tiny[1])]
    assert torch.equal(*composed)
    on = compose_and_sample(tiny[0], tiny[2], replace(plain, options=replace(off, gligen_share=0.4)), gligen=tiny[1])[0]
    assert (on - composed[0]).abs().max() > 1e-3
    assert all(torch.equal(v, before[k]) for k, v in tiny[1].model.state_dict().items())


def test_what_cannot_be_grounded_is_refused_in_words(tiny, sd15):
    many = replace(LAYOUT, objects=tuple(LayoutObject("a cat", Box(0.03 * i, 0.1, 0.1, 0.1)) for i in range(31)))
    inputs = {"seed": 1, "steps": 2, "cfg": 4.0, "sampler_name": "ddim", "scheduler": "ddim_uniform", "preset": "lmd+"}
    with pytest.raises(ValueError, match="at most 30 boxes, the layout has 31"):
        BoxGroundedSampler.execute(tiny[0], tiny[2], many, gligen=tiny[1], **inputs)
    with pytest.raises(ValueError, match="needs the input gligen.*GLIGENLoader"):
        BoxGroundedSampler.execute(tiny[0], tiny[2], LAYOUT, **inputs)
    with pytest.raises(ValueError, match="does not fit this model: it has 16 layers"):
        BoxGroundedSampler.execute(sd15[0], sd15[1], LAYOUT, gligen=tiny[1], **inputs)
    with pytest.raises(ValueError, match="not a GLIGEN adapter"):
        BoxGroundedSampler.execute(tiny[0], tiny[2], LAYOUT, gligen=tiny[0], **inputs)
    with pytest.raises(ValueError, match="no layers that ComfyUI knows"):
        empty = grounding.comfy.gligen.Gligen([], tiny[1].model.position_net, 768)
        BoxGroundedSampler.execute(tiny[0], tiny[2], LAYOUT, gligen=SimpleNamespace(model=empty), **inputs)
    objects = sampled(tiny, replace(LAYOUT, objects=LAYOUT.objects[:1]), replace(SETTINGS, steps=2))
    with pytest.raises(ValueError, match="needs the input gligen"):
        LatentComposer.execute(tiny[0], tiny[2], objects, 0.5)
    twice = [[torch.zeros(1, 77, 768), {"gligen": ("position", tiny[1], [])}]]
    with pytest.raises(ValueError, match="GLIGENTextBoxApply"):
        LatentComposer.execute(tiny[0], tiny[2], objects, 0.5, positive_override=twice, gligen=tiny[1])


def test_the_nodes_run_the_published_preset(tiny):
    objects, _, _ = BoxGroundedSampler.execute(
        tiny[0], tiny[2], LAYOUT, 1, 4, 4.0, "euler", "normal", "lmd+", gligen=tiny[1]
    ).args
    assert [run.box for run in objects.runs] == [run.item.box for run in objects.runs]
    assert all(not run.energies for run in objects.runs)
    latent = LatentComposer.execute(tiny[0], tiny[2], objects, 0.5, gligen=tiny[1]).args[0]
    assert torch.isfinite(latent["samples"]).all()


def test_half_precision_weights_beside_full_precision_cells(tiny):
    import copy

    half = copy.deepcopy(tiny[1].model).half()
    network = SimpleNamespace(module_list=half.module_list)
    x = torch.randn(1, 16, 32, generator=torch.Generator().manual_seed(1))
    options = {"transformer_index": 0, "attn_precision": None}
    found = grounding._fuse(network, grounding.Adapter(tiny[1]).null, x, options)
    expected = grounding._fuse(tiny[1].model, grounding.Adapter(tiny[1]).null, x, options)
    assert found.dtype == torch.float32 and torch.allclose(found, expected, atol=2e-2)


class Recorder:
    """Per call of the U-Net: its sigma, whether it is a guided pass, and how many fusers took part, seen from below."""

    def __init__(self, tiny):
        self.calls, self._hooks = [], []
        self._model, self._adapter = tiny[0].model.diffusion_model, tiny[1].model

    def __enter__(self):
        def called(_module, _args, kwargs):
            options = kwargs["transformer_options"]
            self.calls.append([float(options["sigmas"][0]), bool(options.get(grounding.GUIDED_PASS)), 0])

        def fused(*_):
            self.calls[-1][2] += 1

        self._hooks = [self._model.register_forward_pre_hook(called, with_kwargs=True)]
        self._hooks += [f.linear.register_forward_hook(fused) for f in self._adapter.module_list]
        return self

    def __exit__(self, *_):
        for hook in self._hooks:
            hook.remove()


def conditionings(tiny):
    return [nodes.CLIPTextEncode().encode(tiny[2], text)[0] for text in (overall_prompt(LAYOUT).prompt, "blurry")]


def guided_run(tiny, model, sampler="euler", steps=5, denoise=0.5, seed=3):
    positive, negative = conditionings(tiny)
    latent = {"samples": torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))}
    how = (model, seed, steps, 4.0, sampler, "normal", positive, negative, latent)
    return nodes.common_ksampler(*how, denoise=denoise)[0]["samples"]


def layout_guidance(tiny, strength=1.0, share=0.4, layout=LAYOUT, gligen=True, guidance=PLUS.guidance):
    options = replace(PLUS, gligen_share=share, needs_gligen=False, guidance=guidance)
    inputs = (tiny[0], tiny[2], layout, "", strength, 0.0, 1.0, "reference", options, tiny[1] if gligen else None)
    return LayoutGuidance.execute(*inputs).args[0]


ALONG = GuidanceOptions(loss_scale=0.5, loss_threshold=0.0, max_iter=(1,), max_index_step=50)


@pytest.mark.parametrize("sampler", [s for s in comfy.samplers.KSampler.SAMPLERS if s != "dpm_adaptive"])
def test_the_fusers_are_on_in_the_published_steps_of_every_sampler_below_full_denoise(tiny, sampler):
    """Two of five steps, by the run's own sigmas; a call between two of them belongs to the step that it is made in."""
    sigmas = comfy.samplers.KSampler(tiny[0], 5, "cpu", sampler, "normal", 0.5).sigmas.tolist()
    with Recorder(tiny) as recorder:
        guided_run(tiny, layout_guidance(tiny, guidance=ALONG), sampler)
    on = {step: set() for step in range(5)}
    for sigma, _, fusers in recorder.calls:
        on[max(i for i in range(5) if sigma <= sigmas[i] * (1 + 1e-3))].add(fusers > 0)
    seen = [on[step] for step in range(5) if on[step]]
    assert seen == [{True}] * 2 + [{False}] * (len(seen) - 2) and len(seen) >= 4, (sampler, on)
    assert {fusers for _, guided, fusers in recorder.calls if fusers and not guided} == {16}
    assert any(guided and fusers for _, guided, fusers in recorder.calls), "guided passes see the adapter too"


@pytest.mark.parametrize("sampler", ["ddim", "heun", "seeds_3"])
def test_a_fast_run_counts_its_own_steps_whatever_the_calls_in_them(tiny, sampler):
    settings, layout = replace(SETTINGS, sampler=sampler), replace(LAYOUT, objects=LAYOUT.objects[:1])
    with Recorder(tiny) as recorder:
        objects = sampled(tiny, layout, settings, replace(PLUS, fast_schedule=True))
    assert len(objects.sigmas) - 1 == 8
    for sigma, _, fusers in recorder.calls:
        assert (fusers > 0) == (sigma > objects.sigmas[3] * (1 + 1e-4))
    assert sum(fusers > 0 for _, guided, fusers in recorder.calls if not guided) >= 3


@pytest.mark.parametrize("sampler", ["euler", "heun", "seeds_3"])
def test_an_adapter_that_is_always_off_changes_no_bit_below_full_denoise(tiny, sampler):
    plain = guided_run(tiny, layout_guidance(tiny, gligen=False, guidance=ALONG), sampler, steps=3)
    assert layout_guidance(tiny, strength=0.0, share=0.0) is tiny[0]
    off = tiny[0].clone()
    grounding.Adapter(tiny[1]).ground_runs(off, [], 0.0)
    guided = patch_guidance(off, guidance_target(tiny[2], LAYOUT, "")[0], ALONG, EnergyTrace())
    assert torch.equal(guided_run(tiny, guided, sampler, steps=3), plain)
    on = guided_run(tiny, layout_guidance(tiny, guidance=ALONG), sampler, steps=3)
    assert not torch.equal(on, plain)


def test_layout_guidance_grounds_any_run_as_grounded_conditionings_do(tiny):
    """With strength 0 it is GLIGEN alone, whose published runs the reference vectors hold; in one call a step."""
    adapter = grounding.Adapter(tiny[1])
    positive, negative = conditionings(tiny)
    by_hand = tiny[0].clone()
    adapter.patch(by_hand, 0.4)
    grounded = [adapter.ground(positive, box_slots(tiny[2], LAYOUT)), adapter.ground(negative)]
    latent = {"samples": torch.zeros(1, 4, 16, 16)}
    wanted = nodes.common_ksampler(by_hand, 3, 4, 4.0, "euler", "normal", *grounded, latent)[0]["samples"]
    alone = layout_guidance(tiny, strength=0.0)
    with Recorder(tiny) as recorder:
        found = nodes.common_ksampler(alone, 3, 4, 4.0, "euler", "normal", positive, negative, latent)[0]["samples"]
    assert torch.equal(found, wanted) and len(recorder.calls) == 4
    plain = nodes.common_ksampler(tiny[0], 3, 4, 4.0, "euler", "normal", positive, negative, latent)[0]["samples"]
    assert (found - plain).abs().max() > 1e-3
    assert layout_guidance(tiny, strength=0.0, layout=replace(LAYOUT, objects=())) is tiny[0]


def test_layout_guidance_refuses_what_cannot_be_grounded(tiny, sd15):
    many = replace(LAYOUT, objects=tuple(LayoutObject("a cat", Box(0.03 * i, 0.1, 0.1, 0.1)) for i in range(31)))
    with pytest.raises(ValueError, match="at most 30 boxes, the layout has 31"):
        layout_guidance(tiny, layout=many)
    with pytest.raises(ValueError, match="does not fit this model"):
        layout_guidance((sd15[0], tiny[1], sd15[1]))
    twice = [[torch.zeros(1, 77, 768), {"gligen": ("position", tiny[1], [])}]]
    latent = {"samples": torch.zeros(1, 4, 16, 16)}
    with pytest.raises(ValueError, match="GLIGENTextBoxApply"):
        nodes.common_ksampler(layout_guidance(tiny), 3, 1, 4.0, "euler", "normal", twice, twice, latent)


def test_the_options_say_whether_objects_are_guided_and_for_how_long_gligen_acts():
    inputs = {i.id: i.default for i in LMDOptionsNode.define_schema().inputs}
    made = LMDOptionsNode.execute(**inputs | {"guide_objects": False, "gligen_share": 0.25}).args[0]
    assert made.gligen_share == 0.25 and made.object_guidance == PRESETS["lmd+"].object_guidance
    assert not made.object_guidance.guides
    assert LMDOptionsNode.execute(**inputs).args[0] == PRESETS["reference"]


def test_the_reference_vectors(golden):
    check = Path(__file__).resolve().parents[1] / "golden" / "check.py"
    result = subprocess.run([sys.executable, check, golden / "lmd_plus"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
