"""Layout guidance on the real U-Net: gradients, every sampler, neutrality, conditionings, model families."""

import math
from dataclasses import replace

import comfy.samplers
import pytest
import torch
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.sampling import stages
from ella_lmd.lmd.sampling.energy import EnergyOptions, energies
from ella_lmd.lmd.sampling.guidance import GuidanceOptions
from ella_lmd.lmd.sampling.tokens import PhraseNotFound
from ella_lmd.nodes.host.guidance import guide as guide_module
from ella_lmd.nodes.host.guidance import step_hooks
from ella_lmd.nodes.host.guidance.attention import Layer, guided_layers, mask_layer
from ella_lmd.nodes.host.guidance.guide import EnergyTrace, Target, guidance_target, patch_guidance

import nodes

LAYOUT = Layout(
    128,
    128,
    (LayoutObject("a red cat", Box(0.05, 0.3, 0.4, 0.6)), LayoutObject("a blue dog", Box(0.55, 0.3, 0.4, 0.6))),
    background="a park",
)
# One iteration a step over the whole range, never stopped by the threshold: a short run then guides every step.
EVERY_STEP = GuidanceOptions(loss_scale=2.0, loss_threshold=0.0, max_index_step=50, max_iter=(1,))


def weights(model) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.model.state_dict().items()}


def assert_untouched(model, before: dict[str, torch.Tensor]) -> None:
    after = model.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[k], before[k]) for k in before)
    for module in model.model.diffusion_model.modules():
        for name in ("weight_function", "bias_function"):
            assert torch.clone not in getattr(module, name, [])


class Guided:
    """A model, a guided clone, conditionings and a latent for the tests below."""

    def __init__(self, sd15, layout=LAYOUT, options=EVERY_STEP, batch=1, prompt=""):
        self.model, clip, _ = sd15
        self.target, self.positive = guidance_target(clip, layout, prompt)
        self.negative = nodes.CLIPTextEncode().encode(clip, "blurry")[0]
        self.trace = EnergyTrace()
        self.guided = patch_guidance(self.model, self.target, options, self.trace)
        self.latent = {"samples": torch.zeros(batch, 4, layout.height // 8, layout.width // 8)}

    def sample(self, model, sampler="euler", scheduler="karras", steps=4, seed=3, cfg=4.0, denoise=1.0, **latent):
        latent = {**self.latent, **latent}
        return nodes.common_ksampler(
            model, seed, steps, cfg, sampler, scheduler, self.positive, self.negative, latent,
            denoise=denoise,
        )[0]["samples"]  # fmt: skip


@pytest.fixture(scope="module")
def guided(sd15):
    with torch.inference_mode():
        return Guided(sd15)


def test_the_guided_layers_follow_from_the_structure(sd15):
    unet = sd15[0].model.diffusion_model
    assert [str(x) for x in guided_layers(unet)] == ["middle.0", "output.3", "output.4", "output.5"]
    assert mask_layer(unet) == Layer("input", 8)


def fall(trace: EnergyTrace) -> list[bool]:
    """Per guided step with at least two evaluations: did the energy fall from the first to the last?"""
    steps = {s: [float(e.mean()) for t, _, e in trace.rows if t == s] for s, _, _ in trace.rows}
    return [values[-1] < values[0] for values in steps.values() if len(values) > 1]


TWICE = GuidanceOptions(loss_scale=2.0, loss_threshold=0.0, max_index_step=50, max_iter=(2,))


SHAPES = Layout(
    128,
    128,
    (LayoutObject("a red circle", Box(0.05, 0.3, 0.4, 0.5)), LayoutObject("a blue star", Box(0.55, 0.3, 0.4, 0.5))),
    background="a photo of grass",
)


@pytest.mark.parametrize("sampler", comfy.samplers.KSampler.SAMPLERS)
def test_every_sampler_of_the_host_is_guided(demo, sampler):
    """Energy falls within each guided step, the result differs from the unguided one, a mask's kept region stays."""
    g = Guided(demo, layout=SHAPES, options=TWICE)
    steps = 3 if sampler != "dpm_fast" else 5
    result = g.sample(g.guided, sampler, steps=steps)
    assert torch.isfinite(result).all()
    falls = fall(g.trace)
    assert falls and sum(falls) >= 0.95 * len(falls), g.trace.rows
    mask = torch.ones(1, 1, 16, 16)
    mask[..., :5, :] = 0
    start = {"samples": torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1)), "noise_mask": mask}
    plain = g.sample(g.model, sampler, steps=steps, **start)
    masked = g.sample(g.guided, sampler, steps=steps, **start)
    assert not torch.allclose(masked[..., 5:, :], plain[..., 5:, :], atol=1e-3)
    if sampler != "dpm_adaptive":  # its step control looks at the whole latent, so every cell changes a little
        assert torch.allclose(masked[..., :5, :], plain[..., :5, :], atol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [{"start_percent": math.nan}, {"end_percent": math.nan}, {"start_percent": -0.1}, {"end_percent": 1.01},
     {"start_percent": "0"}, {"end_percent": None}, {"start_percent": 0.7, "end_percent": 0.2}, {"canvas": (0, 512)},
     {"canvas": [512, 512]}, {"layers": None}],
)  # fmt: skip
def test_a_target_out_of_range_is_refused_by_name(wrong):
    with pytest.raises(ValueError, match=f"Target: {next(iter(wrong))} must"):
        Target(**{"objects": (), "conditioning": [], "canvas": (512, 512)} | wrong)


def test_heun_is_guided_once_a_step_and_not_at_its_inner_call(guided):
    guided.sample(guided.guided, "heun", steps=3)
    assert [step for step, _, _ in guided.trace.rows] == [0, 1, 2]


@pytest.mark.parametrize("scheduler", comfy.samplers.KSampler.SCHEDULERS)
def test_every_scheduler(demo, scheduler):
    guided = Guided(demo, layout=SHAPES)
    plain = guided.sample(guided.model, scheduler=scheduler, steps=3)
    result = guided.sample(guided.guided, scheduler=scheduler, steps=3)
    assert guided.trace.rows and torch.isfinite(result).all() and not torch.equal(plain, result)


@pytest.mark.parametrize(
    ("layout", "options", "extra"),
    [
        (LAYOUT, GuidanceOptions(loss_scale=0.0), {}),
        (LAYOUT, GuidanceOptions(max_index_step=0), {}),
        (LAYOUT, GuidanceOptions(max_iter=()), {}),
        (LAYOUT, GuidanceOptions(), {"start_percent": 0.4, "end_percent": 0.4}),
        (Layout(128, 128, (), "a park"), GuidanceOptions(), {}),
    ],
    ids=["strength 0", "no guided step", "no iterations", "empty range", "empty layout"],
)
def test_guidance_that_does_nothing_is_bit_identical_to_none(sd15, layout, options, extra):
    model, clip, _ = sd15
    target, positive = guidance_target(clip, layout, "", **extra)
    patched = patch_guidance(model, target, options, EnergyTrace())
    g = Guided(sd15)
    g.positive = positive
    assert torch.equal(g.sample(model), g.sample(patched))


def test_a_range_that_no_step_falls_into_is_bit_identical(sd15):
    model, clip, _ = sd15
    target, positive = guidance_target(clip, LAYOUT, "", start_percent=0.4, end_percent=0.41)
    g = Guided(sd15)
    g.positive = positive
    patched = patch_guidance(model, target, EVERY_STEP, EnergyTrace())
    assert patched is not model
    assert torch.equal(g.sample(model, steps=2), g.sample(patched, steps=2))


def test_the_model_is_untouched_after_a_run_an_error_and_an_interrupt(guided, monkeypatch):
    import comfy.model_management as mm

    before = weights(guided.model)
    plain = guided.sample(guided.model)
    guided.sample(guided.guided)
    assert_untouched(guided.model, before)

    def boom(*args):
        raise ZeroDivisionError("in the energy")

    with monkeypatch.context() as patch:
        patch.setattr(guide_module, "energies", boom)
        with pytest.raises(ZeroDivisionError):
            guided.sample(guided.guided)
    assert_untouched(guided.model, before)

    def interrupt(*args):
        mm.interrupt_current_processing()
        return energies(*args)

    with monkeypatch.context() as patch:
        patch.setattr(guide_module, "energies", interrupt)
        with pytest.raises(mm.InterruptProcessingException):
            guided.sample(guided.guided)
    assert_untouched(guided.model, before)
    assert torch.equal(plain, guided.sample(guided.model))


def test_nan_from_the_model_is_named_and_leaves_the_model_as_it_was(guided):
    before = weights(guided.model)
    patched = guided.guided.clone()
    patched.set_model_attn2_patch(lambda q, k, v, extra: (q * float("nan"), k, v))
    with pytest.raises(ValueError, match="NaN or infinity"):
        guided.sample(patched)
    assert_untouched(guided.model, before)


def test_each_image_of_a_batch_is_guided_by_its_own_gradient(sd15):
    """A batch of two equals the two single runs with the same noise."""
    g = Guided(sd15, batch=2)
    noise = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(5))
    both = custom(g, noise)
    for i in range(2):
        assert torch.allclose(both[i : i + 1], custom(g, noise[i : i + 1]), atol=2e-3, rtol=1e-3)
    assert not torch.allclose(both[0], both[1], atol=0.1)


def custom(g: Guided, noise: torch.Tensor, model=None, steps: int = 3) -> torch.Tensor:
    import comfy.sample

    sampler = comfy.samplers.sampler_object("euler")
    model = model or g.guided
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", steps)
    return comfy.sample.sample_custom(
        model, noise, 4.0, sampler, sigmas, g.positive, g.negative, torch.zeros_like(noise), seed=1
    )


def test_denoise_below_one_starts_in_the_middle_of_the_schedule(guided):
    start = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(2))
    guided.sample(guided.guided, steps=4, samples=start, denoise=0.5)
    first = guided.trace.rows[0][1]
    assert first >= 15, "half of the noise schedule is behind the first step"


def test_cfg_one(guided):
    result = guided.sample(guided.guided, cfg=1.0)
    assert guided.trace.rows and not torch.equal(result, guided.sample(guided.model, cfg=1.0))


@pytest.mark.parametrize(("width", "height"), [(200, 136), (64, 192), (136, 64)])
def test_odd_sizes_and_both_orientations(sd15, width, height):
    g = Guided(sd15, layout=LAYOUT.on_canvas(width, height))
    result = g.sample(g.guided, steps=2)
    assert g.trace.rows and torch.isfinite(result).all()


def test_a_latent_of_another_shape_than_the_canvas_is_an_error_that_names_both(sd15):
    g = Guided(sd15)
    with pytest.raises(ValueError, match=r"128 x 128 pixels.*24 x 16 cells"):
        g.sample(g.guided, samples=torch.zeros(1, 4, 16, 24))


def test_a_phrase_that_is_not_in_the_prompt_is_named(sd15):
    with pytest.raises(PhraseNotFound, match='"a blue dog".*a red cat on grass'):
        guidance_target(sd15[1], LAYOUT, "a red cat on grass")


def test_the_head_noun_is_enough_when_the_prompt_words_it_differently(sd15):
    target, _ = guidance_target(sd15[1], LAYOUT, "a dog, very blue, and a big red cat")
    words = {o.phrase: o.positions for o in target.objects}
    assert words["a blue dog"] == (2,) and len(words["a red cat"]) == 2


def test_weights_in_the_prompt_and_prompts_of_several_chunks(sd15):
    filler = "very " * 80
    g = Guided(sd15, prompt=f"{filler} big park with (a blue dog:1.3), (a red cat:0.8)")
    positions = [p for o in g.target.objects for p in o.positions]
    assert min(positions) > 77 and g.positive[0][0].shape[1] == 154
    g.sample(g.guided, steps=2)
    assert g.trace.rows


def test_tokens_are_found_behind_and_before_concatenated_conditioning(sd15):
    g = Guided(sd15)
    alone = g.sample(g.guided, steps=2)
    first_energy = g.trace.rows[0][2]
    extra = nodes.CLIPTextEncode().encode(sd15[1], "golden light")[0]
    own = g.positive
    for order in ((own, extra), (extra, own)):
        g.positive = nodes.ConditioningConcat().concat(*order)[0]
        result = g.sample(g.guided, steps=2)
        assert not torch.equal(result, alone)
        # The tail takes some attention away, but the same words are looked at.
        assert abs(float(g.trace.rows[0][2] - first_energy)) < 3.0


def test_combined_conditioning_guides_the_entry_that_holds_the_phrases(sd15):
    g = Guided(sd15)
    extra = nodes.CLIPTextEncode().encode(sd15[1], "golden light")[0]
    g.sample(g.guided, steps=1)
    energy = g.trace.rows[0][2]
    g.positive = nodes.ConditioningCombine().combine(extra, g.positive)[0]
    g.sample(g.guided, steps=1)
    assert torch.allclose(g.trace.rows[0][2], energy, atol=1e-4)


def evaluated(model, target, positive, x, sigma=8.0):
    """(energy [B], gradient) of a latent of the host's sampler at the first step of a run on it."""
    found = []

    class Once:
        def __init__(self, run):
            self.guide = guide_module.Guide(run, target, EVERY_STEP, EnergyTrace())

        def before_step(self, latent, step):
            found.append(self.guide.arguments(step)[1](x))
            return latent

        def finish(self, latent):
            return latent

    patched = model.clone()
    guide_module.add_step_hook(patched, "once", Once)
    comfy.samplers.sample(
        patched, torch.zeros_like(x), positive, positive, 1.0, patched.load_device,
        comfy.samplers.sampler_object("euler"), torch.tensor([sigma, 0.0]), model_options=patched.model_options,
        latent_image=torch.zeros_like(x), seed=1,
    )  # fmt: skip
    return found[0]


@pytest.mark.parametrize(("area", "place"), [((64, 128, 64, 0), (slice(None), slice(8, None))),
                                             ((128, 64, 0, 64), (slice(8, None), slice(None)))])  # fmt: skip
def test_an_area_conditioning_maps_the_boxes_into_its_area(sd15, area, place):
    """Guiding inside an area that is a half equals guiding that half's own latent with boxes moved into it."""
    model, clip, _ = sd15
    target, positive = guidance_target(clip, LAYOUT, "")
    width, height, left, top = area
    x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3)) * 8
    within = nodes.ConditioningSetArea().append(positive, width, height, left, top, 1.0)[0]
    energy, gradient = evaluated(model, target, within, x)
    rows, columns = place
    moved = [
        replace(o, boxes=tuple(
            Box((b.x * 128 - left) / width, (b.y * 128 - top) / height, b.w * 128 / width, b.h * 128 / height)
            for b in o.boxes
        ))
        for o in target.objects
    ]  # fmt: skip
    inside = [o for o in moved if o.boxes[0].x < 1 and o.boxes[0].x + o.boxes[0].w > 0]
    half = replace(target, objects=tuple(inside), canvas=(width, height))
    own_energy, own_gradient = evaluated(model, half, positive, x[..., rows, columns].clone())
    assert len(inside) == (1 if left else 2)
    assert torch.allclose(energy, own_energy, rtol=1e-5)
    part = gradient[..., rows, columns]
    assert part.norm() > 0 and (part - own_gradient).norm() / own_gradient.norm() < 1e-4
    assert gradient.norm() == pytest.approx(float(part.norm()), rel=1e-6), "nothing outside the area"


def test_a_time_range_that_has_not_begun_leaves_the_step_alone(sd15):
    g = Guided(sd15)
    g.positive = nodes.ConditioningSetTimestepRange().set_range(g.positive, 0.0, 0.3)[0]
    extra = nodes.CLIPTextEncode().encode(sd15[1], "golden light")[0]
    g.positive = nodes.ConditioningCombine().combine(g.positive, extra)[0]
    g.sample(g.guided, steps=6, scheduler="ddim_uniform")
    steps = [s for s, _, _ in g.trace.rows]
    assert steps and max(steps) < 3


def test_a_guided_model_can_be_guided_twice(sd15):
    """Two nested guidance nodes with different keys of the same kind: the later replaces the earlier."""
    g = Guided(sd15)
    trace = EnergyTrace()
    again = patch_guidance(g.guided, g.target, EVERY_STEP, trace)
    g.sample(again, steps=2)
    assert len(trace.rows) == 2 and len(g.trace.rows) == 0


def test_another_packs_patch_on_the_same_layers_still_runs(sd15):
    g = Guided(sd15)
    calls = []

    def foreign(q, k, v, extra):
        calls.append(extra["block"])
        from comfy.ldm.modules.attention import optimized_attention

        return optimized_attention(q, k, v, extra["n_heads"])

    base = g.model.clone()
    base.set_model_attn2_replace(foreign, "output", 3)
    plain = g.sample(base, steps=2)
    calls.clear()
    result = g.sample(patch_guidance(base, g.target, EVERY_STEP, g.trace), steps=2)
    assert calls and not torch.equal(plain, result)


def lora(model, scale: float = 0.3) -> dict:
    """A LoRA on the cross-attention of the deepest blocks, in the host's patch format."""
    patches = {}
    generator = torch.Generator().manual_seed(9)
    for key, w in model.model.state_dict().items():
        if "attn2.to_k.weight" in key or "attn2.to_q.weight" in key:
            patches[key] = (torch.randn(w.shape, generator=generator) * scale * w.float().std(),)
    return {k: ("diff", v) for k, v in patches.items()}


def test_the_gradient_equals_a_plain_full_forward_outside_inference_mode(sd15):
    """LoRA applied, inference mode, early exit, against a float32 copy of the patched U-Net run as a whole."""
    model, clip, _ = sd15
    patched = model.clone()
    assert patched.add_patches(lora(model), 0.8)
    target, positive = guidance_target(clip, LAYOUT, "")
    negative = nodes.CLIPTextEncode().encode(clip, "")[0]
    seen = {}

    class Spy(step_hooks.RunHook):
        def before_step(self, x, step):
            if step.index == 1:
                cond = step.run.guider.conds["positive"][0]
                columns = sorted({p for o in target.objects for p in o.positions})
                seen.update(x=x.clone(), sigma=step.sigma.clone(), columns=columns, layers=self.guide.layers)
                local = [
                    o.__class__(o.phrase, o.boxes, tuple(map(columns.index, o.positions)), 0) for o in target.objects
                ]
                energy = lambda maps, rows=None: energies(maps, local, EnergyOptions())  # noqa: E731
                seen["found"] = step.run.gradient(cond, x, step.sigma, self.guide.layers, columns, energy)
                seen["context"] = cond["model_conds"]["c_crossattn"].cond.clone()
                seen["sampling"] = step.run.guider.inner_model.model_sampling
                seen["state"] = {
                    k: v.clone() for k, v in step.run.guider.inner_model.diffusion_model.state_dict().items()
                }
                seen["energy"] = energy
            return x

    def make_hook(run):
        guide = guide_module.Guide(run, target, EVERY_STEP, EnergyTrace())
        return Spy(guide, stages.GuidanceStage(guide.guidance))

    step_hooks.add_step_hook(patched, "spy", make_hook)
    latent = {"samples": torch.zeros(1, 4, 16, 16)}
    nodes.common_ksampler(patched, 1, 3, 4.0, "euler", "normal", positive, negative, latent)
    energy, gradient = seen["found"].energy, seen["found"].gradient
    expected_energy, expected = plain_gradient(seen)
    assert torch.allclose(energy, expected_energy, rtol=1e-5)
    assert (gradient - expected).norm() / expected.norm() < 1e-4
    assert gradient.norm() > 0


def plain_gradient(seen: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """The same energy from a fresh float32 U-Net with the same weights: whole forward, nothing captured by patches."""
    import comfy.ops
    import test_models
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from ella_lmd.lmd.sampling.energy import AttentionMap

    with torch.inference_mode(False), torch.enable_grad():
        unet = UNetModel(**test_models.UNETS["sd15"], dtype=torch.float32, operations=comfy.ops.disable_weight_init)
        unet.load_state_dict({k: v.float().clone() for k, v in seen["state"].items()})
        unet.requires_grad_(False)
        maps = {}

        def watch(name):
            def hook(module, args, kwargs, output):
                x, context = args[0], kwargs["context"]
                q, k = module.to_q(x), module.to_k(context)
                q, k = (t.unflatten(-1, (module.heads, -1)).transpose(1, 2) for t in (q, k))
                side = int(x.shape[1] ** 0.5)
                probs = (q @ k.transpose(-1, -2) * module.dim_head**-0.5).softmax(-1)[..., seen["columns"]]
                maps[name] = AttentionMap(probs, side, side)

            return hook

        blocks = {"middle": [unet.middle_block], "output": unet.output_blocks}
        for layer in seen["layers"]:
            transformer = blocks[layer.part][layer.number][1].transformer_blocks[0]
            transformer.attn2.register_forward_hook(watch(layer), with_kwargs=True)
        x = seen["x"].clone().requires_grad_()
        sigma = seen["sigma"].clone()
        t = seen["sampling"].timestep(sigma).float().clone()
        unet(x / (sigma**2 + 1).sqrt().view(-1, 1, 1, 1), t, context=seen["context"].float().clone())
        energy = seen["energy"]([maps[layer] for layer in seen["layers"]]).total
        return energy.detach(), torch.autograd.grad(energy.sum(), x)[0]


def test_a_lora_through_hooks_is_part_of_the_guided_pass(sd15):
    import comfy.hooks

    g = Guided(sd15)
    g.sample(g.guided, steps=1)
    without = g.trace.rows[0][2]
    hooks = comfy.hooks.HookGroup()
    hook = comfy.hooks.WeightHook(strength_model=1.0, strength_clip=0.0)
    hook.weights = {k: v for k, v in lora(g.model, 2.0).items()}
    hook.need_weight_init = False
    hooks.add(hook)
    g.positive = comfy.hooks.set_hooks_for_conditioning(g.positive, hooks)
    before = weights(g.model)
    g.sample(g.guided, steps=2)
    assert not torch.allclose(g.trace.rows[0][2], without, atol=1e-3)
    assert_untouched(g.model, before)


@pytest.mark.parametrize("family", ["sd2", "sdxl"])
def test_other_families_are_guided_by_the_same_rule(family, sd15):
    """SD2.x and SDXL layouts: small random U-Nets loaded by the host's UNETLoader, random text features."""
    import test_models

    model = nodes.UNETLoader().load_unet(test_models.diffusion_model(family).name, "default")[0]
    layers = [str(x) for x in guided_layers(model.model.diffusion_model)]
    assert (
        layers
        == {
            "sd2": ["middle.0", "output.3", "output.4", "output.5"],
            "sdxl": ["middle.0", "output.0", "output.1", "output.2"],
        }[family]
    )
    target, _ = guidance_target(sd15[1], LAYOUT, "")
    generator = torch.Generator().manual_seed(0)
    width = {"sd2": 1024, "sdxl": 2048}[family]
    features = torch.randn(1, 77, width, generator=generator)
    extra = {"pooled_output": torch.randn(1, 1280, generator=generator)} if family == "sdxl" else {}
    target = replace(target, conditioning=[[features, extra]])
    trace = EnergyTrace()
    patched = patch_guidance(model, target, TWICE, trace)
    latent = {"samples": torch.zeros(1, 4, 16, 16)}
    negative = [[torch.randn(1, 77, width, generator=generator), extra]]
    result = nodes.common_ksampler(patched, 1, 2, 4.0, "euler", "normal", [[features, extra]], negative, latent)[0]
    assert torch.isfinite(result["samples"]).all()
    assert all(fall(trace)), trace.rows


def test_a_model_without_cross_attention_blocks_is_refused(sd15):
    class NotAUNet(torch.nn.Module):
        pass

    from ella_lmd.nodes.host.guidance.attention import UnsupportedModel

    with pytest.raises(UnsupportedModel, match="NotAUNet"):
        guided_layers(NotAUNet())
