"""The planning nodes through the host's own schema, validation and input code."""

import json
import logging

import folder_paths
import pytest
import torch
from ella_lmd.nodes import lmd_plan
from ella_lmd.tests.host.executor import run

import nodes as host_nodes

REPLY = (
    "Objects: [('a red kite', [60, 40, 120, 110]), ('a kite', [200, 250, 280, 160])]\n"
    "Background prompt: A beach\nNegative prompt: people"
)


@pytest.fixture(autouse=True)
def registered(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))
    for node in lmd_plan.NODES:
        monkeypatch.setitem(host_nodes.NODE_CLASS_MAPPINGS, node.GET_SCHEMA().node_id, node)


def plan(prompt="two cats on a table", width=512, height=512, **source):
    source = source or {"source": "offline planner"}
    flat = {"source": source["source"], **{f"source.{k}": v for k, v in source.items() if k != "source"}}
    return run("LLMLayoutPlanner", prompt=prompt, width=width, height=height, **flat)


def test_offline_planner_gives_every_output():
    (layout, overall, background, negative, boxes, picture), ui = plan(
        "two cats on a table in a park, no dogs", 768, 512
    )
    assert [o.phrase for o in layout.objects] == ["a cat", "a cat", "a table"]
    assert overall == "A park with two cats, a table" and background == "A park"
    assert negative.startswith("dogs, artifacts")
    assert [b["metadata"]["phrase"] for b in boxes[0]] == ["a cat", "a cat", "a table"]
    assert all(b["x"] >= 0 and b["x"] + b["width"] <= 768 and b["y"] + b["height"] <= 512 for b in boxes[0])
    assert picture.shape[0] == 1 and picture.shape[3] == 3 and picture.dtype == torch.float32
    assert ui["images"][0]["type"] == "temp" and ui["text"] == [""]


def test_bounding_boxes_are_the_hosts_own_form(extra_nodes):
    (_, _, _, _, boxes, _), _ = plan()
    from comfy_extras.nodes_bounding_boxes import pixels_to_fractions

    assert len(boxes) == 1
    for box in boxes[0]:
        assert {type(box[k]) for k in ("x", "y", "width", "height")} == {int}
        assert 0 <= pixels_to_fractions(box, 512, 512)["x"] < 1


def test_notes_reach_the_node_and_the_log(caplog):
    with caplog.at_level(logging.INFO):
        _, ui = plan("several dogs and it")
    assert "no exact number given" in ui["text"][0] and "no exact number given" in caplog.text


@pytest.mark.parametrize("parser", ["tolerant", "strict"])
def test_a_pasted_reply_becomes_the_layout(parser):
    (layout, overall, *_), _ = plan("kites", 512, 512, source="reply text", reply=REPLY, parser=parser)
    assert [o.phrase for o in layout.objects] == ["a red kite", "a kite"] and layout.negative == "people"
    assert overall == "A beach with a kite, a red kite" and layout.prompt == "kites"


def test_layout_json_comes_back_and_a_different_canvas_is_said():
    (layout, *_), _ = plan()
    text = json.dumps(layout.to_json())
    (same, *_), ui = plan("", 512, 512, source="reply text", reply=text, parser="tolerant")
    assert len(same.objects) == 3 and ui["text"] == [""]
    _, ui = plan("", 768, 512, source="reply text", reply=text, parser="tolerant")
    assert "512 x 512" in ui["text"][0] and "768 x 512" in ui["text"][0]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"source": "offline planner"}, "the prompt is empty"),
        ({"source": "reply text", "reply": "", "parser": "tolerant"}, "the reply is empty"),
        ({"source": "reply text", "reply": "I can't.", "parser": "tolerant"}, "no list of boxes"),
        ({"source": "reply text", "reply": "[('a', [1, 2, 3*3, 4])]", "parser": "tolerant"}, "line 1, column 15"),
    ],
)
def test_bad_input_is_an_error_that_says_what_to_do(source, said):
    with pytest.raises(ValueError, match=said):
        plan("  ", 512, 512, **source)


def test_instruction_and_preview():
    (text,), _ = run("LMDLayoutInstruction", prompt="a cat", width=768, height=512, examples=2)
    assert text.endswith("Objects:") and text.count("Caption:") == 3
    (layout, *_), _ = plan()
    (picture,), ui = run("LMDLayoutPreview", layout=layout)
    assert picture.shape[3] == 3 and ui["images"]


def test_every_input_and_output_has_a_tooltip():
    for node in lmd_plan.NODES:
        schema = node.GET_SCHEMA()
        assert schema.description and schema.search_aliases
        for item in schema.inputs + schema.outputs:
            assert item.tooltip, (schema.node_id, item.id or item.display_name)
