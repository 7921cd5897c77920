"""Several objects in one batch: as one by one for every sampler, with its cache, its progress and its failures."""

from dataclasses import replace

import comfy.model_management as mm
import comfy.patcher_extension
import comfy.samplers
import pytest
import torch
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.sampling.guidance import GuidanceOptions
from ella_lmd.lmd.sampling.options import LMDOptions, SamplingSettings
from ella_lmd.nodes.host.guidance import gradients, memory_plan
from ella_lmd.nodes.host.guidance.lockstep import run_lanes
from ella_lmd.nodes.host.guidance.parallel_runs import OutOfStep
from ella_lmd.nodes.host.lmd import object_stage, run_cache
from ella_lmd.nodes.host.lmd.object_stage import sample_objects
from ella_lmd.nodes.host.lmd.overall_stage import compose_and_sample

LAYOUT = Layout(
    128,
    128,
    (
        LayoutObject("a red circle", Box(0.05, 0.35, 0.4, 0.55)),
        LayoutObject("a blue star", Box(0.55, 0.35, 0.4, 0.55)),
        LayoutObject("a yellow square", Box(0.35, 0.02, 0.3, 0.3)),
    ),
    background="a photo of grass",
)
SETTINGS = SamplingSettings(seed=7, steps=4, cfg=4.0, sampler="ddim", scheduler="ddim_uniform")
# Two iterations a step, and gentle: guidance enlarges the last digits, in which batches of different sizes differ.
TWICE = LMDOptions(guidance=GuidanceOptions(loss_scale=0.5, loss_threshold=0.0, max_iter=(2,)))
ALONE, TOGETHER = replace(TWICE, objects_at_once=1), replace(TWICE, objects_at_once=8)
SAMPLERS = [s for s in comfy.samplers.KSampler.SAMPLERS if s != "dpm_adaptive"]


@pytest.fixture(autouse=True)
def empty_cache():
    run_cache.OBJECT_RUNS.clear()


def fresh(loaded, layout=LAYOUT, settings=SETTINGS, options=TOGETHER):
    run_cache.OBJECT_RUNS.clear()
    return sample_objects(loaded[0], loaded[1], layout, settings, options)


def assert_same(one_by_one, together, atol=1e-4):
    """Equal to `atol` at every number, and to a tenth of it on average: a wrong noise or history is off by far more."""
    assert len(one_by_one.runs) == len(together.runs)
    for a, b in zip(one_by_one.runs, together.runs):
        assert a.item == b.item and a.latents.shape == b.latents.shape
        # Latents start at sigmas of about 15: their differences count in units of that noise.
        scale = a.latents.abs().amax((1, 2, 3, 4), keepdim=True).clamp(min=1)
        apart = ((a.latents - b.latents) / scale).abs()
        assert apart.max() < atol and apart.mean() < atol / 10
        assert (a.result - b.result).abs().max() < atol * max(1, float(a.result.abs().max()))
        assert torch.equal(a.mask, b.mask)
        assert [(s, i) for s, i, _ in a.energies] == [(s, i) for s, i, _ in b.energies]
        for (_, _, e), (_, _, f) in zip(a.energies, b.energies):
            assert torch.allclose(e, f, atol=atol * 10, rtol=atol)
        assert a.attention.keys() == b.attention.keys()
        for name in a.attention:
            assert torch.allclose(a.attention[name], b.attention[name], atol=atol)


def together_with(monkeypatch) -> list[list[str]]:
    """The phrases of each batch that is sampled from now on."""
    batches = []
    original = object_stage.ObjectStage._together

    def counting(self, jobs):
        batches.append([job.item.phrase for job in jobs])
        return original(self, jobs)

    monkeypatch.setattr(object_stage.ObjectStage, "_together", counting)
    return batches


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_objects_together_are_as_one_by_one_for_every_sampler(demo, sampler, monkeypatch):
    """Noise that a sampler adds is each object's own, as if it ran alone; so is what it remembers of earlier steps."""
    settings = replace(SETTINGS, sampler=sampler, scheduler="karras", steps=5)
    layout = replace(LAYOUT, objects=LAYOUT.objects[:2])
    alone = fresh(demo, layout, settings, ALONE)
    batches = together_with(monkeypatch)
    # Five large steps of this sharp little model enlarge a last digit here and there to 2e-4; the mean stays at 1e-6.
    assert_same(alone, fresh(demo, layout, settings, TOGETHER), atol=1e-3)
    assert [len(b) for b in batches] == [2]


def test_objects_together_on_a_unet_of_sd15_layout(sd15, monkeypatch):
    batches = together_with(monkeypatch)
    assert_same(fresh(sd15, options=ALONE), fresh(sd15, options=TOGETHER))
    assert [len(b) for b in batches] == [1, 1, 1, 3]


def test_several_images_of_several_objects(demo):
    settings = replace(SETTINGS, batch=2, steps=3)
    pair = fresh(demo, settings=settings, options=TOGETHER)
    assert_same(fresh(demo, settings=settings, options=ALONE), pair)
    for b in range(2):
        single = fresh(demo, settings=replace(settings, batch=1, seed=7 + 6789 * b), options=TOGETHER)
        for many, one in zip(pair.runs, single.runs):
            assert torch.allclose(many.result[b], one.result[0], atol=1e-3)


def test_each_object_stops_by_its_own_threshold_and_leaves_the_guided_batch(demo, monkeypatch):
    """With a threshold between the objects' energies, guided passes get smaller while some objects go on."""
    first = fresh(demo)
    after = sorted(float(run.energies[1][2]) for run in first.runs)
    options = replace(TWICE, guidance=replace(TWICE.guidance, loss_threshold=(after[0] + after[1]) / 2, max_iter=(4,)))
    sizes = []
    original = gradients._one_pass

    def counting(guider, images, *args):
        sizes.append(len(images))
        return original(guider, images, *args)

    alone = fresh(demo, options=replace(options, objects_at_once=1))
    monkeypatch.setattr(gradients, "_one_pass", counting)
    together = fresh(demo, options=replace(options, objects_at_once=8))
    assert_same(alone, together)
    counts = [len(run.energies) for run in together.runs]
    assert len(set(counts)) > 1 and sizes[0] == 3 and min(sizes) < 3
    assert sum(sizes) == sum(counts), "no object is computed that has nothing to gain"


def test_prompts_of_another_length_go_in_another_batch(demo, monkeypatch):
    long = LayoutObject("a " + "very " * 80 + "green ring", Box(0.3, 0.3, 0.3, 0.3))
    layout = replace(LAYOUT, objects=(*LAYOUT.objects[:2], long))
    alone = fresh(demo, layout, replace(SETTINGS, steps=2), ALONE)
    batches = together_with(monkeypatch)
    assert_same(alone, fresh(demo, layout, replace(SETTINGS, steps=2), TOGETHER))
    assert [len(b) for b in batches] == [2, 1] or [len(b) for b in batches] == [1, 2]


def test_only_objects_that_are_not_cached_run(demo, monkeypatch):
    settings = replace(SETTINGS, steps=2)
    fresh(demo, replace(LAYOUT, objects=LAYOUT.objects[1:2]), settings)
    batches = together_with(monkeypatch)
    sample_objects(demo[0], demo[1], LAYOUT, settings, TOGETHER)
    assert [sorted(b) for b in batches] == [["a red circle", "a yellow square"]]
    sample_objects(demo[0], demo[1], LAYOUT, settings, ALONE)
    assert len(batches) == 1, "how many run at once changes no result, so nothing is computed again"


def test_out_of_memory_means_fewer_at_once(demo, monkeypatch):
    """The host's own error from the model, for batches of more than one object, leaves no trace but a warning."""
    alone = fresh(demo, options=ALONE)
    batches = together_with(monkeypatch)
    original = type(demo[0].model).apply_model

    def small_device(self, x, *args, **kwargs):
        if len(x) > 2:
            raise mm.OOM_EXCEPTION("CUDA out of memory. Tried to allocate 1.00 GiB")
        return original(self, x, *args, **kwargs)

    monkeypatch.setattr(type(demo[0].model), "apply_model", small_device)
    result = fresh(demo)
    assert [len(b) for b in batches] == [3, 1, 1, 1]
    assert_same(alone, result, atol=1e-6)
    monkeypatch.setattr(
        type(demo[0].model), "apply_model", lambda self, x, *a, **k: small_device(self, x.repeat(3, 1, 1, 1))
    )
    with pytest.raises(mm.OOM_EXCEPTION):
        fresh(demo)


@pytest.mark.parametrize("where", ["model", "guided pass"])
def test_what_was_sampled_short_of_memory_is_not_kept(demo, monkeypatch, where):
    """Smaller batches differ in their last digits, so once there is room again the result is that of a fresh run."""
    settings, model = replace(SETTINGS, steps=2), type(demo[0].model)
    expected = fresh(demo, settings=settings)
    original, guided = model.apply_model, gradients._one_pass

    def small_device(self, x, *args, **kwargs):
        if len(x) > 2:
            raise mm.OOM_EXCEPTION("CUDA out of memory. Tried to allocate 1.00 GiB")
        return original(self, x, *args, **kwargs)

    def small_pass(guider, images, *args):
        if len(images) > 1:
            raise mm.OOM_EXCEPTION("CUDA out of memory. Tried to allocate 1.00 GiB")
        return guided(guider, images, *args)

    with monkeypatch.context() as patch:
        if where == "model":
            patch.setattr(model, "apply_model", small_device)
        else:
            patch.setattr(gradients, "_one_pass", small_pass)
        assert_same(expected, fresh(demo, settings=settings))
    again = sample_objects(demo[0], demo[1], LAYOUT, settings, TOGETHER)
    for a, b in zip(expected.runs, again.runs):
        assert torch.equal(a.latents, b.latents) and torch.equal(a.result, b.result)
    batches = together_with(monkeypatch)
    sample_objects(demo[0], demo[1], LAYOUT, settings, TOGETHER)
    assert batches == [], "and that one is kept"


def test_a_sampler_whose_runs_get_out_of_step_runs_one_by_one(demo, monkeypatch):
    batches = together_with(monkeypatch)
    alone = fresh(demo, settings=replace(SETTINGS, steps=2), options=ALONE)
    batches.clear()
    original = object_stage.ObjectStage._together

    def uneven(self, jobs):
        if len(jobs) > 1:
            raise OutOfStep("a test")
        return original(self, jobs)

    monkeypatch.setattr(object_stage.ObjectStage, "_together", uneven)
    assert_same(alone, fresh(demo, settings=replace(SETTINGS, steps=2)), atol=1e-6)


def test_a_model_that_another_node_guides_runs_one_by_one(demo, monkeypatch):
    batches = together_with(monkeypatch)
    model = demo[0].clone()
    calls = []

    def wrapper(executor, *args, **kwargs):
        calls.append(1)
        return executor(*args, **kwargs)

    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.SAMPLER_SAMPLE, "other", wrapper)
    fresh((model, demo[1]), settings=replace(SETTINGS, steps=1))
    assert [len(b) for b in batches] == [1, 1, 1] and len(calls) == 3


def test_an_error_in_one_object_ends_all_of_them_and_leaves_the_model_as_it_was(demo, monkeypatch):
    import threading

    before = {k: v.clone() for k, v in demo[0].model.state_dict().items()}
    threads = threading.active_count()
    original = object_stage.RunHook.before_step

    def failing(self, x, step):
        if step.index == 1 and self.guide.trace.title == "a red circle":
            raise ZeroDivisionError("in one object")
        return original(self, x, step)

    monkeypatch.setattr(object_stage.RunHook, "before_step", failing)
    with pytest.raises(ZeroDivisionError, match="in one object"):
        fresh(demo)
    assert threading.active_count() == threads
    assert all(torch.equal(v, before[k]) for k, v in demo[0].model.state_dict().items())


def test_an_interrupt_in_a_model_call_ends_all_objects(demo, monkeypatch):
    import threading

    threads = threading.active_count()
    original, calls = object_stage.Bar.callback, []

    def stop(self, *args):
        original(self, *args)
        calls.append(1)
        mm.interrupt_current_processing()

    monkeypatch.setattr(object_stage.Bar, "callback", stop)
    with pytest.raises(mm.InterruptProcessingException):
        fresh(demo)
    assert len(calls) == 1 and threading.active_count() == threads


def test_the_progress_bar_counts_all_objects_of_a_batch(demo, monkeypatch):
    import comfy.utils

    updates = []
    monkeypatch.setattr(
        comfy.utils, "PROGRESS_BAR_HOOK", lambda now, total, preview, **kw: updates.append((now, total))
    )
    objects = fresh(demo, settings=replace(SETTINGS, steps=2))
    compose_and_sample(demo[0], demo[1], objects)
    values = [now for now, _ in updates]
    assert {total for _, total in updates} == {8} and values == sorted(values)
    assert values[0] == 3 and values[-1] == 8, "one step of three objects, of four runs of two steps"


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m_sde", "heun", "uni_pc"])
def test_a_run_that_stops_early_is_the_full_run_as_far_as_it_is_needed(demo, sampler):
    settings = replace(SETTINGS, steps=10, sampler=sampler)
    full = fresh(demo, settings=settings)
    early = fresh(demo, settings=settings, options=replace(TOGETHER, stop_early=True))
    needed = TWICE.exact_steps(10)
    assert needed == 6 and early.exact_steps == 6
    for a, b in zip(full.runs, early.runs):
        assert b.steps == 6 and torch.equal(a.latents[:7], b.latents)
        for name in a.attention:
            assert torch.equal(a.attention[name][:6], b.attention[name])
        assert torch.isfinite(b.result).all() and not torch.equal(a.result, b.result)
        # The estimate shows what the finished picture shows.
        assert torch.corrcoef(torch.stack([a.result.flatten(), b.result.flatten()]))[0, 1] > 0.7
    composed = compose_and_sample(demo[0], demo[1], early)[0]
    assert torch.isfinite(composed).all()
    with pytest.raises(ValueError, match="stop_early off in the LMD options"):
        compose_and_sample(demo[0], demo[1], early, frozen_ratio=0.9)


def test_automatic_counts_by_the_hosts_figures(demo, monkeypatch):
    """The free memory of a pretended device decides; nothing runs on it."""
    stage = object_stage.ObjectStage
    model, clip, _ = demo
    settings = replace(SETTINGS, steps=1)
    bar = object_stage.Bar(model, runs=4, steps=1)
    one = memory_plan.pass_memory(model.model, (1, 4, 16, 16)) * memory_plan.GRADIENT_SHARE
    for room, expected in ((1.5 * one, 1), (6.5 * one, 3), (1e12, object_stage.MOST_OBJECTS)):
        monkeypatch.setattr(mm, "get_free_memory", lambda device, room=room: room)
        found = stage(model, clip, LAYOUT, settings, TWICE, "", bar).at_once()
        assert found == expected, "half of what a machine that computes on its CPU has free"
    monkeypatch.setattr(mm, "is_device_cpu", lambda device: False)
    monkeypatch.setattr(mm, "current_loaded_models", [])
    size = model.model_size() + mm.extra_reserved_memory()
    for room, expected in ((3.5 * one, 3), (1e12, object_stage.MOST_OBJECTS)):
        monkeypatch.setattr(mm, "get_free_memory", lambda device, room=room: room + size)
        found = stage(model, clip, LAYOUT, settings, TWICE, "", bar).at_once()
        assert found == expected or found == int((room + size - mm.extra_reserved_memory()) / 2 / one)
        pair = replace(settings, batch=2)
        assert stage(model, clip, LAYOUT, pair, TWICE, "", bar).at_once() <= max(1, found)


def test_lanes_take_turns_and_their_requests_meet():
    """Three counters of different length: the server sees all that still run, in one call each round."""
    rounds = []

    def lane(name, count):
        def run(ask):
            return [ask((name, i)) for i in range(count)]

        return run

    def serve(waiting):
        rounds.append(sorted(waiting))
        return {i: request[1] * 10 for i, request in waiting.items()}

    assert run_lanes([lane("a", 2), lane("b", 3), lane("c", 1)], serve) == [[0, 10], [0, 10, 20], [0]]
    assert rounds == [[0, 1, 2], [0, 1], [1]]


def test_lanes_share_the_callers_modes():
    seen = []

    def lane(ask):
        seen.append((torch.is_inference_mode_enabled(), torch.is_grad_enabled()))
        ask(None)

    for inference, grad in ((True, False), (False, False), (False, True)):
        seen.clear()
        with torch.inference_mode(inference), torch.set_grad_enabled(grad):
            run_lanes([lane, lane], lambda waiting: dict.fromkeys(waiting))
        assert set(seen) == {(inference, grad)}
