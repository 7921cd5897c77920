"""One object's own LoRA, words, seed and conditioning: they reach its run as if it were alone, and no other's."""

from dataclasses import replace

import comfy.patcher_extension
import folder_paths
import pytest
import torch
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.object_settings import ObjectLora, ObjectSettings
from ella_lmd.lmd.sampling.guidance import GuidanceOptions
from ella_lmd.lmd.sampling.masks import rasterised
from ella_lmd.lmd.sampling.object_runs import ObjectRuns
from ella_lmd.lmd.sampling.options import LMDOptions, SamplingSettings
from ella_lmd.nodes.host.guidance import masked_lora
from ella_lmd.nodes.host.lmd import object_stage, overall_stage, run_cache
from ella_lmd.nodes.host.lmd.object_loras import in_composition
from ella_lmd.nodes.lmd_objects import LMDObjectSettings
from safetensors.torch import save_file

import nodes

SETTINGS = SamplingSettings(seed=5, steps=2, cfg=4.0, sampler="ddim", scheduler="ddim_uniform")
LAYOUT = Layout(
    128, 128,
    tuple(LayoutObject(p, Box(x, 0.3, 0.3, 0.4)) for p, x in
          (("a red circle", 0.0), ("a blue star", 0.35), ("a pink heart", 0.7))),
    background="a park",
)  # fmt: skip
LORA = "test_object.safetensors"


@pytest.fixture(autouse=True)
def empty_cache():
    run_cache.OBJECT_RUNS.clear()


@pytest.fixture(scope="module", autouse=True)
def lora(demo, tmp_path_factory):
    """A rank-2 LoRA for the demo model's U-Net and for its text encoder."""
    folder = tmp_path_factory.mktemp("loras")
    folder_paths.add_model_folder_path("loras", str(folder))
    generator, state = torch.Generator().manual_seed(0), {}
    layers = {f"diffusion_model.{n}": m for n, m in demo[0].model.diffusion_model.named_modules()
              if isinstance(m, torch.nn.Linear) and masked_lora.kind_of(n)}  # fmt: skip
    text = demo[1].cond_stage_model.clip_l.transformer.text_model.encoder.layers[0].self_attn.q_proj
    layers["text_encoders.clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj"] = text
    for name, m in layers.items():
        state[f"{name}.lora_A.weight"] = torch.randn(2, m.weight.shape[1], generator=generator) * 0.1
        state[f"{name}.lora_B.weight"] = torch.randn(m.weight.shape[0], 2, generator=generator)
    save_file(state, folder / LORA)
    save_file({"other.lora_A.weight": torch.ones(2, 7)}, folder / "test_stranger.safetensors")


def given(layout, who, lora_name="none", strength=1.0, clip_strength=1.0, words="", negative="", guidance=1.0,
          start=0.0, end=1.0, seed=-1, frozen=True, conditioning=None):  # fmt: skip
    return LMDObjectSettings.execute(
        layout,
        who,
        lora_name,
        strength,
        clip_strength,
        words,
        negative,
        guidance,
        start,
        end,
        seed,
        frozen,
        conditioning,
    ).args


def sample(demo, layout, at_once=1):
    """The objects, by default one at a time: in batches, an object's last digits depend on the batch's size."""
    options = LMDOptions(guidance=GuidanceOptions(loss_scale=0.5, loss_threshold=0.0, max_iter=(2,)))
    return object_stage.sample_objects(*demo[:2], layout, SETTINGS, replace(options, objects_at_once=at_once))


def by_name(objects):
    return {run.item.phrase: run for run in objects.runs}


def equal(a, b):
    return torch.equal(a.latents, b.latents) and torch.equal(a.mask, b.mask) and torch.equal(a.result, b.result)


def test_settings_are_for_the_named_object_and_unknown_names_list_the_phrases():
    layout, prompt = given(LAYOUT, "A blue  star", LORA, words="shiny")
    assert [bool(o.settings.loras) for o in layout.objects] == [False, True, False]
    assert prompt == "a park with a blue star, shiny"
    assert given(layout, "2", words="big")[0].objects[1].settings.words == "shiny, big"
    assert given(LAYOUT, "3")[0] == LAYOUT
    with pytest.raises(ValueError, match="'a cow'.*1 a red circle; 2 a blue star; 3 a pink heart"):
        given(LAYOUT, "a cow")


@pytest.mark.parametrize(
    "own",
    [
        {"lora_name": LORA},
        {"lora_name": LORA, "strength": 0.0},
        {"words": "shiny"},
        {"negative": "stripes"},
        {"guidance": 0.0},
        {"end": 0.0},
        {"seed": 9},
    ],
    ids=lambda own: "+".join(own),
)
def test_settings_of_one_object_leave_the_others_bit_identical(demo, own):
    plain = by_name(sample(demo, LAYOUT))
    layout = given(LAYOUT, "a blue star", **own)[0]
    run_cache.OBJECT_RUNS.clear()
    runs = by_name(sample(demo, layout))
    assert equal(runs["a red circle"], plain["a red circle"]) and equal(runs["a pink heart"], plain["a pink heart"])
    assert not equal(runs["a blue star"], plain["a blue star"])
    run_cache.OBJECT_RUNS.clear()
    together = by_name(sample(demo, layout, at_once=3))
    assert all(torch.allclose(runs[name].result, together[name].result, atol=2e-3) for name in runs)


def test_an_objects_lora_is_the_lora_loaded_normally_and_leaves_the_model(demo):
    model, clip, _ = demo
    before = {k: v.clone() for k, v in model.model.state_dict().items()}
    normal = nodes.LoraLoader().load_lora(model, clip, LORA, 0.7, 0.4)
    expected = by_name(sample((*normal, None), LAYOUT))
    run_cache.OBJECT_RUNS.clear()
    runs = by_name(sample(demo, given(LAYOUT, "2", LORA, 0.7, 0.4)[0]))
    assert equal(runs["a blue star"], expected["a blue star"])
    sample(demo, LAYOUT)
    assert all(torch.equal(v, before[k]) for k, v in model.model.state_dict().items())


def test_the_cache_knows_settings_by_value(demo, monkeypatch):
    sampled = []
    original = object_stage.ObjectStage._together
    monkeypatch.setattr(
        object_stage.ObjectStage, "_together",
        lambda self, jobs: sampled.extend(j.item.phrase for j in jobs) or original(self, jobs),
    )  # fmt: skip
    layout = given(given(LAYOUT, "1", LORA)[0], "2", seed=4, negative="stripes")[0]
    sample(demo, layout)
    assert sorted(sampled) == ["a blue star", "a pink heart", "a red circle"]
    sampled.clear()
    sample(demo, Layout.from_json(layout.to_json()))
    assert sampled == []
    for change in (
        given(layout, "1", LORA, 0.5)[0],
        given(layout, "1", guidance=2.0)[0],
        given(layout, "1", end=0.5)[0],
    ):
        sample(demo, change)
        assert sampled.pop() == "a red circle" and not sampled


def test_objects_of_equal_settings_run_together(demo, monkeypatch):
    together = []
    original = object_stage.ObjectStage._together
    monkeypatch.setattr(
        object_stage.ObjectStage, "_together",
        lambda self, jobs: together.append({j.item.number for j in jobs}) or original(self, jobs),
    )  # fmt: skip
    sample(demo, given(given(given(LAYOUT, "1", LORA)[0], "3", LORA)[0], "2", seed=4)[0], at_once=3)
    assert together == [{2}, {1, 3}]
    together.clear()
    run_cache.OBJECT_RUNS.clear()
    sample(demo, given(given(LAYOUT, "1", guidance=0.5)[0], "2", seed=4)[0], at_once=3)
    assert together == [{1, 2, 3}]


def test_a_conditioning_of_its_own_must_be_of_its_prompt_and_there(demo):
    clip = demo[1]
    layout, prompt = given(LAYOUT, "2", words="shiny")
    own = nodes.CLIPTextEncode().encode(clip, prompt)[0]
    same = by_name(sample(demo, layout))
    layout = given(layout, "2", conditioning=own)[0]
    run_cache.OBJECT_RUNS.clear()
    assert equal(by_name(sample(demo, layout))["a blue star"], same["a blue star"])
    with pytest.raises(ValueError, match='object 2, "a blue star", has a conditioning.*LMD Object Settings'):
        sample(demo, Layout.from_json(layout.to_json()))
    other = nodes.CLIPTextEncode().encode(clip, "a green moon")[0]
    with pytest.raises(ValueError, match='not made from its own prompt: encode "a park with a blue star, shiny"'):
        sample(demo, given(layout, "2", conditioning=other)[0])


def test_a_lora_that_is_gone_or_for_another_model_is_named(demo):
    missing = replace(LAYOUT.objects[0], settings=ObjectSettings((ObjectLora("gone.safetensors"),)))
    with pytest.raises(ValueError, match="gone.safetensors.*not one of its choices"):
        sample(demo, replace(LAYOUT, objects=(missing,)))
    with pytest.raises(ValueError, match="test_stranger.safetensors is not a LoRA for this model.*LMD Object Settings"):
        sample(demo, given(LAYOUT, "1", "test_stranger.safetensors")[0])


def test_an_object_that_is_not_frozen_is_redrawn(demo):
    objects = sample(demo, given(LAYOUT, "2", frozen=False)[0])
    masks = [overall_stage.compose_runs(o).mask for o in (objects, sample(demo, LAYOUT))]
    gone = masks[1] & ~masks[0]
    star = by_name(objects)["a blue star"]
    assert gone.any() and int(gone.sum()) <= int(star.mask.sum()) and not (masks[0] & ~masks[1]).any()


def compose(demo, objects):
    return overall_stage.compose_and_sample(*demo[:2], objects)[0]


def test_the_composition_has_each_lora_at_its_objects_words_and_in_its_box(demo):
    model, clip, _ = demo
    layout = given(given(LAYOUT, "2", LORA, 0.7, 0.4, words="shiny")[0], "1", LORA, 1.0, 0.0)[0]
    texts = overall_stage.overall_texts(clip, ObjectRuns(layout, SETTINGS, LMDOptions(), None, ()))
    patched, positive = in_composition(model, clip, layout, texts.prompt, texts.positive, texts.target.objects)
    assert texts.prompt == "a park with a blue star, shiny, a pink heart, a red circle"
    changed = (positive[0][0] != texts.positive[0][0]).any(-1).flatten().nonzero().flatten().tolist()
    circle, star = patched_loras(patched)
    assert changed == list(star.words.positions) and len(changed) == 4  # a blue star ... shiny
    assert set(star.words.positions).isdisjoint(circle.words.positions) and len(circle.words.positions) == 3
    for lora, item in ((star, layout.objects[1]), (circle, layout.objects[0])):
        assert torch.equal(lora.region.cells(16, 16), rasterised(item.box, 16, 16))


def patched_loras(model):
    wrapper = model.get_wrappers(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, masked_lora.KEY)
    return wrapper[0].__self__.loras


def test_without_strength_the_composition_is_bit_identical_and_with_it_another(demo):
    objects = sample(demo, LAYOUT)
    plain = compose(demo, objects)
    for strength, same in ((0.0, True), (1.0, False)):
        layout = given(LAYOUT, "2", LORA, strength, 0.0)[0]
        assert torch.equal(compose(demo, replace(objects, layout=layout)), plain) is same


def test_a_format_that_cannot_be_masked_is_refused_before_the_composition(demo, tmp_path):
    first = next(n for n, m in demo[0].model.diffusion_model.named_modules() if n.endswith("attn1.to_q"))
    save_file({f"diffusion_model.{first}.diff": torch.ones(128, 128)}, tmp_path / "test_full.safetensors")
    folder_paths.add_model_folder_path("loras", str(tmp_path))
    layout = given(LAYOUT, "2", "test_full.safetensors")[0]
    with pytest.raises(ValueError, match="test_full.safetensors has a full 'diff'.*lora_name of LMD Object Settings"):
        compose(demo, replace(sample(demo, LAYOUT), layout=layout))
