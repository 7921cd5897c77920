"""Layouts to and from the host's own nodes: the same boxes, elements, masks and conditioning as core nodes make."""

import json

import comfy.gligen
import comfy.model_management
import comfy.model_patcher
import comfy.samplers
import folder_paths
import pytest
import test_models
import torch
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.prompts import OVERALL_NEGATIVE
from ella_lmd.nodes import layout_convert
from ella_lmd.nodes.host.lmd import regional_conditioning
from ella_lmd.tests.host.executor import run

import nodes as host_nodes

LAYOUT = Layout(
    128,
    192,
    (
        LayoutObject("a red circle", Box(0.06, 0.31, 0.41, 0.57)),
        LayoutObject("a blue star", Box(0.55, 0.02, 0.44, 0.4)),
        LayoutObject("a green ring", Box(0.9, 0.9, 0.1, 0.1)),
    ),
    background="A photo of a grass scene",
    negative="birds",
)


@pytest.fixture(autouse=True)
def registered(tmp_path, monkeypatch, extra_nodes):
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))
    for node in layout_convert.NODES:
        monkeypatch.setitem(host_nodes.NODE_CLASS_MAPPINGS, node.GET_SCHEMA().node_id, node)


def core(name, function, *args):
    return getattr(host_nodes.NODE_CLASS_MAPPINGS[name](), function)(*args)[0]


def same(a, b) -> bool:
    """Equal values all the way down; models by identity."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    return a is b or a == b


def encode(clip, text):
    return core("CLIPTextEncode", "encode", clip, text)


BASE = "A photo of a grass scene with a blue star, a green ring, a red circle"
# (width, height, x, y) of the three boxes as one would type them into a core node: steps of 8, at least 64.
PIXELS = [(64, 112, 0, 56), (64, 80, 64, 0), (64, 64, 64, 128)]


def test_area_conditioning_is_what_core_nodes_make(demo):
    _, clip, _ = demo
    (positive, negative), _ = run(
        "LMDLayoutToConditioning", clip=clip, layout=LAYOUT, object_text="phrase", prompt="",
        **{"method": "area", "method.strength": 0.8, "method.base_strength": 0.5},
    )  # fmt: skip
    wanted = core("ConditioningSetAreaStrength", "append", encode(clip, BASE), 0.5)
    for o, (w, h, x, y) in zip(LAYOUT.objects, PIXELS):
        area = core(
            "ConditioningSetAreaPercentage", "append", encode(clip, o.phrase), w / 128, h / 192, x / 128, y / 192, 0.8
        )
        wanted = core("ConditioningCombine", "combine", wanted, area)
    assert same(positive, wanted)
    assert same(negative, encode(clip, "birds, " + OVERALL_NEGATIVE))


def resolved(conditioning, width, height):
    found = [dict(extra) for _, extra in conditioning]
    comfy.samplers.resolve_areas_and_cond_masks_multidim(found, (height // 8, width // 8), "cpu")
    return [entry.get("area") for entry in found]


def test_shares_of_the_canvas_are_the_cells_of_set_area_and_fit_a_larger_latent(demo):
    _, clip, _ = demo
    base = encode(clip, BASE)
    shares = regional_conditioning.with_areas(clip, LAYOUT, base, "phrase", 1.0, 1.0)
    cells = regional_conditioning.with_areas(clip, LAYOUT, base, "phrase", 1.0, 1.0, exact=True)
    wanted = base
    for o, (w, h, x, y) in zip(LAYOUT.objects, PIXELS):
        area = core("ConditioningSetArea", "append", encode(clip, o.phrase), w, h, x, y, 1.0)
        wanted = core("ConditioningCombine", "combine", wanted, area)
    assert same(cells[1:], wanted[1:])
    assert resolved(shares, 128, 192) == resolved(wanted, 128, 192)
    assert resolved(shares, 256, 384)[1:] == [tuple(2 * v for v in area) for area in resolved(wanted, 128, 192)[1:]]


def test_mask_conditioning_is_what_core_nodes_make(demo):
    _, clip, _ = demo
    (positive, _), _ = run(
        "LMDLayoutToConditioning", clip=clip, layout=LAYOUT, object_text="background with phrase", prompt="a lawn",
        **{"method": "mask", "method.strength": 1.5, "method.base_strength": 1.0, "method.soften": 8,
           "method.crop_to_mask": True},
    )  # fmt: skip
    (masks, _, captions), _ = run("LMDLayoutToMasks", layout=LAYOUT, object=0, soften=8)
    wanted = core("ConditioningSetAreaStrength", "append", encode(clip, "a lawn"), 1.0)
    for phrase, mask in zip(captions.split("\n"), masks):
        text = encode(clip, f"A photo of a grass scene with {phrase}")
        masked = core("ConditioningSetMask", "append", text, mask, "mask bounds", 1.5)
        wanted = core("ConditioningCombine", "combine", wanted, masked)
    assert same(positive, wanted)


@pytest.fixture(scope="module")
def gligen(sd15):
    """A GLIGEN of the size that the small SD1.5-layout U-Net needs, with weights that do something."""
    count = sum(1 for m in sd15[0].model.diffusion_model.modules() if type(m).__name__ == "BasicTransformerBlock")
    modules = [comfy.gligen.GatedSelfAttentionDense(320, 768, 8, 40) for _ in range(count)]
    model = comfy.gligen.Gligen(modules, comfy.gligen.PositionNet(768, 768), 768)
    generator = torch.Generator().manual_seed(5)
    for name, p in model.named_parameters():
        p.data = torch.ones_like(p) if "alpha" in name else torch.randn(p.shape, generator=generator) * 0.03
    cpu = torch.device("cpu")
    return comfy.model_patcher.CoreModelPatcher(model, load_device=cpu, offload_device=cpu)


def test_gligen_is_what_the_core_node_makes_and_samples_the_same(sd15, gligen):
    model, clip, _ = sd15
    (positive, negative), _ = run(
        "LMDLayoutToConditioning", clip=clip, layout=LAYOUT, object_text="phrase", prompt="",
        **{"method": "GLIGEN", "method.gligen_textbox_model": gligen},
    )  # fmt: skip
    wanted = plain = encode(clip, BASE)
    for o, (w, h, x, y) in zip(LAYOUT.objects, [(56, 112, 8, 56), (56, 80, 72, 0), (16, 16, 112, 176)]):
        wanted = core("GLIGENTextBoxApply", "append", wanted, clip, gligen, o.phrase, w, h, x, y)
    assert same(positive, wanted)

    def sample(conditioning):
        latent = {"samples": torch.zeros(1, 4, 24, 16)}
        return host_nodes.common_ksampler(model, 1, 2, 4.0, "euler", "normal", conditioning, negative, latent)[0]

    ours = sample(positive)["samples"]
    assert torch.equal(ours, sample(wanted)["samples"])
    assert not torch.equal(ours, sample(plain)["samples"]), "the boxes change nothing, so the comparison is empty"
    assert test_models.VERSION  # the checkpoint above comes from the shared recipe


def test_an_empty_layout_is_the_prompt_alone(demo):
    _, clip, _ = demo
    empty = Layout(128, 128, (), "A photo of a grass scene")
    for method in ({"method": "area", "method.strength": 1.0, "method.base_strength": 1.0},
                   {"method": "GLIGEN", "method.gligen_textbox_model": object()}):  # fmt: skip
        (positive, _), _ = run("LMDLayoutToConditioning", clip=clip, layout=empty, **method)
        assert len(positive) == 1 and torch.equal(positive[0][0], encode(clip, "A photo of a grass scene")[0][0])
        assert "area" not in positive[0][1] and "gligen" not in positive[0][1]


@pytest.mark.parametrize(("method", "size"), [("area", 256), ("mask", 128)])
def test_regional_conditioning_draws_the_objects_in_their_places(demo, method, size):
    """The stock KSampler on the demo model: red on the left and blue on the right, not the other way round.

    An area is sampled by itself, so it must be about as large as the 128 pixels that the demo model was trained with.
    """
    model, clip, vae = demo
    layout = Layout(
        size, size,
        (LayoutObject("a red circle", Box(0.0, 0.25, 0.5, 0.5)), LayoutObject("a blue circle", Box(0.5, 0.25, 0.5, 0.5))),
        "A realistic photo of a grass scene",
    )  # fmt: skip
    extra = {"method.soften": 8, "method.crop_to_mask": False} if method == "mask" else {}
    (positive, negative), _ = run(
        "LMDLayoutToConditioning", clip=clip, layout=layout, object_text="background with phrase",
        prompt=layout.background,
        **{"method": method, "method.strength": 2.0, "method.base_strength": 0.5, **extra},
    )  # fmt: skip
    latent = {"samples": torch.zeros(2, 4, size // 8, size // 8)}
    samples = host_nodes.common_ksampler(model, 1, 20, 7.5, "ddim", "ddim_uniform", positive, negative, latent)[0]
    images = vae.decode(samples["samples"])
    red_minus_blue = images[:, size // 4 : -size // 4, :, 0] - images[:, size // 4 : -size // 4, :, 2]
    assert red_minus_blue[:, :, : size // 2].mean() > red_minus_blue[:, :, size // 2 :].mean() + 0.1


def test_create_bounding_boxes_shows_a_layout_and_its_elements_come_back(extra_nodes):
    (boxes, elements, captions, width, height), _ = run("LMDLayoutToBoxes", layout=LAYOUT)
    editor = extra_nodes["CreateBoundingBoxes"]
    for given in (boxes, elements, json.dumps(elements)):
        _, edited, described = editor.execute(width, height, bboxes=given).result
        assert [e["desc"] for e in described] == captions.split("\n")
        (back, picture), ui = run("LMDLayoutFromBoxes", boxes=described, width=width, height=height)
        for a, b in zip(back.objects, LAYOUT.objects):
            assert a.phrase == b.phrase
            assert a.box.corners == pytest.approx(b.box.corners, abs=1 / 128 + 0.0005)
        assert ui["images"] and picture.shape[0] == 1
        (named, _), _ = run("LMDLayoutFromBoxes", boxes=edited, width=width, height=height, captions=captions)
        assert [o.phrase for o in named.objects] == captions.split("\n")
    again, _ = run("LMDLayoutToBoxes", layout=back)
    assert again[1] == described
    for a, b in zip(elements, described):
        assert a["bbox"] == pytest.approx(b["bbox"], abs=1000 / 128), "the editor rounds to its pixels"


def test_other_box_nodes_of_the_host_take_a_layouts_boxes(extra_nodes):
    (boxes, *_), _ = run("LMDLayoutToBoxes", layout=LAYOUT)
    image = torch.rand(1, 192, 128, 3)
    (drawn,) = extra_nodes["DrawBBoxes"].execute(boxes, image).result
    assert drawn.shape == image.shape and not torch.equal(drawn, image)


def test_a_single_core_bounding_box_is_a_layout(extra_nodes):
    (box,) = extra_nodes["PrimitiveBoundingBox"].execute(x=32, y=16, width=64, height=96).result
    image = torch.zeros(2, 100, 131, 3)
    (layout, _), _ = run("LMDLayoutFromBoxes", boxes=box, width=512, height=512, captions="a cat", image=image)
    assert (layout.width, layout.height) == (128, 96)
    assert layout.objects[0].box.corners == pytest.approx((32 / 131, 0.16, 96 / 131, 1.0))


def test_masks_of_the_host_come_in_and_go_out():
    (masks, background, captions), _ = run("LMDLayoutToMasks", layout=LAYOUT, object=0, soften=0)
    assert masks.shape == (3, 192, 128) and background.shape == (1, 192, 128) and captions.count("\n") == 2
    (layout, _), _ = run("LMDLayoutFromMasks", masks=masks, captions=captions, background="A lawn")
    (again, _, _), _ = run("LMDLayoutToMasks", layout=layout, object=0, soften=0)
    assert torch.equal(masks, again) and layout.background == "A lawn"
    (one, _, caption), _ = run("LMDLayoutToMasks", layout=LAYOUT, object=2, soften=0)
    assert torch.equal(one, masks[1:2]) and caption == "a blue star"
    solid = core("SolidMask", "solid", 1.0, 128, 64) if "solid" in dir(host_nodes) else torch.ones(1, 64, 128)
    (whole, _), _ = run("LMDLayoutFromMasks", masks=solid, captions="a wall")
    assert whole.objects[0].box == Box(0, 0, 1, 1) and (whole.width, whole.height) == (128, 64)


def test_an_empty_mask_is_dropped_with_a_note_and_only_empty_ones_are_an_error():
    masks = torch.zeros(2, 64, 64)
    masks[0, 8:16, 8:24] = 1
    (layout, _), ui = run("LMDLayoutFromMasks", masks=masks, captions="a cat\na dog")
    assert [o.phrase for o in layout.objects] == ["a cat"] and '"a dog", has no area' in ui["text"][0]
    with pytest.raises(ValueError, match="none of the 1 boxes"):
        run("LMDLayoutFromMasks", masks=torch.zeros(1, 64, 64), captions="a cat")


def test_text_goes_out_and_comes_back_through_the_planner_and_the_boxes_node(monkeypatch):
    from ella_lmd.nodes import lmd_plan

    monkeypatch.setitem(host_nodes.NODE_CLASS_MAPPINGS, "LLMLayoutPlanner", lmd_plan.LLMLayoutPlanner)
    (text, reply, overall, background, negative), _ = run("LMDLayoutToText", layout=LAYOUT)
    assert (overall, background) == (BASE, LAYOUT.background) and negative.startswith("birds, artifacts")
    for form in (text, reply):
        (a, *_), _ = run(
            "LLMLayoutPlanner", prompt="", width=128, height=192,
            **{"source": "reply text", "source.reply": form, "source.parser": "tolerant"},
        )  # fmt: skip
        (b, _), _ = run("LMDLayoutFromBoxes", boxes=form, width=128, height=192)
        for layout in (a, b):
            assert [o.phrase for o in layout.objects] == [o.phrase for o in LAYOUT.objects]
            assert (layout.background, layout.negative) == (LAYOUT.background, LAYOUT.negative)


def test_gligen_without_a_model_or_with_too_many_boxes_says_so(demo):
    _, clip, _ = demo
    with pytest.raises(ValueError, match="connect a GLIGENLoader"):
        regional_conditioning.conditioning(clip, LAYOUT, "", "phrase", {"method": "GLIGEN"})
    many = Layout(512, 512, tuple(LayoutObject("a cat", Box(0, 0, 0.5, 0.5)) for _ in range(31)))
    with pytest.raises(ValueError, match="at most 30 boxes, the layout has 31"):
        regional_conditioning.with_gligen(clip, many, [], "phrase", object())


def test_every_input_and_output_has_a_tooltip():
    for node in layout_convert.NODES:
        schema = node.GET_SCHEMA()
        assert schema.description and schema.search_aliases
        for item in schema.inputs + schema.outputs:
            assert item.tooltip, (schema.node_id, item.id or item.display_name)
