"""Layout guidance beside what else people have in their graphs: other samplers nodes, ControlNet, FreeU, fp8 weights, ELLA."""

from dataclasses import replace

import comfy.cldm.cldm
import comfy.controlnet
import comfy.ops
import comfy.samplers
import pytest
import test_models
import torch
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.sampling.guidance import GuidanceOptions
from ella_lmd.nodes.host.guidance.guide import EnergyTrace, guidance_target, patch_guidance

import nodes

LAYOUT = Layout(
    128,
    128,
    (LayoutObject("a red cat", Box(0.05, 0.3, 0.4, 0.6)), LayoutObject("a blue dog", Box(0.55, 0.3, 0.4, 0.6))),
    background="a park",
)
TWICE = GuidanceOptions(loss_scale=2.0, loss_threshold=0.0, max_index_step=50, max_iter=(2,))


class Graph:
    """A guided model with what a sampler needs."""

    def __init__(self, loaded, model=None):
        base, clip, _ = loaded
        self.base = model or base
        self.clip = clip
        self.target, self.positive = guidance_target(clip, LAYOUT, "")
        self.negative = nodes.CLIPTextEncode().encode(clip, "blurry")[0]
        self.trace = EnergyTrace()
        self.guided = patch_guidance(self.base, self.target, TWICE, self.trace)
        self.latent = {"samples": torch.zeros(1, 4, 16, 16)}

    def sample(self, model=None, steps=2, **latent):
        model = model or self.guided
        return nodes.common_ksampler(
            model, 1, steps, 4.0, "euler", "normal", self.positive, self.negative, {**self.latent, **latent}
        )[0]["samples"]  # fmt: skip

    def falls(self) -> bool:
        return fallen(self.trace)


def fallen(trace: EnergyTrace) -> bool:
    steps = {s: [float(e.mean()) for t, _, e in trace.rows if t == s] for s, _, _ in trace.rows}
    return bool(steps) and all(v[-1] < v[0] for v in steps.values())


def out(result):
    return result.result if hasattr(result, "result") else result


@pytest.mark.parametrize("guider", ["CFGGuider", "BasicGuider", "DualCFGGuider"])
def test_sampler_custom_advanced_with_every_guider(demo, extra_nodes, guider):
    g = Graph(demo)
    inputs = {
        "CFGGuider": {"positive": g.positive, "negative": g.negative, "cfg": 4.0},
        "BasicGuider": {"conditioning": g.positive},
        "DualCFGGuider": {"cond1": g.positive, "cond2": g.positive, "negative": g.negative, "cfg_conds": 4.0,
                          "cfg_cond2_negative": 3.0, "style": "regular"},
    }[guider]  # fmt: skip
    made = out(extra_nodes[guider].execute(model=g.guided, **inputs))[0]
    sigmas = comfy.samplers.calculate_sigmas(g.guided.get_model_object("model_sampling"), "karras", 3)
    noise = out(extra_nodes["RandomNoise"].execute(noise_seed=1))[0]
    sampler = out(extra_nodes["KSamplerSelect"].execute(sampler_name="dpmpp_2m"))[0]
    function = sampler.sampler_function
    result = out(extra_nodes["SamplerCustomAdvanced"].execute(noise, made, sampler, sigmas, g.latent))[0]
    assert torch.isfinite(result["samples"]).all() and g.falls()
    assert sampler.sampler_function is function, "SAMPLER objects are shared and must not change"


def test_sampler_custom_on_split_sigmas(demo, extra_nodes):
    """Two sampler nodes, each with half of the schedule: guidance goes by the noise level, not by the step's number."""
    g = Graph(demo)
    sigmas = comfy.samplers.calculate_sigmas(g.guided.get_model_object("model_sampling"), "normal", 6)
    sampler = comfy.samplers.sampler_object("euler")
    custom = extra_nodes["SamplerCustom"]
    first = out(custom.execute(g.guided, True, 1, 4.0, g.positive, g.negative, sampler, sigmas[:4], g.latent))[0]
    early = g.trace.rows[0][1]
    out(custom.execute(g.guided, False, 1, 4.0, g.positive, g.negative, sampler, sigmas[3:], first))
    assert early == 0 and g.trace.rows[0][1] >= 20


def test_advanced_ksampler_range(demo):
    g = Graph(demo)
    nodes.KSamplerAdvanced().sample(
        g.guided, "enable", 1, 6, 4.0, "euler", "normal", g.positive, g.negative, g.latent, 2, 5, "enable"
    )
    assert [s for s, _, _ in g.trace.rows] == [0, 0, 1, 1, 2, 2] and g.trace.rows[0][1] >= 10 and g.falls()


def a_controlnet():
    config = {
        k: v for k, v in test_models.UNETS["sd15"].items() if k not in ("out_channels", "transformer_depth_output")
    }
    config |= {"hint_channels": 3}
    model = comfy.cldm.cldm.ControlNet(**config, dtype=torch.float32, operations=comfy.ops.manual_cast)
    generator = torch.Generator().manual_seed(3)
    for p in model.parameters():
        p.copy_(torch.randn(p.shape, generator=generator) * 0.02)
    return comfy.controlnet.ControlNet(model, load_device=torch.device("cpu"))


def test_the_gradient_goes_through_with_a_controlnet(sd15):
    g = Graph(sd15)
    plain = g.sample()
    image = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(0))
    g.positive, g.negative = nodes.ControlNetApplyAdvanced().apply_controlnet(
        g.positive, g.negative, a_controlnet(), image, 0.8, 0.0, 1.0
    )
    controlled = g.sample()
    assert g.falls() and torch.isfinite(controlled).all() and not torch.equal(plain, controlled)
    assert not torch.equal(controlled, g.sample(g.base))


def test_a_patch_that_writes_in_place_is_guided_through(sd15, caplog):
    """Like FreeU, which scales slices of the features in place."""

    def in_place(h, skip, extra_options):
        h[:, :160] = h[:, :160].exp_().clamp_(max=2)
        return h, skip

    patched = sd15[0].clone()
    patched.set_model_output_block_patch(in_place)
    g = Graph(sd15, model=patched)
    with caplog.at_level("WARNING"):
        result = g.sample()
    assert g.falls() and torch.isfinite(result).all() and "without" not in caplog.text
    assert not torch.equal(result, Graph(sd15).sample())


@pytest.mark.parametrize("dtype", ["fp8_e4m3fn", "fp8_e5m2"])
def test_weights_that_are_cast_layer_by_layer(sd15, dtype):
    """fp8 weights are streamed through a cast, so they are cloned for the backward pass, and put back after it."""
    model = nodes.UNETLoader().load_unet(test_models.diffusion_model("sd15").name, dtype)[0]
    g = Graph(sd15, model=model)
    before = {k: v.clone() for k, v in model.model.state_dict().items()}
    assert torch.isfinite(g.sample()).all() and g.falls()
    assert all(torch.equal(v.float(), before[k].float()) for k, v in model.model.state_dict().items())


def test_the_lean_attention_of_the_host_is_replaced_in_the_guided_pass(sd15, monkeypatch):
    """Sub-quadratic attention, the host's choice on CPUs, has no gradient when memory is short."""
    import comfy.ldm.modules.attention as attention

    def no_gradient(*args, **kwargs):
        assert not torch.is_grad_enabled(), "the guided pass must use PyTorch's attention"
        return original(*args, **kwargs)

    original = attention.attention_sub_quad
    wrapped = attention.wrap_attn(no_gradient)
    monkeypatch.setattr(attention, "optimized_attention", wrapped)
    g = Graph(sd15)
    g.sample()
    assert g.falls()


def test_ella_tokens_before_clips_shift_the_positions_and_follow_the_timestep(demo, sd15):
    """ELLA's 64 tokens stand before CLIP's: the phrases are found behind them, whatever they become at each step."""
    g = Graph(sd15)
    g.sample(steps=1)
    ahead = torch.randn(1, 64, 768, generator=torch.Generator().manual_seed(4))
    g.positive = [[torch.cat([ahead, g.positive[0][0]], 1), g.positive[0][1]]]
    seen = []
    from ella_lmd.nodes.host.guidance import guide

    original = guide.shifted

    def spy(objects, offset):
        seen.append(offset)
        return original(objects, offset)

    guide.shifted = spy
    try:
        g.sample(steps=1)
    finally:
        guide.shifted = original
    assert seen == [64] and g.falls()


def first_energies(g, positive, batch=1):
    g.trace.rows.clear()
    g.positive = positive
    g.sample(steps=1, samples=torch.zeros(batch, 4, 16, 16))
    return torch.stack([e for _, _, e in g.trace.rows])


def foreign(g, kind):
    """Positive conditionings that do not hold the guided prompt's encoding."""
    other = nodes.CLIPTextEncode().encode(g.clip, "a park with a blue dog, a red cat at night")[0]
    tokens, extra = g.positive[0]
    made = torch.randn(2, 308, tokens.shape[-1], generator=torch.Generator().manual_seed(4))
    return {
        "308 tokens": [[made[:1], extra]],
        "too short": [[tokens[:, :5], {}]],
        "another text": other,
        "average": nodes.ConditioningAverage().addWeighted(g.positive, other, 0.5)[0],
        "one row of two": [[torch.cat([tokens, other[0][0]]), extra]],
        "entry per time": [[made[:1], {"start_percent": 0.0, "end_percent": 0.5}], [made[1:], {"start_percent": 0.5}]],
        "area only": nodes.ConditioningSetArea().append([[made[:1], {}]], 128, 128, 0, 0, 1.0)[0],
    }[kind]


@pytest.mark.parametrize(
    "kind", ["308 tokens", "too short", "another text", "average", "one row of two", "entry per time", "area only"]
)
def test_whatever_conditions_the_sampler_the_energies_are_those_of_the_guided_prompt(demo, kind, caplog):
    """The latent, and so the attention that is looked for, is the same: only what the image is made of differs."""
    g = Graph(demo)
    positive, batch = foreign(g, kind), 2 if kind == "one row of two" else 1
    with caplog.at_level("INFO"):
        by_clip = first_energies(g, g.positive, batch)
        assert "which holds the guided prompt" in caplog.text and "own encoding" not in caplog.text
        caplog.clear()
        found = first_energies(g, positive, batch)
    assert torch.equal(found[0], by_clip[0]) and len(found) == len(by_clip)
    assert caplog.text.count("the guided prompt's own encoding") == 1
    unguided = g.sample(g.base, steps=1, samples=torch.zeros(batch, 4, 16, 16))
    assert not torch.equal(g.sample(steps=1, samples=torch.zeros(batch, 4, 16, 16)), unguided)


def test_an_encoding_that_the_model_cannot_read_is_refused(demo):
    g = Graph(demo)
    g.target = replace(g.target, conditioning=[[torch.zeros(1, 77, 8), {}]])
    with pytest.raises(ValueError, match=r"has width 8, this model reads \d+. Connect the CLIP"):
        g.sample(patch_guidance(g.base, g.target, TWICE, g.trace), steps=1)


def test_sdxl_guides_with_the_prompts_own_pooled_vector_and_size(sd15):
    import test_models

    model = nodes.UNETLoader().load_unet(test_models.diffusion_model("sdxl").name, "default")[0]
    generator = torch.Generator().manual_seed(0)
    own, other = (
        [[torch.randn(1, t, 2048, generator=generator), {"pooled_output": torch.randn(1, 1280, generator=generator)}]]
        for t in (77, 308)
    )
    other[0][1] |= {"width": 4096, "height": 64, "target_width": 512}
    target, _ = guidance_target(sd15[1], LAYOUT, "")
    target = replace(target, conditioning=own)
    first = []
    for positive in (own, other):
        trace = EnergyTrace()
        nodes.common_ksampler(
            patch_guidance(model, target, TWICE, trace), 1, 1, 4.0, "euler", "normal", positive, own,
            {"samples": torch.zeros(1, 4, 16, 16)},
        )  # fmt: skip
        first.append(trace.rows[0][2])
    assert torch.equal(*first)


@pytest.mark.parametrize("schedule_clip", [False, True])
def test_scheduled_clip_hooks_are_guided_at_every_step(demo, extra_nodes, schedule_clip):
    """They give one conditioning entry per keyframe, each with an encoding of its own."""
    import comfy.hooks

    base, clip, _ = demo
    lora = {}
    for key, w in clip.cond_stage_model.state_dict().items():
        if "self_attn.q_proj.weight" in key:
            name = "lora_te_" + key.split("transformer.", 1)[1].removesuffix(".weight").replace(".", "_")
            generator = torch.Generator().manual_seed(len(key))
            lora[f"{name}.lora_down.weight"] = torch.randn(4, w.shape[1], generator=generator)
            lora[f"{name}.lora_up.weight"] = torch.randn(w.shape[0], 4, generator=generator) * 0.3
    hooks = comfy.hooks.create_hook_lora(lora=lora, strength_model=1.0, strength_clip=1.0)
    keyframes = comfy.hooks.HookKeyframeGroup()
    for strength, start in ((1.0, 0.0), (0.5, 0.3), (0.0, 0.6)):
        keyframes.add(comfy.hooks.HookKeyframe(strength=strength, start_percent=start))
    hooks.set_keyframes_on_hooks(hook_kf=keyframes)
    clip = hooked(extra_nodes, clip, hooks, schedule_clip)
    target, positive = guidance_target(clip, LAYOUT, "")
    assert len(positive) == (3 if schedule_clip else 1)
    trace = EnergyTrace()
    guided = patch_guidance(base, target, TWICE, trace)
    negative = nodes.CLIPTextEncode().encode(clip, "blurry")[0]
    latent = {"samples": torch.zeros(1, 4, 16, 16)}
    nodes.common_ksampler(guided, 3, 8, 4.0, "euler", "normal", positive, negative, latent)
    assert sorted({step for step, _, _ in trace.rows}) == list(range(8)) and fallen(trace)


def hooked(extra_nodes, clip, hooks, schedule_clip):
    node = extra_nodes["SetClipHooks"]
    return getattr(node(), node.FUNCTION)(clip=clip, apply_to_conds=True, schedule_clip=schedule_clip, hooks=hooks)[0]
