"""A whole LMD pass on the small SD1.5-layout model: objects, masks, composition, cache, batches, errors."""

import comfy.latent_formats
import comfy.model_management as mm
import pytest
import torch
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.sampling.guidance import GuidanceOptions
from ella_lmd.lmd.sampling.options import LMDOptions, SamplingSettings
from ella_lmd.nodes.host.guidance import attention as host_attention
from ella_lmd.nodes.host.guidance.guide import EnergyTrace, patch_guidance
from ella_lmd.nodes.host.lmd import masks, object_stage, overall_stage, run_cache

import nodes

LAYOUT = Layout(
    128,
    128,
    (
        LayoutObject("a red cat", Box(0.05, 0.35, 0.4, 0.55)),
        LayoutObject("a blue dog", Box(0.55, 0.35, 0.4, 0.55)),
        LayoutObject("a yellow kite", Box(0.35, 0.02, 0.3, 0.3)),
    ),
    background="a park",
    negative="birds",
)
SETTINGS = SamplingSettings(seed=7, steps=6, cfg=4.0, sampler="ddim", scheduler="ddim_uniform")
# Two iterations a step, so that each guided step shows its energy before and after an update.
TWICE = LMDOptions(guidance=GuidanceOptions(loss_scale=2.0, loss_threshold=0.0, max_iter=(2,)))


@pytest.fixture(autouse=True)
def empty_cache():
    run_cache.OBJECT_RUNS.clear()


@pytest.fixture(scope="module")
def run(sd15):
    """(objects, latent, trace, prompt) of one pass."""
    with torch.inference_mode():
        model, clip, _ = sd15
        objects = overall_stage.sample_objects(model, clip, LAYOUT, SETTINGS, TWICE)
        return objects, *overall_stage.compose_and_sample(model, clip, objects)


def steps_that_fall(rows) -> list[bool]:
    by_step = {s: [e for t, _, e in rows if t == s] for s, _, _ in rows}
    return [bool((v[-1] < v[0]).all()) for v in by_step.values() if len(v) > 1]


def test_the_energy_falls_on_at_least_95_percent_of_the_guided_steps(run):
    objects, _, trace, _ = run
    falls = [f for rows in [trace.rows, *(r.energies for r in objects.runs)] for f in steps_that_fall(rows)]
    assert len(falls) >= 4 * 3
    assert sum(falls) / len(falls) >= 0.95


def share_inside(objects) -> list[float]:
    """Per object: the share of its word token's attention inside its box, averaged over the guided steps and layers."""
    shares = []
    for r in objects.runs:
        guided = {s for s, _, _ in r.energies} or {0, 1, 2, 3}
        inside = []
        for name, attention in r.attention.items():
            if name.startswith("input"):
                continue
            height, width = attention.shape[-2:]
            y0, y1, x0, x1 = r.box.cells(height, width)
            for s in guided:
                total = attention[s].sum((-1, -2))
                inside.append(float((attention[s][..., y0:y1, x0:x1].sum((-1, -2)) / total).mean()))
        shares.append(sum(inside) / len(inside))
    return shares


def test_guidance_draws_each_words_attention_into_its_box(sd15, run):
    model, clip, _ = sd15
    unguided = LMDOptions(guidance=GuidanceOptions(loss_scale=0.0))
    plain = overall_stage.sample_objects(model, clip, LAYOUT, SETTINGS, unguided)
    assert all(not r.energies for r in plain.runs)
    assert all(with_ > without for with_, without in zip(share_inside(run[0]), share_inside(plain)))


def test_the_composition_keeps_the_objects_for_the_frozen_steps(sd15, run):
    """With everything frozen, the result shows the objects' own latents where their masks are."""
    from ella_lmd.lmd.sampling.object_runs import compose_runs

    model, clip, _ = sd15
    objects = run[0]
    latent, _, _ = overall_stage.compose_and_sample(model, clip, objects, frozen_ratio=1.0)
    composition = compose_runs(objects)
    expected = model.model.process_latent_out(composition.latents[-1])
    mask = composition.mask.expand_as(latent)
    assert mask.any() and torch.allclose(latent[mask], expected[mask], atol=1e-4)
    half, _, _ = overall_stage.compose_and_sample(model, clip, objects, frozen_ratio=0.5)
    assert not torch.allclose(half[mask], expected[mask], atol=1e-2)


def test_a_second_run_repeats_the_first_bit_for_bit(sd15, run):
    model, clip, _ = sd15
    objects, latent, _, _ = run
    again = overall_stage.sample_objects(model, clip, LAYOUT, SETTINGS, TWICE)
    assert all(torch.equal(a.latents, b.latents) for a, b in zip(again.runs, objects.runs))
    assert torch.equal(overall_stage.compose_and_sample(model, clip, again)[0], latent)


def count_samples(monkeypatch) -> list[str]:
    """The phrases of the objects that are sampled from now on, one by one."""
    seen = []
    original = object_stage.ObjectStage._together

    def counting(self, jobs):
        seen.extend(job.item.phrase for job in jobs)
        return original(self, jobs)

    monkeypatch.setattr(object_stage.ObjectStage, "_together", counting)
    monkeypatch.setattr(object_stage.ObjectStage, "at_once", lambda self: 1)
    return seen


def test_editing_one_object_recomputes_that_one_only(demo, monkeypatch):
    from dataclasses import replace

    model, clip, _ = demo
    settings = replace(SETTINGS, steps=2)
    seen = count_samples(monkeypatch)
    overall_stage.sample_objects(model, clip, LAYOUT, settings, TWICE)
    assert seen == ["a blue dog", "a red cat", "a yellow kite"]
    seen.clear()
    bigger = (*LAYOUT.objects[:2], LayoutObject("a yellow kite", Box(0.3, 0.02, 0.4, 0.4)))
    overall_stage.sample_objects(model, clip, replace(LAYOUT, objects=bigger), settings, TWICE)
    assert seen == ["a yellow kite"]
    seen.clear()
    renamed = (*LAYOUT.objects[:2], LayoutObject("a zebra", Box(0.3, 0.02, 0.4, 0.4)))
    added = (LayoutObject("a big apple", Box(0.1, 0.1, 0.2, 0.2)), *LAYOUT.objects)
    for objects, new in ((renamed, "a zebra"), (added, "a big apple")):
        overall_stage.sample_objects(model, clip, replace(LAYOUT, objects=objects), settings, TWICE)
        assert seen == [new]
        seen.clear()
    moved = (LAYOUT.objects[0], LayoutObject("a blue dog", Box(0.5, 0.4, 0.4, 0.55)), LAYOUT.objects[2])
    result = overall_stage.sample_objects(model, clip, replace(LAYOUT, objects=moved), settings, TWICE)
    assert seen == [], "a box that only moved has the same centred run"
    assert result.runs[0].item.box == Box(0.5, 0.4, 0.4, 0.55)


@pytest.mark.parametrize("change", ["seed", "steps", "options", "prompt", "weights", "patch"])
def test_everything_that_matters_is_in_the_cache_key(demo, monkeypatch, change):
    from dataclasses import replace

    model, clip, _ = demo
    settings, options, layout = replace(SETTINGS, steps=1), TWICE, replace(LAYOUT, objects=LAYOUT.objects[:1])
    seen = count_samples(monkeypatch)
    overall_stage.sample_objects(model, clip, layout, settings, options)
    if change == "seed":
        settings = replace(settings, seed=8)
    elif change == "steps":
        settings = replace(settings, steps=2)
    elif change == "options":
        options = replace(options, blending_ratio=0.2)
    elif change == "prompt":
        layout = replace(layout, background="a street")
    elif change == "weights":
        model = model.clone()
        key = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"
        assert model.add_patches({key: ("diff", (torch.ones_like(model.model.state_dict()[key]) * 0.01,))})
    else:
        model = model.clone()
        model.set_model_attn2_patch(lambda q, k, v, extra: (q, k, v))
    overall_stage.sample_objects(model, clip, layout, settings, options)
    assert len(seen) == 2
    overall_stage.sample_objects(model, clip, layout, settings, options)
    assert len(seen) == 2


def test_every_hook_on_a_model_is_in_its_signature(demo):
    """Each of them changes what the model samples, so runs of one are not runs of the other."""
    import comfy.hooks
    import comfy.patcher_extension

    def stranger(*args, **kwargs):
        return args[0](*args[1:], **kwargs)

    injection = comfy.patcher_extension.PatcherInjection(stranger, stranger)
    base = demo[0]
    changes = {
        "options": lambda m: m.model_options.update(disable_cfg1_optimization=True),
        "transformer options": lambda m: m.set_model_attn1_patch(stranger),
        "objects": lambda m: m.add_object_patch("manual_cast_dtype", torch.float16),
        "wrappers": lambda m: m.add_wrapper(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, stranger),
        "callbacks": lambda m: m.add_callback(comfy.patcher_extension.CallbacksMP.ON_PRE_RUN, stranger),
        "hook patches": lambda m: m.hook_patches.update({"hook": {"key": [1]}}),
        "forced hooks": lambda m: setattr(m, "forced_hooks", comfy.hooks.HookGroup()),
        "injections": lambda m: m.set_injections("bypass_lora", [injection]),
        "additional models": lambda m: m.set_additional_models("x", [base]),
        "attachments": lambda m: m.set_attachments("x", stranger),
        "weights": lambda m: m.add_patches({"diffusion_model.out.0.weight": ("diff", (torch.ones(1),))}),
    }
    plain = run_cache.model_signature(base)
    assert plain == run_cache.model_signature(base.clone()) and hash(plain) == hash(run_cache.model_signature(base))
    seen = {plain}
    for what, change in changes.items():
        model = base.clone()
        change(model)
        assert run_cache.model_signature(model) not in seen, what
        assert run_cache.model_signature(model) == run_cache.model_signature(model), what
        seen.add(run_cache.model_signature(model))


def test_tensors_of_any_shape_and_type_are_signed_by_content():
    for value in (torch.tensor(1.5), torch.zeros(0), torch.ones(2, 3, dtype=torch.bfloat16), torch.tensor([True])):
        assert run_cache.signature(value) == run_cache.signature(value.clone())
    assert run_cache.signature(torch.tensor(1.0)) != run_cache.signature(torch.tensor(2.0))


def test_the_cache_is_bounded(monkeypatch):
    owner = torch.nn.Module()
    small = run_cache.RunCache(max_bytes=1000)
    for i in range(10):
        small.put(i, i, [torch.zeros(100)], owner)
    assert small.get(0) is None and small.get(9) == 9 and small.get(8) == 8 and small.get(7) is None
    monkeypatch.setattr(mm, "get_free_memory", lambda device: 4 * 450)
    small.put(10, 10, [torch.zeros(100)], owner)
    assert small.get(9) is None and small.get(10) == 10, "a machine that is short of memory keeps the latest alone"


def test_cached_runs_go_when_the_host_drops_their_model():
    """ComfyUI's "free model and node cache" lets go of the MODEL; nothing of its runs stays behind."""
    import gc
    from dataclasses import replace

    from ella_lmd.nodes.host import demo_model

    model, clip, _ = demo_model.load()
    settings, layout = replace(SETTINGS, steps=1), replace(LAYOUT, objects=LAYOUT.objects[:1])
    overall_stage.sample_objects(model, clip, layout, settings, TWICE)
    assert len(run_cache.OBJECT_RUNS._entries) == 1
    mm.unload_all_models()
    del model, clip
    gc.collect()
    assert not run_cache.OBJECT_RUNS._entries


def test_an_interrupt_keeps_the_finished_objects(demo, monkeypatch):
    from dataclasses import replace

    model, clip, _ = demo
    settings = replace(SETTINGS, steps=1)
    seen = count_samples(monkeypatch)
    original = object_stage.Bar.run_done

    def stop(self):
        original(self)
        if len(seen) == 2:
            mm.interrupt_current_processing()

    with monkeypatch.context() as patch:
        patch.setattr(object_stage.Bar, "run_done", stop)
        with pytest.raises(mm.InterruptProcessingException):
            overall_stage.sample_objects(model, clip, LAYOUT, settings, TWICE)
    seen.clear()
    overall_stage.sample_objects(model, clip, LAYOUT, settings, TWICE)
    assert len(seen) == 1


def test_one_bar_runs_over_objects_and_composition(demo, monkeypatch):
    from dataclasses import replace

    import comfy.utils

    model, clip, _ = demo
    updates = []
    monkeypatch.setattr(
        comfy.utils, "PROGRESS_BAR_HOOK", lambda now, total, preview, **kw: updates.append((now, total))
    )
    settings = replace(SETTINGS, steps=2)
    objects = overall_stage.sample_objects(model, clip, LAYOUT, settings, TWICE)
    overall_stage.compose_and_sample(model, clip, objects)
    values = [now for now, _ in updates]
    assert {total for _, total in updates} == {8} and values == sorted(values) and values[-1] == 8


def test_each_image_of_a_batch_equals_its_own_run(demo):
    from dataclasses import replace

    model, clip, _ = demo
    layout, settings = replace(LAYOUT, objects=LAYOUT.objects[:2]), replace(SETTINGS, steps=3)
    pair = overall_stage.sample_objects(model, clip, layout, replace(settings, batch=2), TWICE)
    latent = overall_stage.compose_and_sample(model, clip, pair)[0]
    for b in range(2):
        alone = overall_stage.sample_objects(model, clip, layout, replace(settings, seed=7 + 6789 * b), TWICE)
        single = overall_stage.compose_and_sample(model, clip, alone)[0]
        assert torch.equal(alone.runs[0].mask[0], pair.runs[0].mask[b])
        assert torch.allclose(single[0], latent[b], atol=5e-3, rtol=1e-3)


@pytest.mark.parametrize("size", [(128, 192), (200, 120)])
def test_portrait_landscape_and_odd_sizes(demo, size):
    from dataclasses import replace

    model, clip, _ = demo
    objects = overall_stage.sample_objects(model, clip, LAYOUT.on_canvas(*size), replace(SETTINGS, steps=2), TWICE)
    latent = overall_stage.compose_and_sample(model, clip, objects)[0]
    assert latent.shape == (1, 4, size[1] // 8, size[0] // 8) and torch.isfinite(latent).all()


@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_2m", "heun", "dpmpp_2m_sde", "uni_pc", "dpm_fast"])
def test_other_samplers_compose_too(demo, sampler):
    from dataclasses import replace

    model, clip, _ = demo
    settings = replace(SETTINGS, steps=5, sampler=sampler, scheduler="karras")
    layout = replace(LAYOUT, objects=LAYOUT.objects[:1])
    objects = overall_stage.sample_objects(model, clip, layout, settings, TWICE)
    latent, trace, _ = overall_stage.compose_and_sample(model, clip, objects)
    assert torch.isfinite(latent).all() and trace.rows


@pytest.mark.parametrize(("sampler", "words"), [("dpm_adaptive", "fixed steps")])
def test_samplers_that_cannot_be_composed_are_refused(demo, sampler, words):
    from dataclasses import replace

    with pytest.raises(ValueError, match=words):
        overall_stage.sample_objects(demo[0], demo[1], LAYOUT, replace(SETTINGS, sampler=sampler), TWICE)


def test_the_fast_schedule_leaves_the_needed_steps_as_they_were(demo):
    from dataclasses import replace

    model, clip, _ = demo
    layout = replace(LAYOUT, objects=LAYOUT.objects[:1])
    settings = replace(SETTINGS, steps=10)
    slow = overall_stage.sample_objects(model, clip, layout, settings, TWICE)
    fast = overall_stage.sample_objects(model, clip, layout, settings, replace(TWICE, fast_schedule=True))
    exact = fast.exact_steps
    assert exact == 6 and fast.runs[0].steps < slow.runs[0].steps
    assert torch.equal(fast.runs[0].latents[: exact + 1], slow.runs[0].latents[: exact + 1])
    overall_stage.compose_and_sample(model, clip, fast)
    with pytest.raises(ValueError, match="fast_schedule and stop_early off"):
        overall_stage.compose_and_sample(model, clip, fast, frozen_ratio=0.9)


def test_both_stages_use_fused_attention_on_a_cpu_unless_something_else_was_chosen(demo, monkeypatch):
    """The host's fallback for CPUs is slower; another node's choice, and a start-up option, stay as they are."""
    seen = []

    def counting(name, function):
        def attention(*args, **kwargs):
            seen.append(name)
            return function(*args, **kwargs)

        return attention

    def latent(model):
        run_cache.OBJECT_RUNS.clear()
        seen.clear()
        options = LMDOptions(guidance=GuidanceOptions(loss_scale=0.0))  # guided passes have an attention of their own
        objects = overall_stage.sample_objects(model, demo[1], LAYOUT, SETTINGS, options)
        return overall_stage.compose_and_sample(model, demo[1], objects)[0]

    monkeypatch.setattr(host_attention, "attention_pytorch", counting("fused", host_attention.attention_pytorch))
    fused = latent(demo[0])
    assert seen.count("fused") > 50
    chosen = demo[0].clone()
    override = counting("chosen", lambda function, *args, **kwargs: function(*args, **kwargs))
    chosen.model_options["transformer_options"]["optimized_attention_override"] = override
    by_choice = latent(chosen)
    assert set(seen) == {"chosen"}
    assert "optimized_attention_override" not in demo[0].model_options["transformer_options"]
    monkeypatch.setattr(host_attention.args, "use_quad_cross_attention", True)
    by_option = latent(demo[0])
    # A foreign attention has objects run alone, the option together: equal to rounding.
    assert not seen and torch.allclose(by_option, by_choice, atol=1e-3)
    assert torch.allclose(fused, by_option, atol=1e-3)


def test_a_layout_without_objects_is_a_plain_run_of_the_background(demo):
    """Bit-identical to a stock KSampler with the same seed and prompts."""
    from dataclasses import replace

    model, clip, _ = demo
    empty = replace(LAYOUT, objects=())
    objects = overall_stage.sample_objects(model, clip, empty, SETTINGS, LMDOptions())
    latent, _, text = overall_stage.compose_and_sample(model, clip, objects, negative="blurry")
    assert text == "a park"
    positive = nodes.CLIPTextEncode().encode(clip, "a park")[0]
    negative = nodes.CLIPTextEncode().encode(clip, "blurry")[0]
    stock = nodes.common_ksampler(
        model, SETTINGS.seed, SETTINGS.steps, SETTINGS.cfg, SETTINGS.sampler, SETTINGS.scheduler, positive, negative,
        {"samples": torch.zeros(1, 4, 16, 16)},
    )[0]["samples"]  # fmt: skip
    assert torch.equal(latent, stock)


def test_a_prompt_of_the_users_own_gets_the_missing_phrases_appended(sd15, run):
    model, clip, _ = sd15
    text = overall_stage.compose_and_sample(model, clip, run[0], prompt="a red cat in a park")[2]
    assert text == "a red cat in a park| a blue dog| a yellow kite"


def test_a_given_conditioning_replaces_the_prompt(sd15, run):
    model, clip, _ = sd15
    own = nodes.CLIPTextEncode().encode(clip, "a park with a blue dog, a red cat, a yellow kite")[0]
    wide = nodes.ConditioningConcat().concat(own, nodes.CLIPTextEncode().encode(clip, "at night")[0])[0]
    latent, trace, _ = overall_stage.compose_and_sample(model, clip, run[0], positive_cond=wide)
    assert trace.rows and not torch.equal(latent, run[1])


def test_the_weights_are_untouched_and_guided_models_go_in_too(sd15, run):
    from dataclasses import replace

    model, clip, _ = sd15
    before = {k: v.clone() for k, v in model.model.state_dict().items()}
    objects = overall_stage.sample_objects(model, clip, LAYOUT, replace(SETTINGS, steps=1), TWICE)
    overall_stage.compose_and_sample(model, clip, objects)
    assert all(torch.equal(v, before[k]) for k, v in model.model.state_dict().items())


def test_two_of_a_kind_share_a_phrase_and_keep_their_own_references(demo):
    from dataclasses import replace

    model, clip, _ = demo
    twins = (LayoutObject("a cat", Box(0.05, 0.4, 0.4, 0.5)), LayoutObject("a cat", Box(0.55, 0.4, 0.4, 0.5)))
    layout = replace(LAYOUT, objects=(*twins, LAYOUT.objects[2]))
    objects = overall_stage.sample_objects(model, clip, layout, replace(SETTINGS, steps=2), TWICE)
    latent, trace, text = overall_stage.compose_and_sample(model, clip, objects)
    assert "two cats" in text and len(objects.runs) == 3 and trace.rows and torch.isfinite(latent).all()
    assert not torch.equal(objects.runs[0].noise, objects.runs[1].noise)


def test_masks_from_attention_box_and_any_other_node(run, sd15):
    objects = run[0]
    for source in (masks.ATTENTION, masks.ATTENTION_IN_BOX, masks.BOX):
        changed = masks.new_masks(objects, source, 0.25)
        assert all(r.mask.any() and r.mask.shape == (1, 16, 16) for r in changed.runs)
    inside = masks.new_masks(objects, masks.ATTENTION_IN_BOX, 0.25).runs
    box = masks.new_masks(objects, masks.BOX, 0.25).runs
    assert all(not (a.mask & ~b.mask).any() for a, b in zip(inside, box))
    given = torch.zeros(3, 128, 128)
    given[:, 32:64, 16:96] = 1
    changed = masks.new_masks(objects, masks.GIVEN, 0.25, given=given)
    assert int(changed.runs[0].mask.sum()) == 4 * 10
    given[1] = 0
    assert torch.equal(masks.new_masks(objects, masks.GIVEN, 0.25, given=given).runs[1].mask, box[1].mask)


@pytest.mark.parametrize("given", [None, torch.zeros(2, 128, 128)])
def test_a_wrong_number_of_masks_is_an_error_that_counts(run, given):
    with pytest.raises(ValueError, match="3 in the order of the object images, got"):
        masks.new_masks(run[0], masks.GIVEN, 0.25, given=given)


def test_sam_without_its_inputs_says_what_to_connect(run):
    with pytest.raises(ValueError, match="sam_model and vae"):
        masks.new_masks(run[0], masks.SAM_POINT, 0.25)


def test_the_energy_trace_of_a_patched_run_inside_the_composer(sd15, run):
    """A model that already carries Layout Guidance can be given to the composer; both act."""
    from ella_lmd.nodes.host.guidance.guide import guidance_target

    model, clip, _ = sd15
    target, _ = guidance_target(clip, LAYOUT, "")
    trace = EnergyTrace()
    patched = patch_guidance(model, target, TWICE.guidance, trace)
    latent, own, _ = overall_stage.compose_and_sample(patched, clip, run[0])
    assert trace.rows and own.rows and not torch.equal(latent, run[1])


@pytest.mark.parametrize("difference", ["structure", "latents", "noise levels"])
def test_a_composer_with_another_model_says_so_before_it_samples(demo, sd15, extra_nodes, monkeypatch, difference):
    from dataclasses import replace

    objects = overall_stage.sample_objects(demo[0], demo[1], LAYOUT, replace(SETTINGS, steps=2), TWICE)
    model, words = demo[0].clone(), "noise levels"
    if difference == "structure":
        model, words = sd15[0], "latents of another kind|another structure"
    elif difference == "latents":
        model.add_object_patch("latent_format", comfy.latent_formats.Flux())
        words = "latents of another kind .*than this model .Flux"
    else:
        model = extra_nodes["ModelSamplingDiscrete"]().patch(model, "eps", True)[0]
    monkeypatch.setattr(overall_stage, "sample_latent", None)
    with pytest.raises(ValueError, match=f"({words}).*the model that Box Grounded Sampler has"):
        overall_stage.compose_and_sample(model, demo[1], objects)
    if difference == "structure":
        with pytest.raises(ValueError, match="another structure"):
            overall_stage.compose_and_sample(model, sd15[1], replace(objects, latent_format="", sigmas=()))
