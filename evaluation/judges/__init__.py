"""Judges by their written form, such as "owlvit", "vlm:Qwen/Qwen3-VL-8B-Instruct" or "owlv2+clip"."""

from __future__ import annotations

from .base import Judge, Panel

HELP = """\
owlvit[:MODEL]          OWL-ViT, by default google/owlvit-base-patch32, the LMD paper's detector
owlv2[:MODEL]           OWLv2, by default google/owlv2-base-patch16-ensemble
mask2former[:MODEL]     by default facebook/mask2former-swin-small-coco-instance; COCO's classes, for GenEval
clip[:MODEL]            colours, by default openai/clip-vit-large-patch14
vlm:MODEL               a vision language model of transformers
server:ADDRESS#MODEL    an OpenAI-compatible vision server
process:COMMAND         a process with the line protocol of evaluation/judges/process.py, such as mPLUG's
demo                    the demo world's detector
MODEL is a folder or a Hugging Face name; A+B is a panel of two; NAME=JUDGE gives a judge the name that its numbers bear."""
MODELS = {
    "owlvit": "google/owlvit-base-patch32",
    "owlv2": "google/owlv2-base-patch16-ensemble",
    "mask2former": "facebook/mask2former-swin-small-coco-instance",
    "clip": "openai/clip-vit-large-patch14",
}


def label(text: str) -> str:
    """The name that stands beside a judge's numbers: the given one, else its kind and model, never an address."""
    own, kind, source = _parts(text)
    if own:
        return own
    if kind == "process":
        words = [word for word in source.split() if word.endswith(".py")] or source.split()[:1]
        source = words[-1].removesuffix(".py") if words else ""
    return f"{kind} {source.rstrip('/').rsplit('#', 1)[-1].rsplit('/', 1)[-1]}".strip()


def split(text: str) -> list[str]:
    """The judges of "A+B"; one whose own text may hold a plus sign stands alone."""
    return [text] if _parts(text)[1] in ("process", "server") else text.split("+")


def labels(text: str) -> list[str]:
    """The label of each judge named in `text`."""
    return [label(part) for part in split(text)]


def panel(text: str, device: str = "cpu") -> Panel:
    """The judges of a panel, loaded. Raises ValueError for a text that names none."""
    return Panel([_named(part, device) for part in split(text)])


def _parts(text: str) -> tuple[str, str, str]:
    own, equals, rest = text.partition("=")
    if not equals or ":" in own or "/" in own:
        own, rest = "", text
    kind, _, source = rest.partition(":")
    return own, kind, source or MODELS.get(kind, "")


def _named(text: str, device: str) -> Judge:
    _, kind, source = _parts(text)
    found = _judge(text, kind, source, device)
    found.name = label(text)
    return found


def _judge(text: str, kind: str, source: str, device: str) -> Judge:
    if kind in ("owlvit", "owlv2"):
        from .detectors import Owl

        return Owl(kind, source, device)
    if kind == "mask2former":
        from .detectors import Mask2Former

        return Mask2Former(source, device)
    if kind == "clip":
        from .colours import ClipColours

        return ClipColours(source, device)
    if kind == "vlm" and source:
        from .vlm import Vlm

        return Vlm(source, device)
    if kind == "server" and "#" in source:
        from .vision_server import VisionServer

        address, model = source.rsplit("#", 1)
        return VisionServer(address, model)
    if kind == "process" and source:
        from .process import ProcessJudge

        return ProcessJudge(source)
    if kind == "demo":
        from .demo import DemoDetector

        return DemoDetector()
    raise ValueError(f"{text!r} names no judge; judges are\n{HELP}")
