"""The layout's picture: any canvas, any number of boxes, nothing outside."""

import pytest
import torch
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.pictures import fonts
from ella_lmd.lmd.pictures.layout_picture import LEAST_WIDTH, LONG_EDGE, PALETTE, as_image, draw, picture_size
from ella_lmd.lmd.planner.offline import plan


@pytest.mark.parametrize("size", [(64, 64), (512, 512), (768, 512), (512, 1344), (4096, 4096), (2048, 64), (64, 4096)])
def test_every_canvas_gets_a_picture_of_its_shape(size):
    w, h = picture_size(*size)
    assert max(w, h) in (LONG_EDGE, *range(LONG_EDGE, 2 * LONG_EDGE + 1))
    assert w / h == pytest.approx(size[0] / size[1], rel=0.1)
    image = as_image(plan("two cats on a table", *size))
    assert image.shape == (1, draw(plan("two cats on a table", *size)).height, max(w, LEAST_WIDTH), 3)
    assert 0 <= float(image.min()) < float(image.max()) <= 1


def test_a_box_is_drawn_where_it_lies():
    layout = Layout(512, 512, (LayoutObject("a cat", Box(0.5, 0.5, 0.25, 0.25)),), "A room")
    image = as_image(layout)[0]
    empty = as_image(Layout(512, 512, (), "A room"))[0]
    side = LONG_EDGE
    changed = ((image[:side] - empty[:side]).abs().sum(-1) > 0.02).nonzero()
    low, high = changed.min(0).values / side, changed.max(0).values / side
    assert torch.allclose(low, torch.full((2,), 0.5), atol=0.05) and torch.allclose(
        high, torch.full((2,), 0.75), atol=0.01
    )


def test_fifty_boxes_each_show_their_colour():
    boxes = [Box(0.02 + 0.096 * (i % 10), 0.05 + 0.19 * (i // 10), 0.08, 0.15) for i in range(50)]
    layout = Layout(512, 512, tuple(LayoutObject(f"a rather long phrase number {i}", b) for i, b in enumerate(boxes)))
    image = as_image(layout)[0]
    for i, box in enumerate(boxes):
        y, x = round((box.y + box.h) * LONG_EDGE) - 1, round((box.x + box.w / 2) * LONG_EDGE)
        colour = torch.tensor([int(PALETTE[i % len(PALETTE)][k : k + 2], 16) / 255 for k in (1, 3, 5)])
        near = image[y - 3 : y + 4, x - 3 : x + 4].reshape(-1, 3)
        assert (near - colour).abs().sum(-1).min() < 0.1, i


def test_boxes_beyond_the_canvas_and_hairlines_do_not_fail():
    for box in (Box(-0.5, -0.5, 3, 3), Box(0.999, 0.999, 0.0001, 0.0001), Box(2, 2, 1, 1)):
        as_image(Layout(512, 512, (LayoutObject("a cat", box),)))


LONG = "a very tall and slender lighthouse with red and white stripes and a golden lantern room on its top"
CHINESE = "\u4e00\u53ea\u6a59\u8272\u7684\u732b\u5750\u5728\u7a97\u53f0\u4e0a\u770b\u7740\u5916\u9762\u7684\u96e8"


@pytest.mark.parametrize("text", [LONG, LONG.replace(" ", ""), CHINESE * 3, "a", "", "  two  spaces "])
@pytest.mark.parametrize("room", [40, 120, 500])
def test_wrapped_lines_fit_and_lose_nothing_but_what_the_ellipsis_stands_for(text, room):
    lines = fonts.wrapped(text, 16, room, 100)
    assert all(fonts.length(line, 16) <= room for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    cut = fonts.wrapped(text, 16, room, 2)
    assert len(cut) <= 2 and all(fonts.length(line, 16) <= room for line in cut)
    assert cut == lines or cut[-1].endswith("\u2026")


def test_a_shortened_text_fits_and_ends_in_an_ellipsis():
    for room in range(20, 400, 20):
        short = fonts.shortened(LONG, 18, room)
        assert fonts.length(short, 18) <= room and (short == "" or short.endswith("\u2026"))
    assert fonts.shortened(LONG, 18, 10_000) == LONG


def test_a_script_without_a_font_is_said_and_drawn_as_question_marks(monkeypatch):
    layout = Layout(512, 512, (LayoutObject(CHINESE, Box(0.1, 0.1, 0.5, 0.5)),), "A room")
    known = (fonts._source, fonts._one_for_all)
    monkeypatch.setattr(fonts, "_CANDIDATES", ())
    for function in known:
        function.cache_clear()
    try:
        assert not fonts.shows(CHINESE) and fonts.shows("a cafe")
        assert [piece for piece, _ in fonts.runs(CHINESE, 16)] == ["?" * len(CHINESE)]
        latin = Layout(512, 512, (LayoutObject("?" * len(CHINESE), layout.objects[0].box),), "A room")
        assert draw(layout).height > draw(latin).height, "the strip says why"
    finally:
        for function in known:
            function.cache_clear()
