"""Writes the graphs in workflows/ from the nodes' own descriptions: `python run.py python tools/make_workflows.py`.

Edit a graph here, or in the browser and save it over the file; this script only rewrites the files that it knows.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import comfy_server
from graph import Builder

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
        "Change one object in the prompt and run again: only that object is computed anew.",
        (20, 730), (400, 240), "How this works",
    )  # fmt: skip
    return b


def pasted_reply(info: dict) -> Builder:
    b = Builder(info)
    loader = checkpoint(b, (20, 40))
    text = "A realistic photo of a bright kitchen: a white teapot and a green cup on a wooden table, no people"
    instruction = b.add("LMDLayoutInstruction", (20, 200), (400, 260), prompt=text, width=512, height=512)
    b.add("PreviewAny", (20, 520), (400, 160), "Copy this into a chat", source=(instruction, 0))
    planner = b.add(
        "LLMLayoutPlanner", (480, 800), (420, 480), prompt=text, width=512, height=512, source="reply text",
        source__reply=PASTED,
    )  # fmt: skip
    lmd(b, planner, loader, 480)
    b.note(
        "## A layout from any chat\n"
        "Copy the instruction on the left into any language model's chat and paste its whole answer into **reply** of "
        "LLM Layout Planner. Code fences, talk around the answer and JSON are understood.\n\n"
        f"Needs **models/checkpoints/{CHECKPOINT}**.",
        (20, 730), (400, 200), "How this works",
    )  # fmt: skip
    return b


def guidance(info: dict) -> Builder:
    b = Builder(info)
    loader = checkpoint(b, (20, 40))
    planner = b.add("LLMLayoutPlanner", (20, 200), (400, 480), prompt=PROMPT, width=512, height=512)
    guided = b.add(
        "LayoutGuidance", (480, 40), (320, 260), model=(loader, 0), clip=(loader, 1), layout=(planner, "layout")
    )
    negative = b.add(
        "CLIPTextEncode", (480, 360), (320, 120), "Negative prompt", clip=(loader, 1), text=(planner, "negative_prompt")
    )
    empty = b.add("EmptyLatentImage", (480, 540), (320, 110), width=512, height=512)
    sampler = b.add(
        "KSampler", (860, 40), (320, 270), model=(guided, "model"), positive=(guided, "positive"),
        negative=(negative, 0), latent_image=(empty, 0), seed=1, steps=30, cfg=7.5, sampler_name="dpmpp_2m",
        scheduler="karras",
    )  # fmt: skip
    decoded = b.add("VAEDecode", (1240, 40), (210, 60), samples=(sampler, 0), vae=(loader, 2))
    b.add("SaveImage", (1240, 150), (420, 460), images=(decoded, 0), filename_prefix="LayoutGuidance")
    plot = b.add("LMDEnergyPlot", (860, 370), (320, 60), trace=(guided, "trace"), latent=(sampler, 0))
    b.add("PreviewImage", (860, 480), (320, 240), "Guidance energy", images=(plot, 0))
    b.note(
        "## Layout guidance in your own graph\n"
        "**Layout Guidance** is a patch on MODEL: it works with the stock KSampler, with LoRA, ControlNet, inpainting "
        "masks and nearly every sampler. Your own prompt can be typed into it; it must contain the phrases of the "
        "layout.\n\nThe energy should fall. If it does not, raise *strength*.\n\n"
        f"Needs **models/checkpoints/{CHECKPOINT}**.",
        (20, 730), (400, 240), "How this works",
    )  # fmt: skip
    return b


DEMO_PROMPT = "A realistic photo of a grass scene with a red circle on the left and a blue star on the right"


def demo(info: dict) -> Builder:
    b = Builder(info)
    loader = b.add("LMDDemoModel", (20, 40), (320, 80))
    planner = b.add("LLMLayoutPlanner", (20, 180), (400, 480), prompt=DEMO_PROMPT, width=128, height=128)
    b.add("SaveImage", (20, 720), (400, 300), "Layout", images=(planner, "picture"), filename_prefix="layout")
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
    b.add(
        "SaveImage", (860, 490), (320, 260), "Each object alone", images=(images, "images"), filename_prefix="objects"
    )
    b.add("SaveImage", (480, 460), (320, 240), "Guidance energy", images=(composer, "energy"), filename_prefix="energy")
    positive = b.add(
        "CLIPTextEncode", (480, 720), (320, 120), "The same sentence, plain", clip=(loader, 1), text=DEMO_PROMPT
    )
    negative = b.add("CLIPTextEncode", (480, 890), (320, 120), "Negative prompt", clip=(loader, 1), text="")
    empty = b.add("EmptyLatentImage", (480, 1060), (320, 110), width=128, height=128)
    sampler = b.add(
        "KSampler", (860, 800), (320, 270), model=(loader, 0), positive=(positive, 0), negative=(negative, 0),
        latent_image=(empty, 0), seed=1, steps=50, cfg=7.5, sampler_name="ddim", scheduler="ddim_uniform",
    )  # fmt: skip
    plain = b.add("VAEDecode", (1240, 800), (210, 60), samples=(sampler, 0), vae=(loader, 2))
    b.add("SaveImage", (1240, 910), (320, 360), "Plain sampling", images=(plain, 0), filename_prefix="plain")
    b.note(
        "## LMD on the demo model\n"
        "Nothing to download: the demo model comes with the pack and draws coloured shapes at 128 x 128 pixels.\n\n"
        "Above: the sentence becomes a layout, each object is drawn alone, then composed. Below: the same sentence and "
        "seed without a layout.",
        (20, 1070), (400, 200), "How this works",
    )  # fmt: skip
    return b


GRAPHS = {
    "LMD Demo": demo,
    "LMD Text to Image": text_to_image,
    "LMD with a Pasted LLM Reply": pasted_reply,
    "Layout Guidance with KSampler": guidance,
}


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        base = comfy_server.prepare(Path(folder))
        with comfy_server.server(base, cpu=True) as server:
            info = server.get("/object_info")
    for name, build in GRAPHS.items():
        builder = build(info)
        builder.save(WORKFLOWS / f"{name}.json")
        print(f"wrote {name}.json ({len(json.dumps(builder.workflow()))} characters)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
