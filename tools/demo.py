"""`python run.py demo ["PROMPT"]`: a sentence becomes a layout and the layout an image, on a real ComfyUI server.

Leaves the composed image, the picture of its layout, the objects and the workflow in output/demo/, next to what plain
sampling gives for the same sentence and seed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import threading
from pathlib import Path

import aiohttp
from ella_lmd.tools import comfy_server
from ella_lmd.tools.workflows.graph import to_api
from PIL import Image, ImageDraw, ImageFont, ImageOps
from tqdm import tqdm

WORKFLOW = comfy_server.ROOT / "workflows" / "LMD Demo.json"
OUTPUT = comfy_server.ROOT / "output" / "demo"
NAMES = {
    "layout": "layout.png",
    "object": "object {}.png",
    "lmd": "image.png",
    "plain": "plain.png",
    "energy": "energy.png",
}


def names(sentence: str, width: int, height: int) -> list[str]:
    """What each object's picture shows, in the order of the pictures: its number and phrase in the layout."""
    from ella_lmd.lmd.planner.offline import plan

    objects = plan(sentence, width, height).objects
    return sorted((f"{i} {o.phrase}" for i, o in enumerate(objects, 1)), key=lambda name: name.partition(" ")[2])


def sheet(sentence: str, named: list[str], folder: Path) -> Path:
    """One picture of the whole job: layout, objects, the composed image, and plain sampling for comparison."""
    shown = [("layout", folder / "layout.png")]
    pictures = {name: folder / NAMES["object"].format(i) for i, name in enumerate(named, 1)}
    shown += [(f"{name}, alone", pictures[name]) for name in sorted(named, key=lambda name: int(name.split()[0]))]
    shown += [("LMD: all composed", folder / "image.png"), ("plain sampling, same seed", folder / "plain.png")]
    side, bar = 256, 34
    picture = Image.new("RGB", (len(shown) * (side + 8) + 8, side + 2 * bar + 8), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=17)
    draw.text((10, 8), sentence, "black", font)
    for i, (title, path) in enumerate(shown):
        image = Image.open(path).convert("RGB")
        image = ImageOps.pad(image, (side, side), Image.Resampling.LANCZOS, color="white")
        x = 8 + i * (side + 8)
        picture.paste(image, (x, bar))
        draw.text((x + 2, bar + side + 6), title, "black", font)
    picture.save(folder / "sheet.png")
    return folder / "sheet.png"


def fill_in(workflow: dict, sentence: str | None, seed: int | None) -> None:
    """Put the user's sentence and seed into the graph, where they are the first widgets of their nodes."""
    for node in workflow["nodes"]:
        speaks = node["type"] == "LLMLayoutPlanner" or node.get("title") == "The same sentence, plain"
        draws = node["type"] in ("BoxGroundedSampler", "KSampler")
        if speaks and sentence is not None:
            node["widgets_values"][0] = sentence
        if draws and seed is not None:
            node["widgets_values"][0] = seed


class Progress:
    """A progress bar fed by the server's own messages, in a thread of its own."""

    def __init__(self, server: comfy_server.Server, titles: dict[str, str]):
        self.url = server.url.replace("http", "ws") + "/ws?clientId=demo"
        layout = "{desc:<24} {bar:40} {n_fmt}/{total_fmt} {elapsed}"
        # With a size of its own it also shows in terminals that report none.
        self.titles, self.bar = titles, tqdm(total=1, bar_format=layout, ncols=86, nrows=20)
        threading.Thread(target=lambda: asyncio.run(self._listen()), daemon=True).start()

    async def _listen(self) -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(self.url, max_msg_size=0) as socket:
            async for message in socket:
                if message.type != aiohttp.WSMsgType.TEXT:
                    continue
                event = json.loads(message.data)
                if event["type"] == "progress":
                    data = event["data"]
                    self.bar.set_description_str(self.titles.get(data["node"], ""))
                    self.bar.total, self.bar.n = data["max"], data["value"]
                    self.bar.refresh()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="run.py demo", description=__doc__.split("\n\n")[0])
    parser.add_argument("prompt", nargs="?", help="what to draw; by default the sentence of the demo workflow")
    parser.add_argument("--seed", type=int)
    options = parser.parse_args(arguments)
    print("[ella-lmd] starting ComfyUI", flush=True)
    try:
        run(options.prompt, options.seed)
    except RuntimeError as error:
        sys.exit(f"[ella-lmd] {error}")
    return 0


def run(sentence: str | None, seed: int | None) -> None:
    """The whole job on a server of its own; RuntimeError if the server or a node fails."""
    with tempfile.TemporaryDirectory() as folder:
        base = comfy_server.prepare(Path(folder))
        with comfy_server.server(base, "--preview-method", "none") as server:
            workflow = json.loads(WORKFLOW.read_text())
            fill_in(workflow, sentence, seed)
            prompt = to_api(workflow, server.get("/object_info"))
            planner = next(n["inputs"] for n in prompt.values() if n["class_type"] == "LLMLayoutPlanner")
            sentence, named = planner["prompt"], names(planner["prompt"], planner["width"], planner["height"])
            print(f"[ella-lmd] {sentence}", flush=True)
            progress = Progress(server, {k: v["_meta"]["title"] for k, v in prompt.items()})
            entry = server.run(prompt, seconds=1800, client="demo")
            progress.bar.close()
            OUTPUT.mkdir(parents=True, exist_ok=True)
            for old in OUTPUT.glob("object *.png"):
                old.unlink()
            for file in server.files(entry):
                prefix, number, *_ = file.stem.split("_")
                if prefix in NAMES:
                    target = OUTPUT / NAMES[prefix].format(int(number))
                    shutil.copyfile(file, target)
                    print(f"[ella-lmd] {prefix:<8} {target}", flush=True)
            print(f"[ella-lmd] all      {sheet(sentence, named, OUTPUT)}", flush=True)
            (OUTPUT / "workflow.json").write_text(json.dumps(workflow, indent=2))
            print(f"[ella-lmd] workflow {OUTPUT / 'workflow.json'} (drop it, or image.png, onto ComfyUI)", flush=True)
