"""Rows as graphs in ComfyUI's API form: the same one runs in this process, on a server, and on a cluster."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ...lmd.prompts import OVERALL_NEGATIVE, with_negative
from ..run import Job

DEMO = "demo"
DEFAULTS: dict[str, Any] = {
    "checkpoint": "v1-5-pruned-emaonly-fp16.safetensors",
    "sampler": "ddim", "scheduler": "ddim_uniform", "steps": 50, "cfg": 7.5, "width": 512, "height": 512,
}  # fmt: skip
"""What every row needs; the sampling is LMD's as published."""
OWN: dict[str, dict[str, Any]] = {
    "guidance": {"preset": "reference", "strength": 1.0},
    "lmd": {"preset": "reference", "frozen": 0.5},
    "lmd+": {"preset": "lmd+", "frozen": 0.5, "gligen": "gligen_sd14_textbox_pruned.safetensors"},
    "area": {"strength": 1.0},
    "gligen": {"gligen": "gligen_sd14_textbox_pruned.safetensors"},
    "ella": {
        "ella": "ella-sd1.5-tsc-t5xl.safetensors", "ella_encoder": "", "ella_mode": "ELLA only",
        "ella_length": "fixed 128", "negative": "",
    },
}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "composition only": {"loss_scale": 0.0},
    "no transfer": {"reference_weight": 0.0},
    "backward guidance": {
        "loss_scale": 30.0, "loss_threshold": 0.2, "iterations": "5x10", "last_guided_step": 10, "energy": "ratio",
        "reference_weight": 0.0,
    },
}  # fmt: skip
"""LMDOptions' inputs where a row changes them."""
Link = list  # [node, output]


@dataclass
class Graph:
    """An API graph under construction; `layout` and its texts are links to its editor node."""

    job: Job
    nodes: dict[str, dict] = field(default_factory=dict)

    def add(self, kind: str, **inputs: Any) -> str:
        """A node; dots in input names are written `__`. Returns its id."""
        name = str(len(self.nodes) + 1)
        self.nodes[name] = {"class_type": kind, "inputs": {k.replace("__", "."): v for k, v in inputs.items()}}
        return name

    def setting(self, name: str) -> Any:
        """One of the job's settings; KeyError if it is not given."""
        return self.job.settings[name]

    def model(self) -> tuple[Link, Link, Link]:
        """MODEL, CLIP and VAE."""
        if self.setting("checkpoint") == DEMO:
            loader = self.add("LMDDemoModel")
        else:
            loader = self.add("CheckpointLoaderSimple", ckpt_name=self.setting("checkpoint"))
        return [loader, 0], [loader, 1], [loader, 2]

    def layout(self) -> tuple[Link, Link]:
        """The job's layout and its negative prompt. Raises ValueError where the job has none."""
        if not self.job.layout:
            raise ValueError(f"the row {self.job.row!r} needs a layout, and {self.job.item} has none")
        editor = self.add("LayoutEditor", edits=json.dumps(self.job.layout))
        return [editor, 0], [editor, 2]

    def encode(self, clip: Link, text: Any) -> Link:
        """The conditioning of a text."""
        return [self.add("CLIPTextEncode", clip=clip, text=text), 0]

    def options(self) -> dict[str, Link]:
        """LMDOptions as an input, where the row changes any of them."""
        changes = OPTIONS.get(self.setting("base"), {}) | self.job.settings.get("options", {})
        return {"options": [self.add("LMDOptions", **_all_options(changes)), 0]} if changes else {}

    def sample(self, model: Link, positive: Link, negative: Link) -> Link:
        """The stock sampler on an empty latent."""
        empty = self.add("EmptyLatentImage", width=self.setting("width"), height=self.setting("height"), batch_size=1)
        sampler = self.add(
            "KSampler", model=model, positive=positive, negative=negative, latent_image=[empty, 0], denoise=1.0,
            seed=self.job.seed, steps=self.setting("steps"), cfg=self.setting("cfg"),
            sampler_name=self.setting("sampler"), scheduler=self.setting("scheduler"),
        )  # fmt: skip
        return [sampler, 0]

    def finish(self, latent: Link, vae: Link) -> dict:
        """Decodes and saves the latent; returns the complete graph."""
        decoded = self.add("VAEDecode", samples=latent, vae=vae)
        self.add("SaveImage", images=[decoded, 0], filename_prefix="evaluation")
        return self.nodes


def _all_options(changes: dict) -> dict:
    """Every required input of LMDOptions: a graph has no defaults of its own."""
    from ...lmd.sampling.options import PRESETS

    o = PRESETS["reference"]
    g, e = o.guidance, o.guidance.energy
    found = {
        "loss_scale": g.loss_scale, "loss_threshold": g.loss_threshold, "iterations": "4x5, 3x5, 2x10, 1x10",
        "last_guided_step": g.max_index_step, "fg_weight": e.fg_weight, "bg_weight": e.bg_weight,
        "reference_weight": e.reference_weight, "fg_top_p": e.fg_top_p, "bg_top_p": e.bg_top_p, "energy": "top",
    }  # fmt: skip
    names = (
        "layers", "blending_ratio", "centre", "horizontal_only", "placement", "floor_padding", "align",
        "align_horizontal_only", "fast_schedule", "reference_seeds", "use_background", "use_negative",
    )  # fmt: skip
    found |= {name: getattr(o, name) for name in names}
    if unknown := changes.keys() - found.keys() - {"stop_early", "objects_at_once"}:
        raise ValueError(f"LMDOptions has no input {', '.join(sorted(unknown))}; it has {', '.join(found)}")
    return found | changes


def plain(graph: Graph) -> dict:
    """Plain sampling of the prompt, without a layout."""
    model, clip, vae = graph.model()
    negative = graph.job.settings.get("negative", OVERALL_NEGATIVE)
    latent = graph.sample(model, graph.encode(clip, graph.job.prompt), graph.encode(clip, negative))
    return graph.finish(latent, vae)


def guidance(graph: Graph) -> dict:
    """One guided run of the layout's prompts, with no objects of their own."""
    model, clip, vae = graph.model()
    layout, negative = graph.layout()
    guided = graph.add(
        "LayoutGuidance", model=model, clip=clip, layout=layout, prompt="", strength=graph.setting("strength"),
        start_percent=0.0, end_percent=1.0, preset=graph.setting("preset"), **graph.options(),
    )  # fmt: skip
    return graph.finish(graph.sample([guided, 0], [guided, 1], graph.encode(clip, negative)), vae)


def lmd(graph: Graph) -> dict:
    """Both stages of LMD, with GLIGEN's adapter in both where the row has one (LMD+)."""
    model, clip, vae = graph.model()
    layout, _ = graph.layout()
    name = graph.job.settings.get("gligen")
    adapter = {"gligen": [graph.add("GLIGENLoader", gligen_name=name), 0]} if name else {}
    objects = graph.add(
        "BoxGroundedSampler", model=model, clip=clip, layout=layout, seed=graph.job.seed, steps=graph.setting("steps"),
        cfg=graph.setting("cfg"), sampler_name=graph.setting("sampler"), scheduler=graph.setting("scheduler"),
        preset=graph.setting("preset"), batch_size=1, **graph.options(), **adapter,
    )  # fmt: skip
    composed = graph.add(
        "LatentComposer", model=model, clip=clip, objects=[objects, 0], frozen_ratio=graph.setting("frozen"), **adapter
    )
    return graph.finish([composed, 0], vae)


def _regional(graph: Graph, **method: Any) -> dict:
    model, clip, vae = graph.model()
    layout, _ = graph.layout()
    both = graph.add("LMDLayoutToConditioning", clip=clip, layout=layout, **method)
    return graph.finish(graph.sample(model, [both, 0], [both, 1]), vae)


def area(graph: Graph) -> dict:
    """ComfyUI's own area conditioning: one prompt per box."""
    strength = graph.setting("strength")
    return _regional(graph, method="area", method__strength=strength, method__base_strength=1.0)


def gligen(graph: Graph) -> dict:
    """ComfyUI's own GLIGEN conditioning from the layout's boxes."""
    loader = graph.add("GLIGENLoader", gligen_name=graph.setting("gligen"))
    return _regional(graph, method="GLIGEN", method__gligen_textbox_model=[loader, 0])


def ella(graph: Graph) -> dict:
    """Both prompts through ELLA, at every timestep."""
    model, clip, vae = graph.model()
    connector = graph.add("ELLAModelLoader", ella_name=graph.setting("ella"))
    encoder = graph.add("ELLATextEncoderLoader", encoder_name=graph.setting("ella_encoder"), precision="as trained")

    def encode(text: str) -> Link:
        found = graph.add(
            "ELLAEncode", ella=[connector, 0], text_encoder=[encoder, 0], text=text, clip=clip,
            mode=graph.setting("ella_mode"), length=graph.setting("ella_length"),
        )  # fmt: skip
        return [found, 0]

    aware = graph.add(
        "TimestepAwareConditioning", model=model, strength=1.0, start_percent=0.0, end_percent=1.0, schedule="constant"
    )
    latent = graph.sample([aware, 0], encode(graph.job.prompt), encode(graph.setting("negative")))
    return graph.finish(latent, vae)


@dataclass(frozen=True)
class Row:
    """One row of the report: how its graph is built, its own settings, and whether it needs a layout."""

    build: Callable[[Graph], dict]
    own: str  # which of OWN's settings it has
    layout: bool = True


ROWS: dict[str, Row] = {
    "plain": Row(plain, "", layout=False),
    "ella": Row(ella, "ella", layout=False),
    "guidance": Row(guidance, "guidance"),
    "backward guidance": Row(guidance, "guidance"),
    "area": Row(area, "area"),
    "gligen": Row(gligen, "gligen"),
    "composition only": Row(lmd, "lmd"),
    "no transfer": Row(lmd, "lmd"),
    "lmd": Row(lmd, "lmd"),
    "lmd+": Row(lmd, "lmd+"),
}


def graph_of(job: Job, workflows: Callable[[str], dict]) -> dict:
    """The API graph that draws a job; `workflows` gives a kept workflow by its name."""
    if name := job.settings.get("workflow"):
        return fill(workflows(name), job.settings["inputs"], values(job))
    return ROWS[job.settings["base"]].build(Graph(job))


def shared(graph: dict, cached: Iterable[str]) -> list[str]:
    """The sampling nodes whose result ComfyUI still had from another row: such an image's time is not its own."""
    kinds = {graph[node]["class_type"] for node in cached if node in graph}
    return sorted(kind for kind in kinds if "Sampl" in kind or "Compos" in kind)


def values(job: Job) -> dict[str, Any]:
    """What a workflow's named inputs can be given."""
    layout = job.layout or {}
    return {
        "prompt": job.prompt, "seed": job.seed, "layout": json.dumps(layout) if layout else "",
        "negative": with_negative(layout.get("negative", ""), OVERALL_NEGATIVE),
        **{k: v for k, v in job.settings.items() if isinstance(v, (str, int, float))},
    }  # fmt: skip


def fill(workflow: dict, inputs: dict[str, str], given: dict[str, Any]) -> dict:
    """A copy of an API workflow with `inputs` such as {"prompt": "6.text"} given. Raises ValueError for one it lacks."""
    found = json.loads(json.dumps(workflow))
    for name, place in inputs.items():
        node = found[find(found, place.rsplit(".", 1)[0])]
        field_ = place.rsplit(".", 1)[-1]
        if field_ not in node["inputs"]:
            have = ", ".join(node["inputs"])
            raise ValueError(f"the workflow's node {place.rsplit('.', 1)[0]} has no input {field_!r}; it has {have}")
        if name not in given or given[name] in ("", None):
            raise ValueError(
                f"the workflow wants {name!r} for {place}, and this row gives none; it gives {sorted(given)}"
            )
        node["inputs"][field_] = given[name]
    return found


def find(workflow: dict, node: str) -> str:
    """A node's id by its id, its title or its class. Raises ValueError unless exactly one fits."""
    if node in workflow:
        return node
    for key in (lambda n: n.get("_meta", {}).get("title"), lambda n: n["class_type"]):
        fitting = [i for i, n in workflow.items() if key(n) == node]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise ValueError(
                f"the workflow has {len(fitting)} nodes {node!r}: name one by its id, {', '.join(fitting)}"
            )
    raise ValueError(f"the workflow has no node {node!r}; its nodes are {', '.join(workflow)}")
