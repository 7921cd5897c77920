"""The pictures of the graphs in the template browser, each from a real run: `workflows/<title>.jpg`.

    python run.py python tools/workflows/make_thumbnails.py                        every graph
    python run.py python tools/workflows/make_thumbnails.py "LMD Demo" ...         these
    python run.py python tools/workflows/make_thumbnails.py --model FILE.gguf ...  with this language model where a graph asks one

Each graph runs through a real server as it stands in its file, with two exchanges: the demo model takes the place of a
checkpoint, with a sentence of the world that it draws, and a language model that is served here takes the place of
Ollama or of ComfyUI's text model, with fewer examples. ELLA's weights have no small form, so ELLA's graphs are shown as
the front end draws them, and so is the layout editor. Look at the pictures before you commit them.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ella_lmd.lmd.convert.regions import to_elements, to_reply
from ella_lmd.tools import comfy_server
from ella_lmd.tools.workflows import photos
from ella_lmd.tools.workflows.cards import GAP, SIDE, Card, Layout, columns
from ella_lmd.tools.workflows.graph import to_api, without_files
from ella_lmd.tools.workflows.make_workflows import DEMO_PROMPT
from PIL import Image, ImageChops

WORKFLOWS = comfy_server.ROOT / "workflows"
CANVAS = 128  # what the demo model was trained for
SCENE = "A realistic photo of a "
SERVER = "Ollama"  # the name that the graphs use
EXAMPLES = 1  # in the question, instead of all: a CPU reads it in seconds
BAR = 84
BIG = (SIDE - GAP) // 2
SMALL = SIDE - BAR - BIG - 2 * GAP
CURVES = (76, 56, 700, 448)  # the part of the energy plot that holds no text


@dataclass
class Shown:
    """What a finished run gave: each output node's pictures and each node's layout, by their titles."""

    sentence: str
    pictures: dict[str, list[Image.Image]]
    layouts: dict[str, Layout]
    without: Image.Image | None = None  # the same graph without guidance

    @property
    def layout(self) -> Layout:
        return list(self.layouts.values())[-1]

    @property
    def result(self) -> Image.Image:
        return self.pictures["SaveImage"][0]

    def alone(self) -> list[tuple[Image.Image, str]]:
        """Each object's own picture and phrase, in the order of the layout; the pictures come in that of the names."""
        things = sorted(enumerate(self.layout.objects), key=lambda pair: pair[1].phrase)
        named = zip(things, self.pictures["Each object alone"], strict=True)
        return [(picture, thing.phrase) for (_, thing), picture in sorted(named, key=lambda item: item[0][0])]


@dataclass
class Recipe:
    """What a graph is run with, and the card that is made of it."""

    card: Callable[[Shown], Card]
    sentence: str = ""
    seed: int = 1
    change: dict[str, dict] = field(default_factory=dict)  # further inputs by the node's title


def quoted(sentence: str) -> str:
    return f"“{sentence.removeprefix(SCENE)}”"


def pair(card: Card, shown: Shown, y: int = BAR + GAP, result: Image.Image | None = None) -> None:
    left, right = columns(2, y, BIG)
    card.layout(shown.layout, left, "layout")
    card.picture(result or shown.result, right, "image")


def row(card: Card, pictures: list[tuple[Image.Image, str]], whole: bool = False) -> None:
    for (picture, caption), frame in zip(pictures, columns(len(pictures), BAR + BIG + 2 * GAP, SMALL), strict=True):
        card.picture(picture, frame, caption, whole)


def with_objects(shown: Shown) -> Card:
    """The sentence, its layout, the image, and below them each object alone."""
    card = Card()
    card.text(quoted(shown.sentence), (0, 0, SIDE, BAR))
    pair(card, shown)
    row(card, [(picture, f"{name.split(' ', 1)[1]} alone") for picture, name in shown.alone()[:3]])
    return card


def demo(shown: Shown) -> Card:
    card = Card()
    card.text(quoted(shown.sentence), (0, 0, SIDE, BAR))
    pair(card, shown, result=shown.pictures["LMD"][0])
    alone = [(picture, f"{name.split(' ', 1)[1]} alone") for picture, name in shown.alone()]
    row(card, [*alone, (shown.pictures["Plain sampling"][0], "without LMD")])
    return card


def characters(shown: Shown) -> Card:
    card = Card()
    card.text(quoted(shown.sentence), (0, 0, SIDE, BAR))
    pair(card, shown, result=shown.pictures["Each its own LoRA"][0])
    alone = [(picture, f"LoRA {i} alone") for i, (picture, _) in enumerate(shown.alone(), 1)]
    row(card, [*alone, (shown.pictures["Both LoRAs everywhere"][0], "both loaded")])
    return card


def compared(shown: Shown, names: Sequence[str], wide: int) -> Card:
    """The sentence, its layout, and what each way made of it, `wide` to a row."""
    card, high = Card(), (SIDE - BAR) // wide - GAP
    card.text(quoted(shown.sentence), (0, 0, SIDE, BAR))
    frames = [frame for row in range(wide) for frame in columns(wide, BAR + GAP + row * (high + GAP), high)]
    card.layout(shown.layout, frames[0], "layout")
    for name, frame in zip(names, frames[1:], strict=True):
        card.picture(shown.pictures[name][0], frame, name)
    return card


def guided(shown: Shown) -> Card:
    card = Card()
    card.text(quoted(shown.sentence), (0, 0, SIDE, BAR))
    pair(card, shown)
    plain, plot = (
        columns(3, BAR + BIG + 2 * GAP, SMALL)[0],
        (SMALL + GAP, BAR + BIG + 2 * GAP, SIDE - SMALL - GAP, SMALL),
    )
    card.picture(shown.without, plain, "strength 0")
    card.picture(shown.pictures["Guidance energy"][0].crop(CURVES).resize(plot[2:]), plot, "guidance energy")
    return card


def refined(shown: Shown) -> Card:
    """The sentence, its layout and LMD's picture, and below them the refined one, or two beside each other."""
    card = Card()
    card.text(quoted(shown.sentence), (0, 0, SIDE, BAR))
    pair(card, shown, result=shown.pictures["LMD"][0])
    found = [(title, pictures[0]) for title, pictures in shown.pictures.items() if title.startswith("Refined")]
    frames = columns(max(2, len(found)), BAR + BIG + 2 * GAP, SMALL)
    for (title, picture), frame in zip(sorted(found, reverse=True), frames):
        card.picture(picture, frame, title.lower())
    if len(found) == 1:
        plot = shown.pictures["Guidance energy"][0].crop(CURVES).resize(frames[1][2:])
        card.picture(plot, frames[1], "guidance energy")
    return card


def answered(shown: Shown) -> Card:
    """The question's sentence, a language model's answer, and what became of it."""
    card, high = Card(), SIDE - BIG - BAR - 2 * GAP
    card.text(quoted(shown.sentence), (0, 0, SIDE - 72, BAR))
    reply = to_reply(shown.layout).split("\n")[0].replace("), (", "),\n(").replace(": [(", ":\n[(")
    card.text(reply, (72, BAR + GAP, SIDE - 72, high), 26, "#BFE3C0", "#1F3327")
    pair(card, shown, SIDE - BIG)
    return card


def changed(shown: Shown) -> Card:
    """The first layout, the change in words, the second layout, its image."""
    card, half = Card(), BIG
    first, second = shown.layouts["First layout"], shown.layouts["Changed layout"]
    (a, b), (c, d) = columns(2, 0, half), columns(2, half + GAP, half)
    card.layout(first, a)
    card.text(f"“{CHANGE}”", b, 34)
    card.layout(second, c)
    card.picture(shown.result, d)
    return card


def looked(shown: Shown) -> Card:
    """Where each phrase was attended to over the steps, above the contact sheet of the objects."""
    card = Card()
    high = (SIDE - GAP) // 2
    card.picture(shown.pictures["3. Attention over time"][0], (0, 0, SIDE, high), "attention")
    sheet = shown.pictures["2. Contact sheet"][0]
    rows = sheet.crop((0, sheet.height * 31 // 100, sheet.width, sheet.height))  # below the composed image
    card.picture(rows, (0, high + GAP, SIDE, high), "every object")
    return card


def spoken(shown: Shown) -> Card:
    """One layout in the forms that other nodes take: boxes, text, masks, regional conditioning."""
    card, high = Card(), (SIDE - GAP) // 2
    upper, lower = columns(2, 0, high), columns(2, high + GAP, high)
    card.layout(shown.layout, upper[0], "layout")
    wire = shown.layout.to_json()["objects"]
    lines = [f'"{o["phrase"]}":\n{[round(v, 2) for v in o["box"]]}' for o in wire]
    card.text("\n".join(lines), upper[1], 21, "#BFE3C0", "#1F3327")
    masks = shown.pictures["One mask per object"]
    card.picture(functools.reduce(ImageChops.lighter, masks), lower[0], "masks")
    card.picture(shown.pictures["With the boxes"][0], lower[1], "regional prompts")
    return card


def boxed(shown: Shown) -> Card:
    """A sentence, its layout, the host's canvas with the boxes, and the prompt that a model with boxes reads."""
    card = Card()
    card.text(quoted(shown.sentence), (0, 0, SIDE, BAR))
    left, right = columns(2, BAR + GAP, BIG)
    card.layout(shown.layout, left, "layout")
    card.picture(shown.pictures["The boxes"][0], right, "boxes to edit")
    elements = to_elements(shown.layout)
    text = "\n".join(json.dumps({"bbox": e["bbox"], "desc": e["desc"]}) for e in elements)
    card.text(text, (0, BAR + BIG + 2 * GAP, SIDE, SMALL), 19, "#BFE3C0", "#1F3327")
    return card


def described(photo: Image.Image, text: str, parts: str) -> Card:
    """A graph as the front end draws it, between the beginning of its prompt and what it is made of."""
    card = Card()
    card.text(f"“{text[:TEASER].rsplit(' ', 1)[0]} …”", (0, 0, SIDE, BAR))
    card.picture(photo, (0, BAR + GAP, SIDE, SIDE - 2 * (BAR + GAP)), whole=False)
    card.text(parts, (0, SIDE - BAR, SIDE, BAR), 32, "#FFD479")
    return card


def corrected(planned: Image.Image, result: Image.Image, editor: Image.Image) -> Card:
    """The layout editor with the user's boxes, the image before, and the image after."""
    card, wide = Card(), 212
    x = SIDE - wide
    card.picture(editor, (0, 0, x - GAP, SIDE), whole=False)
    card.picture(planned, (x, 0, wide, wide), "as planned")
    card.text("move, draw, run again", (x, wide + GAP, wide, SIDE - 2 * (wide + GAP)), 26, "#FFD479")
    card.picture(result, (x, SIDE - wide, wide, wide), "as edited")
    return card


TEASER = 78  # characters of a long prompt
DRAWN = {
    "ELLA Text to Image": "long prompt + ELLA",
    "ELLA Image to Image": "image + long prompt + ELLA",
    "ELLA with LoRA and Trigger Words": "ELLA + LoRA and its trigger words",
    "ELLA Positive Only with ControlNet": "ELLA + ControlNet",
    "ELLA with LMD": "layout + long prompt + ELLA",
    "SDXL with an LLM Adapter": "SDXL + a language model",
}
ENCODES = ("ELLAEncode", "LLMAdapterEncode")
EDITOR = "LMD Layout Editor"
CHANGE = "remove the triangle, add a blue star on the right"
REPLY = """Objects: [('a yellow moon', [14, 10, 44, 44]), ('a green ring', [70, 74, 44, 44])]
Background prompt: A realistic photo of a night scene
Negative prompt: """
SIDE_BY_SIDE = ("Plain", "Areas", "Masks", "GLIGEN", "Backward Guidance", "BoxDiff", "LMD", "LMD+")
RECIPES = {
    "LMD Demo": Recipe(demo),
    "LMD Look Inside": Recipe(looked),
    "LMD+ Demo": Recipe(functools.partial(compared, names=("GLIGEN alone", "LMD", "LMD+"), wide=2)),
    "Baselines Side by Side": Recipe(functools.partial(compared, names=SIDE_BY_SIDE, wide=3)),
    "Layout Interop": Recipe(spoken),
    "Two Characters with Two LoRAs": Recipe(characters),
    "LMD Layout for Ideogram 4": Recipe(boxed),
    "Layout Guidance on a Transformer": Recipe(guided),
    "LMD Text to Image": Recipe(with_objects, f"{SCENE}scene with three orange triangles"),
    "LMD with a Pasted LLM Reply": Recipe(
        answered, f"{SCENE}night scene with a yellow moon above a green ring",
        change={"LLMLayoutPlanner": {"source.reply": REPLY}},
    ),
    "LMD with a Local Language Model": Recipe(
        answered, f"{SCENE}scene with a pink square to the left of a purple triangle"
    ),
    "LMD with Generate Text": Recipe(
        answered, f"{SCENE}scene with a red square on the left and a green circle on the right"
    ),
    "LMD with a Text Model of ComfyUI": Recipe(
        answered, f"{SCENE}scene with a blue square on the top and a yellow star on the bottom"
    ),
    "LMD Multi-Round Edit": Recipe(
        changed, f"{SCENE}scene with a red square on the left and a yellow triangle on the right",
        change={"Changed layout": {"source.instruction": CHANGE}},
    ),
    "LMD with SDXL Refiner": Recipe(
        refined, f"{SCENE}scene with a green heart on the left and a red moon on the right",
        change={"Your sentence": {"value": f"{SCENE}scene with a green heart on the left and a red moon on the right"}},
    ),
    "LMD Demo Refinement": Recipe(refined, DEMO_PROMPT),
    "Layout Guidance with KSampler": Recipe(
        guided, f"{SCENE}scene with a yellow star on the top and a purple ring on the bottom"
    ),
}  # fmt: skip


def exchanged(prompt: dict, recipe: Recipe) -> dict:
    """The graph on the demo model and on one language model server, with the recipe's inputs."""
    resized = any(n["class_type"] == "CheckpointLoaderSimple" for n in prompt.values())
    for node in prompt.values():
        kind, inputs = node["class_type"], node["inputs"]
        if kind == "CheckpointLoaderSimple":
            node.update(class_type="LMDDemoModel", inputs={})
        if kind in ("LLMLayoutPlanner", "LMDLayoutInstruction") and recipe.sentence:
            inputs["prompt"] = recipe.sentence
        if kind == "BoxGroundedSampler" or kind == "KSampler":
            inputs["seed"] = recipe.seed
        if inputs.get("source") == "host text generation":
            del inputs["source.clip"]
            inputs |= {"source": "language model server", "source.server": SERVER}
        inputs |= {k: CANVAS for k in ("width", "height") if resized and isinstance(inputs.get(k), int)}
        inputs |= {k: EXAMPLES for k in ("examples", "source.examples") if k in inputs}
        inputs |= recipe.change.get(node["_meta"]["title"], {})
    return prompt


def asks(prompt: dict) -> bool:
    """Whether the graph needs a language model."""
    return any(n["class_type"] == "TextGenerate" or "source.server" in n["inputs"] for n in prompt.values())


def with_answer(prompt: dict, server: comfy_server.Server, address: str) -> dict:
    """The graph with what Generate Text would have written, by the served model, in that node's place."""
    writer = next((k for k, n in prompt.items() if n["class_type"] == "TextGenerate"), None)
    if writer is None:
        return prompt
    asked = prompt[writer]["inputs"]["prompt"][0]
    question = {asked: prompt[asked], "text": {"class_type": "PreviewAny", "inputs": {"source": [asked, 0]}}}
    text = server.run(question)["outputs"]["text"]["text"][0]
    data = {"messages": [{"role": "user", "content": text}], "max_tokens": 300, "temperature": 0.25, "seed": 1}
    request = urllib.request.Request(
        f"{address}/chat/completions", json.dumps(data).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=600) as reply:
        answer = json.load(reply)["choices"][0]["message"]["content"]
    for node in prompt.values():
        node["inputs"] = {k: answer if v == [writer, 0] else v for k, v in node["inputs"].items()}
    loader = prompt.pop(writer)["inputs"]["clip"][0]
    del prompt[loader]
    return prompt


def run(server: comfy_server.Server, prompt: dict, info: dict, sentence: str) -> Shown:
    """Run the graph, with each node's layout written out besides."""
    taps = {}
    for key, node in list(prompt.items()):
        kinds = info[node["class_type"]]["output"]
        if "LMD_LAYOUT" in kinds:
            source = [key, kinds.index("LMD_LAYOUT")]
            prompt[f"{key}-text"] = {"class_type": "LMDLayoutToText", "inputs": {"layout": source}}
            prompt[f"{key}-seen"] = {"class_type": "PreviewAny", "inputs": {"source": [f"{key}-text", 0]}}
            taps[f"{key}-seen"] = node["_meta"]["title"]
    entry = server.run(prompt, seconds=3000)
    texts = {title: entry["outputs"][key]["text"][0] for key, title in taps.items()}
    pictures = {}
    for key, output in entry["outputs"].items():
        if key not in taps and output.get("images"):
            files = server.files({"outputs": {key: output}})
            pictures[prompt[key]["_meta"]["title"]] = [Image.open(f).convert("RGB") for f in files]
    return Shown(sentence, pictures, {title: Layout.from_json(text) for title, text in texts.items()})


@contextlib.contextmanager
def language_model(model: Path | None) -> Iterator[str]:
    """The address of the served model, or nothing."""
    if model is None:
        yield ""
        return
    script = comfy_server.ROOT / "tools" / "small_llm.py"
    process = subprocess.Popen(
        [sys.executable, str(comfy_server.ROOT / "tools" / "launch.py"), str(script), "--threads", "2", "--model", str(model)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        yield process.stdout.readline().strip() + "/v1"
    finally:
        process.stdin.close()
        process.wait(20)


def make(titles: list[str], model: Path | None, steps: int | None) -> None:
    with language_model(model) as address, tempfile.TemporaryDirectory() as folder:
        base = comfy_server.prepare(Path(folder))
        settings = base / "user" / "__ella_lmd" / "servers.json"
        settings.parent.mkdir(parents=True)
        entry = {"name": SERVER, "address": address or "http://127.0.0.1:9/v1", "model": "", "timeout": 900}
        settings.write_text(json.dumps({"servers": [entry]}))
        with comfy_server.server(base, "--preview-method", "none") as server:
            info = server.get("/object_info")
            for title in titles:
                workflow = json.loads((WORKFLOWS / f"{title}.json").read_text(encoding="utf-8"))
                needed = {m["name"] for n in workflow["nodes"] for m in n["properties"].get("models", [])}
                prompt = exchanged(to_api(workflow, info), RECIPES[title])
                if RECIPES[title].card is boxed:
                    prompt = without_files(prompt, needed)
                for node in prompt.values():
                    if steps and "steps" in node["inputs"]:
                        node["inputs"]["steps"] = steps
                if asks(prompt) and not address:
                    print(f"[ella-lmd] {title}: left as it is; it asks a language model (--model)", flush=True)
                    continue
                prompt = with_answer(prompt, server, address)
                sentence = RECIPES[title].sentence or planner(prompt)["prompt"]
                shown = run(server, prompt, info, sentence)
                for node in prompt.values():
                    if node["class_type"] == "LayoutGuidance" and "SaveImage" in shown.pictures:
                        node["inputs"]["strength"] = 0
                        shown.without = run(server, prompt, info, sentence).result
                told(title, RECIPES[title].card(shown))


def photographs(titles: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = comfy_server.prepare(Path(folder))
        graphs = {t: json.loads((WORKFLOWS / f"{t}.json").read_text(encoding="utf-8")) for t in titles}
        for graph in graphs.values():
            photos.stand_ins(base, graph)
        with comfy_server.server(base, "--preview-method", "none") as server, photos.front_end(server) as front:
            for title, graph in graphs.items():
                if title == EDITOR:
                    told(title, corrected(*photos.edited(front)))
                    continue
                front.load(title)
                text = next(n["widgets_values"][0] for n in graph["nodes"] if n["type"] in ENCODES)
                told(title, described(photos.photograph(front), text, DRAWN[title]))


def told(title: str, card: Card) -> None:
    size = card.save(WORKFLOWS / f"{title}.jpg")
    print(f"[ella-lmd] {title}.jpg: {size / 1000:.0f} kB", flush=True)


def planner(prompt: dict) -> dict:
    return next(n["inputs"] for n in prompt.values() if n["class_type"] == "LLMLayoutPlanner")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("titles", nargs="*", metavar="TITLE")
    parser.add_argument("--model", type=Path, help="a language model for llama.cpp, 1.5 billion parameters or more")
    parser.add_argument("--steps", type=int, help="other than the graphs' own, for a slow machine; 20 do")
    options = parser.parse_args(arguments)
    known = [*RECIPES, *DRAWN, EDITOR]
    if unknown := sorted(set(options.titles) - set(known)):
        parser.error(f"no recipe for {', '.join(unknown)}; there are: {', '.join(known)}")
    titles = options.titles or known
    if runs := [t for t in titles if t in RECIPES]:
        make(runs, options.model, options.steps)
    if drawn := [t for t in titles if t not in RECIPES]:
        photographs(drawn)
    return 0
