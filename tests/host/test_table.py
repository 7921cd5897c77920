"""The rows of the paper's table on the demo model: shared object stages change neither pictures nor what rows cost."""

import pytest
import torch
from ella_lmd.evaluation import demo_benchmark, demo_world
from ella_lmd.nodes.host import demo_model
from ella_lmd.nodes.host.lmd.run_cache import OBJECT_RUNS
from ella_lmd.tools.bench import table_report, table_rows

PROMPT, STEPS = "A realistic photo of a scene with a red circle and a blue star", 6


@pytest.fixture(scope="module")
def demo():
    with torch.inference_mode():
        return (*demo_model.load(), demo_model.load_gligen())


def case(demo, prompt=PROMPT):
    OBJECT_RUNS.clear()
    return table_rows.Case(*demo[:2], demo_benchmark.true_layout(prompt), 3, STEPS, gligen=demo[3])


def test_every_row_differs_from_every_other(demo):
    shared = case(demo)
    found = {name: row(shared)["samples"] for name, row in table_rows.ROWS.items()}
    assert all(torch.isfinite(samples).all() for samples in found.values())
    names = [name for name in found if name != "stop early"]  # its masks may be those of full runs, and then all is
    same = [(a, b) for i, a in enumerate(names) for b in names[:i] if torch.equal(found[a], found[b])]
    assert same == []


@pytest.mark.parametrize("name", ["no transfer", "frozen 0", "full"])
def test_a_shared_object_stage_gives_what_an_own_one_gives(demo, name):
    shared = case(demo)
    table_rows.ROWS["box masks"](shared)
    assert torch.equal(table_rows.ROWS[name](shared)["samples"], table_rows.ROWS[name](case(demo))["samples"])


def test_the_share_of_a_colour_in_its_boxes():
    from ella_lmd.lmd.layout import Box, Layout, LayoutObject
    from PIL import Image

    red = demo_world.COLOURS["red"]
    picture = Image.new("RGB", (128, 128))
    picture.paste(tuple(red), (0, 0, 64, 64))
    things = LayoutObject("a red star", Box(0, 0, 0.25, 0.5)), LayoutObject("a blue star", Box(0.5, 0, 0.5, 0.5))
    layout = Layout(128, 128, (*things, LayoutObject("a heart", Box(0.5, 0.5, 0.2, 0.2))))
    assert table_report.colour_shares(layout, picture) == [0.5, 0.0]


def test_attention_transfer_has_no_part_in_the_object_stage(demo):
    from ella_lmd.nodes.lmd_sample import BoxGroundedSampler

    one = case(demo)
    arguments = (*demo[:2], one.layout, 3, STEPS, table_rows.CFG, table_rows.SAMPLER, table_rows.SCHEDULER, "reference")
    with_it = one.objects(table_rows.options())
    without = table_rows.without_transfer(table_rows.options())
    without = BoxGroundedSampler.execute(*arguments, options=without).args[0]
    assert all(torch.equal(a.latents, b.latents) for a, b in zip(with_it.runs, without.runs, strict=True))


def test_a_shared_object_stage_is_charged_to_every_row(demo):
    shared = case(demo)
    shared.objects(table_rows.options())
    assert shared.shared_seconds == 0
    table_rows.ROWS["full"](shared)
    first = shared.shared_seconds
    assert first > 0
    table_rows.ROWS["frozen 0"](shared)
    assert shared.shared_seconds == pytest.approx(2 * first)


def test_without_objects_every_lmd_row_is_plain_sampling_of_the_background(demo):
    empty = case(demo, "A realistic photo of a scene without circles")
    found = [table_rows.ROWS[name](empty)["samples"] for name in ("energy only", "backward guidance", "full")]
    assert torch.equal(found[0], found[1]) and torch.allclose(found[0], found[2], atol=1e-5)
