"""What an object has of its own: kept in the layout's JSON, told in the prompts, and never lost in the editor."""

import json
from dataclasses import replace

import pytest
import torch
from ella_lmd.lmd.convert import user_edits
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.object_settings import Attached, ObjectLora, ObjectSettings
from ella_lmd.lmd.planner.offline import plan
from ella_lmd.lmd.prompts import object_prompts, overall_prompt
from ella_lmd.lmd.sampling import compose
from ella_lmd.lmd.sampling.regions import region_of

OWN = ObjectSettings(
    (ObjectLora("hero.safetensors", 0.8, 0.0), ObjectLora("ink.safetensors")),
    "sks, with a hat", "beard", 1.5, 0.1, 0.9, 7, False, "0123456789abcdef", Attached([["tensor", {}]]),
)  # fmt: skip
LAYOUT = Layout(
    512, 512, (LayoutObject("a knight", Box(0, 0, 0.5, 1), OWN), LayoutObject("a cat", Box(0.5, 0, 0.5, 1))), "a hall"
)


def test_settings_come_back_from_json_and_a_layout_without_any_is_written_as_ever():
    again = Layout.from_json(json.loads(json.dumps(LAYOUT.to_json())))
    assert again == LAYOUT and again.objects[0].settings.missing
    assert LAYOUT.to_json()["objects"][1] == {"phrase": "a cat", "box": [0.5, 0, 0.5, 1]}
    assert (
        Layout.from_json({"objects": [{"phrase": "a cat", "box": [0, 0, 1, 1]}]}).objects[0].settings
        == ObjectSettings()
    )


@pytest.mark.parametrize(
    ("own", "word"),
    [
        ({"sead": 3}, "sead"),
        ([], None),
        ("x", "must be an object"),
        ({"seed": -2}, "seed"),
        ({"seed": True}, "seed"),
        ({"guidance": "1"}, "guidance"),
        ({"start": 0.5, "end": 0.2}, "before it starts"),
        ({"words": "x" * 2000}, "words"),
        ({"loras": {}}, "list"),
        ({"loras": [{"file": "a", "strength": 99}]}, "strength"),
        ({"loras": [{"name": "a"}]}, "clip_strength"),
        ({"loras": [3]}, "clip_strength"),
        ({"loras": [{"file": "a"}] * 11}, "at most 10"),
        ({"attached": 3}, "attached"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_read_are_named(own, word):
    data = {"objects": [{"phrase": "a cat", "box": [0, 0, 1, 1], "settings": own}]}
    if word is None:
        assert Layout.from_json(data).objects[0].settings == ObjectSettings()
        return
    with pytest.raises(ValueError, match="object 0.*" + word):
        Layout.from_json(data)


def test_a_moved_and_renamed_object_keeps_its_tensors_through_the_editor():
    data = LAYOUT.to_json()
    moved = data["objects"][0] | {"phrase": "a bold knight", "box": [0.1, 0, 0.4, 1]}
    data["objects"] = [data["objects"][1], moved, moved]  # reordered and copied, too
    text = json.dumps({"upstream": user_edits.fingerprint(LAYOUT), "layout": data})
    cat, *knights = user_edits.apply(LAYOUT, text).layout.objects
    assert cat == LAYOUT.objects[1]
    for knight in knights:
        assert knight.settings == OWN and knight.settings.attached is OWN.attached
    alone = user_edits.apply(None, text).layout.objects[1]
    assert alone.settings.missing


def test_a_later_nodes_settings_join_the_former_ones():
    both = OWN.then(ObjectSettings((ObjectLora("x"),), "old", "", 2.0, 0.0, 0.5))
    assert [lora.file for lora in both.loras] == ["hero.safetensors", "ink.safetensors", "x"]
    assert (both.words, both.negative, both.guidance) == ("sks, with a hat, old", "beard", 3.0)
    assert (both.start, both.end, both.seed, both.frozen) == (0.1, 0.5, 7, False)
    assert both.attached is OWN.attached and both.conditioning == OWN.conditioning
    assert ObjectSettings().then(ObjectSettings()) == ObjectSettings()


def test_words_follow_their_phrase_in_both_prompts():
    cat, knight = object_prompts(LAYOUT)
    assert knight.prompt == "a hall with a knight, sks, with a hat" and cat.prompt == "a hall with a cat"
    assert knight.prompt[slice(*knight.span)] == "a knight" and (knight.number, cat.number) == (1, 2)
    overall = overall_prompt(LAYOUT)
    assert overall.prompt == "a hall with a cat, a knight, sks, with a hat"
    assert [overall.prompt[slice(*g.span)] for g in overall.groups] == ["a cat", "a knight"]
    two = replace(LAYOUT, objects=(*LAYOUT.objects, LayoutObject("a knight", Box(0, 0, 1, 1), OWN)))
    assert overall_prompt(two).prompt == "a hall with a cat, two knights, sks, with a hat"


def test_the_smaller_box_is_in_front_or_the_later_one():
    objects = tuple(LayoutObject(f"thing {i}", b) for i, b in
                    enumerate((Box(0.25, 0.25, 0.5, 0.5), Box(0, 0, 1, 1), Box(0.25, 0.25, 0.5, 0.5))))  # fmt: skip
    layout = Layout(64, 64, objects)
    assert layout.back_to_front() == [1, 0, 2] and "ordered" not in layout.to_json()
    by_list = Layout.from_json({**layout.to_json(), "ordered": True})
    assert by_list.ordered and by_list.back_to_front() == [0, 1, 2] and by_list.to_json()["ordered"] is True
    for where, owned in ((layout, [0, 48, 16]), (by_list, [0, 48, 16])):
        cells = [region_of(where, (i,)).cells(8, 8) for i in (1, 2, 3)]
        assert [int(c.sum()) for c in cells] == owned and int(sum(c.int() for c in cells).max()) == 1
    small_first = replace(layout, objects=objects[:2])
    assert [int(region_of(small_first, (i,)).cells(8, 8).sum()) for i in (1, 2)] == [16, 48]
    hidden = replace(small_first, ordered=True)
    assert [int(region_of(hidden, (i,)).cells(8, 8).sum()) for i in (1, 2)] == [0, 64]
    with pytest.raises(ValueError, match='"ordered" must be true or false'):
        Layout.from_json({**layout.to_json(), "ordered": 1})


def test_the_composition_pastes_in_the_lists_order_where_the_layout_says_so():
    latents = [torch.full((2, 1, 4, 4), float(i)) for i in (1, 2)]
    large, small = torch.ones(4, 4, dtype=torch.bool), torch.zeros(4, 4, dtype=torch.bool)
    small[:2, :2] = True
    placed = [compose.Placed(latents[0], small), compose.Placed(latents[1], large)]
    assert compose.compose(torch.zeros(1, 4, 4), placed)[1][0, 0] == 1
    assert (compose.compose(torch.zeros(1, 4, 4), placed, order=[0, 1])[1] == 2).all()


def test_a_planners_layout_keeps_its_notes_and_the_published_order():
    layout = plan("three cats and no dogs at the left of a xyzzy", 512, 512)
    told = Layout(512, 512, (), "", "", "", ("a note",))
    assert (told.notes, told.ordered) == (("a note",), False)
    assert layout.ordered is False and isinstance(layout.notes, tuple)
