"""Writes ELLA's graphs in workflows/: `python run.py python tools/workflows/make_ella_workflows.py`."""

from __future__ import annotations

from ella_lmd.tools.workflows.graph import Builder
from ella_lmd.tools.workflows.make_workflows import CHECKPOINT, CHECKPOINT_URL, write

ELLA = "ella-sd1.5-tsc-t5xl.safetensors"
ELLA_URL = "https://huggingface.co/QQGYLab/ELLA/resolve/main/" + ELLA
ENCODER = "models--google--flan-t5-xl--text_encoder"
LORA = "your-style-lora.safetensors"
CONTROLNET = "control_v11p_sd15_scribble_fp16.safetensors"
CONTROLNET_URL = "https://huggingface.co/comfyanonymous/ControlNet-v1-1_fp16_safetensors/resolve/main/" + CONTROLNET
PROMPT = (
    "a large, textured green crocodile lies on a patch of short grass. it wears a knitted orange sweater with blue "
    "and yellow stripes around its neck. behind it, a smooth grey rock hides a part of a small round pond on which "
    "four lily pads float."
)
SCENE = "A realistic photo of a park with a red cat on the left and a blue dog on the right"
SCENE_IN_DETAIL = (
    "a realistic photo of a wide park in the evening. on the left a red cat with a knitted green scarf sits upright and "
    "looks to the right. on the right a fluffy blue dog lies in the short grass. behind them a row of old trees stands "
    "in golden light."
)
SDXL = "sd_xl_base_1.0.safetensors"
SDXL_URL = "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/" + SDXL
ADAPTER = "rouweiGemma_g31b27k.safetensors"
GEMMA = "gemma-3-1b-it"
FILES = (
    f"Needs **models/checkpoints/{CHECKPOINT}** (or any SD1.5 checkpoint), **models/ella/{ELLA}**, and the encoder of "
    f"FLAN-T5-XL, a folder or one file, in **models/ella_encoder**."
)


class Graph:
    """The parts that all of ELLA's graphs share, from left to right."""

    def __init__(self, info: dict):
        self.b = b = Builder(info)
        self.loader = b.add("CheckpointLoaderSimple", (20, 40), (340, 100), ckpt_name=CHECKPOINT)
        self.loader["properties"]["models"] = [{"name": CHECKPOINT, "url": CHECKPOINT_URL, "directory": "checkpoints"}]
        self.ella = b.add("ELLAModelLoader", (20, 200), (340, 60), ella_name=ELLA)
        self.ella["properties"]["models"] = [{"name": ELLA, "url": ELLA_URL, "directory": "ella"}]
        self.encoder = b.add("ELLATextEncoderLoader", (20, 320), (340, 90), encoder_name=ENCODER)
        self.model, self.clip = (self.loader, 0), (self.loader, 1)

    def encode(self, text: str, y: int, title: str, **more) -> tuple:
        clip = {} if more.get("mode") == "ELLA only" else {"clip": self.clip}
        node = self.b.add(
            "ELLAEncode", (420, y), (400, 330), title, ella=(self.ella, 0), text_encoder=(self.encoder, 0), text=text,
            **clip, **more,
        )  # fmt: skip
        return node, 0

    def image(self, positive: tuple, negative: tuple, latent: tuple, prefix: str, **sampling) -> None:
        aware = self.b.add("TimestepAwareConditioning", (880, 40), (320, 150), model=self.model)
        settings = {"seed": 1001, "steps": 20, "cfg": 8.0, "sampler_name": "euler", "scheduler": "normal", **sampling}
        sampler = self.b.add(
            "KSampler", (880, 250), (320, 270), model=(aware, 0), positive=positive, negative=negative,
            latent_image=latent, **settings,
        )  # fmt: skip
        decoded = self.b.add("VAEDecode", (1260, 40), (210, 60), samples=(sampler, 0), vae=(self.loader, 2))
        self.b.add("SaveImage", (1260, 160), (440, 480), images=(decoded, 0), filename_prefix=prefix)

    def empty(self) -> tuple:
        return self.b.add("EmptyLatentImage", (880, 580), (320, 110), width=512, height=512), 0

    def note(self, text: str) -> Builder:
        self.b.note(f"{text}\n\n{FILES}", (20, 480), (340, 420), "How this works")
        return self.b


def text_to_image(info: dict) -> Builder:
    g = Graph(info)
    positive = g.encode(PROMPT, 40, "Prompt", mode="ELLA only")
    negative = g.encode("", 430, "Negative prompt (empty)", mode="ELLA only")
    g.image(positive, negative, g.empty(), "ELLA")
    return g.note(
        "## ELLA: a long description is understood\n"
        "**ELLA Encode** reads whole sentences with FLAN-T5-XL. **Timestep-Aware Conditioning** on the model computes "
        "what they mean at every single step; steps, scheduler and denoise are set in the KSampler alone.\n\n"
        "Write what is to be seen: things, colours, shapes, positions. If colours look washed out, lower *cfg*."
    )


def with_lora(info: dict) -> Builder:
    g = Graph(info)
    lora = g.b.add("LoraLoader", (420, 800), (400, 130), model=g.model, clip=g.clip, lora_name=LORA)
    g.model, g.clip = (lora, 0), (lora, 1)
    tags = "chibi, masterpiece, best quality, (full body:1.2)"
    positive = g.encode(PROMPT, 40, "Prompt; trigger words in clip_text", clip_text=tags)
    negative = g.encode("", 430, "Negative prompt", clip_text="(low quality:1.3), (worst quality:1.3)")
    g.image(positive, negative, g.empty(), "ELLA_LoRA")
    return g.note(
        "## ELLA with a LoRA and its trigger words\n"
        "In the mode **ELLA + CLIP** the model gets ELLA's tokens and CLIP's. The description goes into *text*, "
        "trigger words, embeddings and tags into *clip_text*.\n\n"
        f"Choose your LoRA in **Load LoRA** (here **models/loras/{LORA}**)."
    )


def with_controlnet(info: dict) -> Builder:
    g = Graph(info)
    positive = g.encode(PROMPT, 40, "Prompt", mode="ELLA only")
    negative = g.b.add("CLIPTextEncode", (420, 430), (400, 120), "Negative prompt by CLIP", clip=g.clip, text="blurry")
    control = g.b.add("ControlNetLoader", (420, 610), (400, 60), control_net_name=CONTROLNET)
    control["properties"]["models"] = [{"name": CONTROLNET, "url": CONTROLNET_URL, "directory": "controlnet"}]
    image = g.b.add("LoadImage", (420, 730), (400, 320), image="example.png")
    applied = g.b.add(
        "ControlNetApplyAdvanced", (880, 740), (320, 190), positive=positive, negative=(negative, 0),
        control_net=(control, 0), image=(image, 0), strength=0.8,
    )  # fmt: skip
    g.image((applied, 0), (applied, 1), g.empty(), "ELLA_ControlNet")
    return g.note(
        "## ELLA on the positive side alone, with a ControlNet\n"
        "Only the prompt is read by ELLA; the negative prompt is CLIP's, as always. The ControlNet reads the prompt "
        "of each step too. The two prompts have different lengths, so the model is called once for each: on a fast "
        "card this takes a little longer than the same kind of prompt on both sides.\n\n"
        f"Also needs **models/controlnet/{CONTROLNET}** and an image for it."
    )


def image_to_image(info: dict) -> Builder:
    g = Graph(info)
    positive, negative = g.encode(PROMPT, 40, "Prompt"), g.encode("", 430, "Negative prompt (empty)")
    image = g.b.add("LoadImage", (420, 800), (400, 320), image="example.png")
    latent = g.b.add("VAEEncode", (880, 580), (320, 60), pixels=(image, 0), vae=(g.loader, 2))
    g.image(positive, negative, (latent, 0), "ELLA_img2img", denoise=0.6)
    return g.note(
        "## ELLA image to image\n"
        "*denoise* below 1 needs no other setting: the timestep of every step is found by itself."
    )


def with_layout(info: dict) -> Builder:
    g = Graph(info)
    planner = g.b.add("LLMLayoutPlanner", (420, 40), (400, 480), prompt=SCENE, width=512, height=512)
    text = g.encode(SCENE_IN_DETAIL, 570, "The picture in detail, for ELLA", mode="ELLA only")
    negative = g.encode("", 950, "Negative prompt (empty)", mode="ELLA only")
    aware = g.b.add("TimestepAwareConditioning", (880, 40), (320, 150), model=g.model)
    objects = g.b.add(
        "BoxGroundedSampler", (880, 250), (320, 380), "Objects by CLIP", model=(aware, 0), clip=g.clip,
        layout=(planner, "layout"), seed=1, steps=50,
    )  # fmt: skip
    composer = g.b.add(
        "LatentComposer", (880, 700), (320, 260), "Composition by ELLA", model=(aware, 0), clip=g.clip,
        objects=(objects, "objects"), positive_override=text, negative_override=negative,
    )  # fmt: skip
    decoded = g.b.add("VAEDecode", (1260, 40), (210, 60), samples=(composer, "latent"), vae=(g.loader, 2))
    g.b.add("SaveImage", (1260, 160), (440, 480), images=(decoded, 0), filename_prefix="ELLA_LMD")
    g.b.add("PreviewImage", (1260, 700), (440, 300), "Guidance energy", images=(composer, "energy"))
    return g.note(
        "## ELLA and LMD together: what, and where\n"
        "The short sentence becomes boxes, each object is drawn alone in its box, and the long description conditions "
        "the picture through ELLA, at every step, while the layout guides it. Guidance reads CLIP's tokens of the "
        "layout's prompt, so the description is free to use other words.\n\n"
        "To draw the objects by ELLA too, connect **ella** and **text_encoder** to **Box Grounded Sampler**."
    )


def with_adapter(info: dict) -> Builder:
    b = Builder(info)
    loader = b.add("CheckpointLoaderSimple", (20, 40), (340, 100), ckpt_name=SDXL)
    loader["properties"]["models"] = [{"name": SDXL, "url": SDXL_URL, "directory": "checkpoints"}]
    adapter = b.add("LLMAdapterLoader", (20, 250), (340, 80), adapter_name=ADAPTER)
    encoder = b.add("LLMAdapterTextEncoderLoader", (20, 390), (340, 80), encoder_name=GEMMA)

    def encode(text: str, y: int, title: str) -> tuple:
        sources = {"adapter": (adapter, 0), "text_encoder": (encoder, 0)}
        return b.add("LLMAdapterEncode", (420, y), (400, 330), title, text=text, **sources), 0

    positive = encode(PROMPT, 40, "Prompt")
    negative = encode("worst quality, low quality, watermark", 430, "Negative prompt")
    latent = b.add("EmptyLatentImage", (880, 370), (320, 110), width=1024, height=1024)
    sampler = b.add(
        "KSampler", (880, 40), (320, 270), model=(loader, 0), positive=positive, negative=negative,
        latent_image=(latent, 0), seed=1001, steps=28, cfg=5.0, sampler_name="euler", scheduler="normal",
    )  # fmt: skip
    decoded = b.add("VAEDecode", (1260, 40), (210, 60), samples=(sampler, 0), vae=(loader, 2))
    b.add("SaveImage", (1260, 160), (440, 480), images=(decoded, 0), filename_prefix="LLM_adapter")
    b.note(
        "## ELLA's idea for SDXL: a language model reads the prompt\n"
        "**LLM Adapter Encode** reads sentences and tags with a small language model; an adapter turns what it "
        "understood into conditioning for SDXL, pooled vector included. CLIP is not used, and nothing depends on the "
        "timestep. LoRAs, ControlNets and areas work as always.\n\n"
        f"Needs **models/checkpoints/{SDXL}** (or any SDXL checkpoint: RouWei-Gemma was trained with models of the RouWei "
        f"and Illustrious kind), **models/llm_adapters/{ADAPTER}**, and **models/text_encoders/{GEMMA}**, a folder with "
        "Gemma-3-1b's weights and its tokenizer. For RouWei-T5Gemma choose its adapter and T5Gemma-2b's encoder.",
        (20, 540), (340, 420), "How this works",
    )  # fmt: skip
    return b


GRAPHS = {
    "ELLA Text to Image": text_to_image,
    "ELLA with LoRA and Trigger Words": with_lora,
    "ELLA Positive Only with ControlNet": with_controlnet,
    "ELLA Image to Image": image_to_image,
    "ELLA with LMD": with_layout,
    "SDXL with an LLM Adapter": with_adapter,
}


def main() -> int:
    return write(GRAPHS)
