"""The quality measures see what they are for, and tidying fixes it."""

import pytest
from ella_lmd.lmd.english.nouns import head
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.planner import quality
from ella_lmd.lmd.planner.check import check


def _layout(*boxes, background="A park", negative=""):
    return Layout(512, 512, tuple(LayoutObject(n, Box(*b)) for n, b in boxes), background, negative)


CAT, DOG = ("a black cat", (0.1, 0.1, 0.3, 0.3)), ("a dog", (0.5, 0.5, 0.3, 0.4))


def test_wanted_things_in_the_negative_prompt():
    layout = _layout(CAT, DOG, negative="cats, people")
    assert quality.wanted_in_negative(layout) == ["cat"]
    tidy = quality.tidy(layout)
    assert tidy.negative == "people" and any("cat" in n for n in tidy.notes)


@pytest.mark.parametrize(
    ("background", "left"),
    [
        ("A park with a cat", "A park"),
        ("A garden, two dogs, a pond", "A garden, a pond"),
        ("A park and a dog at night", "A park"),
        ("A pencil sketch of a dog", "A pencil sketch"),
        ("Two dogs playing", "A realistic scene"),
    ],
)
def test_boxed_things_in_the_background(background, left):
    layout = _layout(CAT, DOG, background=background)
    assert len(quality.boxed_in_background(layout)) == 1
    assert quality.tidy(layout).background == left
    assert quality.boxed_in_background(quality.tidy(layout)) == []


def test_a_compound_is_not_the_thing_in_its_name():
    assert quality.tidy(_layout(DOG, background="A dog park")).background == "A dog park"


def test_a_compound_in_the_negative_prompt_is_not_the_thing_in_its_name_for_the_checker_either():
    layout = _layout(DOG, background="A dog park", negative="dog collars")
    assert quality.wanted_in_negative(layout) == quality.boxed_in_background(layout) == []
    assert check("a dog in a dog park", layout).good and check("a dog in the park", layout).good


def test_a_clean_layout_is_left_alone():
    layout = _layout(CAT, DOG, negative="people")
    assert quality.tidy(layout) == layout and quality.tidy(layout).notes == ()


def test_overlap_uniform_and_coverage():
    assert quality.overlapping(_layout(DOG, CAT, ("a cat", (0.15, 0.15, 0.3, 0.3)))) == [(1, 2)]
    assert quality.overlapping(_layout(CAT, DOG)) == []
    assert quality.uniform(_layout(CAT, ("a cat", (0.6, 0.6, 0.3, 0.3))))
    assert not quality.uniform(_layout(CAT, DOG)) and not quality.uniform(_layout(CAT))
    assert quality.coverage(_layout(("a", (0, 0, 0.5, 0.5)), ("b", (0.25, 0, 0.5, 0.5)))) == pytest.approx(0.375)


def test_the_summary_counts_layouts_with_boxes_only():
    found = quality.summarise([_layout(), _layout(CAT, negative="cat"), _layout(CAT, DOG)])
    assert (found.layouts, found.wanted_in_negative, found.overlapping, found.uniform) == (2, 1, 0, 0)


@pytest.mark.parametrize(
    ("phrase", "noun"), [("two old men with hats", "man"), ("a stack of books", "stack"), ("a bus", "bus")]
)
def test_head_nouns(phrase, noun):
    assert head(phrase) == noun
