"""Layout guidance on transformers: small random models of the host's own classes, family by family."""

from dataclasses import replace

import comfy.sd
import pytest
import torch
from comfy.supported_models_base import ClipTarget
from comfy.text_encoders import flux, qwen_image, sd3_clip, z_image
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.prompts import overall_prompt
from ella_lmd.lmd.sampling.energy import GuidedObject
from ella_lmd.lmd.sampling.guidance import GuidanceOptions
from ella_lmd.lmd.sampling.options import BASELINES
from ella_lmd.nodes.host.guidance import sampler_run, transformers
from ella_lmd.nodes.host.guidance.attention import UnsupportedModel
from ella_lmd.nodes.host.guidance.gradients import GradientJob, energy_gradients
from ella_lmd.nodes.host.guidance.guide import EnergyTrace, Target, patch_guidance
from ella_lmd.nodes.host.guidance.memory_plan import Economy
from ella_lmd.nodes.host.guidance.sampler_run import SamplerRun
from ella_lmd.nodes.host.guidance.text_rows import phrase_objects
from ella_lmd.nodes.host.guidance.token_positions import encode
from ella_lmd.nodes.lmd_guidance import LayoutGuidance
from ella_lmd.tests import transformer_models
from ella_lmd.tests.transformer_models import FAMILIES, Family

import nodes

STEP = 0.05
TWICE = GuidanceOptions(loss_scale=5.0, loss_threshold=0.0, max_index_step=50, max_iter=(2,))
OBJECTS = (
    GuidedObject("a red circle", (Box(0.0, 0.2, 0.5, 0.6),), (3, 4), 4),
    GuidedObject("a blue star", (Box(0.5, 0.2, 0.5, 0.6),), (7,), 7),
)


def guided(model, family, options=TWICE, **more):
    positive = transformer_models.conditioning(family)
    trace = EnergyTrace()
    target = Target(OBJECTS, positive, (128, 128), **more)
    return patch_guidance(model, target, options, trace), positive, trace


def sample(model, family, positive, steps=4, sampler="euler", cfg=3.0, batch=1, seed=5, **latent):
    negative = transformer_models.conditioning(family, seed=2)
    latent = {"samples": torch.zeros(batch, *family.latent), **latent}
    return nodes.common_ksampler(model, seed, steps, cfg, sampler, "normal", positive, negative, latent)[0]["samples"]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_guided_and_left_as_it_was(name):
    family = FAMILIES[name]
    model = transformer_models.model(family)
    weights = {k: v.clone() for k, v in model.model.state_dict().items()}
    positive = transformer_models.conditioning(family)
    before = sample(model, family, positive)
    patched, positive, trace = guided(model, family)
    result = sample(patched, family, positive)
    steps = {s: [float(e.mean()) for t, _, e in trace.rows if t == s] for s, _, _ in trace.rows}
    falls = [energies[-1] < energies[0] for energies in steps.values()]
    assert len(falls) >= 3 and sum(falls) >= 0.95 * len(falls), steps
    assert not torch.equal(result, before)
    after = model.model.state_dict()
    assert after.keys() == weights.keys() and all(torch.equal(after[k], weights[k]) for k in weights)
    assert torch.equal(sample(model, family, positive), before)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_gradient_is_that_of_the_energy(name):
    """Against central differences along the gradient, in float32."""
    family = FAMILIES[name]
    model = transformer_models.model(family)
    norms, energies = [], []

    def differences(run, cond, x, sigma, layers, columns, energy):
        def at(latent):
            job = GradientJob(cond, latent, sigma, columns, energy)
            (found,) = energy_gradients(run.guider, [job], run.model_options, layers, Economy(rows=1))
            return found

        gradient = at(x).gradient
        norms.append(float(gradient.norm()))
        energies.extend(float(at(x + h * gradient / gradient.norm()).energy) for h in (STEP, -STEP))
        raise StopAfterFirst

    patched, positive, _ = guided(model, family)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StopAfterFirst):
        patch.setattr(SamplerRun, "gradient", differences)
        sample(patched, family, positive, steps=2)
    # What float32 resolves of an energy of about 10, over the step.
    assert (energies[0] - energies[1]) / (2 * STEP) == pytest.approx(norms[0], rel=0.05, abs=5e-6 / STEP)


class StopAfterFirst(Exception):
    pass


UNREACHABLE = {
    "ErnieImageModel": Family("ErnieImage", {
        "hidden_size": 64, "num_attention_heads": 4, "num_layers": 2, "ffn_hidden_size": 64, "in_channels": 4,
        "out_channels": 4, "text_in_dim": 32, "rope_axes_dim": (4, 6, 6)}, (4, 8, 8)),
    "PixArtMS": Family("PixArtAlpha", {
        "input_size": 64, "patch_size": 2, "in_channels": 4, "hidden_size": 64, "depth": 2, "num_heads": 4,
        "caption_channels": 32, "model_max_length": 40, "micro_condition": False, "pe_interpolation": 1}, (4, 48, 48)),
    "HunYuanDiT": Family("HunyuanDiT", {
        "input_size": 16, "patch_size": 2, "in_channels": 4, "hidden_size": 64, "depth": 2, "num_heads": 4,
        "text_states_dim": 32, "text_states_dim_t5": 32, "text_len": 12, "text_len_t5": 12},
        extra={"attention_mask": torch.ones(1, 12), "conditioning_mt5xl": torch.ones(1, 12, 32),
               "attention_mask_mt5xl": torch.ones(1, 12)}),
}  # fmt: skip


@pytest.mark.parametrize("name", UNREACHABLE)
def test_a_model_whose_attention_cannot_be_reached_is_refused_by_name(name):
    family = UNREACHABLE[name]
    model = transformer_models.model(family)
    patched, positive, _ = guided(model, family)
    sample(model, family, positive, steps=1)
    with pytest.raises(UnsupportedModel, match=f"{name} cannot be reached"):
        sample(patched, family, positive)


@pytest.mark.parametrize("name", ["Flux", "Qwen-Image", "Anima"])
def test_batches_masks_and_cfg_1_and_the_published_schedule(name):
    """Two images as one by one, the kept region of a mask untouched, and no guidance at strength 0 or off its range."""
    family = FAMILIES[name]
    model = transformer_models.model(family)
    patched, positive, _ = guided(model, family)
    both = sample(patched, family, positive, batch=2, cfg=1.0)
    assert both.shape[0] == 2 and not torch.equal(both[0], both[1])
    mask = torch.ones(1, 128, 128)
    mask[:, :, 64:] = 0
    kept = sample(patched, family, positive, noise_mask=mask)
    plain = sample(model, family, positive, noise_mask=mask)
    half = kept.shape[-1] // 2
    torch.testing.assert_close(kept[..., half + 1 :], plain[..., half + 1 :], rtol=1e-4, atol=1e-4)
    assert not torch.equal(kept[..., :half], plain[..., :half])
    for more in ({"options": GuidanceOptions(loss_scale=0.0)}, {"start_percent": 1.0}):
        assert guided(model, family, **more)[0] is model
    first = guided(model, family, options=GuidanceOptions())
    sample(first[0], family, positive, steps=10)
    assert {index for _, index, _ in first[2].rows} and max(index for _, index, _ in first[2].rows) < 30


@pytest.mark.parametrize("heads", [2, 16])
def test_maps_add_up_to_eight_whatever_the_heads_are(heads):
    """The published strength belongs to eight heads, over which the energy sums."""
    calls = transformers.TextCalls((0,), (0, 1, 2), (3, 4), 1, 2, (5, 5), True, heads)
    q, k = torch.randn(1, heads, 5, 4), torch.randn(1, heads, 5, 4)
    found = transformers.text_probabilities(transformers.Blocks(calls, (0,)), q, k, {}, [0, 1, 2])
    torch.testing.assert_close(found.sum(dim=(1, 3)), torch.full((1, 2), 8.0))


def test_blocks_are_chosen_by_the_layers_of_the_options():
    calls = transformers.TextCalls(tuple(range(20)), (0,), (1,), 1, 1, (2, 2), True, 4)
    assert transformers.guided_blocks("auto", calls).indices == (10, 12, 14, 16, 18)
    assert transformers.guided_blocks("auto", calls, mask=True).indices[0] == 10
    found = transformers.guided_blocks("3, 1 joint", calls)
    assert (found.indices, found.softmax, found.names) == ((1, 3), "joint", ("block.1", "block.3"))
    with pytest.raises(ValueError, match="'middle.0' does not exist.*0 to 19"):
        transformers.guided_blocks("middle.0", calls)


@pytest.mark.parametrize("name", ["Flux", "HiDream", "Wan"])
def test_the_softmax_over_all_keys_is_guided_too(name):
    family = FAMILIES[name]
    patched, positive, trace = guided(transformer_models.model(family), family, layers="auto joint")
    sample(patched, family, positive, steps=2)
    first, *_, last = [float(e.mean()) for t, _, e in trace.rows if t == 0]
    assert last < first


def test_an_error_in_a_guided_pass_leaves_the_model_and_the_next_run_as_they_were():
    family = FAMILIES["Z-Image"]
    model = transformer_models.model(family)
    positive = transformer_models.conditioning(family)
    before = sample(model, family, positive)
    patched, positive, _ = guided(model, family)

    def broken(*args):
        raise InterruptedError

    with pytest.MonkeyPatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(transformers.TextCapture, "_read", broken)
        sample(patched, family, positive)
    assert torch.equal(sample(model, family, positive), before)


SMALL = {"num_hidden_layers": 4, "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 4,
         "num_key_value_heads": 2}  # fmt: skip
T5 = {"num_layers": 2, "d_model": 64, "d_ff": 64, "d_kv": 16, "num_heads": 4}
CLIPS = {
    "Qwen-Image": (qwen_image.QwenImageTokenizer, qwen_image.te(), {"qwen25_7b_model_config": SMALL}),
    "Z-Image": (z_image.ZImageTokenizer, z_image.te(), {"qwen3_4b_model_config": SMALL}),
    "Flux": (flux.FluxTokenizer, flux.flux_clip(), {"t5xxl_model_config": T5, "clip_l_model_config": SMALL}),
}  # fmt: skip
LAYOUT = Layout(
    512, 512,
    (
        LayoutObject("a man in a red hat", Box(0, 0.2, 0.5, 0.6)),
        LayoutObject("a red hat", Box(0.5, 0.2, 0.4, 0.6)),
        LayoutObject('a sign that says "OPEN"', Box(0.5, 0.2, 0.4, 0.6)),
        LayoutObject("cat", Box(0.1, 0.2, 0.1, 0.1)),
        LayoutObject("cat", Box(0.3, 0.2, 0.1, 0.1)),
    ),
    background="a photo of a street",
)  # fmt: skip


def text_encoder(name):
    tokenizer, encoder, options = CLIPS[name]
    clip = comfy.sd.CLIP(ClipTarget(tokenizer, encoder), model_options=dict(options))
    generator = torch.Generator().manual_seed(0)
    for key, p in clip.cond_stage_model.named_parameters():
        p.copy_(torch.randn(p.shape, generator=generator) * (0.3 if p.ndim > 1 else 0.1))
        if "norm" in key and p.ndim == 1 and key.endswith("weight"):
            p.add_(1)
    return clip


@pytest.mark.parametrize("name", CLIPS)
def test_phrases_are_found_in_the_rows_that_the_text_encoder_makes_of_them(name):
    """Changing a phrase's last word changes its rows first: for causal encoders that very row, else the token there."""
    clip = text_encoder(name)
    overall = overall_prompt(LAYOUT)
    encoding = encode(clip, overall.prompt)[0][0]
    objects = phrase_objects(overall.groups, overall.prompt, clip, encoding)
    assert [o.phrase for o in objects] == [g.phrase for g in overall.groups]
    causal = name in ("Qwen-Image", "Z-Image")
    for o, group in zip(objects, overall.groups):
        assert len(o.positions) == 1 if causal else len(o.positions) > 1
        end = group.span[1]
        other = encode(clip, overall.prompt[:end] + " x" + overall.prompt[end:])[0][0]
        rows = min(encoding.shape[1], other.shape[1])
        if causal:
            same = ((encoding - other[:, : encoding.shape[1]])[:, :rows] if rows else None).abs().amax(-1)[0] < 1e-4
            assert same[: o.word + 1].all() and not same[o.word + 1]
    if name == "Flux":
        assert spelled(clip, overall, objects, 0) == [o.phrase for o in objects]


def spelled(clip, overall, objects, first):
    """The objects' positions from row `first` on, as T5 spells the tokens there."""
    flat = [p[0] for chunk in clip.tokenize(overall.prompt)["t5xxl"] for p in chunk]
    decode = clip.tokenizer.t5xxl.tokenizer.decode
    return [decode([flat[p - first] for p in o.positions if p >= first]) for o in objects]


def test_where_two_encoders_follow_each_other_the_rows_of_both_count():
    """SD3's conditioning: 77 rows of CLIP, then T5's. Only the tokenizer is asked."""
    clip = comfy.sd.CLIP(ClipTarget(sd3_clip.SD3Tokenizer, CLIPS["Flux"][1]), model_options=dict(CLIPS["Flux"][2]))
    overall = overall_prompt(LAYOUT)
    rows = 77 + sum(map(len, clip.tokenize(overall.prompt)["t5xxl"]))
    objects = phrase_objects(overall.groups, overall.prompt, clip, torch.zeros(1, rows, 8))
    assert spelled(clip, overall, objects, 77) == [o.phrase for o in objects]
    assert all(min(o.positions) < 77 for o in objects)


def test_a_conditioning_that_does_not_fit_the_text_encoder_is_refused():
    clip = text_encoder("Flux")
    overall = overall_prompt(LAYOUT)
    encoding = encode(clip, overall.prompt)[0][0]
    with pytest.raises(ValueError, match="255 rows, and the text encoder t5xxl makes 256 tokens"):
        phrase_objects(overall.groups, overall.prompt, clip, encoding[:, 1:])


def test_layout_guidance_takes_a_transformer_with_its_own_text_encoder():
    """The node as users connect it, with the stock KSampler: the energy falls, and the phrases are its objects."""
    family = replace(FAMILIES["Qwen-Image"], config={**FAMILIES["Qwen-Image"].config, "joint_attention_dim": 64})
    model, clip = transformer_models.model(family), text_encoder("Qwen-Image")
    patched, positive, trace = LayoutGuidance.execute(model, clip, LAYOUT, "", 1.0, 0.0, 1.0, "reference").args
    negative = encode(clip, "blurry")
    latent = {"samples": torch.zeros(1, *family.latent)}
    nodes.common_ksampler(patched, 1, 6, 3.0, "euler", "normal", positive, negative, latent)
    steps = {s: [float(e.mean()) for t, _, e in trace.rows if t == s] for s, _, _ in trace.rows}
    assert steps and all(e[-1] < e[0] for e in steps.values() if len(e) > 1)
    assert trace.phrases == tuple(g.phrase for g in overall_prompt(LAYOUT).groups)


@pytest.mark.parametrize("name", ["Flux", "Qwen-Image"])
def test_the_rows_of_a_reference_picture_are_neither_text_nor_image(name):
    """Edit models append the reference's rows to the image's: the grid stays the latent's, and the energy falls."""
    family = FAMILIES[name]
    family = replace(family, extra={**family.extra, "reference_latents": [torch.ones(1, *family.latent)]})
    model = transformer_models.model(family)
    seen = []

    def noted(*args):
        seen.append(transformers.find_text_calls(*args))
        return seen[-1]

    patched, positive, trace = guided(model, family)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampler_run, "find_text_calls", noted)
        sample(patched, family, positive, steps=2)
    (calls,) = seen
    assert (calls.height, calls.width) == (8, 8) and len(calls.image) == 64 and calls.lengths[1] == 12 + 2 * 64
    first, *_, last = [float(e.mean()) for t, _, e in trace.rows if t == 0]
    assert last < first


def test_a_run_that_starts_in_the_middle_and_streamed_weights_are_guided_too():
    family = FAMILIES["Lumina 2"]
    model = transformer_models.model(family)
    patched, positive, trace = guided(model, family)
    latent = {"samples": torch.zeros(1, *family.latent)}
    negative = transformer_models.conditioning(family, seed=2)
    nodes.common_ksampler(patched, 1, 4, 3.0, "euler", "normal", positive, negative, latent, denoise=0.5)
    whole = [float(e.mean()) for _, _, e in trace.rows]
    assert whole and whole[1] < whole[0]
    for module in model.model.diffusion_model.modules():
        if hasattr(module, "comfy_cast_weights"):
            module.comfy_cast_weights = True  # as with little memory: weights are cast for each layer
    nodes.common_ksampler(patched, 1, 4, 3.0, "euler", "normal", positive, negative, latent, denoise=0.5)
    assert [float(e.mean()) for _, _, e in trace.rows] == pytest.approx(whole, abs=1e-5)


def test_an_energy_of_clips_words_is_refused_before_sampling():
    model, positive = transformer_models.model(FAMILIES["Qwen-Image"]), []
    with pytest.raises(ValueError, match="energy boxdiff compares the words of CLIP.*set the energy of LMD Options"):
        patch_guidance(model, Target(OBJECTS, positive, (128, 128)), BASELINES["boxdiff"].guidance, EnergyTrace())
