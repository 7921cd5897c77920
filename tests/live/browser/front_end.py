"""ComfyUI's front end in a real browser: graphs from the template browser, both renderers, the layout editor's node."""

from __future__ import annotations

import json
import time
from pathlib import Path

from .page import Page

RENDERERS = {"classic": False, "nodes2": True}

# Noise of the host's own page, and what an offline machine says about model downloads.
HARMLESS = (
    "Invalid layout total size",  # of its own side bar, in 1.58
    "404", "LiteGraph addWidget", "huggingface.co", "graph accessed before initialization", "is deprecated", "legacy queue", "user.css",
    "Content Security Policy",
)  # fmt: skip

READY = "return !!(window.app?.extensionManager?.workflow?.activeWorkflow && document.querySelector('#graph-canvas'))"
LOAD = """
const reply = await fetch(`/api/workflow_templates/ella-lmd/${encodeURIComponent(value)}.json`);
if (!reply.ok) throw new Error(`template ${value}: ${reply.status}`);
await app.loadGraphData(await reply.json(), true, true, value);
await new Promise((done) => setTimeout(done, 400));
"""
FIT = """
const boxes = app.rootGraph.nodes.map((n) => n.boundingRect);
const [x, y] = [0, 1].map((i) => Math.min(...boxes.map((b) => b[i])));
const [w, h] = [[0, x], [1, y]].map(([i, low]) => Math.max(...boxes.map((b) => b[i] + b[i + 2])) - low);
const scale = Math.min((innerWidth - 110) / w, (innerHeight - 130) / h, 1);
app.canvas.ds.scale = scale;
app.canvas.ds.offset = [80 / scale - x, 110 / scale - y];
app.canvas.setDirty(true, true);
await new Promise((done) => setTimeout(done, 600));
"""
SHRINK = """
for (const node of app.rootGraph.nodes)
  for (const widget of node.widgets ?? []) {
    if (widget.name in value && typeof widget.value === "number") {
      widget.value = value[widget.name];
      widget.callback?.(widget.value);
    }
    if (widget.name === "source.reply") widget.value = widget.value.replace(/\\d+/g, (n) => Math.floor(n / 4));
  }
"""
QUEUE = """
window.ended = null;
if (!window.listening) {
  window.listening = true;
  for (const type of ["execution_success", "execution_error", "execution_interrupted"])
    app.api.addEventListener(type, ({ detail }) => { window.ended = { type, ...detail }; });
}
return value ? await app.queuePrompt(0, 1, value) : await app.queuePrompt(0, 1);
"""
# The frames of all nodes in graph units, title included; Nodes 2.0 lays nodes out by itself.
FRAMES = """
const canvas = document.querySelector("#graph-canvas").getBoundingClientRect();
const { scale, offset } = app.canvas.ds;
return app.rootGraph.nodes.map((node) => {
  const [x, y, w, h] = node.boundingRect;
  const element = document.querySelector(`.lg-node[data-node-id="${node.id}"]`);
  if (!element) return [`${node.title} #${node.id}`, x, y, w, h];
  const r = element.getBoundingClientRect();
  const at = [(r.x - canvas.x) / scale - offset[0], (r.y - canvas.y) / scale - offset[1]];
  return [`${node.title} #${node.id}`, ...at, r.width / scale, r.height / scale];
});
"""


class FrontEnd:
    def __init__(self, page: Page, server, renderer: str, shots: Path):
        self.page, self.server, self.renderer, self.shots = page, server, renderer, shots

    def open(self, **window) -> None:
        """A fresh page with the renderer switched; `window` are the arguments of `Page.open`."""
        settings = {
            "Comfy.TutorialCompleted": True,
            "Comfy.VueNodes.Enabled": RENDERERS[self.renderer],
            "Comfy.Minimap.Visible": False,
            "Comfy.Workflow.Persist": False,
        }
        self.server.post("/api/settings", settings)
        self.page.open(self.server.url + "/", **window)
        self.page.wait(READY, seconds=90)

    def load(self, title: str) -> None:
        self.page.run(LOAD, title)

    def prompt(self) -> dict:
        """The graph as the front end would send it."""
        return self.page.run("return (await app.graphToPrompt()).output")

    def unknown(self) -> list[str]:
        code = "return app.rootGraph.nodes.filter((n) => !LiteGraph.registered_node_types[n.type]).map((n) => n.type)"
        return self.page.run(code)

    def fit(self) -> None:
        self.page.run(FIT)

    def shrink(self, **sizes) -> None:
        self.page.run(SHRINK, sizes)

    def queue(self, seconds: float = 240, only: list[str] | None = None) -> dict:
        """Run the graph, or only up to the nodes `only`; its entry in the history. Raises RuntimeError if it fails."""
        if not self.page.run(QUEUE, only):
            raise RuntimeError(f"the server refused the graph: {self.page.run('return app.lastNodeErrors')}")
        return self.finished(seconds)

    def finished(self, seconds: float = 240) -> dict:
        ended = self.page.wait("return window.ended", seconds=seconds)
        if ended["type"] != "execution_success":
            raise RuntimeError(f"{ended['type']}: {ended.get('node_type')}: {ended.get('exception_message')}")
        return self.server.get(f"/history/{ended['prompt_id']}")[ended["prompt_id"]]

    def overlaps(self, slack: float = 4) -> list[str]:
        """Pairs of nodes of which one covers the other."""
        frames = self.page.run(FRAMES)
        found = []
        for i, (a, ax, ay, aw, ah) in enumerate(frames):
            for b, bx, by, bw, bh in frames[i + 1 :]:
                across, down = min(ax + aw, bx + bw) - max(ax, bx), min(ay + ah, by + bh) - max(ay, by)
                if min(across, down) > slack:
                    found.append(f"{a} and {b} ({across:.0f} x {down:.0f})")
        return found

    def shot(self, name: str, clip: dict | None = None) -> Path:
        return self.page.screenshot(self.shots / self.renderer / f"{name}.png", clip)

    def faults(self) -> list[str]:
        """What the page complained about, without the host's own noise."""
        return [t for t in self.page.told() if not any(h in t for h in HARMLESS)]


class Editor:
    """The layout editor's node in a front end, by the mouse and the keyboard."""

    def __init__(self, front: FrontEnd, zoom: float = 1):
        self.front, self.page = front, front.page
        self.show(zoom)

    def show(self, zoom: float = 1) -> None:
        """Brings the node into the window's middle at a zoom of the graph."""
        code = """
            const node = app.rootGraph.nodes.find((n) => n.type === "LayoutEditor");
            app.canvas.ds.scale = value;
            app.canvas.ds.offset = [400 / value - node.pos[0], 120 / value - node.pos[1]];
            app.canvas.setDirty(true, true);
            let [last, still] = ["", 0];
            while (still < 12) {  // frames in which nothing moved any more
                await new Promise((done) => requestAnimationFrame(done));
                const r = document.querySelector(".lmd-stage canvas")?.getBoundingClientRect();
                const now = `${r?.x} ${r?.y} ${r?.width}`;
                still = r && now === last ? still + 1 : 0;
                last = now;
            }
        """
        self.page.run(code, zoom)
        self.place()

    def place(self) -> None:
        code = """
            const r = document.querySelector(".lmd-stage canvas").getBoundingClientRect();
            return [r.x, r.y, r.width, r.height];
        """
        self.x, self.y, self.w, self.h = self.page.run(code)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The window's place of a point in canvas fractions."""
        return self.x + x * self.w, self.y + y * self.h

    def drag(self, start: tuple, end: tuple, hold: str = "") -> None:
        self.page.drag(self.at(*start), self.at(*end), hold)

    def click(self, x: float, y: float, count: int = 1) -> None:
        self.page.click(*self.at(x, y), count)

    def button(self, title: str) -> None:
        """Presses the toolbar's button whose title starts with `title`."""
        code = """
            const button = [...document.querySelectorAll(".lmd-editor button")].find((b) => b.title.startsWith(value) || b.textContent === value);
            const r = button.getBoundingClientRect();
            return [r.x + r.width / 2, r.y + r.height / 2];
        """
        self.page.click(*self.page.run(code, title))

    def edits(self) -> dict | None:
        """What the declared input holds, as the graph's prompt sends it."""
        nodes = [n for n in self.front.prompt().values() if n["class_type"] == "LayoutEditor"]
        text = nodes[0]["inputs"]["edits"]
        return json.loads(text) if text else None

    def becomes(self, edits: dict | None, seconds: float = 15) -> None:
        """Waits until the input holds these edits; the graph's own undo takes a while."""
        end = time.monotonic() + seconds
        while (now := self.edits()) != edits:
            assert time.monotonic() < end, f"not {edits} but {now}"
            time.sleep(0.1)

    def objects(self) -> dict[str, list[float]]:
        return {o["phrase"]: o["box"] for o in self.edits()["layout"]["objects"]}

    def names(self) -> list[str]:
        """The names in the editor's list, as seen."""
        return self.page.run("return [...document.querySelectorAll('.lmd-list input')].map((i) => i.value)")

    def has(self, names: list[str]) -> None:
        """Waits until the list shows exactly these names."""
        code = "return JSON.stringify([...document.querySelectorAll('.lmd-list input')].map((i) => i.value)) === value"
        self.page.wait(code, json.dumps(names, separators=(",", ":")))

    def layout(self) -> dict:
        """The layout on the canvas: the edits', or the one that arrived."""
        edits = self.edits()
        if edits:
            return edits["layout"]
        code = "return Object.values(app.nodeOutputs).find((o) => o.lmd_upstream).lmd_upstream[0].layout"
        return self.page.run(code)

    def fill(self, label: str, text: str) -> None:
        """Types into the field with this label or its beginning, as a user does."""
        code = """
            const fields = [...document.querySelectorAll(".lmd-editor input, .lmd-editor textarea")];
            const field = fields.find((f) => (f.ariaLabel ?? "").toLowerCase().startsWith(value.toLowerCase()));
            field.select();
            const r = field.getBoundingClientRect();
            return [r.x + r.width / 2, r.y + r.height / 2];
        """
        self.page.click(*self.page.run(code, label), count=3)
        self.page.press("Control+a")
        self.page.type(text)
        self.page.press("Tab")

    def outside(self) -> tuple[float, float]:
        """A place of the window that shows the empty graph."""
        frame = self.frame()
        return frame["x"] + frame["width"] / 2, min(frame["y"] + frame["height"] + 60, 1080)

    def status(self) -> str:
        return self.page.run("return document.querySelector('.lmd-status').textContent")

    def cursor(self, x: float, y: float) -> str:
        self.page.move(*self.at(x, y))
        return self.page.run("return document.querySelector('.lmd-stage canvas').style.cursor")

    def frame(self) -> dict:
        """The node's place in the window, for a screenshot's clip."""
        code = """
            const r = document.querySelector(".lmd-editor").getBoundingClientRect();
            return { x: r.x - 20, y: Math.max(r.y - 130, 0), width: r.width + 40, height: r.height + 160 };
        """
        return self.page.run(code)
