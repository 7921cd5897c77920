"""A user's edits: they win until a new layout arrives, nothing that they leave alone changes, and no text is lost."""

import json
from dataclasses import replace

import pytest
from ella_lmd.lmd.convert import user_edits
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.planner.offline import plan

THIRD = Box(1 / 3, 1 / 7, 1 / 3, 0.5)
PLANNED = Layout(
    512, 512, (LayoutObject("a cat", THIRD), LayoutObject("a dog", Box(0.7, 0.1, 0.2, 0.2))), "a park", notes=("kept",)
)


def edits(layout: Layout, upstream: str | None) -> str:
    data = {"layout": layout.to_json()} if upstream is None else {"upstream": upstream, "layout": layout.to_json()}
    return json.dumps(data)


def written(layout: Layout) -> Layout:
    """As it comes back from its text: six digits."""
    return Layout.from_json(layout.to_json())


def moved(layout: Layout, i: int = 1) -> Layout:
    objects = list(layout.objects)
    objects[i] = replace(objects[i], box=Box(0.0625, 0.5, 0.25, 0.25))
    return replace(layout, objects=tuple(objects))


@pytest.mark.parametrize("text", ["", "  \n"])
def test_without_edits_the_layout_passes_untouched(text):
    assert user_edits.apply(PLANNED, text).layout is PLANNED
    assert user_edits.apply(None, text).layout == Layout(512, 512)


def test_edits_that_change_nothing_are_no_edits():
    edited = user_edits.apply(PLANNED, edits(PLANNED, user_edits.fingerprint(PLANNED)))
    assert edited.layout is PLANNED and not edited.replaced


def test_edits_win_while_the_layout_is_the_one_they_were_made_from():
    edited = user_edits.apply(PLANNED, edits(moved(PLANNED), user_edits.fingerprint(PLANNED)))
    assert not edited.replaced
    assert edited.layout.objects[1].box == Box(0.0625, 0.5, 0.25, 0.25)
    assert edited.layout.objects[0].box is THIRD, "what was not touched keeps more digits than the text holds"


def test_a_new_layout_replaces_the_edits_and_the_old_one_brings_them_back():
    text = edits(moved(PLANNED), user_edits.fingerprint(PLANNED))
    new = replace(PLANNED, background="a beach")
    edited = user_edits.apply(new, text)
    assert edited.layout is new and edited.replaced
    assert user_edits.apply(PLANNED, text).layout == moved(PLANNED)


def test_a_drawing_from_scratch_is_replaced_by_a_layout_but_not_by_none():
    text = edits(moved(PLANNED), "")
    assert user_edits.apply(None, text).layout == written(moved(PLANNED))
    assert user_edits.apply(PLANNED, text).replaced


def test_edits_for_no_particular_layout_always_win():
    for text in (edits(moved(PLANNED), None), json.dumps(moved(PLANNED).to_json())):
        assert user_edits.apply(PLANNED, text).layout == moved(PLANNED)
        assert user_edits.apply(None, text).layout == written(moved(PLANNED))


def test_the_fingerprint_sees_every_part_of_the_layout_and_nothing_else():
    changed = [
        replace(PLANNED, background="a beach"),
        replace(PLANNED, negative="dogs"),
        replace(PLANNED, prompt="x"),
        PLANNED.on_canvas(768, 512),
        moved(PLANNED),
        replace(PLANNED, objects=PLANNED.objects[::-1]),
    ]
    marks = {user_edits.fingerprint(x) for x in [PLANNED, *changed]}
    assert len(marks) == 1 + len(changed) and all(len(m) == 16 for m in marks)
    assert user_edits.fingerprint(replace(PLANNED, notes=())) == user_edits.fingerprint(PLANNED)
    same = plan("two cats on a table", 512, 512), plan("two cats on a table", 512, 512)
    assert user_edits.fingerprint(same[0]) == user_edits.fingerprint(same[1]), "stable over runs"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not JSON"),
        ("[" * 100000, "not JSON"),
        ("3", "expected a JSON object"),
        ("null", "expected a JSON object"),
        ("{}", '"objects"'),
        ('{"layout": 5}', '"objects"'),
        ('{"layout": {"objects": 5}}', '"objects"'),
        ('{"upstream": 3, "layout": {"objects": []}}', '"upstream"'),
        ('{"layout": {"objects": ["a cat"]}}', "object 0"),
        ('{"layout": {"objects": [{"phrase": "a cat", "box": "abcd"}]}}', "object 0"),
        ('{"layout": {"objects": [{"phrase": "a cat", "box": [0, 0, 0, 1]}]}}', "width and a height above 0"),
        ('{"layout": {"objects": [{"phrase": " ", "box": [0, 0, 1, 1]}]}}', "phrase"),
        ('{"layout": {"objects": [{"phrase": "a cat", "box": [NaN, 0, 1, 1]}]}}', "finite"),
        ('{"layout": {"canvas": [500, 512], "objects": []}}', "multiple of 8"),
        ('{"layout": {"canvas": "big", "objects": []}}', '"canvas"'),
    ],
)
def test_text_that_is_no_layout_is_refused_with_the_place(text, told):
    with pytest.raises(ValueError, match=".") as error:
        user_edits.apply(PLANNED, text)
    assert told in str(error.value)
