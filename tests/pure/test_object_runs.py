"""Object runs and stages without a host: seeds, masks, how many steps are kept, and when a run ends."""

import math
import zlib
from dataclasses import replace

import pytest
import torch
from ella_lmd.ella.connector import ConnectorConfig, sinusoid
from ella_lmd.lmd.layout import Box, Layout
from ella_lmd.lmd.prompts import ObjectPrompt
from ella_lmd.lmd.sampling import compose, object_runs
from ella_lmd.lmd.sampling.guidance import Guidance, GuidanceOptions
from ella_lmd.lmd.sampling.object_runs import ObjectRun, ObjectRuns
from ella_lmd.lmd.sampling.options import LMDOptions, SamplingSettings
from ella_lmd.lmd.sampling.stages import ObjectStage, OverallStage, RunEnds

BOX = Box(0.25, 0.5, 0.5, 0.5)


def item(phrase: str = "a cat") -> ObjectPrompt:
    return ObjectPrompt(phrase, phrase, phrase.split()[-1], BOX)


def a_run(steps: int, batch: int = 2, at: Box = BOX) -> ObjectRun:
    generator = torch.Generator().manual_seed(steps)
    latents = torch.randn(steps + 1, batch, 4, 8, 8, generator=generator)
    attention = {"middle.0": torch.rand(steps, batch, 2, 4, 4, generator=generator)}
    mask = object_runs.box_mask(at, 8, 8).expand(batch, 8, 8)
    return ObjectRun(item(), at, torch.full((batch, 4, 8, 8), 7.0), latents, attention, latents[-1], mask, ())


def the_runs(*runs: ObjectRun, options: LMDOptions | None = None, steps: int = 6) -> ObjectRuns:
    settings = SamplingSettings(1, steps, 7.5, "ddim", "ddim_uniform", 2)
    return ObjectRuns(Layout(64, 64), settings, options or LMDOptions(), torch.zeros(2, 4, 8, 8), runs)


def test_the_defaults_of_the_options_are_the_published_ones():
    published = {
        "layers": "auto", "blending_ratio": 0.01, "centre": True, "horizontal_only": False, "placement": "floor",
        "floor_padding": 0.2, "align": True, "align_horizontal_only": False, "fast_schedule": False,
        "stop_early": False, "objects_at_once": 0, "reference_seeds": False, "use_background": True,
        "use_negative": True,
    }  # fmt: skip
    options = LMDOptions()
    assert {name: getattr(options, name) for name in published} == published
    assert SamplingSettings(1, 2, 3.0, "ddim", "normal").batch == 1


@pytest.mark.parametrize(
    "options",
    [{"guidance": None}, {"layers": 3}, {"blending_ratio": 1.1}, {"floor_padding": -0.1}, {"placement": "center"},
     {"objects_at_once": -1}, {"align": 1}, {"use_negative": "yes"}],
)  # fmt: skip
def test_options_out_of_range_are_refused_by_name(options):
    with pytest.raises(ValueError, match=f"LMDOptions: {next(iter(options))} must be"):
        LMDOptions(**options)


def test_freezing_and_transfer_keep_the_steps_they_need():
    runs = a_run(6), a_run(4)
    assert [r.steps for r in runs] == [6, 4] and the_runs(*runs).exact_steps == 4 and the_runs().exact_steps == 0
    short = LMDOptions(guidance=GuidanceOptions(max_index_step=10), fast_schedule=True)
    assert short.exact_steps(6) == 3 and short.exact_steps(7) == 3 and LMDOptions().exact_steps(7) == 5
    assert the_runs(*runs, options=short).exact_steps == 3
    assert the_runs(*runs, options=replace(short, fast_schedule=False)).exact_steps == 4


def test_the_later_object_of_an_ordered_layout_lies_over_a_smaller_one():
    large, small = a_run(6, at=Box(0.0, 0.0, 1.0, 1.0)), a_run(4)
    small, large = (
        replace(run, item=replace(run.item, number=n, box=run.box), latents=torch.full_like(run.latents, float(n)))
        for n, run in ((1, small), (2, large))
    )
    # The runs are sorted by name, which may be another order than the layout's.
    runs = the_runs(large, small, options=LMDOptions(align=False))
    shared = small.mask[0]
    for layout, owner in ((runs.layout, 1.0), (replace(runs.layout, ordered=True), 2.0)):
        done = object_runs.compose_runs(replace(runs, layout=layout))
        assert (done.latents[2][..., shared] == owner).all(), layout.ordered


def test_a_composition_holds_the_kept_steps_of_every_image():
    options = LMDOptions(guidance=GuidanceOptions(max_index_step=10), fast_schedule=True, align=False)
    run = a_run(6)
    done = object_runs.compose_runs(the_runs(run, options=options))
    inside = run.mask[0]
    assert done.latents.shape == (4, 2, 4, 8, 8) and done.mask.shape == (2, 1, 8, 8)
    assert torch.equal(done.mask[:, 0], run.mask) and (done.noise[:, :, inside] == 7).all()
    for step in (1, 2, 3):
        assert torch.equal(done.latents[step][..., inside], run.latents[step][..., inside])
    assert torch.equal(done.attention[0]["middle.0"], run.attention["middle.0"][:3])


def test_new_masks_are_taken_over_and_an_empty_one_becomes_the_box():
    runs = the_runs(a_run(3), a_run(3))
    dot = torch.zeros(8, 8)
    dot[1, 2] = 1
    with_dot, with_box = runs.with_masks([dot, torch.zeros(2, 8, 8)]).runs
    assert with_dot.mask.shape == (2, 8, 8) and with_dot.mask.sum() == 2 and with_dot.mask[1, 1, 2]
    assert torch.equal(with_box.mask[0], object_runs.box_mask(BOX, 8, 8))


@pytest.mark.parametrize(
    ("box", "cells"),
    [(BOX, (4, 8, 2, 6)), (Box(0.3, 0.6, 0.01, 0.01), (5, 6, 2, 3)), (Box(0.9, 2.0, 0.5, 0.5), (7, 8, 7, 8)),
     (Box(-1, -1, 0.5, 0.5), (0, 1, 0, 1)), (Box(-1, 0.5, 1.5, 1), (4, 8, 0, 4))],
)  # fmt: skip
def test_a_box_covers_at_least_one_cell_of_the_grid(box, cells):
    y0, y1, x0, x1 = cells
    wanted = torch.zeros(8, 8, dtype=torch.bool)
    wanted[y0:y1, x0:x1] = True
    assert torch.equal(object_runs.box_mask(box, 8, 8), wanted)


def test_a_mask_is_cut_to_the_box_on_request_only():
    attention = torch.zeros(5, 1, 2, 8, 8)
    attention[..., 1:7, 1:7] = 1
    free, cut = (object_runs.attention_mask(attention, BOX, 8, 8, inside)[0] for inside in (False, True))
    box = object_runs.box_mask(BOX, 8, 8)
    assert (free & ~box).any() and torch.equal(cut, free & box) and cut.any()


def test_objects_of_one_name_are_numbered_by_their_turn():
    items = [item("a cat"), item("a dog"), item("a cat"), item("a cat")]
    wanted = [zlib.crc32(t.encode()) for t in ("a cat#0", "a dog#0", "a cat#1", "a cat#2")]
    assert object_runs.seed_numbers(items, by_order=False) == wanted and len(set(wanted)) == 4
    assert object_runs.seed_numbers(items, by_order=True) == [0, 1, 2, 3]


def test_every_image_has_an_objects_noise_of_its_own_and_seeds_wrap_around():
    for seed in (5, 2**64 - 1):
        settings = SamplingSettings(seed, 6, 7.5, "ddim", "ddim_uniform", 2)
        background = object_runs.initial_noise(settings, (4, 8, 8))
        assert background.shape == (2, 4, 8, 8) and not torch.equal(background[0], background[1])
        mixed = object_runs.object_noise(settings, background, 3, BOX, 0.5)
        for b in range(2):
            own = compose.object_seed(settings.background_seed(b), settings.first_object_seed(b), 3) % 2**64
            noise = compose.seeded_noise(own, (1, 4, 8, 8))
            assert torch.equal(mixed[b], compose.blended_noise(background[b : b + 1], noise, BOX, 0.5)[0])


def still(options: GuidanceOptions | None = None) -> Guidance:
    return Guidance(options or GuidanceOptions(loss_scale=0))


def test_an_objects_run_keeps_every_latent_and_map_and_a_step_done_again_replaces_its_own():
    stage = ObjectStage(still(), latest=lambda: {"middle.0": torch.zeros(1)})
    for step, value in ((0, 0.0), (1, 1.0), (1, 2.0)):  # a sampler that evaluates step 1 twice
        stage.before_step(torch.full((1,), value), step, step, lambda x: None, 1.0)
        stage.stepped(step, torch.full((1,), 9.0))
    result = stage.finish(torch.full((1,), 3.0), 2)
    assert [float(x) for x in stage.latents] == [0, 2, 3] and len(stage.attention) == 2 and float(result) == 3


def test_a_run_that_stops_ends_with_the_models_estimate_and_not_before_there_is_one():
    stage = ObjectStage(still(), stop=1)
    stage.before_step(torch.zeros(1), 0, 0, lambda x: None, 1.0)
    estimate = torch.ones(1)
    stage.stepped(0, estimate)
    with pytest.raises(RunEnds) as end:
        stage.before_step(torch.full((1,), 5.0), 1, 1, lambda x: None, 1.0)
    assert end.value.latent is estimate and stage.finish(estimate, 1) is estimate
    assert [float(x) for x in stage.latents] == [0, 5] and stage.attention == []
    first = ObjectStage(still(), stop=0)
    assert first.before_step(estimate, 0, 0, lambda x: None, 1.0) is estimate


def test_objects_are_put_back_after_steps_one_to_the_last_frozen_one():
    composed, mask = torch.arange(4.0).view(4, 1, 1, 1, 1).expand(4, 1, 1, 2, 2), torch.zeros(1, 1, 2, 2).bool()
    mask[..., 0, 0] = True
    stage = OverallStage(still(), composed, mask, frozen_steps=2)
    x = torch.full((1, 1, 2, 2), 9.0)
    seen = [stage.before_step(x, step, step, lambda x: None, 1.0)[0, 0].flatten().tolist() for step in range(4)]
    assert seen == [[9, 9, 9, 9], [1, 9, 9, 9], [2, 9, 9, 9], [9, 9, 9, 9]]
    assert stage.finish(x, 2)[0, 0, 0, 0] == 2 and stage.finish(x, 3) is x


def test_the_connectors_sinusoid_and_its_channels():
    angles = [3.5 * math.exp(-math.log(10000.0) * i / 4) for i in range(4)]
    wanted = [*map(math.cos, angles), *map(math.sin, angles)]
    assert sinusoid(torch.tensor([3.5]), 8)[0].tolist() == pytest.approx(wanted, abs=1e-6)
    for wrong in ({"time_channels": 321}, {"latents": 0}, {"latents": True}, {"latents": 1.5}, {"width": 100}):
        with pytest.raises(ValueError, match="connector|ConnectorConfig"):
            ConnectorConfig(**wrong)
