"""Contact sheets and attention sheets: right numbers, every size, batches, nothing to show."""

import pytest
import torch
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.pictures import sheets
from ella_lmd.lmd.pictures.attention_record import (
    AttentionRecord,
    Look,
    joined,
    numbers_by_name,
    record_of,
    share_inside,
)
from ella_lmd.lmd.pictures.layout_picture import PALETTE
from ella_lmd.lmd.prompts import object_prompts, overall_prompt
from ella_lmd.lmd.sampling.object_runs import ObjectRun, ObjectRuns, box_mask
from ella_lmd.lmd.sampling.options import LMDOptions, SamplingSettings
from PIL import ImageStat

NAMES = ("a yellow star", "a cat", "a cat", "a rather long phrase that no bar of a narrow sheet has room for at all")


def finished(width=128, height=128, batch=1, count=3, steps=6) -> ObjectRuns:
    """Object runs as the first stage leaves them, with attention that moves into the box step by step."""
    names = [NAMES[i % len(NAMES)] for i in range(count)]
    boxes = [Box(0.1 + 0.05 * i, 0.2, 0.3, 0.5) for i in range(count)]
    layout = Layout(width, height, tuple(map(LayoutObject, names, boxes)), "a park")
    h, w = height // 8, width // 8
    generator = torch.Generator().manual_seed(0)
    runs = []
    for item in object_prompts(layout):
        inside = box_mask(item.box, max(h // 2, 1), max(w // 2, 1)).float()
        grow = torch.linspace(0, 1, steps).view(-1, 1, 1, 1, 1)
        noise = torch.rand(steps, batch, 2, *inside.shape, generator=generator) * 0.2 + 0.05
        attention = {"input.7": noise + inside * grow, "middle.0": noise, "output.3": noise + inside * grow}
        energies = tuple((s // 2, s // 2, torch.full((batch,), 8.0 - s)) for s in range(steps))
        empty = torch.zeros(batch, 4, h, w)
        mask = box_mask(item.box, h, w).expand(batch, h, w)
        runs.append(
            ObjectRun(item, item.box, empty, torch.zeros(steps + 1, batch, 4, h, w), attention, empty, mask, energies)
        )
    settings = SamplingSettings(1, steps, 7.5, "ddim", "ddim_uniform", batch)
    return ObjectRuns(layout, settings, LMDOptions(), torch.zeros(batch, 4, h, w), tuple(runs))


def pictures(objects: ObjectRuns) -> torch.Tensor:
    count = len(objects.runs) * objects.settings.batch
    return torch.rand(count, objects.layout.height, objects.layout.width, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [(64, 64), (128, 128), (512, 1344), (2048, 64), (64, 2048)])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_contact_sheet_of_every_shape(size, batch):
    objects = finished(*size, batch=batch)
    images = pictures(objects)
    made = [sheets.contact_sheet(objects, images, b, images[0]) for b in range(batch)]
    assert len({p.size for p in made}) == 1, "the sheets of a batch are one IMAGE"
    assert 600 <= made[0].width <= 1100 and made[0].height < 2400
    colours = {c for _, c in made[0].getcolors(1 << 24)}
    for i in range(3):
        rgb = tuple(int(PALETTE[i][k : k + 2], 16) for k in (1, 3, 5))
        assert rgb in colours, f"object {i + 1} has no bar"


def test_runs_are_numbered_as_the_layouts_picture_numbers_them():
    objects = finished(count=4)
    assert [r.item.phrase for r in objects.runs] == sorted(NAMES)
    by_number = dict(zip(numbers_by_name(objects.layout), (r.item.phrase for r in objects.runs)))
    assert [by_number[i + 1] for i in range(4)] == list(NAMES)
    assert tuple(g.numbers for g in overall_prompt(objects.layout).groups) == ((2, 3), (4,), (1,))


def test_the_record_of_the_objects_holds_the_guided_layers_and_the_share_rises():
    objects = finished(batch=2)
    record = record_of(objects)
    assert len(record.looks) == record.steps == 6 and record.looks[0].maps.shape[:2] == (2, 3)
    first, last = (record.share_inside(record.looks[k], 1, 0) for k in (0, -1))
    assert last > first + 0.15 and 0 < record.area(0) < 1
    expected = sum(objects.runs[0].attention[n][2, 1].mean(0) for n in ("middle.0", "output.3")) / 2
    assert torch.allclose(record.looks[2].maps[1, 0], expected)


def test_share_inside_counts_attention_not_area():
    flat = torch.ones(16, 16)
    assert share_inside(flat, (Box(0, 0, 0.5, 0.5),)) == pytest.approx(0.25)
    assert share_inside(flat, (Box(0, 0, 0.5, 0.5), Box(0.25, 0.25, 0.5, 0.5))) == pytest.approx(0.4375)
    spot = torch.zeros(16, 16)
    spot[2, 2] = 3
    assert share_inside(spot, (Box(0, 0, 0.5, 0.5),)) == 1 and share_inside(spot, (Box(0.5, 0.5, 0.5, 0.5),)) == 0
    assert share_inside(torch.zeros(4, 4), (Box(0, 0, 1, 1),)) == 0


def test_layers_of_different_grids_are_joined_on_the_finest():
    coarse, fine = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 8, 8)
    assert torch.allclose(joined([fine, fine]), fine)
    mixed = joined([coarse, fine])
    assert mixed.shape == fine.shape and torch.allclose(
        mixed.mean((-1, -2)), (coarse.mean((-1, -2)) + fine.mean((-1, -2))) / 2
    )


def a_record(steps=50, batch=2, phrases=("two cats", "a very long phrase about a lighthouse"), size=(512, 512)):
    maps = torch.rand(steps, batch, len(phrases), 8, 8, generator=torch.Generator().manual_seed(2))
    record = AttentionRecord(
        size, phrases, tuple((Box(0.1, 0.1, 0.4, 0.4), Box(0.6, 0.6, 0.2, 0.2)) for _ in phrases),
        tuple((i + 1, i + 11) for i in range(len(phrases))), steps=steps,
    )  # fmt: skip
    record.looks = [Look(k + 1, m) for k, m in enumerate(maps)]
    return record


def test_the_chosen_steps_spread_over_the_run():
    record = a_record()
    assert [look.step for look in record.chosen(5)] == [1, 13, 25, 38, 50]
    assert [look.step for look in record.chosen(1)] == [50]
    assert len(record.chosen(99)) == 50 and a_record(0).chosen(3) == []


@pytest.mark.parametrize("size", [(64, 64), (512, 512), (2048, 128), (128, 2048)])
@pytest.mark.parametrize("columns", [1, 5])
@pytest.mark.parametrize("with_image", [False, True])
def test_attention_sheets_and_frames(size, columns, with_image):
    record = a_record(size=size)
    images = torch.rand(2, size[1], size[0], 3) if with_image else None
    made = [sheets.attention_sheet(record, images, b, columns) for b in range(2)]
    assert made[0].size == made[1].size and made[0].width >= 600 and made[0].tobytes() != made[1].tobytes()
    frames = [sheets.attention_frame(record, look, images, 0) for look in record.chosen(3)]
    assert len({f.size for f in frames}) == 1 and len({f.tobytes() for f in frames}) == 3


def test_an_empty_record_says_what_to_do_and_is_no_error():
    empty = a_record(0)
    assert sheets.attention_sheet(empty, None, 0, 5).height > 40
    nothing = finished(count=0)
    assert sheets.contact_sheet(nothing, None, 0).height > 40
    assert record_of(nothing).looks == []


def test_bright_is_where_the_attention_is():
    values = torch.zeros(8, 8)
    values[:, 4:] = 1
    tile = sheets.over(None, values, (64, 64)).convert("L")
    left, right = (sum(ImageStat.Stat(tile.crop(c)).sum) for c in ((0, 0, 24, 64), (40, 0, 64, 64)))
    assert right > 3 * left
    grey = [
        float((sheets.heat(torch.tensor([[v]])) * torch.tensor([0.299, 0.587, 0.114])).sum())
        for v in (0, 0.25, 0.5, 0.75, 1)
    ]
    assert grey == sorted(grey), "without colour the scale still rises"


def test_each_object_of_a_batch_lies_on_its_own_image():
    objects = finished(batch=2)
    record, images = record_of(objects), pictures(objects)
    assert torch.equal(sheets.picture_of(record, images, 1, 2), images[5])
    assert torch.equal(sheets.picture_of(record, images[:1], 1, 2), images[0])
    assert sheets.picture_of(record, None, 0, 0) is None


def test_an_estimate_that_is_flat_looks_flat():
    flat = sheets.about_mean(1 + 0.001 * torch.rand(8, 8))
    assert ((flat - 0.5).abs() < 0.01).all()
    steep = sheets.about_mean(torch.linspace(0.5, 1.5, 64).view(8, 8))
    assert steep.min() < 0.1 and steep.max() > 0.9
    assert torch.equal(sheets.about_mean(torch.zeros(4, 4)), torch.zeros(4, 4))


def test_phrases_without_boxes_are_told_how_much_their_maps_vary():
    record = a_record(steps=2)
    record.boxes = ((), ())
    assert sheets._told(record, record.looks[0], 0, 0) == f"varies {record.contrast(record.looks[0], 0, 0):.1%}"
    assert sheets.attention_sheet(record, None, 0, 2).width and sheets.attention_frame(record, record.looks[0], None, 0)
