"""The layout editor as the executor runs it, without a browser."""

import asyncio
import json
from pathlib import Path

import execution
import folder_paths
import pytest
import torch
from ella_lmd.lmd.convert import user_edits
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.nodes.layout_editor import LayoutEditor
from PIL import Image

import nodes as host_nodes

PLANNED = Layout(512, 384, (LayoutObject("a cat", Box(0.1, 0.2, 1 / 3, 0.4)),), "a park", "dogs")
BOX = [0.5, 0.25, 0.25, 0.25]


@pytest.fixture(autouse=True)
def registered(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))
    monkeypatch.setitem(host_nodes.NODE_CLASS_MAPPINGS, "LayoutEditor", LayoutEditor)


def run(edits="", layout=None, image=None):
    constants = [{"layout": [layout], "image": [image], "edits": [edits]}]
    data = {k: v for k, v in constants[0].items() if v != [None]}
    _, _, v3_data = execution.get_input_data({"edits": edits}, LayoutEditor, "1")
    out, ui, *_ = asyncio.run(execution.get_output_data("p", "1", LayoutEditor(), data, v3_data=v3_data))
    return [o[0] for o in out], ui


def edits_of(layout: Layout, box=BOX) -> str:
    data = layout.to_json()
    data["objects"][0]["box"] = box
    return json.dumps({"upstream": user_edits.fingerprint(layout), "layout": data})


def test_without_edits_the_layout_itself_goes_on_and_the_canvas_is_told():
    (layout, overall, negative, picture), ui = run(layout=PLANNED)
    assert layout is PLANNED
    assert overall == "a park with a cat" and negative.startswith("dogs, artifacts")
    assert picture.ndim == 4 and picture.dtype == torch.float32
    assert ui["lmd_upstream"] == [
        {"layout": PLANNED.to_json(), "fingerprint": user_edits.fingerprint(PLANNED), "replaced": False, "told": ""}
    ]
    assert ui["lmd_backdrop"] == []
    json.dumps(ui)


def test_edits_move_the_box_in_every_output():
    (layout, _, _, picture), _ = run(edits_of(PLANNED), PLANNED)
    (_, _, _, before), _ = run("", PLANNED)
    assert layout.objects[0].box == Box(*BOX)
    assert not torch.equal(picture, before)


def test_a_new_layout_wins_and_the_canvas_is_told():
    new = Layout(512, 512, PLANNED.objects, "a beach")
    (layout, *_), ui = run(edits_of(PLANNED), new)
    assert layout is new
    told = ui["lmd_upstream"][0]
    assert told["replaced"] and "new layout" in told["told"] and told["layout"]["background"] == "a beach"


def test_a_layout_can_be_drawn_from_scratch():
    layout, ui = run(json.dumps({"upstream": "", "layout": PLANNED.to_json()}))
    assert layout[0] == Layout.from_json(PLANNED.to_json())
    assert ui["lmd_upstream"][0]["layout"] is None
    assert run()[0][0] == Layout(512, 512)


def test_the_picture_behind_the_boxes_is_kept_as_a_preview_and_changes_nothing():
    image = torch.rand(3, 48, 64, 3)
    (layout, *_), ui = run("", PLANNED, image)
    assert layout is PLANNED
    (kept,) = ui["lmd_backdrop"]
    assert kept["type"] == "temp"
    assert Image.open(Path(folder_paths.get_temp_directory()) / kept["subfolder"] / kept["filename"]).size == (64, 48)


def test_unreadable_edits_are_refused_before_the_run_at_their_input():
    prompt = {
        "1": {"class_type": "LayoutEditor", "inputs": {"edits": '{"layout": '}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 3]}},
    }
    valid, error, _, node_errors = asyncio.run(execution.validate_prompt("p", prompt, None))
    assert not valid and error
    (fault,) = node_errors["1"]["errors"]
    assert fault["extra_info"]["input_name"] == "edits"
    assert "not JSON" in fault["details"] and "input edits" in fault["details"]
    prompt["1"]["inputs"] = {}
    assert asyncio.run(execution.validate_prompt("p", prompt, None))[0], "edits may be left out"


def test_unreadable_edits_from_a_script_name_node_and_input():
    with pytest.raises(ValueError, match="LMD Layout Editor.*input edits"):
        LayoutEditor.execute(edits="[]")
