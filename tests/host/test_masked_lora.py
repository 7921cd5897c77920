"""LayoutLoRA: the LoRA acts in the object's box alone, is the ordinary LoRA on the whole canvas, and leaves no trace."""

from dataclasses import replace

import comfy.patcher_extension
import folder_paths
import pytest
import torch
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.sampling.guidance import GuidanceOptions
from ella_lmd.nodes.host.guidance import masked_lora
from ella_lmd.nodes.host.guidance.guide import EnergyTrace, guidance_target, patch_guidance
from ella_lmd.nodes.lmd_lora import LayoutLoRA
from safetensors.torch import save_file

import nodes

LEFT, RIGHT, WHOLE = Box(0, 0, 0.5, 1), Box(0.5, 0, 0.5, 1), Box(0, 0, 1, 1)


def layout(*boxes, size=(128, 128)):
    named = zip(("a red circle", "a blue star"), boxes)
    return Layout(*size, tuple(LayoutObject(p, b) for p, b in named), background="a photo of grass")


@pytest.fixture(scope="module")
def loras(demo, tmp_path_factory):
    """A rank-2 LoRA for every linear and convolution of the demo U-Net, and two of formats that can't be masked."""
    folder = tmp_path_factory.mktemp("loras")
    folder_paths.add_model_folder_path("loras", str(folder))
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, m in demo[0].model.diffusion_model.named_modules():
        if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d)) and masked_lora.kind_of(name):
            out, *rest = m.weight.shape
            down = torch.randn(2, *rest, generator=generator) * m.weight[0].numel() ** -0.5
            up = torch.randn(out, 2, *[1] * (m.weight.ndim - 2), generator=generator) * 0.2
            state |= {f"diffusion_model.{name}.lora_A.weight": down, f"diffusion_model.{name}.lora_B.weight": up}
    save_file(state, folder / "test_all.safetensors")
    first = next(k.removesuffix(".lora_A.weight") for k in state)
    save_file({**state, f"{first}.dora_scale": torch.ones(4)}, folder / "test_dora.safetensors")
    save_file({f"{first}.diff": torch.ones(4)}, folder / "test_diff.safetensors")
    save_file({f"{first}.lora_A.weight": torch.ones(2, 7), f"{first}.lora_B.weight": torch.ones(9, 2)},
              folder / "test_size.safetensors")  # fmt: skip
    save_file({"other.lora_A.weight": torch.ones(2, 7)}, folder / "test_other.safetensors")
    return state


def masked(model, clip, where, obj="1", strength=1.0, name="test_all.safetensors", prompt=""):
    return LayoutLoRA.execute(model, where, obj, name, strength, prompt, clip).args[0]


def sample(model, clip, where=None, steps=2, cfg=4.0, size=(16, 16), batch=1, positive=None):
    own = guidance_target(clip, where or layout(LEFT, RIGHT), "")[1]
    negative = nodes.CLIPTextEncode().encode(clip, "blurry")[0]
    latent = {"samples": torch.zeros(batch, 4, *size)}
    return nodes.common_ksampler(model, 3, steps, cfg, "euler", "normal", positive or own, negative, latent)[0][
        "samples"
    ]


def first_layer(model, clip):
    """What the U-Net's first block gives in the first call of a run."""
    seen = []

    def patch(h, options):
        seen.append((options["block"], h.clone()))
        return h

    watched = model.clone()
    watched.set_model_input_block_patch(patch)
    sample(watched, clip, steps=1)
    return next(h for block, h in seen if block == ("input", 0))


def weights_and_forwards(model):
    unet = model.model.diffusion_model
    return {k: v.clone() for k, v in unet.state_dict().items()}, [m.__dict__.get("forward") for m in unet.modules()]


def assert_same_model(model, before):
    after = weights_and_forwards(model)
    assert all(torch.equal(after[0][k], before[0][k]) for k in before[0])
    assert after[1] == before[1]


def test_strength_nought_and_an_empty_mask_are_bit_identical(demo, loras):
    model, clip, _ = demo
    plain = sample(model, clip)
    assert torch.equal(plain, sample(masked(model, clip, layout(LEFT), strength=0), clip))
    hidden = masked(model, clip, replace(layout(LEFT, WHOLE), ordered=True), "1")
    assert torch.equal(plain, sample(hidden, clip))
    assert not torch.equal(plain, sample(masked(model, clip, layout(LEFT)), clip))


@pytest.mark.parametrize(("size", "batch"), [((16, 16), 1), ((9, 21), 2)])
def test_on_the_whole_canvas_it_is_the_lora_loaded_normally(demo, loras, size, batch):
    model, clip, _ = demo
    where = layout(WHOLE, size=(size[1] * 8, size[0] * 8))
    path = folder_paths.get_full_path_or_raise("loras", "test_all.safetensors")
    normal, _ = nodes.LoraLoader().load_lora(model, clip, path.rsplit("/", 1)[-1], 1.0, 0.0)
    expected = sample(normal, clip, where, size=size, batch=batch)
    result = sample(masked(model, clip, where), clip, where, size=size, batch=batch)
    assert (expected - sample(model, clip, where, size=size, batch=batch)).abs().max() > 0.05
    assert torch.allclose(result, expected, atol=1e-4 * float(expected.abs().max().clamp(1))), (
        (result - expected).abs().max()
    )


def test_two_loras_act_in_their_own_boxes_alone(demo, loras):
    model, clip, _ = demo
    two = layout(Box(0, 0, 0.5, 0.5), Box(0.25, 0.25, 0.5, 0.5))
    one = masked(model, clip, two, "a red circle", 1.0)
    both = masked(one, clip, two, "2", -2.0)
    plain, first, last = (first_layer(m, clip) for m in (model, one, both))
    owner = torch.zeros(16, 16, dtype=torch.long)
    owner[:8, :8], owner[4:12, 4:12] = 1, 2
    assert torch.equal(last[..., owner == 0], plain[..., owner == 0])
    assert torch.equal(last[..., owner == 1], first[..., owner == 1])
    assert torch.equal(first[..., owner == 2], plain[..., owner == 2])
    assert not torch.equal(last[..., owner == 2], plain[..., owner == 2])


def test_an_error_in_the_middle_leaves_the_model_as_it_was(demo, loras):
    model, clip, _ = demo
    plain, before = sample(model, clip), weights_and_forwards(model)
    broken = masked(model, clip, layout(LEFT)).clone()

    def stop(h, options):
        if options["block"][0] == "input" and options["block"][1] == 2:
            raise InterruptedError
        return h

    broken.set_model_input_block_patch(stop)
    with pytest.raises(InterruptedError):
        sample(broken, clip)
    assert_same_model(model, before)
    assert torch.equal(plain, sample(model, clip))
    sample(masked(model, clip, layout(LEFT)), clip)
    assert_same_model(model, before)


def test_the_words_are_found_in_the_positive_rows_alone(demo, loras):
    clip = demo[1]
    words = masked_lora.words_of(clip, layout(LEFT, RIGHT), "a red circle and a blue star", (2,), "x")
    assert words is not None and len(words.positions) == 3
    other = clip.encode_from_tokens_scheduled(clip.tokenize("blurry"))[0][0].cpu()
    rows = words.rows(torch.cat([other, words.encoding]))
    assert not rows[0].any() and rows[1].nonzero().flatten().tolist() == list(words.positions)


def test_without_the_words_it_says_so(demo, loras, caplog):
    model, clip, _ = demo
    with caplog.at_level("WARNING"):
        patched = masked(model, clip, layout(LEFT, RIGHT), prompt="a green square")
        masked(model, None, layout(LEFT, RIGHT))
    told = [r.message for r in caplog.records if "keys and values" in r.message]
    assert len(told) == 2 and "connected" in told[1]
    assert torch.isfinite(sample(patched, clip)).all()


@pytest.mark.parametrize("checkpointed", [False, True])
def test_guided_passes_go_through_it(demo, loras, checkpointed, monkeypatch):
    from ella_lmd.nodes.host.guidance import memory_plan

    if checkpointed:
        monkeypatch.setattr(memory_plan, "_images_in", lambda *_: 0)
    model, clip, _ = demo
    where = layout(LEFT, RIGHT)
    target, _ = guidance_target(clip, where, "")
    trace = EnergyTrace()
    options = GuidanceOptions(loss_scale=2.0, loss_threshold=0.0, max_index_step=50, max_iter=(1,))
    guided = patch_guidance(masked(model, clip, where), target, options, trace)
    result = sample(guided, clip, where)
    assert trace.rows and torch.isfinite(result).all()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("test_dora", "DoRA"),
        ("test_diff", "full 'diff'"),
        ("test_size", "does not fit"),
        ("test_other", "it seems to be"),
    ],
)
def test_formats_that_cannot_be_masked_are_refused_by_name(demo, loras, name, told):
    with pytest.raises(ValueError, match=told):
        masked(demo[0], demo[1], layout(LEFT), name=f"{name}.safetensors")


@pytest.mark.parametrize("wanted", ["a cat", "3", "0", ""])
def test_an_unknown_object_is_an_error_that_lists_them(demo, loras, wanted):
    with pytest.raises(ValueError, match="1 a red circle; 2 a blue star"):
        masked(demo[0], demo[1], layout(LEFT, RIGHT), wanted)


def test_a_latent_of_another_shape_is_refused(demo, loras):
    model, clip, _ = demo
    with pytest.raises(ValueError, match="canvas of 128 x 128"):
        sample(masked(model, clip, layout(LEFT)), clip, size=(16, 24))


def test_an_area_of_the_image_goes_without_it(demo, loras, caplog):
    model, clip, _ = demo
    positive = nodes.ConditioningSetArea().append(guidance_target(clip, layout(LEFT), "")[1], 64, 64, 64, 0, 1.0)[0]
    with caplog.at_level("WARNING"):
        sample(masked(model, clip, layout(LEFT)), clip, positive=positive, cfg=1.0)
    assert "part of the image" in caplog.text


def test_plain_loras_of_a_layer_are_one_product_and_others_go_beside_it(demo, loras, tmp_path):
    """Two LoRAs and a LoHa of a layer: each in its own cells as if it were alone."""
    model, clip, _ = demo
    folder_paths.add_model_folder_path("loras", str(tmp_path))
    name, generator = "input_blocks.0.0", torch.Generator().manual_seed(1)
    shape = model.model.diffusion_model.get_submodule(name).weight.shape
    factors = {
        f"diffusion_model.{name}.hada_w{i}_{side}": torch.randn(*size, generator=generator) * 0.1
        for i in (1, 2)
        for side, size in (("a", (shape[0], 3)), ("b", (3, shape[1:].numel())))
    }
    save_file(factors, tmp_path / "test_loha.safetensors")
    two = layout(LEFT, RIGHT)
    left, right = masked(model, clip, two, "1", 0.7), masked(model, clip, two, "2", -1.5)
    third = masked(model, clip, two, "2", 2.0, "test_loha.safetensors")
    both = masked(masked(masked(model, clip, two, "1", 0.7), clip, two, "2", -1.5), clip, two, "2", 2.0,
                  "test_loha.safetensors")  # fmt: skip
    wrapper = both.get_wrappers(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, masked_lora.KEY)[0].__self__
    assert wrapper.added[name].joint.ranks == (2, 2) and len(wrapper.added[name].deltas) == 1
    plain, first, second, loha, all_three = (first_layer(m, clip) for m in (model, left, right, third, both))
    assert torch.allclose(all_three[..., :8], first[..., :8], atol=1e-5)
    assert torch.allclose(all_three[..., 8:], (second + loha - plain)[..., 8:], atol=1e-5)
    assert (loha - plain)[..., 8:].abs().max() > 1e-3
