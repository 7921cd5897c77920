"""The checker: silent on right layouts, loud on each kind of fault; the repair: geometry only."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from ella_lmd.evaluation import lmd_benchmark
from ella_lmd.lmd.english.nouns import is_english, same
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.planner import quality, reply
from ella_lmd.lmd.planner.check import check
from ella_lmd.lmd.planner.repair import GEOMETRY, repair

FILE = Path(__file__).resolve().parents[1] / "data" / "correct_layouts.txt"


def layout_of(objects: str, background="", negative="", prompt="") -> Layout:
    """ "a cat 10 20 100 100; a dog ..." on a 512 x 512 canvas."""
    found = []
    for item in objects.split(";"):
        *name, x, y, w, h = item.split()
        found.append(LayoutObject(" ".join(name), Box(*(int(v) / 512 for v in (x, y, w, h)))))
    return Layout(512, 512, tuple(found), background.strip(), negative.strip(), prompt)


def correct() -> list[Layout]:
    out = []
    for line in FILE.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            prompt, objects, background, negative = (part.strip() for part in line.split("|"))
            out.append(layout_of(objects, background, negative, prompt))
    return out


def test_no_false_alarm_on_right_layouts_for_free_prompts():
    layouts = correct()
    assert len(layouts) >= 60
    assert {
        x.prompt: [v.text for v in check(x.prompt, x).violations] for x in layouts if not check(x.prompt, x).good
    } == {}


def test_no_false_alarm_on_published_replies_that_pass(shared):
    alarms = []
    missed = []
    for prompt, texts in json.loads((shared / "data" / "lmd_replies_gpt-3.5-turbo.json").read_text()).items():
        for text in texts:
            layout = reply.to_layout(reply.parse(text), 512, 512, prompt)
            boxes = [o.box for o in layout.objects]
            right = lmd_benchmark.predicate(prompt, layout) and len(set(boxes)) == len(boxes)
            if right and not check(prompt, layout).good:
                alarms.append((prompt, check(prompt, layout).violations))
            elif not lmd_benchmark.predicate(prompt, layout) and check(prompt, layout).good:
                missed.append(prompt)
    assert alarms == [] and missed == []


def test_a_right_layout_is_not_repaired_unless_its_boxes_are_all_alike():
    for layout in correct():
        mended, said = repair(layout.prompt, layout)
        if not quality.uniform(layout):
            assert (mended, said) == (layout, ())
        assert all(a.box.iou(b.box) > 0.35 for a, b in zip(layout.objects, mended.objects))


def test_boxes_all_of_one_size_get_usual_proportions_unless_the_prompt_wants_them_alike():
    boxes = (LayoutObject("a cup", Box(0.1, 0.3, 0.35, 0.4)), LayoutObject("a car", Box(0.55, 0.3, 0.35, 0.4)))
    layout = Layout(512, 512, boxes, "A realistic scene", "")
    mended, said = repair("a cup and a car", layout)
    cup, car = (o.box for o in mended.objects)
    assert cup.area < car.area <= 0.35 * 0.4 + 1e-9 and said
    assert cup.y + cup.h == pytest.approx(0.7)
    assert repair("a cup and a car of the same size", layout) == (layout, ())


def test_boxes_over_each_other_are_parted_unless_the_prompt_brings_them_together():
    boxes = (LayoutObject("a cat", Box(0.2, 0.3, 0.4, 0.4)), LayoutObject("a dog", Box(0.35, 0.3, 0.35, 0.45)))
    layout = Layout(512, 512, boxes, "A realistic scene", "")
    mended, said = repair("a cat and a dog", layout)
    assert quality.overlaps(layout) == 1 and quality.overlaps(mended) == 0 and said
    assert repair("a cat hugging a dog", layout) == (layout, ())


def test_most_of_what_is_taken_away_from_right_layouts_is_noticed():
    """One everyday object less, or every box mirrored: how much of that the checker sees is its use."""
    found = Counter()
    for prompt, a, b in [
        ("a cat to the left of a dog", "a cat", "a dog"),
        ("a red cup on the left and a green bottle on the right", "a red cup", "a green bottle"),
        ("A lamp to the left of a sofa in a room", "a lamp", "a sofa"),
        ("a realistic photo of a scene with a book on the left and a bowl on the right", "a book", "a bowl"),
    ]:
        good = layout_of(f"{a} 20 200 150 200; {b} 300 200 150 200", "A room", "", prompt)
        assert check(prompt, good).good
        swapped = layout_of(f"{a} 300 200 150 200; {b} 20 200 150 200", "A room", "", prompt)
        found["relation"] += any(v.kind == "relation" for v in check(prompt, swapped).violations)
        found["count"] += any(
            v.kind == "count" for v in check(prompt, replace(good, objects=good.objects[:1])).violations
        )
    assert found == {"relation": 4, "count": 4}


@pytest.mark.parametrize(
    ("prompt", "objects", "background", "negative", "kind"),
    [
        ("three cups on a table", "a cup 10 10 90 90; a cup 200 10 90 90; a table 0 110 500 300", "", "", "count"),
        ("two cats", "a cat 10 10 90 90; a cat 200 10 90 90; a cat 300 300 90 90", "", "", "count"),
        ("two cats", "two cats 10 10 390 290", "", "", "count"),
        ("a yellow laptop and a red cup", "a laptop 10 10 90 90; a red cup 200 10 90 90", "", "", "attribute"),
        ("a red cat and a blue dog", "a blue cat 10 10 90 90; a red dog 200 10 90 90", "", "", "attribute"),
        ("a street without cars", "a car 10 100 200 100", "A street", "cars", "negation"),
        ("a park with a bench and no people", "a man 10 100 90 300; a bench 200 200 90 90", "A park", "", "negation"),
        ("a bird above a boat", "a bird 10 400 90 90; a boat 200 10 200 200", "", "", "relation"),
        ("a kitten under a table", "a kitten 10 10 90 90; a table 100 200 300 200", "", "", "relation"),
        ("a hat on a chair", "a hat 400 10 90 60; a chair 10 300 150 200", "", "", "relation"),
        ("a cup on the left", "a cup 400 10 90 90", "", "", "relation"),
        ("a cat and a dog", "a cat 10 10 200 200; a dog 12 10 200 200", "", "", "overlap"),
        ("a cat", "a cat 400 10 200 200", "", "", "canvas"),
        ("a cat", "a cat 400 10 5 5", "", "", "size"),
        ("a cat in a park", "a cat 100 100 200 200", "A park", "dogs, cats", "negative"),
        ("a cat in a park", "a cat 100 100 200 200", "A park with a cat", "", "background"),
    ],
)
def test_every_kind_of_fault_is_named(prompt, objects, background, negative, kind):
    assert {v.kind for v in check(prompt, layout_of(objects, background, negative)).violations} == {kind}


@pytest.mark.parametrize(
    "prompt",
    [
        "\u4e00\u53ea\u7ea2\u8272\u7684\u732b\u5728\u684c\u5b50\u4e0a",
        "\u8d64\u3044\u732b\u3068\u9752\u3044\u72ac",
        "\ube68\uac04 \uace0\uc591\uc774\uc640 \ud30c\ub780 \uac1c",
        "Eine rote Katze links neben einem blauen Hund auf der Wiese",
        "Un gato rojo a la izquierda de un perro azul sobre la hierba",
        "Un chat rouge et un chien bleu dans une cuisine",
    ],
)
def test_other_languages_leave_the_models_word_alone_and_say_so(prompt):
    assert not is_english(prompt)
    verdict = check(prompt, layout_of("a red cat 10 200 200 200; a blue dog 280 200 200 200"))
    assert verdict.good and "not in English" in verdict.unsure[0]
    assert not check(prompt, layout_of("a red cat 400 200 200 200")).good, "the boxes themselves are still checked"


def test_what_is_the_same():
    assert same("streetlamp", "lamp") and same("man", "girl") and same("kitten", "cat")
    assert not same("cat", "dog") and not same("cup", "bowl")


@pytest.mark.parametrize(
    ("prompt", "objects"),
    [
        ("a cat to the left of a dog", "a cat 300 200 150 200; a dog 20 150 150 250"),
        ("a bird above a boat", "a bird 200 400 90 90; a boat 150 10 200 200"),
        ("a cup on the top and a book on the bottom", "a cup 200 300 150 150; a book 200 50 190 190"),
        ("a kitten under a table", "a kitten 10 10 90 90; a table 100 200 300 200"),
        ("a hat on a chair", "a hat 400 10 90 60; a chair 10 300 150 200"),
        ("two books on a table", "a book 400 400 90 60; a book 300 450 90 60; a table 10 60 450 200"),
        ("a cat and a dog", "a cat 10 10 400 400; a dog 12 10 400 400"),
        ("a cat", "a cat 400 10 300 600"),
        ("a cat", "a cat 400 10 5 5"),
        ("a cup on the left", "a cup 400 100 190 190"),
        ("a dog between two cats", "a dog 10 10 150 150; a cat 150 300 150 150; a cat 330 300 150 150"),
    ],
)
def test_the_repair_mends_geometry_and_keeps_every_name(prompt, objects):
    broken = layout_of(objects, "A place", "fog")
    assert not check(prompt, broken).good
    mended, said = repair(prompt, broken)
    assert check(prompt, mended).good and said
    assert [o.phrase for o in mended.objects] == [o.phrase for o in broken.objects]
    assert (mended.background, mended.negative) == (broken.background, broken.negative)
    assert repair(prompt, broken) == (mended, said)


def test_the_repair_leaves_what_is_no_geometry():
    broken = layout_of("a laptop 10 10 290 290", "A desk")
    mended, said = repair("a yellow laptop and a red cup", broken)
    assert mended == broken and said == ()
    assert not {v.kind for v in check("a yellow laptop and a red cup", mended).violations} & set(GEOMETRY)


def test_small_boxes_of_one_size_grow_apart_in_size_and_keep_their_order():
    broken = layout_of("a cat 20 200 100 100; a dog 200 200 100 100; a cup 380 200 100 100")
    mended, said = repair("a cat, a dog and a cup, from left to right", broken)
    assert "enlarged" in said[0]
    boxes = [o.box for o in mended.objects]
    assert boxes[0].area > 1.5 * broken.objects[0].box.area and len({round(b.h, 3) for b in boxes}) == 3
    assert all(a.x + a.w <= b.x + 0.01 for a, b in zip(boxes, boxes[1:]))


@pytest.mark.parametrize(
    "relation, axis, smaller",
    [("to the left of", "left", 0), ("to the right of", "left", 1), ("above", "top", 0), ("below", "top", 1)],
)
def test_a_wrong_place_is_told_to_the_model_in_its_numbers_and_to_the_user_without(relation, axis, smaller):
    away = Box(0.7, 0.7, 0.2, 0.2), Box(0.1, 0.1, 0.2, 0.2)
    boxes = away if smaller == 0 else away[::-1]
    layout = Layout(512, 512, (LayoutObject("a cat", boxes[0]), LayoutObject("a dog", boxes[1])), "A meadow", "")
    (fault,) = check(f"a cat {relation} a dog", layout).violations
    names = ("a cat", "a dog")
    less, more = names[smaller], names[1 - smaller]
    assert f'give "{less}" a much smaller {axis} and "{more}" a much larger {axis}' in fault.advice
    assert "much smaller" not in fault.text
    assert not any("much smaller" in said for said in repair(f"a cat {relation} a dog", layout)[1])
