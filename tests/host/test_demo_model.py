"""The demo model in the host: it loads whole, every stock node takes it, and its pictures follow their prompts."""

import logging

import comfy.sd
import folder_paths
import numpy
import pytest
import torch
from ella_lmd.demo import latents, model
from ella_lmd.evaluation import demo_benchmark, demo_detector, demo_world
from ella_lmd.nodes.demo import LMDDemoModel
from ella_lmd.nodes.host import demo_model
from ella_lmd.nodes.host.guidance import attention, grounding
from ella_lmd.tools.bench import table_report, table_rows
from ella_lmd.tools.demo_model import data, train_gligen, train_transformer
from safetensors.torch import save_file

import nodes

PROMPT = "A realistic photo of a scene with a red circle"


@pytest.fixture(scope="module")
def demo():
    """(MODEL, CLIP, VAE, GLIGEN) as the node gives them."""
    with torch.inference_mode():
        return LMDDemoModel.execute().args


def encode(clip, text):
    return nodes.CLIPTextEncode().encode(clip, text)[0]


def sample(demo, prompt, sampler="ddim", scheduler="ddim_uniform", steps=20, seed=0, batch=1, cfg=5.0, unet=None):
    latent = nodes.EmptyLatentImage().generate(model.IMAGE_SIZE, model.IMAGE_SIZE, batch)[0]
    return nodes.KSampler().sample(
        unet or demo[0], seed, steps, cfg, sampler, scheduler, encode(demo[1], prompt), encode(demo[1], ""), latent
    )[0]["samples"]


def pictures(demo, samples):
    return (demo[2].decode(samples).numpy() * 255).round().astype(numpy.uint8)


def test_all_weights_are_there_and_small(caplog):
    assert model.WEIGHTS.stat().st_size <= 12e6
    with caplog.at_level(logging.DEBUG):
        unet, clip, vae = demo_model.load()
    assert not [r.message for r in caplog.records if "missing" in r.message.lower()]
    parts = (unet.model.diffusion_model, clip.cond_stage_model.clip_l.transformer, vae.first_stage_model)
    assert all(torch.isfinite(p).all() and p.float().abs().sum() > 0 for m in parts for p in m.parameters())


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors.*demo/README\.md"):
        demo_model.load(tmp_path / "nowhere.safetensors")


def test_a_trained_transformer_comes_back_whole(tmp_path, monkeypatch):
    """The training's weights through the export's names and the node: a flow model on the U-Net's text and pictures."""
    trained = demo_model.empty_transformer()
    train_transformer.initialise(trained)
    path = tmp_path / "transformer.safetensors"
    save_file({demo_model.UNET + k: v.half() for k, v in trained.state_dict().items()}, path)
    assert path.stat().st_size <= 8e6
    monkeypatch.setattr(model, "TRANSFORMER_WEIGHTS", path)
    with torch.inference_mode():
        found = LMDDemoModel.execute("transformer").args
    loaded = found[0].model.diffusion_model.state_dict()
    assert loaded.keys() == trained.state_dict().keys()
    for key, value in trained.state_dict().items():
        assert torch.equal(loaded[key].float(), value.half().float()), key
    assert found[0].get_model_object("model_sampling").percent_to_sigma(0.5) == pytest.approx(0.5)
    x, t, context = torch.randn(1, 4, 16, 16), torch.tensor([0.3]), encode(found[1], PROMPT)[0][0]
    with torch.no_grad():
        velocity = trained(x, t, context, context.shape[1])
        clean = found[0].model.apply_model(x, t, c_crossattn=context, num_tokens=77)
    torch.testing.assert_close(clean, x - 0.3 * velocity, atol=2e-3, rtol=2e-2)


def test_the_shipped_transformer_draws_the_colours_that_it_is_told():
    """It is half trained: colours are there, shapes are not."""
    assert model.TRANSFORMER_WEIGHTS.stat().st_size <= 8e6
    with torch.inference_mode():
        found = LMDDemoModel.execute("transformer").args
    for colour in ("red", "blue"):
        samples = sample(
            found, f"A realistic photo of a scene with a {colour} circle", "euler", "simple", batch=4, seed=5
        )
        drawn = pictures(found, samples).astype(int)
        near = numpy.abs(drawn - numpy.array(demo_world.COLOURS[colour])).max(-1) < 70
        assert (near.mean((1, 2)) > 0.02).sum() >= 3


@pytest.mark.parametrize(
    ("choice", "error", "words"),
    [("transformer", FileNotFoundError, "nowhere.safetensors"), ("both", ValueError, "'U-Net', 'transformer'")],
)
def test_a_missing_or_unknown_architecture_is_named(choice, error, words, tmp_path, monkeypatch):
    monkeypatch.setattr(model, "TRANSFORMER_WEIGHTS", tmp_path / "nowhere.safetensors")
    with pytest.raises(error, match=words):
        LMDDemoModel.execute(choice)


def test_lmd_finds_its_layers_by_the_rule_of_sd15(demo):
    unet = demo[0].model.diffusion_model
    assert [str(x) for x in attention.guided_layers(unet)] == ["middle.0", "output.0", "output.1"]
    assert str(attention.mask_layer(unet)) == "input.3"
    guided = unet.get_submodule("middle_block.1.transformer_blocks.0.attn2")
    assert guided.heads == 8


def test_noise_schedule_is_that_of_sd15(demo, sd15):
    own, other = (m.get_model_object("model_sampling") for m in (demo[0], sd15[0]))
    torch.testing.assert_close(own.sigmas, other.sigmas)
    assert [c.__name__ for c in type(own).__mro__] == [c.__name__ for c in type(other).__mro__]


def test_tokens_keep_their_places(demo):
    (pairs,) = demo[1].tokenize("a red star")["l"]
    assert len(pairs) == 77 and pairs[0][0] == 49406 and pairs[4][0] == 49407
    one, other = (encode(demo[1], text)[0][0] for text in ("a red star", "a red moon"))
    assert one.shape == (1, 77, model.CONTEXT)
    same = (one - other).abs().amax((0, 2)) < 1e-5
    assert same[:3].all() and not same[3]


def test_foreign_words_are_one_unknown_word(demo):
    one, other = (encode(demo[1], f"a {word} star")[0][0] for word in ("bonsai", "parliament"))
    assert len(demo[1].tokenize("bonsai")["l"][0]) == 77
    torch.testing.assert_close(one[:, :3], other[:, :3])
    assert (one - encode(demo[1], "a red star")[0][0]).abs().max() > 0.1


@pytest.mark.parametrize(
    ("sampler", "scheduler"),
    [("euler", "normal"), ("euler_ancestral", "karras"), ("dpmpp_2m", "karras"), ("uni_pc", "simple"), ("lcm", "beta")],
)
def test_every_sampler_draws_something_red(demo, sampler, scheduler):
    drawn = pictures(demo, sample(demo, PROMPT, sampler, scheduler, steps=12, batch=4)).astype(int)
    red = numpy.abs(drawn - numpy.array(demo_world.COLOURS["red"])).max(-1) < 70
    assert (red.mean((1, 2)) > 0.02).sum() >= 3


def test_pictures_follow_their_prompts(demo):
    right = 0
    for colour, kind in (("red", "circle"), ("blue", "square"), ("yellow", "heart"), ("white", "star")):
        drawn = pictures(demo, sample(demo, f"A realistic photo of a scene with a {colour} {kind}", batch=4, seed=5))
        right += sum(any((d.colour, d.kind) == (colour, kind) for d in demo_detector.detect(p)) for p in drawn)
    assert right >= 11, f"{right} of 16"


def test_encoder_and_decoder_agree_with_the_formula(demo):
    scenes = [data.scene(99, i)[0] for i in range(8)]
    images = torch.stack([torch.from_numpy(numpy.array(demo_world.render(s))).float() / 255 for s in scenes])
    exact = latents.of_images(images.movedim(-1, 1) * 2 - 1)
    encoded = nodes.VAEEncode().encode(demo[2], images)[0]["samples"]
    assert (encoded * model.LATENT_SCALE - exact).square().mean() < 0.05
    decoded = nodes.VAEDecode().decode(demo[2], {"samples": exact / model.LATENT_SCALE})[0]
    assert decoded.shape == images.shape
    assert (decoded - images).abs().mean() < 0.04


def test_image_to_image_and_masks(demo):
    images = torch.from_numpy(numpy.array(demo_world.render(data.scene(3, 1)[0]))).float()[None] / 255
    latent = nodes.VAEEncode().encode(demo[2], images)[0]
    mask = torch.zeros(1, 128, 128)
    mask[:, :, :64] = 1
    masked = nodes.SetLatentNoiseMask().set_mask(latent, mask)[0]
    arguments = (demo[0], 1, 10, 5.0, "euler", "normal", encode(demo[1], PROMPT), encode(demo[1], ""))
    drawn = nodes.KSampler().sample(*arguments, masked, denoise=0.8)[0]["samples"]
    torch.testing.assert_close(drawn[..., 9:], latent["samples"][..., 9:], atol=1e-3, rtol=0)
    assert (drawn[..., :7] - latent["samples"][..., :7]).abs().mean() > 0.1


@pytest.fixture
def lora(tmp_path):
    """A LoRA file for one attention of the denoiser and one of the text encoder."""
    torch.manual_seed(0)
    weights = {}
    for key in (
        "lora_unet_middle_block_1_transformer_blocks_0_attn2_to_v",
        "lora_te_text_model_encoder_layers_0_mlp_fc1",
    ):
        outputs = 256 if "fc1" in key else 128
        weights[f"{key}.lora_down.weight"] = torch.randn(4, 128)
        weights[f"{key}.lora_up.weight"] = torch.randn(outputs, 4)
    path = tmp_path / "demo_lora.safetensors"
    save_file(weights, path)
    folder_paths.add_model_folder_path("loras", str(tmp_path))
    return path


def test_a_lora_changes_denoiser_and_text_encoder(demo, lora):
    changed = nodes.LoraLoader().load_lora(demo[0], demo[1], lora.name, 1.0, 1.0)
    assert (encode(changed[1], PROMPT)[0][0] - encode(demo[1], PROMPT)[0][0]).abs().max() > 0.01
    before = sample(demo, PROMPT, steps=4)
    assert (sample((*changed, demo[2]), PROMPT, steps=4) - before).abs().max() > 0.01
    torch.testing.assert_close(sample(demo, PROMPT, steps=4), before)


def test_a_lora_hook_changes_the_denoiser_while_sampling(demo, lora, extra_nodes):
    hooks = extra_nodes["CreateHookLora"]().create_hook(lora.name, 1.0, 0.0)[0]
    hooked = extra_nodes["SetClipHooks"]().apply_hooks(demo[1], schedule_clip=False, apply_to_conds=True, hooks=hooks)[
        0
    ]
    before = sample(demo, PROMPT, steps=4)
    assert (sample((demo[0], hooked, demo[2]), PROMPT, steps=4) - before).abs().max() > 0.01
    torch.testing.assert_close(sample(demo, PROMPT, steps=4), before)


def test_other_sizes_work(demo):
    latent = nodes.EmptyLatentImage().generate(192, 96, 1)[0]
    arguments = (demo[0], 1, 4, 5.0, "euler", "normal", encode(demo[1], PROMPT), encode(demo[1], ""))
    drawn = nodes.KSampler().sample(*arguments, latent)[0]
    assert nodes.VAEDecode().decode(demo[2], drawn)[0].shape == (1, 96, 192, 3)


@pytest.mark.parametrize("make", [demo_model.empty_unet, demo_model.empty_vae, train_gligen.empty_gligen])
def test_training_starts_from_set_weights_only(make):
    """The host's layers leave their memory as it was; what is left over of it must not reach a training."""
    module = make()
    for p in module.parameters():
        if p.ndim:
            torch.nn.init.constant_(p, torch.nan)
    demo_model.initialise(module)
    own = ("null_positive_feature", "null_position_feature")
    assert not [n for n, p in module.named_parameters() if not torch.isfinite(p).all() and not n.endswith(own)]


def test_an_adapter_of_the_training_is_read_by_the_host(demo, tmp_path):
    """Every weight comes back through the stock loader and ours, and the adapter fits the demo model; 3 MB at most."""
    network, path = train_gligen.empty_gligen(), tmp_path / "adapter.safetensors"
    save_file(train_gligen.file_state(network.state_dict()), path)
    assert path.stat().st_size <= 3e6
    wanted = network.state_dict()
    for load in (lambda: comfy.sd.load_gligen(str(path)), lambda: demo_model.load_gligen(path)):
        with torch.inference_mode():
            own = grounding.adapter_for(demo[0], load(), model.CONTEXT)
        assert wanted.keys() == own.network.state_dict().keys()
        for key, value in own.network.state_dict().items():
            stored = torch.float8_e4m3fn if key == train_gligen.SHORT else torch.float16
            assert torch.equal(value.float(), wanted[key].to(stored).float()), key


def test_the_training_starts_at_the_frozen_denoiser_and_runs_the_hosts_arithmetic():
    """Its branches end in zeros, so the start is the frozen model; with any weights the host's fusers say the same."""
    network, unet = train_gligen.empty_gligen(), train_gligen.frozen_unet()
    x, context, times = torch.randn(2, 4, 16, 16), torch.randn(2, 77, model.CONTEXT), torch.tensor([999.0, 10.0])
    slots = torch.rand(2, 30, 4), torch.ones(2, 30), torch.randn(2, 30, model.CONTEXT)
    grounded = train_gligen.Grounded(network, unet)
    with torch.no_grad():
        assert torch.equal(unet(x, times, context=context), grounded(x, times, context, *slots))
        for p in network.parameters():
            p.add_(0.05 * torch.randn_like(p))
        options = {"patches": {"middle_patch": [network._set_position(*slots)]}}
        hosts = unet(x, times, context=context, transformer_options=options)
        assert (hosts - unet(x, times, context=context)).abs().max() > 1e-3
        torch.testing.assert_close(grounded(x, times, context, *slots), hosts, atol=1e-4, rtol=1e-4)


def test_the_adapters_training_helps():
    """Cells that know their place and look at their box's token have less to learn than cells that don't."""
    place = torch.eye(64).expand(2, -1, -1)
    lost = torch.randn(16, 64, 64, generator=torch.Generator().manual_seed(0))
    assert train_gligen.not_knowing([place]) < 0.1 < 0.5 < train_gligen.not_knowing([lost])
    box, mask = torch.zeros(1, 30, 4), torch.zeros(1, 30)
    box[0, 0], mask[0, 0] = torch.tensor([0.25, 0.5, 0.75, 1.0]), 1.0
    inside = train_gligen.coverage(box, 8)[0, 0]
    assert inside.sum() == 16 and inside.view(8, 8)[4:, 2:6].all()
    right = torch.zeros(1, 64, 94)
    right[0, :, 64] = inside
    right[0, :, 65] = 1 - inside
    assert (
        train_gligen.looking([right], box, mask)
        < 1e-3
        < train_gligen.looking([torch.full((1, 64, 94), 1 / 94)], box, mask)
    )


def test_the_shipped_adapter_puts_objects_into_their_boxes(demo):
    """GLIGEN alone, on prompts of two objects: most are in their boxes, and few without it."""
    assert model.GLIGEN_WEIGHTS.stat().st_size <= 3e6
    prompts = [text for task, text in demo_benchmark.prompts(6) if task == "spatial"]
    inside = {"gligen": 0, "plain": 0}
    for seed, prompt in enumerate(prompts):
        layout = demo_benchmark.true_layout(prompt)
        case = table_rows.Case(*demo[:2], layout, seed, 20, gligen=demo[3])
        for row in inside:
            (picture,) = pictures(demo, table_rows.ROWS[row](case)["samples"])
            found = [(d.kind, d.colour, d.box, d.score) for d in demo_detector.detect(picture)]
            inside[row] += table_report.obeyed(layout, found)
    assert inside["gligen"] >= 9 and inside["plain"] <= 5, f"of {2 * len(prompts)}: {inside}"
