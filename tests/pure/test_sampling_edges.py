"""LMD's tensor functions at their edges: defaults, empty and odd-shaped inputs, and what only the formula pins down."""

import math
from dataclasses import fields

import pytest
import torch
from ella_lmd.lmd.layout import Box
from ella_lmd.lmd.sampling import compose, energy, masks, schedule
from ella_lmd.lmd.sampling.guidance import (
    Guidance,
    GuidanceOptions,
    NonFiniteEnergy,
    parse_iterations,
    reference_index,
    step_scale,
)


def a_map(height: int, width: int, batch: int = 1, tokens: int = 4, seed: int = 0) -> energy.AttentionMap:
    generator = torch.Generator().manual_seed(seed)
    probs = torch.rand(batch, 3, height * width, tokens, generator=generator)
    return energy.AttentionMap(probs / probs.sum(-1, keepdim=True), height, width)


CAT = energy.GuidedObject("a cat", (Box(0.0, 0.0, 0.5, 0.5),), (1, 2), 2)
DOG = energy.GuidedObject("a dog", (Box(0.5, 0.25, 0.5, 0.75), Box(0.0, 0.75, 0.25, 0.25)), (3,), 3)


def test_the_defaults_are_the_published_ones():
    e, g = energy.EnergyOptions(), GuidanceOptions()
    assert (e.fg_top_p, e.bg_top_p, e.fg_weight, e.bg_weight, e.reference_weight, e.kind) == (0.2, 0.2, 1, 4, 2, "top")
    assert (g.loss_scale, g.loss_threshold, g.max_index_step, g.catch_up) == (5, 5, 30, False)
    assert g.max_iter == (4,) * 5 + (3,) * 5 + (2,) * 10 + (1,) * 10
    assert [tuple(getattr(o, f.name) for f in fields(o)) for o in (masks.POINT, masks.BOX)] == [
        (1.5, 0.25, 0), (0.1, 0.05, 1)
    ]  # fmt: skip
    assert masks.AGGREGATE_FROM == 0.2 and compose.SEED_BUMP == 12345


def test_the_ratio_energy_is_the_squared_share_outside():
    """Mean over heads and tokens of (1 - inside / all) squared, as in the reference's ratio loss."""
    m = a_map(6, 4)
    inside = torch.zeros(6, 4)
    inside[0:3, 0:2] = 1
    share = (m.probs[0, :, :, 1:3] * inside.flatten()[:, None]).sum(1) / m.probs[0, :, :, 1:3].sum(1)
    wanted = ((1 - share) ** 2).mean()
    assert float(energy.energies([m], [CAT], energy.EnergyOptions(kind="ratio")).total) == pytest.approx(float(wanted))


def test_each_objects_own_energy_has_the_total_as_its_mean_transfer_included():
    maps = [a_map(6, 4, 2), a_map(3, 2, 2, seed=1)]
    saved = [a_map(6, 4, seed=2), a_map(3, 2, seed=3)]
    references = [[[s.probs[..., o.word] for s in saved] for _ in o.boxes] for o in (CAT, DOG)]
    options = energy.EnergyOptions(reference_weight=3.0)
    found = energy.energies(maps, (CAT, DOG), options, references)
    assert found.objects.shape == (2, 2) and torch.allclose(found.objects.mean(0), found.total)
    alone = [energy.energies(maps, [o], options, [r]) for o, r in zip((CAT, DOG), references)]
    assert torch.allclose(found.objects, torch.stack([a.total for a in alone]))
    without = energy.energies(maps, (CAT, DOG), options)
    assert torch.allclose(without.objects.mean(0), without.total) and (found.total > without.total).all()


def test_the_transfer_term_is_averaged_over_boxes():
    m = a_map(4, 4)
    saved = a_map(4, 4, seed=5).probs[..., 3]
    twice = energy.GuidedObject("a dog", (DOG.boxes[0],) * 2, (2, 3), 3)
    once = energy.GuidedObject("a dog", (DOG.boxes[0],), (2, 3), 3)
    both = energy.transfer_terms([m], [twice], [[[saved], [saved]]])
    assert torch.allclose(both[0], energy.transfer_terms([m], [once], [[[saved]]])[0]) and float(both[0]) > 0
    free = energy.EnergyOptions(reference_weight=0.0)
    assert torch.equal(energy.energies([m], [once], free, [[[saved]]]).total, energy.energies([m], [once], free).total)


def test_nothing_to_guide_is_no_energy_for_every_image():
    m = a_map(4, 4, batch=3)
    found = energy.energies([m], (), energy.EnergyOptions())
    assert found.total.tolist() == [0, 0, 0] and found.objects.shape == (0, 3)
    nothing = energy.energies([], (CAT,), energy.EnergyOptions())
    assert nothing.total.tolist() == [0] and nothing.objects.shape == (0, 1)


def test_a_box_smaller_than_a_cell_or_off_the_canvas_takes_the_first_cells_of_nothing():
    """At least one cell is averaged; where the box has none, the foreground term is its whole weight."""
    m = a_map(4, 4)
    outside = energy.GuidedObject("a bird", (Box(0.2, -0.9, 0.3, 0.4),), (1,), 1)
    assert not energy.union_mask(outside.boxes, 4, 4, m.probs).any()
    found = energy.energies([m], [outside], energy.EnergyOptions(bg_weight=0)).total
    assert float(found) == pytest.approx(3.0)  # one per head


def test_objects_noise_off_the_canvas_leaves_the_background_and_inside_keeps_the_variance():
    background, own = torch.randn(4, 6, 9), torch.randn(4, 6, 9)
    for box in (Box(0.1, -0.9, 0.3, 0.4), Box(-0.9, 0.1, 0.4, 0.3), Box(0.1, 0.1, 0.01, 0.01)):
        assert torch.equal(compose.blended_noise(background, own, box, 0.3), background)
    mixed = compose.blended_noise(background, own, Box(0, 0, 1 / 3, 0.5), 0.36)
    assert torch.allclose(mixed[:, :3, :3], 0.8 * background[:, :3, :3] + 0.6 * own[:, :3, :3])
    assert torch.equal(mixed[:, 3:], background[:, 3:]) and torch.equal(mixed[:, :, 3:], background[:, :, 3:])


def test_a_mask_that_is_not_square_has_its_centre_and_box_in_its_own_sides():
    mask = torch.zeros(4, 10, dtype=torch.bool)
    mask[2:4, 8:10] = True
    assert compose.centre_of_mass(mask) == (0.85, 0.625)
    assert compose.grown_cells(mask) == (7, 1, 10, 4)
    assert compose.grown_cells(mask.flip(0, 1)) == (0, 0, 2, 2)
    assert compose.alignment(mask, Box(0, 0, 1, 1)) == pytest.approx((-0.35, -0.125))
    assert compose.alignment(mask, Box(0, 0, 1, 1), horizontal_only=True) == pytest.approx((-0.35, 0))
    for empty in (compose.centre_of_mass, compose.grown_cells):
        with pytest.raises(ValueError, match="an empty mask has neither a centre nor a box"):
            empty(torch.zeros(3, 3, dtype=torch.bool))


@pytest.mark.parametrize(
    ("dx", "dy"),
    [(3, 0), (-3, 0), (0, 2), (0, -2), (9, 9), (-9, 1), (4, 0), (-5, 0), (0, 3), (0, -3), (2, -1), (-1, 1), (0, 0)],
)
def test_a_shift_brings_zeros_in_however_far_it_goes(dx, dy):
    x = torch.arange(1.0, 7.0).view(1, 2, 3)
    wanted = torch.zeros_like(x)
    for row in range(2):
        for column in range(3):
            if 0 <= row + dy < 2 and 0 <= column + dx < 3:
                wanted[0, row + dy, column + dx] = x[0, row, column]
    assert torch.equal(compose.shift_cells(x, dx, dy), wanted)


def test_grown_boxes_are_pasted_at_the_first_step_unless_told_otherwise():
    mask = torch.zeros(6, 6, dtype=torch.bool)
    mask[2, 2] = True
    placed = compose.Placed(torch.ones(2, 1, 6, 6), mask)
    composed, owner = compose.compose(torch.zeros(1, 6, 6), [placed])
    assert composed[0].sum() == 9 and composed[1].sum() == 1 and owner.sum() == 1
    bare, _ = compose.compose(torch.zeros(1, 6, 6), [placed], paste_box=False)
    assert bare[0].sum() == 1 and bare[1].sum() == 1


def test_a_floor_is_a_fifth_of_the_canvas_unless_told_otherwise():
    box = Box(0.1, 0.1, 0.2, 0.5)
    assert compose.centred_box(box, False, "floor_padding").y == pytest.approx(0.3)
    assert compose.centred_box(box, False, "floor_padding", floor_padding=0.1).y == pytest.approx(0.4)


def test_without_objects_the_background_is_all_and_is_known_at_one_step():
    composed, owner = compose.compose(torch.ones(1, 2, 3), [])
    assert composed.shape == (1, 1, 2, 3) and composed.all() and not owner.any()


def test_guidance_is_there_when_it_has_weight_and_some_step():
    assert GuidanceOptions(max_iter=(0, 1)).guides and GuidanceOptions(max_iter=(1, 0), max_index_step=1).guides
    assert not GuidanceOptions(loss_scale=0).guides and not GuidanceOptions(max_iter=(0,)).guides
    assert not GuidanceOptions(max_index_step=0).guides


@pytest.mark.parametrize(
    "options",
    [{"loss_scale": -1}, {"loss_threshold": math.nan}, {"max_index_step": 51}, {"max_index_step": -1},
     {"max_iter": (-4,)}, {"max_iter": (101,)}, {"max_iter": [1]}, {"energy": None}, {"catch_up": 1}],
)  # fmt: skip
def test_options_out_of_range_are_refused_by_name(options):
    with pytest.raises(ValueError, match=f"GuidanceOptions: {next(iter(options))} must be"):
        GuidanceOptions(**options)


@pytest.mark.parametrize(
    ("kind", "options"),
    [(energy.EnergyOptions, {"fg_top_p": -3}), (energy.EnergyOptions, {"bg_top_p": 1.01}),
     (energy.EnergyOptions, {"bg_weight": -1}), (energy.EnergyOptions, {"kind": "Ratio"}),
     (masks.MaskOptions, {"sigma": -1}), (masks.MaskOptions, {"threshold": 1.01}),
     (masks.MaskOptions, {"open_cells": -1})],
)  # fmt: skip
def test_energy_and_mask_options_out_of_range_are_refused_by_name(kind, options):
    with pytest.raises(ValueError, match=f"{kind.__name__}: {next(iter(options))} must be"):
        kind(**options)


def test_ends_of_what_iterations_may_say():
    assert parse_iterations("0x3, 100x1") == (0, 0, 0, 100) and parse_iterations("7") == (7,)
    assert parse_iterations("1x50") == (1,) * 50 and parse_iterations("2x0, 1") == (1,)
    for text in ("101x1", "1x51"):
        with pytest.raises(ValueError, match="iterations are written like"):
            parse_iterations(text)


def test_the_step_grows_with_the_signal_of_the_latents_frame():
    assert step_scale(1.0, 0.75) == pytest.approx(0.75 * 1.25) and step_scale(0.6, 0.8) == pytest.approx(0.8)
    assert step_scale(3.0, 4.0) == pytest.approx(20.0)


def test_one_broken_number_of_a_gradient_is_enough():
    gradient = torch.zeros(2, 3)
    gradient[1, 2] = math.inf
    with pytest.raises(NonFiniteEnergy, match=r"image \[1\] of the batch"):
        Guidance(GuidanceOptions()).step(torch.zeros(2, 3), 0, lambda x: (torch.ones(2) * 9, gradient), 1.0)


def test_timesteps_fall_to_the_reference_steps_around_them():
    assert [reference_index(t) for t in (1020, 999, 980, 979, 19, 0, -20)] == [0, 0, 0, 1, 49, 49, 49]


def test_a_noise_level_beyond_the_schedule_is_its_end():
    assert schedule.timestep_at(math.inf) == schedule.timestep_at(1e6) == 999
    assert schedule.timestep_at(0.0) == schedule.timestep_at(0.029) == 0
    assert schedule.timestep_at(1.0) == 354
    for level in (math.nan, -1.0, -math.inf):
        with pytest.raises(ValueError, match="noise level"):
            schedule.timestep_at(level)


def test_sigmas_are_thinned_with_the_target_kept():
    assert schedule.fast_sigmas([9, 8, 7, 6, 5, 4, 0], 2) == [9, 8, 6, 4, 0]
    assert schedule.fast_sigmas([9, 8, 7, 0], 2) == [9, 8, 7, 0]
    assert schedule.fast_indices(6, 4) == [0, 1, 2, 3, 5] and schedule.fast_indices(6, 5) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("steps", "ratio", "frozen"),
    [(50, 0.5, 25), (50, 0.29, 14), (25, 0.5, 12), (50, 1.7, 50), (50, -1.0, 0), (7, 1, 7)],
)
def test_a_ratio_of_the_steps_is_cut_off_to_whole_ones(steps, ratio, frozen):
    assert schedule.frozen_steps(steps, ratio) == frozen
    if 0 <= ratio <= 1:
        assert schedule.grounding_steps(steps, ratio) == frozen


def test_a_coarse_mask_is_what_lies_above_the_threshold_of_the_range():
    ramp = torch.linspace(2.0, 6.0, 5)[None]
    assert masks.coarse_mask(ramp, masks.MaskOptions(threshold=0.25)).tolist() == [[False, False, True, True, True]]
    assert not masks.coarse_mask(torch.full((3, 3), 2.0)).any()


def test_the_choice_among_proposals_holds_back_only_what_is_below_the_limits():
    small, large = torch.zeros(4, 4, dtype=torch.bool), torch.ones(4, 4, dtype=torch.bool)
    small[:2, :2] = True
    coarse = small.clone()
    assert masks.iou(small, small) == pytest.approx(1, abs=1e-5) and masks.iou(small, ~small) == 0
    assert masks.iou(~large, ~large) == 0
    assert masks.select([small, large], [0.9, 0.9], coarse, min_iou=0.2) == 1
    assert masks.select([small, large], [0.9, 0.85], coarse, 0.85, 0.2) == 1  # at the limit
    assert masks.select([small, large], [0.9, 0.84], coarse, 0.85, 0.2) == 0
    assert masks.select([small, large], [0.9, 0.9], coarse) == 0  # 4 of 16 cells is just below a quarter
