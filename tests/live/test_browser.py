"""The pack in a real browser, in both renderers of ComfyUI's front end: every graph, and the layout editor by mouse."""

import json
import os
import sys
from pathlib import Path

import pytest
from ella_lmd.tests.live.browser.front_end import RENDERERS, Editor, FrontEnd
from ella_lmd.tests.live.browser.page import Page
from ella_lmd.tools import browser
from PIL import Image

ROOT = Path(sys.modules["ella_lmd"].__path__[0])

WORKFLOWS = sorted(p.stem for p in (ROOT / "workflows").glob("*.json"))
SHOTS = ROOT / "output" / "browser"
SMALL = {"width": 128, "height": 128, "steps": 2}


@pytest.fixture(scope="session")
def page():
    found = browser.found()
    if isinstance(found, str):
        if os.environ.get("CI"):
            pytest.fail(found)
        pytest.skip(found)
    running = Page(*found)
    yield running
    running.close()


@pytest.fixture(scope="module", params=RENDERERS)
def front(request, page, every_model):
    """The front end in one renderer; a page for all tests of it."""
    end = FrontEnd(page, every_model, request.param, SHOTS)
    end.open()
    return end


def needed(front: FrontEnd) -> set[str]:
    """The model files that the open graph names."""
    return set(
        front.page.run("return app.rootGraph.nodes.flatMap((n) => (n.properties.models ?? []).map((m) => m.name))")
    )


# What these graphs need has no small form that the host's loaders recognise.
LARGE_ONLY = {
    "LMD with a Text Model of ComfyUI": {"qwen3.5_2b_bf16.safetensors"},
    "LMD with Generate Text": {"qwen3.5_2b_bf16.safetensors"},
    "LMD with SDXL Refiner": {"sd_xl_refiner_1.0.safetensors"},
    "LMD Layout for Ideogram 4": {
        "ideogram4_fp8_scaled.safetensors", "ideogram4_unconditional_fp8_scaled.safetensors",
        "qwen3vl_8b_fp8_scaled.safetensors", "flux2-vae.safetensors",
    },
}  # fmt: skip


@pytest.mark.parametrize("title", WORKFLOWS)
def test_a_graph_of_the_template_browser_opens_and_runs(front, title):
    front.load(title)
    assert front.unknown() == []
    prompt, known = front.prompt(), front.server.get("/object_info")
    assert prompt and {n["class_type"] for n in prompt.values()} <= known.keys()
    front.fit()
    front.shot(title)
    assert front.overlaps() == []
    here = {p.name for p in (front.server.base / "models").rglob("*")}
    if missing := needed(front) - here:  # opened and converted; what it needs is not made small here
        assert missing == LARGE_ONLY.get(title)
        return
    front.shrink(**SMALL)
    entry = front.queue()
    files = front.server.files(entry)
    assert entry["status"]["status_str"] == "success" and files
    for file in files:
        with Image.open(file) as image:
            image.load()
    front.fit()
    front.shot(f"{title} - after a run")
    assert front.overlaps() == []
    assert front.faults() == []


@pytest.fixture
def editor(front):
    """The editor's graph, freshly loaded; only the planner has run, so its layout is on the canvas."""
    front.load("LMD Layout Editor")
    front.shrink(**SMALL)
    editor = Editor(front)
    assert "Run the graph" in editor.status()
    front.queue(only=["3"])
    editor.has(["a red circle", "a blue star"])
    editor.place()
    assert editor.edits() is None
    return editor


CIRCLE, STAR = [0.035, 0.218716, 0.43, 0.633684], [0.6597, 0.432697, 0.274125, 0.288553]


def middle(box: list[float]) -> tuple[float, float]:
    return box[0] + box[2] / 2, box[1] + box[3] / 2


def given(front: FrontEnd, node: str = "BoxGroundedSampler") -> dict:
    """Runs the graph up to a preview of the layout that `node` gets and returns what the editor sent on."""
    entry = front.queue(only=["3"])
    return next(o["lmd_upstream"][0] for o in entry["outputs"].values() if "lmd_upstream" in o)


def test_boxes_are_moved_resized_added_renamed_duplicated_and_deleted_by_mouse_and_keys(editor, front):
    editor.drag(middle(CIRCLE), (middle(CIRCLE)[0] + 0.1, middle(CIRCLE)[1] - 0.1))
    x, y, w, h = editor.objects()["a red circle"]
    assert (x, y) == pytest.approx((0.125, 0.125), abs=1e-6) and [w, h] == CIRCLE[2:], "on the grid of latent cells"
    assert editor.objects()["a blue star"] == STAR, "the other box is untouched"
    right, down = x + w, y + h
    editor.drag((right, down), (0.56, 0.49), hold="Alt")
    x, y, w, h = editor.objects()["a red circle"]
    assert (x, y, x + w, y + h) == pytest.approx((0.125, 0.125, 0.56, 0.49), abs=0.005), "Alt: no snapping"
    editor.drag((x, y + h / 2), (0.03, 0.3))
    assert editor.objects()["a red circle"][0] == pytest.approx(0, abs=1e-6), "the left edge alone, to the canvas's"
    front.shot("editor - resized", editor.frame())

    editor.drag((0.65, 0.05), (0.9, 0.3))
    front.page.type("a green heart")
    front.page.press("Enter")
    assert editor.objects()["a green heart"] == pytest.approx([0.625, 0.0625, 0.25, 0.25], abs=0.065)
    editor.click(*middle(STAR), count=2)
    front.page.type("a yellow star")
    front.shot("editor - renaming", editor.frame())
    front.page.press("Enter")
    assert editor.names() == ["a red circle", "a yellow star", "a green heart"]
    assert editor.objects()["a yellow star"] == STAR

    front.page.press("Control+d")
    assert editor.names() == ["a red circle", "a yellow star", "a green heart", "a yellow star"]
    front.page.press("Delete")
    assert editor.names() == ["a red circle", "a yellow star", "a green heart"]
    editor.click(*middle(STAR))
    front.page.press("ArrowUp", "ArrowUp", "Shift+ArrowLeft", "Alt+ArrowRight")
    moved = editor.objects()["a yellow star"]
    cell, pixel = 8 / 128, 1 / 128
    assert moved[:2] == pytest.approx([STAR[0] - 4 * cell + pixel, STAR[1] - 2 * cell], abs=1e-5)
    editor.button("Earlier in the list")
    assert editor.names()[0] == "a yellow star"
    front.shot("editor - edited", editor.frame())
    assert front.faults() == []


def test_a_locked_box_stays_and_the_order_is_a_button(editor, front):
    editor.click(*middle(CIRCLE))
    editor.button("Lock")
    assert editor.edits()["layout"]["objects"][0]["locked"] is True
    editor.drag(middle(CIRCLE), (middle(CIRCLE)[0] + 0.2, middle(CIRCLE)[1]))
    front.page.press("ArrowUp", "Delete")
    assert editor.objects()["a red circle"] == CIRCLE and editor.names() == ["a red circle", "a blue star"]
    editor.button("In front")
    assert editor.layout()["ordered"] is True
    front.shot("editor - locked", editor.frame())
    assert given(front)["layout"].get("ordered") is None, "what arrived is as it was"
    editor.button("In front")
    front.page.press("l", "ArrowUp")
    edited = editor.edits()["layout"]
    assert "ordered" not in edited and "locked" not in edited["objects"][0]
    assert editor.objects()["a red circle"][1] == pytest.approx(CIRCLE[1] - 8 / 128, abs=1e-5)
    assert front.faults() == []


def test_the_cursor_shows_what_a_drag_would_do(editor, front):
    assert editor.cursor(0.55, 0.1) == "crosshair"
    assert editor.cursor(*middle(CIRCLE)) == "move"
    editor.click(*middle(CIRCLE))
    x, y, w, h = CIRCLE
    places = {
        "nwse-resize": (x, y),
        "ns-resize": (x + w / 2, y),
        "nesw-resize": (x + w, y),
        "ew-resize": (x, y + h / 2),
    }
    assert {editor.cursor(*at): at for at in places.values()} == places
    assert editor.cursor(x + w, y + h) == "nwse-resize" and editor.cursor(x, y + h) == "nesw-resize"


def test_undo_belongs_to_the_editor_while_it_has_the_focus_and_to_the_graph_elsewhere(editor, front):
    tracker = "const t = app.extensionManager.workflow.activeWorkflow.changeTracker;"
    to = (middle(CIRCLE)[0] + 0.1, middle(CIRCLE)[1])
    editor.drag(middle(CIRCLE), to)
    moved = editor.edits()
    front.page.press("Control+z")
    assert editor.edits() is None
    front.page.press("Control+Shift+z")
    assert editor.edits() == moved
    editor.button("Undo")
    front.page.press("Control+y")
    assert editor.edits() == moved, "a button keeps the focus in the editor"
    assert front.page.run(f"{tracker} return t.redoQueue.length") == 0, "the graph's own undo was not asked"

    front.page.click(*editor.outside())
    front.page.press("Control+z")
    front.page.wait(f"{tracker} return t.redoQueue.length === 1 && !t._restoringState")
    editor.becomes(None)
    editor.has(["a red circle", "a blue star"])
    # Not by keys: Nodes 2.0 sizes the planner again after the undo, and a key's release can take that for a new step.
    front.page.run(f"{tracker} await t.redo()")
    editor.becomes(moved)
    editor.show()
    x, y, w, h = moved["layout"]["objects"][0]["box"]
    assert editor.cursor(x + w - 0.02, y + h / 2) == "move", "the canvas followed"
    assert editor.cursor(CIRCLE[0] + 0.02, y + h / 2) == "crosshair"


def test_a_saved_and_reloaded_graph_holds_the_edit_and_the_run_uses_it(editor, front):
    editor.drag((0.55, 0.05), (0.85, 0.3))
    front.page.type("a green heart")
    front.page.press("Enter")
    edits = editor.edits()
    saved = front.page.run("return JSON.parse(JSON.stringify(app.rootGraph.serialize()))")
    node = next(n for n in saved["nodes"] if n["type"] == "LayoutEditor")
    assert [json.loads(v) for v in node["widgets_values"]] == [edits], "only the declared input is saved"
    front.open()
    front.page.run("await app.loadGraphData(value, true, true, 'saved')", saved)
    editor.show()
    editor.has(["a red circle", "a blue star", "a green heart"])
    assert editor.edits() == edits
    entry = front.queue()
    preview = [o for o in entry["outputs"].values() if "lmd_upstream" in o]
    assert preview[0]["lmd_upstream"][0]["replaced"] is False
    assert front.server.files(entry)
    prompt = json.loads(json.dumps(front.prompt()))
    prompt["90"] = {"class_type": "LMDLayoutPreview", "inputs": {"layout": ["3", 0]}}
    prompt["91"] = {"class_type": "PreviewAny", "inputs": {"source": ["3", 1]}}
    entry = front.server.run(prompt)
    assert "a green heart" in json.dumps(entry["outputs"]["91"])
    front.fit()
    front.shot("editor - reloaded and run")
    assert front.faults() == []


def test_a_new_layout_replaces_the_edits_which_can_be_brought_back(editor, front):
    editor.drag(middle(CIRCLE), (0.4, 0.4))
    mine = editor.edits()["layout"]
    front.page.run("""
        const planner = app.rootGraph.nodes.find((n) => n.type === "LLMLayoutPlanner");
        planner.widgets.find((w) => w.name === "prompt").value = "A realistic photo of the sky with a white moon";
    """)
    front.queue(only=["3"])
    editor.has(["a white moon"])
    assert "new layout has arrived" in editor.status()
    front.shot("editor - replaced", editor.frame())
    assert editor.edits()["layout"] == mine, "nothing is lost"
    editor.button("Bring my edits back")
    editor.has(["a red circle", "a blue star"])
    assert editor.edits()["layout"] == mine
    editor.button("Drop the edits")
    editor.has(["a white moon"])
    assert editor.edits() is None


def test_text_that_is_no_layout_is_shown_refused_and_kept(editor, front):
    broken = '{"layout": {"objects": [{"phrase": "a cat"'
    front.page.run("app.rootGraph.nodes.find((n) => n.type === 'LayoutEditor').widgets[0].value = value", broken)
    assert "can't be used" in editor.status()
    assert front.page.run("return document.querySelector('.lmd-text').value") == broken
    front.shot("editor - broken text", editor.frame())
    with pytest.raises(RuntimeError, match="refused"):
        front.queue(only=["3"])
    told = json.dumps(front.page.run("return app.lastNodeErrors"))
    assert "not JSON" in told and '"edits"' in told
    front.page.press("Escape")
    assert (
        front.page.run("return app.rootGraph.nodes.find((n) => n.type === 'LayoutEditor').widgets[0].value") == broken
    )
    front.page.run("app.rootGraph.nodes.find((n) => n.type === 'LayoutEditor').widgets[0].value = ''")
    assert "can't be used" not in editor.status()


def test_a_layout_is_drawn_from_scratch_without_a_planner(editor, front):
    front.page.run("app.rootGraph.nodes.find((n) => n.type === 'LayoutEditor').disconnectInput(0)")
    editor.has([])
    editor.place()
    editor.drag((0.1, 0.1), (0.6, 0.6))
    front.page.type("a red square")
    front.page.press("Enter")
    editor.fill("background", "A realistic photo of the sand")
    editor.fill("negative", "stars")
    editor.fill("Canvas width", "130")
    layout = editor.edits()["layout"]
    assert layout["canvas"] == [128, 512] and layout["background"] == "A realistic photo of the sand"
    assert layout["negative"] == "stars" and list(editor.objects()) == ["a red square"]
    editor.fill("Canvas height", "128")
    front.shot("editor - from scratch", editor.frame())
    entry = front.queue()
    assert front.server.files(entry)


def test_a_copied_node_and_a_subgraph_keep_the_edit(editor, front):
    editor.drag(middle(CIRCLE), (0.4, 0.4))
    edits = editor.edits()
    front.page.run("""
        const node = app.rootGraph.nodes.find((n) => n.type === "LayoutEditor");
        app.canvas.selectNode(node);
        app.canvas.copyToClipboard();
        app.canvas.pasteFromClipboard();
    """)
    values = "return app.rootGraph.nodes.filter((n) => n.type === 'LayoutEditor').map((n) => n.widgets[0].value)"
    copies = front.page.run(values)
    assert len(copies) == 2 and [json.loads(v) for v in copies] == [edits, edits]
    front.page.run("""
        const [node, copy] = app.rootGraph.nodes.filter((n) => n.type === "LayoutEditor");
        app.rootGraph.remove(copy);
        app.canvas.deselectAll();
        app.canvas.selectNode(node);
        app.rootGraph.convertToSubgraph(new Set([node]));
    """)
    (inner,) = [n for n in front.prompt().values() if n["class_type"] == "LayoutEditor"]
    assert json.loads(inner["inputs"]["edits"]) == edits
    entry = front.queue()
    told = [o["lmd_upstream"][0] for o in entry["outputs"].values() if "lmd_upstream" in o]
    assert told and told[0]["replaced"] is False
    front.page.run("app.canvas.setGraph(app.rootGraph.nodes.find((n) => n.subgraph).subgraph)")
    editor.has(["a red circle", "a blue star"])
    front.page.run("""
        app.canvas.ds.scale = 1;
        app.canvas.ds.offset = app.canvas.graph.nodes[0].pos.map((v, i) => [500, 120][i] - v);
        app.canvas.setDirty(true, true);
        await new Promise((done) => setTimeout(done, 600));
    """)
    editor.place()
    editor.drag(middle(editor.objects()["a blue star"]), (0.8, 0.2))
    assert editor.objects()["a blue star"][1] < STAR[1], "edited inside the subgraph"
    front.shot("editor - in a subgraph", editor.frame())
    front.page.run("app.canvas.setGraph(app.rootGraph)")


def test_the_editor_follows_the_pointer_in_a_zoomed_graph_on_a_dense_screen_and_by_touch(editor, front):
    saved = front.page.run("return app.rootGraph.serialize()")
    front.open(scale=2, touch=True)
    front.page.run("await app.loadGraphData(value, true, true, 'zoomed')", saved)
    front.queue(only=["3"])
    for zoom in (0.6, 1.5):
        editor.show(zoom)
        before = editor.layout()["objects"][1]["box"]
        start = middle(before)
        editor.drag(start, (start[0] - 0.1, start[1] - 0.1), hold="Alt")
        after = editor.objects()["a blue star"]
        assert after[:2] == pytest.approx([before[0] - 0.1, before[1] - 0.1], abs=0.01), f"zoom {zoom}"
    pixels = front.page.run("const c = document.querySelector('.lmd-stage canvas'); return [c.width, c.clientWidth]")
    assert pixels[0] >= 2 * pixels[1]
    front.shot("editor - zoomed", editor.frame())
    editor.show(1)
    start = middle(editor.objects()["a red circle"])
    front.page.touch(editor.at(*start), editor.at(start[0] + 0.3, start[1] - 0.3))
    moved = editor.objects()["a red circle"]
    assert moved[:2] == pytest.approx([CIRCLE[0] + 0.3, max(CIRCLE[1] - 0.3, 0)], abs=0.04), "by touch"
    front.open()


def test_wheel_and_middle_button_are_the_graphs(editor, front):
    view = "return [app.canvas.ds.scale, ...app.canvas.ds.offset]"
    scale, x, _ = front.page.run(view)
    front.page.drag(editor.at(0.5, 0.2), (editor.at(0.5, 0.2)[0] + 80, editor.y), button="middle")
    assert front.page.run(view)[1] == pytest.approx(x + 80 / scale, abs=2), "panned"
    front.page.wheel(0, -120)
    front.page.run("await new Promise((done) => setTimeout(done, 300))")
    zoomed = front.page.run(view)[0]
    assert 1.02 < zoomed / scale < 1.3, "zoomed by one step"
    assert editor.edits() is None


def test_in_the_light_theme(editor, front):
    front.page.run("await app.extensionManager.setting.set('Comfy.ColorPalette', 'light')")
    try:
        front.page.run("await new Promise((done) => setTimeout(done, 500))")
        editor.click(*middle(CIRCLE))
        front.shot("editor - light theme", editor.frame())
        ink, paper = front.page.run("""
            const style = getComputedStyle(document.querySelector(".lmd-list input"));
            return [style.color, style.backgroundColor];
        """)
        assert contrast(ink, paper) > 4.5
    finally:
        front.page.run("await app.extensionManager.setting.set('Comfy.ColorPalette', 'dark')")


def test_in_another_language(front):
    front.server.post("/api/settings", {"Comfy.Locale": "ja"})
    try:
        front.open()
        front.load("LMD Layout Editor")
        editor = Editor(front)
        assert editor.status().startswith("ワークフローを実行する")
        front.shot("editor - Japanese", editor.frame())
    finally:
        front.server.post("/api/settings", {"Comfy.Locale": "en"})
        front.open()


def contrast(a: str, b: str) -> float:
    """WCAG's ratio of two colours as a browser writes them, "rgb(1, 2, 3)"."""

    def light(colour: str) -> float:
        parts = [float(v) / 255 for v in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(a), light(b)))
    return (high + 0.05) / (low + 0.05)
