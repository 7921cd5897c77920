"""Writes the graphs that refine LMD's picture: `python run.py python tools/workflows/make_refinement_workflows.py`."""

from __future__ import annotations

from ella_lmd.lmd.sampling import refinement
from ella_lmd.tools.workflows.graph import Builder
from ella_lmd.tools.workflows.make_workflows import CHECKPOINT, DEMO_PROMPT, PROMPT, checkpoint, write

REFINER = "sd_xl_refiner_1.0.safetensors"
REFINER_URL = "https://huggingface.co/stabilityai/stable-diffusion-xl-refiner-1.0/resolve/main/" + REFINER
STRENGTH, DEMO = refinement.Refinement(0.5), refinement.Refinement(0.7)
SEED = 1


def negative_prompt(b: Builder, planner: dict, at: tuple[int, int]) -> dict:
    """The layout's own negative prompt in front of the refiner's list, by stock nodes."""
    x, y = at
    text = b.add("LMDLayoutToText", (x, y), (320, 150), layout=(planner, "layout"))
    own = b.add(
        "JsonExtractString", (x, y + 210), (320, 120), "The layout's own", json_string=(text, "json"), key="negative"
    )
    joined = b.add(
        "StringConcatenate", (x + 380, y), (320, 200), string_a=(own, 0), string_b=refinement.NEGATIVE, delimiter=", "
    )
    return b.add(
        "RegexReplace", (x + 380, y + 260), (320, 240), "No comma where there is none", string=(joined, 0),
        regex_pattern="^, ", replace="",
    )  # fmt: skip


def composed(b: Builder, loader: dict, planner: dict, prefix: str) -> dict:
    """Both stages of LMD behind a planner, and their picture, saved; returns what decodes it."""
    objects = b.add(
        "BoxGroundedSampler", (480, 250), (320, 300), model=(loader, 0), clip=(loader, 1), layout=(planner, "layout"),
        seed=SEED, steps=50,
    )  # fmt: skip
    composer = b.add(
        "LatentComposer", (860, 40), (320, 260), model=(loader, 0), clip=(loader, 1), objects=(objects, "objects")
    )
    decoded = b.add("VAEDecode", (860, 420), (320, 60), samples=(composer, "latent"), vae=(loader, 2))
    b.add("SaveImage", (860, 540), (320, 340), "LMD", images=(decoded, 0), filename_prefix=prefix)
    return decoded


def sdxl_refiner(info: dict) -> Builder:
    b = Builder(info)
    caption = b.add("PrimitiveStringMultiline", (20, 40), (400, 140), "Your sentence", value=PROMPT)
    planner = b.add("LLMLayoutPlanner", (20, 250), (400, 480), prompt=(caption, 0), width=512, height=512)
    loader = checkpoint(b, (480, 40))
    decoded = composed(b, loader, planner, "LMD")
    negative = negative_prompt(b, planner, (480, 960))
    refiner = b.add("CheckpointLoaderSimple", (1240, 40), (320, 100), "SDXL refiner", ckpt_name=REFINER)
    refiner["properties"]["models"] = [{"name": REFINER, "url": REFINER_URL, "directory": "checkpoints"}]
    side = refinement.SIDE
    large = b.add(
        "ImageScale", (1240, 250), (320, 130), image=(decoded, 0), upscale_method=refinement.RESAMPLE, width=side,
        height=side, crop="disabled",
    )  # fmt: skip
    latent = b.add("VAEEncode", (1240, 440), (320, 60), pixels=(large, 0), vae=(refiner, 2))
    guided = b.add(
        "LayoutGuidance", (1240, 570), (320, 260), "Keep objects in their boxes", model=(refiner, 0), clip=(refiner, 1),
        layout=(planner, "layout"), preset="refinement",
    )  # fmt: skip
    encoders = []
    for title, text, ascore, y in (
        ("Positive prompt", caption, refinement.ASCORE, 40), ("Negative prompt", negative, refinement.NEGATIVE_ASCORE, 290)
    ):  # fmt: skip
        encoders.append(b.add(
            "CLIPTextEncodeSDXLRefiner", (1620, y), (340, 180), title, clip=(refiner, 1), text=(text, 0), ascore=ascore,
            width=side, height=side,
        ))  # fmt: skip
    sampler = b.add(
        "KSampler", (1620, 540), (340, 270), "Refinement", model=(guided, "model"), positive=(encoders[0], 0),
        negative=(encoders[1], 0), latent_image=(latent, 0), seed=refinement.refinement_seed(SEED), steps=STRENGTH.steps,
        cfg=refinement.CFG, sampler_name=refinement.SAMPLER, scheduler=refinement.SCHEDULER, denoise=STRENGTH.strength,
    )  # fmt: skip
    refined = b.add("VAEDecode", (2020, 40), (210, 60), samples=(sampler, 0), vae=(refiner, 2))
    b.add("SaveImage", (2020, 150), (520, 560), "Refined", images=(refined, 0), filename_prefix="LMD_refined")
    plot = b.add("LMDEnergyPlot", (1620, 880), (340, 60), trace=(guided, "trace"), latent=(sampler, 0))
    b.add("PreviewImage", (1620, 1000), (340, 260), "Guidance energy", images=(plot, 0))
    b.note(
        "## SDXL refines LMD's picture\n"
        "LMD composes at 512 pixels; SDXL's refiner goes over the picture at 1024, by your sentence and the published "
        "settings: strength 0.5 (0.1 is weak), half of 50 Euler steps on *ddim_uniform*, CFG 5, seed + 7890.\n\n"
        "For another strength set **denoise**, and **steps** to 50 times it. For 0.05 and 0.15 take BasicScheduler (50 "
        "steps) and SplitSigmas instead.\n\n"
        "**Layout Guidance** keeps objects in their boxes meanwhile; bypass it for the refinement as published.\n\n"
        f"Needs **models/checkpoints/{CHECKPOINT}** and **{REFINER}**; another SDXL or SD1.x checkpoint refines too.",
        (2020, 790), (520, 340), "How this works",
    )  # fmt: skip
    return b


def demo_refinement(info: dict) -> Builder:
    b = Builder(info)
    caption = b.add("PrimitiveStringMultiline", (20, 40), (400, 140), "Your sentence", value=DEMO_PROMPT)
    planner = b.add("LLMLayoutPlanner", (20, 250), (400, 480), prompt=(caption, 0), width=128, height=128)
    loader = b.add("LMDDemoModel", (480, 40), (320, 80))
    decoded = composed(b, loader, planner, "lmd")
    side = 128
    large = b.add(
        "ImageScale", (1240, 40), (320, 130), image=(decoded, 0), upscale_method=refinement.RESAMPLE, width=side,
        height=side, crop="disabled",
    )  # fmt: skip
    latent = b.add("VAEEncode", (1240, 230), (320, 60), pixels=(large, 0), vae=(loader, 2))
    positive = b.add("CLIPTextEncode", (1240, 350), (320, 120), "Positive prompt", clip=(loader, 1), text=(caption, 0))
    negative = b.add("CLIPTextEncode", (1240, 530), (320, 120), "Negative prompt", clip=(loader, 1), text="")
    guided = b.add(
        "LayoutGuidance", (1240, 720), (320, 260), "Keep objects in their boxes", model=(loader, 0), clip=(loader, 1),
        layout=(planner, "layout"), preset="refinement",
    )  # fmt: skip
    for title, model, y in (("Refined with guidance", guided, 720), ("Refined without", loader, 40)):
        sampler = b.add(
            "KSampler", (1620, y), (320, 270), model=(model, 0), positive=(positive, 0), negative=(negative, 0),
            latent_image=(latent, 0), seed=refinement.refinement_seed(SEED), steps=DEMO.steps, cfg=refinement.CFG,
            sampler_name=refinement.SAMPLER, scheduler=refinement.SCHEDULER, denoise=DEMO.strength,
        )  # fmt: skip
        refined = b.add("VAEDecode", (2000, y), (210, 60), samples=(sampler, 0), vae=(loader, 2))
        b.add("SaveImage", (2000, y + 120), (400, 420), title, images=(refined, 0), filename_prefix="refined")
    b.note(
        "## Refinement on the demo model\n"
        "LMD's picture is noised again to 0.7 and denoised by the same model, twice with one seed: with layout guidance, "
        "by the preset *refinement*, and without. So strong a refinement can lose or move objects; guidance keeps them in "
        "their boxes.\n\n*LMD with SDXL Refiner* is the graph for your own checkpoints.",
        (480, 960), (400, 260), "How this works",
    )  # fmt: skip
    return b


GRAPHS = {"LMD with SDXL Refiner": sdxl_refiner, "LMD Demo Refinement": demo_refinement}


def main() -> int:
    return write(GRAPHS)
