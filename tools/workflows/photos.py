"""Pictures of graphs as ComfyUI's front end draws them, for the thumbnails of graphs that live in the front end."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ella_lmd.tests.live.browser.front_end import Editor, FrontEnd
from ella_lmd.tests.live.browser.page import Page
from ella_lmd.tools import browser, comfy_server
from PIL import Image

WIDTH, HEIGHT, LEFT, TOP = 1500, 1150, 110, 130  # of the window, and of the part that no bar covers
# Shows the nodes of the given ids as large as they fit into the free part of the window, and tells where they are.
FRAME = """
const nodes = app.rootGraph.nodes.filter((n) => value.ids.includes(n.id));
const boxes = nodes.map((n) => n.boundingRect);
const [x, y] = [0, 1].map((i) => Math.min(...boxes.map((b) => b[i])) - value.margin);
const [w, h] = [[0, x], [1, y]].map(([i, low]) => Math.max(...boxes.map((b) => b[i] + b[i + 2])) + value.margin - low);
const scale = Math.min(value.width / w, value.height / h);
app.canvas.ds.scale = scale;
app.canvas.ds.offset = [value.left / scale - x, value.top / scale - y];
app.canvas.setDirty(true, true);
await new Promise((done) => setTimeout(done, 1200));
const area = document.querySelector("#graph-canvas").getBoundingClientRect();
return { x: area.x + value.left, y: area.y + value.top, width: w * scale, height: h * scale };
"""
EDITOR = """
const { x, y, width, height } = document.querySelector(".lmd-editor").getBoundingClientRect();
return { x, y, width, height };
"""


def stand_ins(base: Path, workflow: dict) -> None:
    """Empty files under the names that the graph uses, so that the front end draws it as on a machine that has them."""
    named = [m for n in workflow["nodes"] for m in n["properties"].get("models", [])]
    files = [f"{m['directory']}/{m['name']}" for m in named]
    for node in workflow["nodes"]:
        first = (node.get("widgets_values") or [""])[0]
        if node["type"] == "ELLATextEncoderLoader":
            files += [f"ella_encoder/{first}/{file}" for file in ("config.json", "model.safetensors")]
        if node["type"] == "LLMAdapterTextEncoderLoader":
            files += [f"text_encoders/{first}/{file}" for file in ("config.json", "model.safetensors")]
        for kind, directory in (("LoraLoader", "loras"), ("LLMAdapterLoader", "llm_adapters")):
            files += [f"{directory}/{first}"] if node["type"] == kind else []
    for file in files:
        path = base / "models" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    shutil.copy(comfy_server.host_path() / "input" / "example.png", base / "input")


@contextlib.contextmanager
def front_end(server: comfy_server.Server, renderer: str = "nodes2") -> Iterator[FrontEnd]:
    """A browser with the front end; RuntimeError where there is no browser."""
    found = browser.found()
    if isinstance(found, str):
        raise RuntimeError(found)
    page = Page(*found)
    try:
        with tempfile.TemporaryDirectory() as folder:
            front = FrontEnd(page, server, renderer, Path(folder))
            front.open(width=WIDTH, height=HEIGHT, scale=1)
            yield front
    finally:
        page.close()


def photograph(front: FrontEnd, kinds: list[str] | None = None, margin: int = 30, size=(1300, 950)) -> Image.Image:
    """The nodes of these kinds, or all but notes, with what lies between them."""
    nodes = front.page.run("return app.rootGraph.nodes.map((n) => [n.id, n.type])")
    ids = [i for i, kind in nodes if (kind in kinds if kinds else kind != "MarkdownNote")]
    place = {"ids": ids, "margin": margin, "left": LEFT, "top": TOP, "width": size[0], "height": size[1]}
    clip = front.page.run(FRAME, place)
    with Image.open(front.shot("photograph", clip)) as image:
        return image.convert("RGB")


def edited(front: FrontEnd) -> tuple[Image.Image, Image.Image, Image.Image]:
    """The layout editor at work: the planner's result, the result after a box was moved and one drawn, the editor."""
    front.load("LMD Layout Editor")
    editor = Editor(front)
    planned = _saved(front)
    editor.place()
    editor.drag((0.25, 0.55), (0.25, 0.65))
    editor.drag((0.6, 0.04), (0.95, 0.36))
    front.page.type("a yellow triangle")
    front.page.press("Enter")
    result = _saved(front)
    front.page.run("await new Promise((done) => setTimeout(done, 1500))")
    editor.click(0.03, 0.03)
    with Image.open(front.shot("editor", front.page.run(EDITOR))) as image:
        return planned, result, image.convert("RGB")


def _saved(front: FrontEnd) -> Image.Image:
    """Runs the graph; the picture that it saved."""
    entry = front.queue(seconds=900)
    (picture,) = [Path(f) for f in front.server.files(entry) if Path(f).parent.name == "output"]
    with Image.open(picture) as image:
        return image.convert("RGB")
