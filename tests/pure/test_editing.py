"""A user's edits: they win until a new layout arrives, nothing that they leave alone changes, and no text is lost."""

import contextlib
import json
from dataclasses import replace

import pytest
from ella_lmd.lmd.convert import user_edits
from ella_lmd.lmd.convert.boxes import layout_from, regions_in
from ella_lmd.lmd.convert.masks import to_masks
from ella_lmd.lmd.convert.regions import to_elements
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.pictures import layout_picture
from ella_lmd.lmd.planner.offline import plan
from hypothesis import given, settings
from hypothesis import strategies as st

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
        ('{"layout": {"canvas": [512.5, 512], "objects": []}}', '"canvas"'),
    ],
)
def test_text_that_is_no_layout_is_refused_with_the_place(text, told):
    with pytest.raises(ValueError, match=".") as error:
        user_edits.apply(PLANNED, text)
    assert told in str(error.value)


_VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.floats(), st.integers(), st.sampled_from([10**400, "a cat", "\ud800", "", "\x00"])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(
            st.sampled_from(["layout", "canvas", "objects", "phrase", "box", "background", "negative", "upstream", "bbox",
                             "x", "y", "width", "height", "label", "desc", "metadata"]), inner, max_size=6),
    ),
    max_leaves=25,
)  # fmt: skip


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(_VALUES)
def test_any_json_is_a_layout_or_an_ordinary_error(value):
    text = json.dumps(value)
    for read in (
        user_edits.read,
        Layout.from_json,
        lambda t: layout_from(t, 512, 512),
        lambda _: regions_in(value, 512, 512),
    ):
        try:
            read(text)
        except ValueError as error:
            assert str(error).encode("utf-8")


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    st.lists(
        st.tuples(st.text(min_size=1, max_size=30).filter(str.strip), st.floats(-1e3, 1e3), st.floats(1e-9, 1e3)),
        max_size=4,
    ),
    st.text(max_size=60),
)
def test_any_layout_that_can_be_made_can_be_written_drawn_and_read_again(things, text):
    objects = []
    for phrase, at, size in things:
        with contextlib.suppress(ValueError):
            objects.append(LayoutObject(phrase, Box(at, at, size, size)))
    layout = Layout(128, 64, tuple(objects), text, text, text)
    layout_picture.draw(layout)
    to_masks(layout)
    layout.to_bounding_boxes()
    to_elements(layout)
    written = layout.to_json()
    json.dumps(written, ensure_ascii=False).encode("utf-8")
    assert user_edits.fingerprint(layout)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"layout": ' * 50_000, "9" * 6000, "1e400", '{"layout": {"canvas": [1e400, 8], "objects": []}}',
             '{"objects": {"a": 1}}', '{"objects": [{"phrase": "a", "box": [1e400, 0, 1, 1]}]}', "[]", '{"layout": 5}',
             '{"objects": [{"phrase": "a", "box": [0, 0, 1e300, 1]}]}', '{"objects": [], "upstream": 5, "layout": {"objects": []}}']
)  # fmt: skip
def test_odd_edits_are_refused_in_words(text):
    with pytest.raises(ValueError):
        user_edits.read(text)
