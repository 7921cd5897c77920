"""Layout -> prompts, against the reference vectors and for the phrases which the reference spoils."""

import json

import pytest
from ella_lmd.lmd import prompts
from ella_lmd.lmd.layout import Box, Layout, LayoutObject


def _layout(names, background="A park", size=(512, 512)):
    boxes = [n if isinstance(n, tuple) else (n, (i * 20, 10, 50, 50)) for i, n in enumerate(names)]
    w, h = size
    objects = tuple(LayoutObject(n, Box(b[0] / w, b[1] / h, b[2] / w, b[3] / h)) for n, b in boxes)
    return Layout(w, h, objects, background)


def test_reference_vectors(golden):
    cases = json.loads((golden / "lmd/convert_spec.json").read_text())["cases"]
    assert cases
    for case in cases:
        given, wanted = case["input"], case["expected"]
        boxes = [(name, tuple(box)) for name, box in given["gen_boxes"]]
        layout = _layout(boxes, given["bg_prompt"], (given["width"], given["height"]))
        items = prompts.object_prompts(layout)
        assert [(i.prompt, i.phrase, i.word) for i in items] == [
            (w["prompt"], w["phrase"], w["word"]) for w in wanted["per_object"]
        ], case["id"]
        for item, w in zip(items, wanted["per_object"]):
            assert item.box.corners == pytest.approx(w["box"], abs=1e-12)
        for exact in {True, case["quirk"]}:  # the default mode differs in the quirk cases only
            overall = prompts.overall_prompt(layout, given["include_counts"], exact=exact)
            assert overall.prompt == wanted["overall_prompt"], case["id"]
            assert [(g.phrase, g.word) for g in overall.groups] == [(g["phrase"], g["word"]) for g in wanted["overall"]]
            for g, w in zip(overall.groups, wanted["overall"]):
                assert [b.corners for b in g.boxes] == [pytest.approx(b, abs=1e-12) for b in w["boxes"]]


def test_flattened_groups_are_the_object_order():
    layout = _layout(["a dog", "a cat", "a dog", "an owl", "a cat"])
    flat = [b for g in prompts.overall_prompt(layout).groups for b in g.boxes]
    assert flat == [i.box for i in prompts.object_prompts(layout)]


@pytest.mark.parametrize(
    ("name", "count", "phrase"),
    [
        ("a panda bear", 2, "two panda bears"),
        ("a woman sitting", 3, "three women sitting"),
        ("a boy playing", 2, "two boys playing"),
        ("birds", 2, "two birds"),
        ("an old man with a hat", 2, "two old men with a hat"),
        ("a building", 2, "two buildings"),
        ("a bus", 2, "two buses"),
        ("a pair of shoes", 2, "two pairs of shoes"),
        ("the sheep", 2, "two sheep"),
        ("scissors", 2, "two scissors"),
    ],
)
def test_group_phrases_read_like_english(name, count, phrase):
    assert prompts.overall_prompt(_layout([name] * count)).groups[0].phrase == phrase


def test_negative_prompts_put_the_layouts_own_words_first():
    assert prompts.with_negative("", prompts.OVERALL_NEGATIVE) == prompts.OVERALL_NEGATIVE
    assert prompts.with_negative("people", prompts.OBJECT_NEGATIVE).startswith("people, artifacts, blurry")
    assert prompts.OVERALL_NEGATIVE.count(",") == 8
    assert prompts.OBJECT_NEGATIVE.endswith("duplicate, two, many, group, occlusion, occluded, side, border, collate")


def test_every_phrase_knows_where_it_stands_in_the_prompt():
    layout = _layout(["a red hat", "a man in a red hat", "a cat!", "an owl", "a cat!"], "a red hat (shop")
    overall = prompts.overall_prompt(layout)
    assert overall.prompt == "a red hat \\(shop with two cat!s, a man in a red hat, a red hat, an owl"
    for g in overall.groups:
        assert overall.prompt[slice(*g.span)] == prompts.written(g.phrase)
    assert [g.numbers for g in overall.groups] == [(3, 5), (2,), (1,), (4,)]
    for item in prompts.object_prompts(layout):
        assert item.prompt[slice(*item.span)] == prompts.written(item.phrase)


@pytest.mark.parametrize(
    ("text", "in_prompt"),
    [
        ("(a red cat:1.3)", "(a red cat:1.3)"),
        ("a cat \\(toy\\)", "a cat \\(toy\\)"),
        ("a cat :)", "a cat :\\)"),
        ("((a cat)", "\\((a cat)"),
        ("a cat) and (a dog", "a cat\\) and \\(a dog"),
    ],
)
def test_a_parenthesis_without_a_partner_is_a_word_and_a_pair_is_a_weight(text, in_prompt):
    assert prompts.written(text) == in_prompt


def test_a_weight_is_no_part_of_the_word_and_stays_around_several():
    single, double = _layout(["(a red cat:1.3)"]), _layout(["(a red cat:1.3)"] * 2)
    assert prompts.overall_prompt(single).groups[0].word == "cat"
    assert prompts.overall_prompt(double).groups[0].phrase == "(two red cats:1.3)"
