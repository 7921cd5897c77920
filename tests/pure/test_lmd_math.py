"""LMD's mathematics where the reference vectors have no case: batches, stop rules, schedules, placing."""

import math
from dataclasses import replace

import pytest
import torch
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.planner.box_filter import fill_canvas
from ella_lmd.lmd.prompts import ObjectPrompt
from ella_lmd.lmd.sampling import compose, masks, schedule, tokens
from ella_lmd.lmd.sampling.energy import (
    AttentionMap,
    EnergyOptions,
    GuidedObject,
    energies,
    transfer_terms,
)
from ella_lmd.lmd.sampling.guidance import (
    Guidance,
    GuidanceOptions,
    NonFiniteEnergy,
    boxdiff_scale,
    parse_iterations,
    reference_index,
    step_scale,
)
from ella_lmd.lmd.sampling.object_runs import (
    ObjectRun,
    ObjectRuns,
    attention_mask,
    box_mask,
    compose_runs,
    seed_numbers,
)
from ella_lmd.lmd.sampling.options import PRESETS, LMDOptions, SamplingSettings


def a_map(batch: int, height: int = 8, width: int = 8, tokens: int = 6, seed: int = 0) -> AttentionMap:
    generator = torch.Generator().manual_seed(seed)
    return AttentionMap(torch.randn(batch, 2, height * width, tokens, generator=generator).softmax(-1), height, width)


OBJECTS = (GuidedObject("a cat", (Box(0.1, 0.1, 0.5, 0.6),), (1, 2), 2),)


def test_the_energy_of_a_batch_is_each_images_own():
    both = a_map(2)
    energy = energies([both], OBJECTS, EnergyOptions()).total
    for b in range(2):
        single = AttentionMap(both.probs[b : b + 1], 8, 8)
        assert torch.allclose(energies([single], OBJECTS, EnergyOptions()).total, energy[b : b + 1])


def test_attention_inside_the_box_lowers_the_energy():
    mask = torch.zeros(8, 8)
    y0, y1, x0, x1 = OBJECTS[0].boxes[0].cells(8, 8)
    mask[y0:y1, x0:x1] = 1
    probs = torch.zeros(1, 2, 64, 6)
    inside, outside = probs.clone(), probs.clone()
    inside[..., 1:3] = mask.flatten()[:, None]
    outside[..., 1:3] = 1 - mask.flatten()[:, None]
    low = energies([AttentionMap(inside, 8, 8)], OBJECTS, EnergyOptions()).total
    high = energies([AttentionMap(outside, 8, 8)], OBJECTS, EnergyOptions()).total
    assert float(low) == 0 and float(high) == pytest.approx(2 * (1 + 4))


def test_transfer_is_zero_for_the_same_attention():
    m = a_map(1)
    reference = [[[m.probs[..., 2]]]]
    options = EnergyOptions(reference_weight=2.0)
    assert float(energies([m], OBJECTS, options, reference).total) == pytest.approx(
        float(energies([m], OBJECTS, options).total), abs=1e-5
    )


def quadratic(energies: list[list[float]]):
    """An evaluate function that returns the given energies, one list per call, and a gradient of ones."""
    calls = iter(energies)
    return lambda x: (torch.tensor(next(calls)), torch.ones_like(x))


@pytest.mark.parametrize(("energy", "evaluated"), [(3.0, 1), (3.0000002, 4), (2.9999998, 1)])
def test_an_energy_at_the_threshold_has_met_it(energy, evaluated):
    guidance = Guidance(GuidanceOptions(loss_scale=1.0, loss_threshold=3.0, max_iter=(4,)))
    guidance.step(torch.zeros(1, 1), 0, lambda x: (torch.tensor([energy]), torch.ones_like(x)), 1.0)
    assert len(guidance.trace) == evaluated


@pytest.mark.parametrize(("visited", "expected"), [((0, 12, 25, 37), (39, 21, 5, 0)), ((0,), (65,)), (range(50), None)])
def test_a_run_of_few_steps_catches_up_on_those_that_it_passes_over(visited, expected):
    options = GuidanceOptions(catch_up=True)
    guidance = Guidance(options, tuple(visited))
    expected = expected or [options.iterations(i) for i in range(50)]
    assert [guidance.iterations(i) for i in visited] == list(expected)
    assert Guidance(GuidanceOptions(), tuple(visited)).iterations(0) == 4


def test_each_image_stops_for_good_at_its_own_threshold():
    guidance = Guidance(GuidanceOptions(loss_scale=1.0, loss_threshold=3.0, max_iter=(1,), max_index_step=50))
    x = torch.zeros(2, 1)
    evaluate = quadratic([[2.0, 5.0], [9.0, 4.0], [9.0, 2.0]])
    for index in range(5):
        x = guidance.step(x, index, evaluate, 1.0)
    # Image 0 moves once (the update is applied although its energy is low) and never again; image 1 three times.
    assert x.flatten().tolist() == [-1.0, -3.0]
    assert not guidance.wants(6)


def test_nothing_to_do_returns_the_very_same_latent():
    x = torch.ones(1, 2)
    fail = lambda _: pytest.fail("must not be evaluated")  # noqa: E731
    for options in (GuidanceOptions(loss_scale=0), GuidanceOptions(max_index_step=0), GuidanceOptions(max_iter=())):
        assert Guidance(options).step(x, 0, fail, 1.0) is x
    assert Guidance(GuidanceOptions()).step(x, 0, lambda _: None, 1.0) is x


def test_nan_is_reported_with_step_and_image():
    guidance = Guidance(GuidanceOptions())
    with pytest.raises(NonFiniteEnergy, match=r"step 3, image \[1\]"):
        guidance.step(torch.zeros(2, 1), 3, quadratic([[1.0, float("nan")]]), 1.0)


def test_the_presets():
    assert sum(PRESETS["reference"].guidance.iterations(i) for i in range(50)) == 65
    paper = [PRESETS["paper"].guidance.iterations(i) for i in range(50)]
    assert paper == [5] * 5 + [4] * 5 + [3] * 5 + [2] * 5 + [1] * 10 + [0] * 20
    fast = PRESETS["fast"]
    assert [fast.guidance.iterations(i) for i in range(50)] == [2] * 5 + [1] * 20 + [0] * 25
    assert fast.stop_early and fast.exact_steps(50) == 25 and fast.guidance.energy == EnergyOptions()
    few = PRESETS["few steps"]
    assert (
        few.guidance.catch_up and replace(few, guidance=replace(few.guidance, catch_up=False)) == PRESETS["reference"]
    )
    assert parse_iterations("4x5, 3x5, 2x10, 1x10") == PRESETS["reference"].guidance.max_iter
    assert parse_iterations("") == () and parse_iterations("3") == (3,)


@pytest.mark.parametrize("text", ["4y5", "x", "4x5x6", "-1x3", "4x51"])
def test_iterations_that_cannot_be_read_name_the_part(text):
    with pytest.raises(ValueError, match="4x5, 3x5"):
        parse_iterations(text)


def test_reference_steps_follow_the_timestep_whatever_the_step_count():
    assert [reference_index(t) for t in range(981, 0, -20)] == list(range(50))
    assert reference_index(999) == 0 and reference_index(0) == 49
    assert reference_index(500) == pytest.approx(25, abs=1)


def test_the_step_in_comfyui_latents_equals_the_references():
    a = float(schedule.alphas_cumprod()[601])
    sigma = ((1 - a) / a) ** 0.5
    # x_ve = x_vp / sqrt(a) and g_ve = g_vp * sqrt(a), so a step of s * g_vp is s / a * g_ve.
    assert step_scale(1, sigma) == pytest.approx((1 - a) ** 0.5 / a, rel=1e-6)


def test_a_shift_moves_every_grid_by_the_same_part_of_the_canvas():
    for size in (8, 16, 64):
        x = torch.zeros(size, size)
        x[0, 0] = 1
        moved = compose.shift(x, 0.25, 0.5)
        assert moved[size // 2, size // 4] == 1


def test_sizes_that_are_no_multiple_of_eight_shift_by_whole_cells():
    x = torch.ones(9, 13)
    assert compose.shift(x, 0.5, 0.0).sum() == 9 * (13 - round(4 * 13 / 8))


def test_an_object_with_an_empty_mask_is_left_out():
    background = torch.zeros(1, 4, 4)
    placed = compose.Placed(torch.ones(2, 1, 4, 4), torch.zeros(4, 4, dtype=torch.bool))
    composed, owner = compose.compose(background, [placed])
    assert not composed.any() and not owner.any()


def a_run(mask_box: Box, item_box: Box, batch: int = 1) -> ObjectRun:
    mask = torch.stack([box_mask(mask_box, 16, 16)] * batch)
    latents = torch.arange(4.0).view(4, 1, 1, 1, 1).expand(4, batch, 4, 16, 16)
    attention = {"input.8": torch.rand(3, batch, 2, 4, 4), "middle.0": torch.rand(3, batch, 2, 2, 2)}
    noise = torch.full((batch, 4, 16, 16), 9.0)
    item = ObjectPrompt("a cat", "a cat", "cat", item_box)
    return ObjectRun(item, mask_box, noise, latents, attention, noise, mask, ())


def the_runs(*runs: ObjectRun, batch: int = 1) -> ObjectRuns:
    settings = SamplingSettings(1, 3, 7.5, "ddim", "ddim_uniform", batch)
    return ObjectRuns(Layout(128, 128), settings, LMDOptions(), torch.zeros(batch, 4, 16, 16), runs)


def test_composition_shifts_the_object_to_its_box():
    # From the middle (centre 0.5) to the left (centre 0.25): two eighths of the canvas.
    done = compose_runs(the_runs(a_run(Box(0.25, 0.25, 0.5, 0.5), Box(0.0, 0.25, 0.5, 0.5))))
    ys, xs = torch.nonzero(done.mask[0, 0], as_tuple=True)
    assert (int(xs.min()), int(xs.max()), int(ys.min()), int(ys.max())) == (0, 7, 4, 11)
    assert done.latents[2][0, 0, 8, 3] == 2 and done.latents[2][0, 0, 8, 12] == 0
    assert done.noise[0, 0, 8, 3] == 9 and done.noise[0, 0, 0, 15] == 0


def test_images_of_a_batch_are_composed_apart():
    run = a_run(Box(0.25, 0.25, 0.5, 0.5), Box(0.25, 0.25, 0.5, 0.5), batch=2)
    run.mask[1] = box_mask(Box(0.0, 0.0, 0.25, 0.25), 16, 16)
    done = compose_runs(the_runs(run, batch=2))
    assert not torch.equal(done.mask[0], done.mask[1])


def test_an_attention_mask_is_never_empty():
    constant = torch.ones(5, 1, 2, 4, 4)
    box = Box(0.25, 0.25, 0.5, 0.5)
    mask = attention_mask(constant, box, 16, 16, inside_box=True)
    assert torch.equal(mask[0], box_mask(box, 16, 16))
    assert box_mask(Box(0.999, 0.999, 0.0001, 0.0001), 16, 16).sum() == 1


def test_a_mask_averages_the_attention_from_a_fifth_of_the_steps_on():
    """The reference leaves the first 10 of 50 out: what the model saw in pure noise is no object."""
    steps, box = 10, Box(0.0, 0.0, 1.0, 1.0)
    early, late = torch.zeros(8, 8), torch.zeros(8, 8)
    early[1:3, 1:3] = 1.0
    late[5:7, 5:7] = 1.0
    attention = torch.stack([early * 50 if step < 2 else late for step in range(steps)])[:, None, None]
    mask = attention_mask(attention, box, 8, 8, inside_box=False)
    assert torch.equal(mask[0], attention_mask(late.expand(steps, 1, 1, 8, 8), box, 8, 8, inside_box=False)[0])
    assert mask[0, 5, 5] and not mask[0, 1, 1]


def test_a_saved_map_of_another_grid_is_compared_on_the_grid_of_the_map():
    """A patch can halve the U-Net's grid for a part of a run: equal attention then still has distance 0."""
    generator = torch.Generator().manual_seed(3)
    fine = torch.rand(1, 2, 4, 4, generator=generator).repeat_interleave(2, -1).repeat_interleave(2, -2)
    coarse = fine[..., ::2, ::2].flatten(-2)
    whole = GuidedObject("a cat", (Box(0.0, 0.0, 1.0, 1.0),), (0,), 0)
    distance = transfer_terms([AttentionMap(coarse[..., None], 4, 4)], [whole], [[[fine]]])[0]
    assert distance.abs().max() < 1e-5
    moved = transfer_terms([AttentionMap(coarse.flip(-1)[..., None], 4, 4)], [whole], [[[fine]]])[0]
    assert moved.min() > 0.05


def test_a_constant_map_gives_an_empty_coarse_mask():
    assert not masks.coarse_mask(torch.ones(4, 4)).any()


def test_every_image_of_a_batch_has_its_own_seeds():
    settings = SamplingSettings(2**64 - 1, 1, 1.0, "ddim", "ddim_uniform", 3)
    seeds = {settings.background_seed(b) for b in range(3)} | {settings.first_object_seed(b) for b in range(3)}
    assert len(seeds) == 6 and all(0 <= s < 2**64 for s in seeds)


def test_an_objects_number_depends_on_its_own_name_only():
    items = [ObjectPrompt(p, p, p, Box(0, 0, 1, 1)) for p in ("a cat", "a cat", "a dog")]
    numbers = seed_numbers(items, by_order=False)
    assert len(set(numbers)) == 3 and seed_numbers(items[1:], by_order=False) == [numbers[0], numbers[2]]
    assert seed_numbers(items, by_order=True) == [0, 1, 2]


def words(text: str) -> list[tokens.Piece]:
    return [(i + 1, w) for i, w in enumerate(text.lower().replace(",", " ,").split())]


def test_phrases_are_matched_by_whole_tokens_only():
    assert tokens.find(words("a banana cat and a cat"), words("a cat")) == (5, 6)
    assert tokens.find(words("many cattle"), words("cat")) is None
    assert tokens.extend("A park with a Dog", ["a dog", "a cat"], words) == "A park with a Dog| a cat"
    with pytest.raises(tokens.PhraseNotFound, match='"a cat"'):
        tokens.locate("a dog", "a cat", "cat", words)


def test_a_phrase_inside_another_one_is_appended_so_that_it_has_tokens_of_its_own():
    phrases = ["a red hat", "a man in a red hat"]
    assert tokens.extend("a man in a red hat", phrases, words) == "a man in a red hat| a red hat"
    assert tokens.extend("a red hat, a man in a red hat", phrases, words) == "a red hat, a man in a red hat"


@pytest.mark.parametrize(
    ("prompt", "phrases", "extended"),
    [
        ("a cat a dog", ["a cat", "a dog"], "a cat a dog"),  # neighbours share no token
        ("a cat a dog", ["a dog", "a cat"], "a cat a dog"),
        ("a cat and a cat", ["a cat", "a cat"], "a cat and a cat"),  # each has one of the two places
        ("a cat", ["a cat", "a cat"], "a cat| a cat"),
        ("a dog and a cat!", ["a dog", "a cat!", "zebra"], "a dog and a cat! | zebra"),  # "!|" would be one token
        ("a park", ["a cat!", "a dog"], "a park| a cat! | a dog"),
        ("a cat in a park.", ["a cat", "zebra"], "a cat in a park.| zebra"),  # no phrase ends at this mark
        ("plan - b", ["plan - b", "zebra"], "plan - b| zebra"),
    ],
)
def test_what_is_appended_to_a_prompt_leaves_every_phrase_its_tokens(prompt, phrases, extended):
    assert tokens.extend(prompt, phrases, words) == extended


def test_a_word_is_found_in_the_first_place_of_its_phrase_by_its_last_piece():
    prompt = "a dog, a red hot dog and a red hot dog"
    assert tokens.locate(prompt, "a red hot dog", "red", words) == ((4, 5, 6, 7), 5)
    assert tokens.locate(prompt, "a red hot dog", "red hot dog", words) == ((4, 5, 6, 7), 7)
    with pytest.raises(tokens.PhraseNotFound, match='"cat" is not a word of the phrase "a red hot dog"'):
        tokens.locate(prompt, "a red hot dog", "cat", words)
    assert tokens.places(words("a cat"), []) == [] and tokens.find(words("a cat"), []) is None


@pytest.mark.parametrize(
    ("span", "place"),
    [((2, 5), (1, 2)), ((2, 9), (1, 3)), ((0, 9), (0, 3)), ((1, 2), None), ((2, 4), None), ((6, 8), None)],
)
def test_characters_have_a_place_when_they_are_whole_tokens(span, place):
    assert tokens.place_of("a red cat", span, words) == place


@pytest.mark.parametrize("box", [(0, 0, 0, 1), (0, 0, 1, -1), (0, 0, float("nan"), 1)])
def test_a_box_without_area_is_refused_with_its_numbers(box):
    with pytest.raises(ValueError, match="a box needs"):
        Box(*box)


def test_a_layout_of_more_than_fifty_objects_is_refused():
    objects = tuple(LayoutObject("a cat", Box(0, 0, 0.1, 0.1)) for _ in range(60))
    with pytest.raises(ValueError, match="at most 50 objects, got 60"):
        Layout(512, 512, objects)


@pytest.mark.parametrize("size", [(500, 512), (512, 0), (512, 60)])
def test_a_canvas_must_be_a_multiple_of_eight(size):
    with pytest.raises(ValueError, match="multiple of 8"):
        Layout(*size)


def test_a_small_layout_is_enlarged_to_the_canvas_and_kept_inside():
    boxes = (Box(0.3, 0.5, 0.1, 0.1), Box(0.5, 0.7, 0.1, 0.2))
    layout = fill_canvas(Layout(512, 256, tuple(LayoutObject("a cat", b) for b in boxes)))
    corners = [o.box.corners for o in layout.objects]
    assert min(c[0] for c in corners) == pytest.approx(0) and max(c[3] for c in corners) == pytest.approx(1)
    assert all(c[0] >= -1e-9 and c[1] >= -1e-9 and c[2] <= 1 + 1e-9 and c[3] <= 1 + 1e-9 for c in corners)
    scale = layout.objects[0].box.w / 0.1
    assert scale == pytest.approx(2.5) and layout.objects[1].box.h == pytest.approx(0.2 * scale)
    assert fill_canvas(Layout(512, 512)) == Layout(512, 512)


def test_objects_stand_on_the_floor_or_in_the_middle():
    box = Box(0.0, 0.1, 0.2, 0.4)
    assert LMDOptions().object_box(box) == Box(0.4, 0.4, 0.2, 0.4)
    assert LMDOptions(placement="centre").object_box(box) == Box(0.4, 0.3, 0.2, 0.4)
    assert LMDOptions(horizontal_only=True).object_box(box) == Box(0.4, 0.1, 0.2, 0.4)
    assert LMDOptions(centre=False).object_box(box) == box


def test_json_round_trip():
    layout = Layout(768, 512, (LayoutObject("a cat", Box(0.1, 0.2, 0.3, 0.4)),), "a park", "dogs", "a cat")
    assert Layout.from_json(layout.to_json()) == layout
    for bad in ("{", "[]", '{"objects": [{"phrase": "x", "box": [0, 0]}]}', '{"objects": [], "canvas": 3}'):
        with pytest.raises(ValueError):
            Layout.from_json(bad)


def test_the_share_of_cells_is_reckoned_in_float32_as_in_the_reference():
    """0.29 of 100 cells are 29; in float64 the product is 28.999..., and 28 would be averaged."""
    probs = torch.zeros(1, 1, 200, 1)
    probs[0, 0, :29, 0] = torch.linspace(0.9, 0.1, 29)
    upper = GuidedObject("a cat", (Box(0, 0, 1, 0.5),), (0,), 0)
    options = EnergyOptions(fg_top_p=0.29, bg_top_p=0.29, bg_weight=0.0)
    energy = energies([AttentionMap(probs, 20, 10)], [upper], options).total
    assert float(energy) == pytest.approx(1 - float(probs[0, 0, :29, 0].mean()), abs=1e-6)


def test_boxdiffs_update_is_the_published_one_in_the_reference_s_latents():
    """z -= 20 sqrt(1 - 0.5 i / 49) dE/dz of z = x / s, whatever signal and noise are."""
    for signal, noise, index in ((1.0, 14.6, 0), (1.0, 0.7, 20), (0.4, 0.6, 24)):
        size = math.sqrt(signal**2 + noise**2)
        z = torch.tensor([0.3, -0.7], requires_grad=True)
        (dz,) = torch.autograd.grad((z**3).sum(), z)
        x = (z.detach() * size).requires_grad_()
        (dx,) = torch.autograd.grad(((x / size) ** 3).sum(), x)
        moved = (x - 20 * boxdiff_scale(signal, noise, index) * dx) / size
        assert torch.allclose(moved, z - 20 * math.sqrt(1 - 0.5 * index / 49) * dz, rtol=1e-5)


def test_boxdiffs_loss_of_a_batch_is_that_of_each_image_and_a_tiny_box_is_no_nan():
    generator = torch.Generator().manual_seed(0)
    probs = torch.rand(3, 4, 64, 77, generator=generator).softmax(-1).requires_grad_()
    objects = [
        GuidedObject("a cat", (Box(0.1, 0.1, 0.5, 0.5), Box(0.6, 0.6, 0.3, 0.3)), (3, 4), 4),
        GuidedObject("a dog", (Box(0.5, 0.5, 0.1, 0.1),), (7,), 7),
        GuidedObject("a flea", (Box(0.501, 0.501, 0.001, 0.001),), (9,), 9),
    ]
    options = EnergyOptions(kind="boxdiff")
    together = energies([AttentionMap(probs, 8, 8)], objects, options)
    assert torch.isfinite(together.total).all() and torch.allclose(together.objects.mean(0), together.total)
    for i in range(3):
        alone = energies([AttentionMap(probs[i : i + 1], 8, 8)], objects, options)
        assert torch.allclose(alone.total, together.total[i : i + 1])
    (gradient,) = torch.autograd.grad(together.total.sum(), probs)
    assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0
