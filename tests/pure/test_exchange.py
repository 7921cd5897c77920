"""Layouts to the boxes, text and masks of other tools and back: what goes out comes in again."""

import json
import random

import pytest
import torch
from ella_lmd.lmd.convert.boxes import canvas_for, clipped, layout_from, layout_of, phrase_of
from ella_lmd.lmd.convert.masks import regions_of_masks, to_masks
from ella_lmd.lmd.convert.regions import only, pixel_region, to_captions, to_elements, to_json_text, to_reply
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.planner import reply

NAMES = ("a red cat", "two dogs", "une pomme", "ein Hund's ball", "a boy's hat, worn", '"quoted" box', "猫", "a_b")


def random_layout(seed: int) -> Layout:
    """Boxes of any size inside a canvas of any shape, edges on no particular grid."""
    rng = random.Random(seed)
    width, height = rng.randrange(64, 2049, 8), rng.randrange(64, 2049, 8)
    objects = []
    for _ in range(rng.randrange(1, 12)):
        x0, x1 = sorted((rng.random(), rng.random()))
        y0, y1 = sorted((rng.random(), rng.random()))
        box = Box.from_corners(x0, y0, max(x1, x0 + 0.02), max(y1, y0 + 0.02))
        objects.append(LayoutObject(rng.choice(NAMES), clipped(box)))
    return Layout(width, height, tuple(objects), rng.choice(["", "A park, at night"]), rng.choice(["", "birds"]))


def off(a: Layout, b: Layout, unit: str) -> float:
    """The farthest that an edge moved, in pixels of the canvas or as a share of it."""
    assert [o.phrase for o in a.objects] == [o.phrase for o in b.objects]
    sides = (a.width, a.height, a.width, a.height) if unit == "pixels" else (1, 1, 1, 1)
    pairs = [zip(p.box.corners, q.box.corners, sides) for p, q in zip(a.objects, b.objects)]
    return max(abs(u - v) * s for pair in pairs for u, v, s in pair)


SEEDS = range(25)


@pytest.mark.parametrize("seed", SEEDS)
def test_pixel_boxes_come_back_within_a_pixel_and_then_exactly(seed):
    layout = random_layout(seed)
    boxes = layout.to_bounding_boxes()
    back = layout_from(boxes, layout.width, layout.height, "", layout.background, layout.negative)
    assert off(layout, back, "pixels") <= 1.0 and back.background == layout.background
    assert back.to_bounding_boxes() == boxes
    assert layout_from(json.dumps(boxes), layout.width, layout.height).to_bounding_boxes() == boxes
    for box in boxes[0]:
        assert box["x"] >= 0 and box["width"] >= 1 and box["x"] + box["width"] <= layout.width
        assert box["y"] >= 0 and box["height"] >= 1 and box["y"] + box["height"] <= layout.height


@pytest.mark.parametrize("seed", SEEDS)
def test_elements_come_back_on_their_grid(seed):
    layout = random_layout(seed)
    elements = to_elements(layout)
    back = layout_from(elements, layout.width, layout.height)
    assert off(layout, back, "share") <= 0.0005 + 1e-9
    assert to_elements(back) == elements
    assert to_elements(layout_from(json.dumps(elements), 512, 512)) == elements


@pytest.mark.parametrize("seed", SEEDS)
def test_json_comes_back_whole(seed):
    layout = random_layout(seed)
    back = layout_from(to_json_text(layout), layout.width, layout.height)
    assert off(layout, back, "share") <= 2e-6 and back.notes == ()
    assert (back.background, back.negative) == (layout.background, layout.negative)
    assert to_json_text(back) == to_json_text(Layout.from_json(to_json_text(layout)))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_reply_form_is_read_back_by_both_parsers(seed):
    layout = random_layout(seed)
    if any(o.box.w > 0.99 and o.box.h > 0.99 for o in layout.objects):
        pytest.skip("a reply's whole-canvas boxes count as background")
    text = to_reply(layout)
    tolerant = reply.to_layout(reply.parse(text), layout.width, layout.height)
    assert off(layout, tolerant, "pixels") <= 1.5
    assert (tolerant.background, tolerant.negative) == (layout.background, layout.negative)
    strict = reply.parse_strict(text)
    assert [name for name, _ in strict.boxes] == [o.phrase for o in layout.objects]


@pytest.mark.parametrize("seed", SEEDS)
def test_masks_give_the_boxes_back_to_the_pixel(seed):
    layout = random_layout(seed)
    masks, background = to_masks(layout)
    assert masks.shape == (len(layout.objects), layout.height, layout.width)
    back = layout_of(regions_of_masks(masks), layout.width, layout.height, to_captions(layout))
    assert off(layout, back, "pixels") <= 1.0
    again, _ = to_masks(back)
    assert torch.equal(again, masks)
    assert torch.equal(background[0], 1 - masks.amax(0))


def test_soft_masks_fade_inwards_but_not_at_the_canvas_border():
    layout = Layout(128, 64, (LayoutObject("a cat", Box(0, 0.25, 0.5, 0.5)),))
    sharp, _ = to_masks(layout)
    soft, background = to_masks(layout, 8)
    assert (soft <= sharp).all() and torch.equal(soft > 0, sharp > 0)
    assert soft[0, 32, 0] == 1 and 0 < soft[0, 32, 63] < 0.2 and soft[0, 32, 30] == 1 and 0 < soft[0, 16, 0] < 0.2
    assert torch.equal(background, 1 - soft)


@pytest.mark.parametrize("seed", SEEDS)
def test_pixel_regions_fit_the_hosts_own_nodes(seed):
    layout = random_layout(seed)
    for o in layout.objects:
        for least in (8, 64):
            w, h, x, y = pixel_region(o.box, layout.width, layout.height, least)
            assert w % 8 == h % 8 == x % 8 == y % 8 == 0 and w >= least and h >= least
            assert x >= 0 and y >= 0 and x + w <= layout.width and y + h <= layout.height
        if o.box.w * layout.width > 72:
            assert abs(x - o.box.x * layout.width) <= 4.01 and abs(x + w - o.box.corners[2] * layout.width) <= 4.01


@pytest.mark.parametrize(
    ("box", "region"),
    [
        (Box(0.99, 0.99, 0.01, 0.01), (64, 64, 448, 448)),
        (Box(-0.5, 2, 0.1, 0.1), (64, 64, 0, 448)),
        (Box(-1, -1, 3, 3), (512, 512, 0, 0)),
    ],
)
def test_a_pixel_region_always_lies_on_the_canvas(box, region):
    assert pixel_region(box, 512, 512) == region


DETECTED = [
    [
        {"x": 10.5, "y": 20.25, "width": 100.0, "height": 50.0, "label": "traffic light", "score": 0.9},
        {"x": 200, "y": 20, "width": 100, "height": 50, "label": "scissors", "score": 0.5},
    ],
    [{"x": 0, "y": 0, "width": 10, "height": 10, "label": "dog", "score": 0.9}],
]


def test_detections_become_phrases_with_articles():
    layout = layout_from(DETECTED, 512, 256)
    assert [o.phrase for o in layout.objects] == ["a traffic light", "scissors"]
    assert layout.objects[0].box.corners == pytest.approx((10.5 / 512, 20.25 / 256, 110.5 / 512, 70.25 / 256))
    assert [o.phrase for o in layout_from(DETECTED, 512, 512, frame=1).objects] == ["a dog"]
    labels = {"bus": "a bus", "orange": "an orange", "skis": "skis", "the sea": "the sea", "chat 2": "chat 2"}
    assert {k: phrase_of(k) for k in labels} == labels


def test_boxes_are_counted_on_the_image_that_they_were_found_in():
    layout = layout_from(DETECTED, 256, 128, pixels=(512, 256))
    assert layout.objects[0].box.x == pytest.approx(10.5 / 512) and layout.width == 256
    assert canvas_for(1003, 30) == (1000, 64)


def test_captions_by_line_one_for_all_and_labels_for_the_rest():
    assert [o.phrase for o in layout_from(DETECTED, 512, 512, " a lamp \n\na cutter\n").objects] == [
        "a lamp",
        "a cutter",
    ]
    assert {o.phrase for o in layout_from(DETECTED, 512, 512, "a thing").objects} == {"a thing"}
    three = [[*DETECTED[0], DETECTED[1][0]]]
    assert [o.phrase for o in layout_from(three, 512, 512, "a\nb").objects] == ["a", "b", "a dog"]


def test_spare_captions_and_dropped_boxes_are_said_not_swallowed():
    boxes = [{"x": 0, "y": 0, "width": 9, "height": 9}, {"x": 900, "y": 0, "width": 9, "height": 9},
             {"x": 5, "y": 5, "width": 0, "height": 9}, {"x": -50, "y": 500, "width": 99, "height": 99}]  # fmt: skip
    layout = layout_from(boxes, 512, 512, "a\nb\nc\nd\ne")
    assert [o.phrase for o in layout.objects] == ["a", "d"]
    assert layout.objects[1].box.corners == pytest.approx((0, 500 / 512, 49 / 512, 1))
    said = "; ".join(layout.notes)
    for part in ('"e" not used', '"b", lies outside', '"c", has no area', '"d", extended beyond'):
        assert part in said
    assert layout_from(boxes[:1] + boxes[3:], 512, 512, "a\nd").objects[1].phrase == "d"


@pytest.mark.parametrize(
    ("data", "captions", "said"),
    [
        ([], "", "there are no boxes"),
        (None, "", "there are no boxes"),
        ([[]], "", "there are no boxes"),
        ("[]", "", "there are no boxes"),
        ("  ", "", "the reply is empty"),
        ("hello", "", "no list of boxes"),
        (3, "", "got int"),
        ([3], "", "box 1 must be"),
        ([{"x": 1, "y": 2, "width": 3}], "a", "box 1 needs x, y, width and height"),
        ([{"x": 1, "y": 2, "width": 3, "height": float("nan")}], "a", "box 1 needs"),
        ([{"bbox": [1, 2, 3]}], "a", "box 1 needs"),
        ([{"bbox": [0, 0, "x", 9]}], "a", "box 1 needs"),
        ([{"x": 1, "y": 2, "width": 3, "height": 4}] * 3, "a\nb", "box 3 has no caption: there are 3 boxes and 2"),
        ([{"x": 1, "y": 2, "width": 3, "height": 4}] * 3, "", "boxes 1, 2, 3 have no caption"),
        ([{"x": 900, "y": 2, "width": 3, "height": 4}], "a", "none of the 1 boxes lies on the 512 x 512 canvas"),
        ([{"x": 1, "y": 2, "width": 3, "height": 4}] * 51, "a", "at most 50 boxes, got 51"),
    ],
)
def test_bad_boxes_are_errors_that_say_what_to_do(data, captions, said):
    with pytest.raises(ValueError, match=said):
        layout_from(data, 512, 512, captions)


def test_a_frame_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="no image 2: the boxes are of 2 images"):
        layout_from(DETECTED, 512, 512, frame=2)
    with pytest.raises(ValueError, match="no object 3: the layout has 1"):
        only(Layout(64, 64, (LayoutObject("a", Box(0, 0, 1, 1)),)), 3)


def test_text_elements_and_reversed_corners():
    elements = [{"type": "text", "bbox": [500, 600, 100, 200], "text": "SALE", "desc": ""}]
    layout = layout_from(elements, 512, 512)
    assert layout.objects[0].phrase == 'the words "SALE"'
    assert layout.objects[0].box.corners == pytest.approx((0.2, 0.1, 0.6, 0.5))


def test_an_empty_layout_goes_through_text_and_masks():
    empty = Layout(512, 256, (), "A park", "birds")
    back = layout_from(to_json_text(empty), 512, 256)
    assert back == empty
    masks, background = to_masks(empty)
    assert len(masks) == 0 and bool((background == 1).all())


@pytest.mark.parametrize(
    "text",
    ["[" * 5000, '{"canvas": [512, 512], "objects": 5}', '{"canvas": [512, 512], "objects": [5]}', '[{"bbox": 5}]', "null",
     '{"canvas": [1e400, 512], "objects": []}', '[{"x": 1e400, "y": 0, "width": 9, "height": 9, "label": "a"}]', '{"bbox": "abcd"}',
     '[{"x": %s, "y": 0, "width": 9, "height": 9, "label": "a"}]' % (10**400), '{"x": 1, "y": 1, "width": {}, "height": []}',
     '{"canvas": [512, 512], "objects": [{"phrase": "a", "box": [0, 0, 1e400, 1]}]}', "[[1], 2]", "1e400", "9" * 5000,
     '{"canvas": 7, "objects": [{"phrase": "a", "box": [0, 0, 1, 1]}]}', '{"canvas": {}, "objects": []}'],
)  # fmt: skip
def test_odd_values_in_text_are_ordinary_errors(text):
    with pytest.raises(ValueError):
        layout_from(text, 512, 512)


def test_half_characters_and_control_characters_never_reach_a_layout():
    found = layout_from(
        '[{"x": 0, "y": 0, "width": 99, "height": 99, "label": "a \\ud800cat\\u0000"}]', 512, 512, "", "in \ud800"
    )
    assert found.objects[0].phrase.rstrip() == "a \ufffdcat" and found.background == "in \ufffd"


def test_the_same_limits_hold_in_the_editor():
    import re
    from pathlib import Path

    from ella_lmd.lmd import limits

    text = (Path(limits.__file__).parents[1] / "web" / "js" / "limits.mjs").read_text()
    found = dict(re.findall(r"export const (\w+) = (\d+);", text))
    assert len(found) == 8
    assert {name: getattr(limits, name) for name in found} == {name: int(value) for name, value in found.items()}
    with pytest.raises(ValueError, match="1001 characters, and at most 1000 are read"):
        layout_from([{"bbox": [0, 0, 500, 500], "desc": "x" * 1001}], 512, 512)
    with pytest.raises(ValueError, match="at most 1000 canvas sides"):
        Box(0, 0, 2000, 1)
