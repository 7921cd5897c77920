"""Writes the graphs in workflows/ from the nodes' own descriptions: `python run.py python tools/workflows/make_workflows.py`.

Edit a graph here, or in the browser and save it over the file; this script only rewrites the files that it knows.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from ella_lmd.tools import comfy_server
from ella_lmd.tools.workflows.graph import Builder

WORKFLOWS = comfy_server.ROOT / "workflows"
CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"
CHECKPOINT_URL = "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/" + CHECKPOINT
PROMPT = "A realistic photo of a park with a red cat on the left and a blue dog on the right"
PASTED = """Objects: [('a wooden table', [80, 300, 350, 180]), ('a white teapot', [120, 170, 140, 135]), ('a green cup', [290, 225, 90, 80])]
Background prompt: A realistic photo of a bright kitchen
Negative prompt: people"""


def checkpoint(b: Builder, at: tuple[int, int]) -> dict:
    node = b.add("CheckpointLoaderSimple", at, (320, 100), ckpt_name=CHECKPOINT)
    node["properties"]["models"] = [{"name": CHECKPOINT, "url": CHECKPOINT_URL, "directory": "checkpoints"}]
    return node


def lmd(b: Builder, planner: dict, loader: dict, x: int) -> dict:
    """The two stages and the pictures behind a planner; returns the composer."""
    objects = b.add(
        "BoxGroundedSampler", (x, 40), (320, 300), model=(loader, 0), clip=(loader, 1), layout=(planner, "layout"),
        seed=1, steps=50,
    )  # fmt: skip
    composer = b.add(
        "LatentComposer", (x + 380, 40), (320, 260), model=(loader, 0), clip=(loader, 1), objects=(objects, "objects")
    )
    decoded = b.add("VAEDecode", (x + 760, 40), (210, 60), samples=(composer, "latent"), vae=(loader, 2))
    b.add("SaveImage", (x + 760, 150), (420, 460), images=(decoded, 0), filename_prefix="LMD")
    images = b.add("LMDObjectImages", (x + 380, 360), (320, 80), objects=(objects, "objects"), vae=(loader, 2))
    b.add("PreviewImage", (x + 380, 490), (320, 260), "Each object alone", images=(images, "images"))
    b.add("PreviewImage", (x, 490), (320, 260), "Guidance energy", images=(composer, "energy"))
    return composer


def guided(b: Builder, loader: dict, planner: dict, side: int, prefix: str, **sampler: object) -> None:
    """One guided run of a KSampler with these settings, its picture and its energy, behind a planner."""
    patch = b.add(
        "LayoutGuidance", (480, 40), (320, 300), model=(loader, 0), clip=(loader, 1), layout=(planner, "layout")
    )
    negative = b.add(
        "CLIPTextEncode", (480, 460), (320, 120), "Negative prompt", clip=(loader, 1), text=(planner, "negative_prompt")
    )
    empty = b.add("EmptyLatentImage", (480, 640), (320, 110), width=side, height=side)
    sampled = b.add(
        "KSampler", (860, 40), (320, 270), model=(patch, "model"), positive=(patch, "positive"), negative=(negative, 0),
        latent_image=(empty, 0), seed=1, **sampler,
    )  # fmt: skip
    decoded = b.add("VAEDecode", (1240, 40), (210, 60), samples=(sampled, 0), vae=(loader, 2))
    b.add("SaveImage", (1240, 150), (420, 460), images=(decoded, 0), filename_prefix=prefix)
    plot = b.add("LMDEnergyPlot", (860, 370), (320, 60), trace=(patch, "trace"), latent=(sampled, 0))
    b.add("PreviewImage", (860, 480), (320, 240), "Guidance energy", images=(plot, 0))


def text_to_image(info: dict) -> Builder:
    b = Builder(info)
    loader = checkpoint(b, (20, 40))
    planner = b.add("LLMLayoutPlanner", (20, 200), (400, 480), prompt=PROMPT, width=512, height=512)
    lmd(b, planner, loader, 480)
    b.note(
        "## LMD: a sentence becomes a composed image\n"
        "1. **LLM Layout Planner** turns the sentence into boxes (no language model needed).\n"
        "2. **Box Grounded Sampler** makes each object alone, guided into its box.\n"
        "3. **Latent Composer** pastes their latents and denoises the whole picture.\n\n"
        f"Needs **models/checkpoints/{CHECKPOINT}**, or any SD1.x, SD2.x or SDXL checkpoint.\n"
        "Change one object in the prompt and run again: only that object is computed again.",
        (1240, 690), (420, 280), "How this works",
    )  # fmt: skip
    return b


def pasted_reply(info: dict) -> Builder:
    b = Builder(info)
    loader = checkpoint(b, (20, 40))
    text = "A realistic photo of a bright kitchen: a white teapot and a green cup on a wooden table, no people"
    instruction = b.add("LMDLayoutInstruction", (20, 200), (400, 260), prompt=text, width=512, height=512)
    b.add("PreviewAny", (20, 520), (400, 300), "Copy this into a chat", source=(instruction, 0))
    planner = b.add(
        "LLMLayoutPlanner", (480, 40), (420, 640), prompt=text, width=512, height=512, source="reply text",
        source__reply=PASTED,
    )  # fmt: skip
    lmd(b, planner, loader, 960)
    b.note(
        "## A layout from any chat\n"
        "Copy the instruction on the left into any language model's chat and paste its whole answer into **reply** of "
        "LLM Layout Planner. Code fences, talk around the answer and JSON are understood.\n\n"
        f"Needs **models/checkpoints/{CHECKPOINT}**.",
        (1720, 690), (420, 220), "How this works",
    )  # fmt: skip
    return b


SERVER = "Ollama"
TEXT_MODEL = "qwen3.5_2b_bf16.safetensors"
TEXT_MODEL_URL = "https://huggingface.co/Comfy-Org/Qwen3.5/resolve/main/text_encoders/" + TEXT_MODEL
CHANGE = "move the dog to the left of the cat, add a red ball"
OLLAMA = (
    "Needs [Ollama](https://ollama.com) running on this machine with a model of at least 1.5 billion parameters, for "
    "instance **ollama pull qwen2.5:7b**. Other servers (LM Studio, llama.cpp, vLLM, OpenAI) are chosen by their name in "
    "the same list; [docs/planner.md](https://github.com/ella-lmd/ella-lmd/blob/main/docs/planner.md) says how to add "
    "one and where its key belongs.\n\n"
)


def local_model(info: dict) -> Builder:
    b = Builder(info)
    loader = checkpoint(b, (20, 40))
    planner = b.add(
        "LLMLayoutPlanner", (20, 200), (400, 640), prompt=PROMPT, width=512, height=512, source="language model server",
        source__server=SERVER, source__seed=1,
    )  # fmt: skip
    lmd(b, planner, loader, 480)
    b.note(
        "## A local language model plans the picture\n"
        "The answer is checked against the prompt. A faulty one is asked for again, with its faults listed, and boxes "
        "that are still in the wrong place are fixed. The planner shows all of it below its picture.\n\n"
        f"{OLLAMA}Needs **models/checkpoints/{CHECKPOINT}**.",
        (1240, 690), (420, 300), "How this works",
    )  # fmt: skip
    return b


def text_model(b: Builder, at: tuple[int, int]) -> dict:
    node = b.add("CLIPLoader", at, (400, 110), clip_name=TEXT_MODEL, type="stable_diffusion")
    node["properties"]["models"] = [{"name": TEXT_MODEL, "url": TEXT_MODEL_URL, "directory": "text_encoders"}]
    return node


def generated_text(info: dict) -> Builder:
    b = Builder(info)
    loader = checkpoint(b, (480, 40))
    writer = text_model(b, (20, 40))
    text = "A realistic photo of a bright kitchen: a white teapot and a green cup on a wooden table, no people"
    instruction = b.add("LMDLayoutInstruction", (20, 200), (400, 260), prompt=text, width=512, height=512)
    answer = b.add(
        "TextGenerate", (20, 520), (400, 480), clip=(writer, 0), prompt=(instruction, 0), max_length=400,
        sampling_mode__temperature=0.25,
    )  # fmt: skip
    planner = b.add(
        "LLMLayoutPlanner", (480, 200), (420, 480), prompt=text, width=512, height=512, source="reply text",
        source__reply=(answer, 0),
    )  # fmt: skip
    lmd(b, planner, loader, 960)
    b.note(
        "## LMD with ComfyUI's own Generate Text\n"
        "The instruction goes to **Generate Text**, its answer to **LLM Layout Planner** as reply text. The graph *LMD "
        "with a Text Model of ComfyUI* does the same inside the planner, which then also checks the answer and asks "
        f"again.\n\nNeeds **models/text_encoders/{TEXT_MODEL}** or another text model that can write, and "
        f"**models/checkpoints/{CHECKPOINT}**.",
        (1720, 690), (420, 260), "How this works",
    )  # fmt: skip
    return b


def host_model(info: dict) -> Builder:
    b = Builder(info)
    loader = checkpoint(b, (480, 40))
    writer = text_model(b, (20, 40))
    planner = b.add(
        "LLMLayoutPlanner", (20, 200), (400, 640), prompt=PROMPT, width=512, height=512, source="host text generation",
        source__clip=(writer, 0), source__seed=1,
    )  # fmt: skip
    lmd(b, planner, loader, 860)
    b.note(
        "## A text model of ComfyUI plans the picture\n"
        "No server: ComfyUI loads the text model before the image model and makes room for both.\n\n"
        f"Needs **models/text_encoders/{TEXT_MODEL}** or another text model that can write, and "
        f"**models/checkpoints/{CHECKPOINT}**.",
        (1620, 690), (420, 240), "How this works",
    )  # fmt: skip
    return b


def edit(info: dict) -> Builder:
    b = Builder(info)
    loader = checkpoint(b, (940, 240))
    common = {"width": 512, "height": 512, "source": "language model server", "source__server": SERVER}
    first = b.add("LLMLayoutPlanner", (20, 40), (400, 640), "First layout", prompt=PROMPT, source__seed=1, **common)
    second = b.add(
        "LLMLayoutPlanner", (480, 40), (400, 640), "Changed layout", prompt=PROMPT, source__seed=1,
        source__previous=(first, "layout"), source__instruction=CHANGE, **common,
    )  # fmt: skip
    lmd(b, second, loader, 1320)
    b.note(
        "## Change a layout in words\n"
        "The second planner takes the first one's layout as **previous** and changes it by **instruction**. Everything "
        "it doesn't mention keeps its exact box; put a third planner behind it for another round.\n\n"
        f"{OLLAMA}Needs **models/checkpoints/{CHECKPOINT}**.",
        (2080, 690), (420, 320), "How this works",
    )  # fmt: skip
    return b


def guidance(info: dict) -> Builder:
    b = Builder(info)
    loader = checkpoint(b, (20, 40))
    planner = b.add("LLMLayoutPlanner", (20, 200), (400, 480), prompt=PROMPT, width=512, height=512)
    guided(b, loader, planner, 512, "LayoutGuidance", steps=30, cfg=7.5, sampler_name="dpmpp_2m", scheduler="karras")
    b.note(
        "## Layout guidance in your own graph\n"
        "**Layout Guidance** is a patch on MODEL: it works with the stock KSampler, with LoRA, ControlNet, inpainting "
        "masks and nearly every sampler. Your own prompt can be typed into it; it must contain the phrases of the "
        "layout.\n\nThe energy should fall. If it does not, raise *strength*.\n\n"
        f"Needs **models/checkpoints/{CHECKPOINT}**.",
        (1240, 690), (420, 280), "How this works",
    )  # fmt: skip
    return b


DEMO_PROMPT = "A realistic photo of a grass scene with a red circle on the left and a blue star on the right"


def demo(info: dict) -> Builder:
    b = Builder(info)
    loader = b.add("LMDDemoModel", (20, 40), (320, 80))
    planner = b.add("LLMLayoutPlanner", (20, 180), (400, 480), prompt=DEMO_PROMPT, width=128, height=128)
    b.add("SaveImage", (20, 780), (400, 300), "Layout", images=(planner, "picture"), filename_prefix="layout")
    objects = b.add(
        "BoxGroundedSampler", (480, 40), (320, 300), model=(loader, 0), clip=(loader, 1), layout=(planner, "layout"),
        seed=1, steps=50,
    )  # fmt: skip
    composer = b.add(
        "LatentComposer", (860, 40), (320, 260), model=(loader, 0), clip=(loader, 1), objects=(objects, "objects")
    )
    decoded = b.add("VAEDecode", (1240, 40), (210, 60), samples=(composer, "latent"), vae=(loader, 2))
    b.add("SaveImage", (1240, 150), (320, 360), "LMD", images=(decoded, 0), filename_prefix="lmd")
    images = b.add("LMDObjectImages", (860, 360), (320, 80), objects=(objects, "objects"), vae=(loader, 2))
    b.add("SaveImage", (860, 490), (320, 260), "Each object alone", images=(images, "images"), filename_prefix="object")
    b.add("SaveImage", (480, 460), (320, 240), "Guidance energy", images=(composer, "energy"), filename_prefix="energy")
    positive = b.add(
        "CLIPTextEncode", (480, 800), (320, 120), "The same sentence, plain", clip=(loader, 1), text=DEMO_PROMPT
    )
    negative = b.add("CLIPTextEncode", (480, 970), (320, 120), "Negative prompt", clip=(loader, 1), text="")
    empty = b.add("EmptyLatentImage", (480, 1140), (320, 110), width=128, height=128)
    sampler = b.add(
        "KSampler", (860, 880), (320, 270), model=(loader, 0), positive=(positive, 0), negative=(negative, 0),
        latent_image=(empty, 0), seed=1, steps=50, cfg=7.5, sampler_name="ddim", scheduler="ddim_uniform",
    )  # fmt: skip
    plain = b.add("VAEDecode", (1240, 880), (210, 60), samples=(sampler, 0), vae=(loader, 2))
    b.add("SaveImage", (1240, 990), (320, 360), "Plain sampling", images=(plain, 0), filename_prefix="plain")
    b.note(
        "## LMD on the demo model\n"
        "Nothing to download: the demo model comes with the pack and draws coloured shapes at 128 x 128 pixels.\n\n"
        "Above: the sentence becomes a layout, each object is drawn alone, then composed. Below: the same sentence and "
        "seed without a layout.",
        (20, 1130), (400, 200), "How this works",
    )  # fmt: skip
    return b


def editor(info: dict) -> Builder:
    b = Builder(info)
    loader = b.add("LMDDemoModel", (20, 40), (320, 80))
    planner = b.add("LLMLayoutPlanner", (20, 200), (400, 480), prompt=DEMO_PROMPT, width=128, height=128)
    canvas = b.add("LayoutEditor", (480, 40), (420, 780), layout=(planner, "layout"))
    objects = b.add(
        "BoxGroundedSampler", (960, 40), (320, 300), model=(loader, 0), clip=(loader, 1), layout=(canvas, "layout"),
        seed=1, steps=50,
    )  # fmt: skip
    composer = b.add(
        "LatentComposer", (960, 450), (320, 260), model=(loader, 0), clip=(loader, 1), objects=(objects, "objects")
    )
    decoded = b.add("VAEDecode", (1340, 40), (210, 60), samples=(composer, "latent"), vae=(loader, 2))
    saved = b.add("SaveImage", (1340, 150), (420, 460), "Result", images=(decoded, 0), filename_prefix="edited")
    canvas["properties"]["backdrop"] = f"node:{saved['id']}"
    b.note(
        "## Let the planner write the layout, then move the boxes\n"
        "1. Run once: the layout appears in the editor, the result behind it. The editor's ▶ runs only the planner.\n"
        "2. Drag a box, draw another one, double click to rename.\n"
        "3. Run again: objects that you left alone are not computed again.\n\n"
        "Another prompt or seed brings a new layout, which replaces your edits; the editor then offers to bring them "
        "back.\n\nRuns on the demo model, which knows circle, square, triangle, star, heart, cross, ring and moon in red, "
        "orange, yellow, green, blue, purple, pink and white.",
        (1340, 670), (420, 330), "How this works",
    )  # fmt: skip
    return b


GRAPHS = {
    "LMD Demo": demo,
    "LMD Layout Editor": editor,
    "LMD Text to Image": text_to_image,
    "LMD with a Pasted LLM Reply": pasted_reply,
    "LMD with a Local Language Model": local_model,
    "LMD with Generate Text": generated_text,
    "LMD with a Text Model of ComfyUI": host_model,
    "LMD Multi-Round Edit": edit,
    "Layout Guidance with KSampler": guidance,
}


def write(graphs: dict) -> int:
    """Build and save every graph of `{title: function of object_info}`."""
    with tempfile.TemporaryDirectory() as folder:
        base = comfy_server.prepare(Path(folder))
        with comfy_server.server(base, cpu=True) as server:
            info = server.get("/object_info")
    for name, build in graphs.items():
        builder = build(info)
        builder.save(WORKFLOWS / f"{name}.json")
        print(f"wrote {name}.json ({len(json.dumps(builder.workflow()))} characters)")
    return 0


def main() -> int:
    return write(GRAPHS)
