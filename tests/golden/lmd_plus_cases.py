"""Reference vectors of LMD+: the host's GLIGEN classes and this pack's engine against the published code.

Weights, text features and noise come from their names, by the recipe that the vectors were made with. Each handler takes
a case's input, what is expected and its tensors, and raises AssertionError where they differ.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

HOST = Path(os.environ.get("COMFYUI_PATH") or Path.home() / ".cache" / "ella-lmd" / "ComfyUI-0.30.0")
LAYERS = {
    "down_2_1_0": "input.8", "mid_0_0_0": "middle.0", "up_1_0_0": "output.3", "up_1_1_0": "output.4",
    "up_1_2_0": "output.5",
}  # fmt: skip
START, END = 49406, 49407
LATENT_SCALE = 0.18215
DEVIATIONS: dict[str, str] = {
    "gligen_grounding": "a leading article only is taken off",
    "gligen_schedule": "the share is clamped to 0..1",
    "gligen_position": "a box has a width and a height",
    "lmdplus_options": "options that LMD+ has no use for are accepted",
}


@functools.cache
def host() -> SimpleNamespace:
    """ComfyUI's and the pack's modules that the cases need, loaded once, on the CPU."""
    if str(HOST) not in sys.path:
        sys.path.insert(0, str(HOST))
    sys.argv = [sys.argv[0], "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.gligen
    import comfy.model_base
    import comfy.model_patcher
    import comfy.samplers
    import comfy.sd1_clip
    import comfy.supported_models
    from ella_lmd.nodes.host.guidance import attention, grounding, guide
    from ella_lmd.nodes.host.lmd import object_stage, overall_stage

    return SimpleNamespace(
        comfy=comfy, attention=attention, grounding=grounding, guide=guide, object_stage=object_stage,
        overall_stage=overall_stage,
    )  # fmt: skip


def normal(name: str, *shape: int) -> torch.Tensor:
    random = np.random.RandomState(zlib.crc32(name.encode()))
    return torch.from_numpy(random.standard_normal(shape).astype(np.float32))


def weight(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A weight of the tiny U-Net or adapter by its key."""
    a, last = normal("w " + key, *shape), key.rsplit(".", 1)[-1]
    if last in ("alpha_attn", "alpha_dense"):
        return 0.6 + 0.2 * a
    if last in ("null_positive_feature", "null_position_feature"):
        return 0.5 * a
    if len(shape) == 1:
        return 0.1 * a + (1.0 if last == "weight" else 0.0)
    gain = 1.5 if ".attn2.to_q." in key or ".attn2.to_k." in key else 1.0
    if key.endswith((".to_out.0.weight", ".proj_out.weight", ".net.2.weight", ".out_layers.3.weight")):
        gain = 0.5
    return a * (gain / int(np.prod(shape[1:])) ** 0.5)


def ids_of(tokens: dict) -> list[int]:
    return [t[0] for chunk in tokens["l"] for t in chunk if t[0] not in (START, END)]


class RecipeClip:
    """The host's tokenizer with features by name in place of a text encoder."""

    def __init__(self):
        self.tokenizer = host().comfy.sd1_clip.SD1Tokenizer()

    def tokenize(self, text: str, return_word_ids: bool = False, **kwargs):
        return self.tokenizer.tokenize_with_weights(text, return_word_ids, **kwargs)

    def encode_from_tokens(self, tokens: dict, return_pooled=False, **_):
        return self.features(tokens), normal("pooled " + " ".join(map(str, ids_of(tokens))), 768)[None]

    def encode_from_tokens_scheduled(self, tokens: dict, **_):
        return [[self.features(tokens), {"pooled_output": torch.zeros(1, 768)}]]

    def features(self, tokens: dict) -> torch.Tensor:
        return normal("features " + " ".join(map(str, ids_of(tokens))), 77, 768)[None]


UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": (1, 2, 4, 4), "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1] * 9 + [0] * 3, "transformer_depth_middle": 1, "context_dim": 768, "num_heads": 8,
    "use_spatial_transformer": True, "use_linear_in_transformer": False, "legacy": False,
}  # fmt: skip


@functools.cache
def tiny() -> tuple:
    """(MODEL, GLIGEN, CLIP) of the recipe."""
    h = host()
    config = h.comfy.supported_models.SD15(dict(UNET))
    config.set_inference_dtype(torch.float32, None)
    model = h.comfy.model_base.BaseModel(config, device="cpu")
    unet = model.diffusion_model
    unet.load_state_dict({k: weight(k, tuple(v.shape)) for k, v in unet.state_dict().items()})
    device = torch.device("cpu")
    patcher = functools.partial(h.comfy.model_patcher.ModelPatcher, load_device=device, offload_device=device)
    adapter = h.comfy.gligen.load_gligen({k: weight(k, s) for k, s in adapter_shapes(unet).items()})
    return patcher(model), patcher(adapter), RecipeClip()


def adapter_shapes(unet) -> dict[str, tuple[int, ...]]:
    """The tensors of an adapter file for this U-Net: 17 per transformer, and the position net."""
    h, shapes = host(), {}
    with torch.device("meta"):
        net = h.comfy.gligen.PositionNet(768, 768)
    shapes |= {f"position_net.{k}": tuple(v.shape) for k, v in net.state_dict().items()}
    for name, module in unet.named_modules():
        if type(module).__name__ == "SpatialTransformer":
            width = module.norm.num_channels
            fuser = h.comfy.gligen.GatedSelfAttentionDense(width, 768, 8, width // 8)
            shapes |= {f"{name}.transformer_blocks.0.fuser.{k}": tuple(v.shape) for k, v in fuser.state_dict().items()}
    return shapes


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float, what: str) -> None:
    assert actual.shape == expected.shape, f"{what}: shape {tuple(actual.shape)}, not {tuple(expected.shape)}"
    apart = float((actual.double() - expected.double()).abs().max()) if actual.numel() else 0.0
    limit = tolerance * max(1.0, float(expected.abs().max()) if expected.numel() else 0.0)
    assert apart <= limit, f"{what}: {apart:.3g} apart, {limit:.3g} allowed"


def equal(actual: object, expected: object, what: str) -> None:
    assert actual == expected, f"{what}: {actual}, not {expected}"


def box_from(xyxy) -> object:
    from ella_lmd.lmd.layout import Box

    x0, y0, x1, y1 = xyxy
    return Box(x0, y0, x1 - x0, y1 - y0)


def slots_of(boxes, embeddings) -> list:
    return [host().grounding.Slot(box_from(b), e[None]) for b, e in zip(boxes, embeddings)]


def check_position(case: dict, expected: dict, tensors: dict) -> None:
    adapter = host().grounding.Adapter(tiny()[1])
    used = [i for i, on in enumerate(case["masks"]) if on]
    embeddings = [normal(n, 768) for n in case["embedding_names"]]
    found = adapter.tokens(slots_of([case["boxes"][i] for i in used], [embeddings[i] for i in used]))
    count = len(tensors["objs"])
    expected_tokens = tensors["objs"] if used else tensors["null"].expand(count, -1)
    close(found[0, :count], expected_tokens, 1e-5, "tokens")
    close(found[0, len(used) :], tensors["null"].expand(30 - len(used), -1), 1e-5, "unused slots")
    close(adapter.null[0], tensors["null"].expand(30, -1), 1e-5, "null tokens")


def check_fuser(case: dict, expected: dict, tensors: dict) -> None:
    h = host()
    fuser = h.comfy.gligen.GatedSelfAttentionDense(case["query_dim"], 768, case["heads"], case["dim_head"])
    state = {k: weight(case["prefix"] + k, tuple(v.shape)) for k, v in fuser.state_dict().items()}
    state |= {k: torch.tensor(case[k]) for k in ("alpha_attn", "alpha_dense")}
    fuser.load_state_dict(state)
    x = normal(case["x"], *case["x_shape"]).requires_grad_(case["grad_weights"] is not None)
    tokens = case["objs_scale"] * normal(case["objs"], len(x), 30, 768)
    network = SimpleNamespace(module_list=[fuser.requires_grad_(False)])
    with torch.set_grad_enabled(x.requires_grad):
        out = h.grounding._fuse(network, tokens, x, {"transformer_index": 0, "attn_precision": None})
    out = out if case["enabled"] else x
    close(out.detach(), tensors["out"], 1e-5, "out")
    if case["grad_weights"] is not None:
        (out * normal(case["grad_weights"], *case["x_shape"])).sum().backward()
        close(x.grad, tensors["grad_x"], 1e-5, "gradient")


def vp_to_ve(sigma: float) -> float:
    return (sigma * sigma + 1) ** 0.5


def check_unet(case: dict, expected: dict, tensors: dict) -> None:
    from ella_lmd.lmd.sampling.energy import EnergyOptions, GuidedObject, energies

    h, (model, gligen, _) = host(), tiny()
    adapter = h.grounding.Adapter(gligen)
    slots = slots_of(case["boxes"], [normal(n, 768) for n in case.get("embedding_names", [])])
    sampling = model.model.model_sampling
    sigma = sampling.sigma(torch.tensor(float(case["timestep"])))
    latent = normal(case["latent"], *case["shape"])
    options = {"patches": {}, "sample_sigmas": torch.tensor([float(sigma) * 2, float(sigma) / 2, 0.0])}
    options["sigmas"] = sigma[None]
    share = 1.0 if case["fusers"] else 0.0
    guided = case["kind"] == "guidance pass"
    if guided:
        options[h.attention.GUIDED_PASS] = True
    maps = read_maps(h, options, model.model.diffusion_model)
    names = ["cond"] if guided else ["uncond", "cond"]
    rows = torch.cat([normal(case["features"][n], 77, 768)[None] for n in names])
    tokens = torch.cat([adapter.tokens(slots) if n == "cond" and not guided else adapter.null for n in names])
    x = latent.clone().requires_grad_(guided)
    t = torch.full((len(names),), float(case["timestep"]))

    def network(x, t, context, y, control, to, **others):
        return model.model.diffusion_model._forward(x, t, context, y, control, to, **others)

    with torch.set_grad_enabled(guided):
        eps = h.grounding._forward(
            adapter, share, network, x.expand(len(names), -1, -1, -1), t, rows, None, None, options,
            **{h.grounding.KEY: tokens},
        )  # fmt: skip
        if not guided:
            close(eps[0], tensors["eps_uncond"], 1e-4, "eps_uncond")
            close(eps[1], tensors["eps_cond"], 1e-4, "eps_cond")
            for key in case["keys"]:
                found = maps[key].probs[1:, ..., case["token_columns"]]
                close(found, tensors[f"attn/{key}"], 1e-4, key)
            return
        objects = [
            GuidedObject(str(i), (box_from(b),), tuple(p), p[-1])
            for i, (b, p) in enumerate(zip(case["boxes"], case["object_positions"]))
        ]
        energy = energies([maps[k] for k in case["keys"]], objects, EnergyOptions(**case["params"])).total
        (gradient,) = torch.autograd.grad(energy.sum(), x)
    assert abs(float(energy) - expected["energy"]) <= 1e-5 * abs(expected["energy"]), "energy"
    close(gradient, tensors["grad"], 1e-4, "gradient")


def read_maps(h, options: dict, unet) -> dict:
    """{reference's name: AttentionMap of all words}, filled by the forward pass that gets these transformer options."""
    from ella_lmd.lmd.sampling.energy import AttentionMap

    maps, slots = {}, {}
    for layer in h.attention.guided_layers(unet):

        def replace_attention(q, k, v, extra, name=LAYERS_BACK[str(layer)]):
            probs = h.attention.probabilities(q, k, extra["n_heads"])
            maps[name] = AttentionMap(probs, *extra["activations_shape"][-2:])
            return h.attention.attention_output(None, q, k, v, extra)

        slots[layer.key] = replace_attention
    options["patches_replace"] = {"attn2": slots}
    return maps


LAYERS_BACK = {v: k for k, v in LAYERS.items()}


def layout_of(case: dict):
    from ella_lmd.lmd.layout import Box, Layout, LayoutObject

    side = case.get("canvas", 512)
    objects = [
        LayoutObject(name, Box(x / side, y / side, w / side, h / side)) for name, (x, y, w, h) in case["gen_boxes"]
    ]
    return Layout(side, side, tuple(objects), case["bg_prompt"], case.get("extra_neg_prompt", ""))


def check_grounding(case: dict, expected: dict, tensors: dict) -> None:
    from ella_lmd.lmd.prompts import object_prompts

    h = host()
    if case.get("op") == "pooled":
        return check_pooled(case, tensors)
    clip, layout = RecipeClip(), layout_of(case)
    slots = h.overall_stage.box_slots(clip, layout)[: h.grounding.MOST_BOXES]
    wanted = expected["overall"]
    equal(len(slots), wanted["used"], "overall slots")
    for slot, box, ids in zip(slots, wanted["boxes"], wanted["token_ids"]):
        b = slot.box
        close(torch.tensor([b.x, b.y, b.x + b.w, b.y + b.h]), torch.tensor(box), 1e-7, "overall box")
        assert torch.equal(slot.embedding[0], normal("pooled " + " ".join(map(str, ids)), 768)), "overall phrase"
    items = object_prompts(layout)
    equal(len(items), len(expected["per_object"]), "object runs")
    for item, own in zip(items, expected["per_object"]):
        equal(item.phrase, own["phrases"][0], "an object's own name")
        b = item.box
        close(torch.tensor([b.x, b.y, b.x + b.w, b.y + b.h]), torch.tensor(own["boxes"][0]), 1e-7, "object box")
    return None


def check_pooled(case: dict, tensors: dict) -> None:
    """The host's own text model with the recipe's weights gives the embeddings that `phrase_embedding` asks for."""
    h = host()
    from comfy.clip_model import CLIPTextModel
    from comfy.ops import manual_cast

    config = {
        "max_position_embeddings": 77, "vocab_size": 49408, "num_hidden_layers": 3, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64,
        "hidden_act": "quick_gelu", "eos_token_id": END,
    }  # fmt: skip
    model = CLIPTextModel(config, torch.float32, "cpu", manual_cast)
    state = {}
    for key, value in model.state_dict().items():
        a = normal("clip " + key, *value.shape)
        if len(value.shape) == 1:
            state[key] = 0.1 * a + (1.0 if key.endswith("weight") else 0.0)
        else:
            state[key] = 0.5 * a if "embedding" in key else a / value.shape[1] ** 0.5
    model.load_state_dict(state)

    class Clip:
        def tokenize(self, text):
            return text

        def encode_from_tokens(self, text, return_pooled):
            assert return_pooled == "unprojected"
            row = [START, *case["token_ids"][case["phrases"].index(text)], END]
            return None, model(torch.tensor([row + [END] * (77 - len(row))]))[3]

    with torch.no_grad():
        found = torch.cat([h.grounding.phrase_embedding(Clip(), p) for p in case["phrases"]])
    close(found, tensors["pooled"], 1e-5, "pooled")


def check_schedule(case: dict, expected: dict, tensors: dict) -> None:
    """The adapter's switch at every visited step, from the sigmas that the host's sampler would run on."""
    from ella_lmd.lmd.sampling.options import PRESETS, SamplingSettings

    h, (model, _, _) = host(), tiny()
    sigmas = h.object_stage.sigmas_of(model, SamplingSettings(0, case["steps"], 7.5, "ddim", "ddim_uniform"))
    if case["fast_after_steps"] is not None:
        from ella_lmd.lmd.sampling.schedule import fast_sigmas

        sigmas = torch.tensor(fast_sigmas(sigmas.tolist(), case["fast_after_steps"]))
    equal(len(sigmas) - 1, expected["visited"], "visited steps")
    options = [{"sample_sigmas": sigmas, "sigmas": s[None]} for s in sigmas[:-1]]
    on = [h.grounding.is_on(case["beta"], o) for o in options]
    equal(on, [i < expected["grounded_steps"] for i in range(len(on))], "steps with the adapter")
    assert PRESETS["lmd+"].gligen_share == 0.4


def check_mask_box(case: dict, expected: dict, tensors: dict) -> None:
    from ella_lmd.lmd.sampling import masks

    box = box_from(case["box"])
    equal(list(masks.box_prompt(box, case["image_size"], case["image_size"])), expected["sam_box"], "SAM's box")
    side = case["image_size"]
    candidates = []
    for x, y, w, h in case["candidate_rects_xywh"]:
        full = torch.zeros(side, side, dtype=torch.bool)
        full[y : y + h, x : x + w] = True
        candidates.append(masks.reduce(full, case["latent"], case["latent"]))
    coarse = masks.rasterised(box, case["latent"], case["latent"])
    equal(int(coarse.sum()), expected["coarse_cells"], "cells of the box")
    equal([int(c.sum()) for c in candidates], expected["sizes"], "sizes")
    for c, wanted in zip(candidates, expected["coarse_ious"]):
        assert abs(masks.iou(c, coarse) - wanted) < 1e-6, "IoU"
    chosen = masks.select(candidates, case["conf"], coarse, case["min_conf"], case["min_iou"])
    equal(chosen, expected["selected"], "choice")
    packed = torch.from_numpy(np.packbits(candidates[chosen].numpy(), axis=1))
    assert torch.equal(packed, tensors["mask"]), "mask"


def check_options(case: dict, expected: dict, tensors: dict) -> None:
    """The published parameters as this pack's options; what its steps and schedules give is checked by other files."""
    from ella_lmd.lmd.sampling.options import PRESETS

    if case.get("op") == "defaults":
        return
    plus = case["method"] == "lmd_plus"
    options, overrides = PRESETS["lmd+" if plus else "reference"], dict(case["overrides"])
    if "error" in expected:
        raise ValueError("the reference raises here")
    options = with_overrides(options, overrides)
    own, overall = options.object_guidance or options.guidance, options.guidance
    if expected.get("per_object_runs"):
        wanted = expected["per_object"]
        for key in ("loss_scale", "loss_threshold", "max_index_step"):
            equal(getattr(own, key), wanted["guidance"][key], f"object's {key}")
        for key in ("fg_top_p", "bg_top_p", "fg_weight", "bg_weight"):
            equal(getattr(own.energy, key), wanted["guidance"][key], f"object's {key}")
        equal(options.blending_ratio, wanted["blending_ratio"], "blending")
        if wanted.get("gligen"):
            equal(options.gligen_share, wanted["beta"], "share")
        for run, box in zip(objects_in_order(case), wanted["boxes"]):
            b = options.object_box(run.box)
            close(torch.tensor([b.x, b.y, b.x + b.w, b.y + b.h]), torch.tensor(box), 1e-7, "object box")
    for key in ("loss_scale", "loss_threshold", "max_index_step"):
        equal(getattr(overall, key), expected["overall"]["guidance"][key], f"overall {key}")
    for key in ("fg_top_p", "bg_top_p", "fg_weight", "bg_weight", "reference_weight"):
        equal(getattr(overall.energy, key), expected["overall"]["guidance"][key], f"overall {key}")
    equal(options.align, expected["compose"]["align_with_overall_bboxes"], "alignment")


def objects_in_order(case: dict) -> list:
    from ella_lmd.lmd.prompts import object_prompts

    return object_prompts(layout_of(case))


def with_overrides(options, overrides: dict):
    """This pack's options for arguments of the reference's run()."""
    guidance, own = options.guidance, options.object_guidance
    if not overrides.get("use_ref_ca", True):
        guidance = replace(guidance, energy=replace(guidance.energy, reference_weight=0.0))
    if "max_index_step" in overrides:
        own = replace(own or guidance, max_index_step=overrides["max_index_step"])
    if "max_iter" in overrides:
        count = overrides["max_iter"]
        own = replace(own or guidance, max_iter=tuple(count) if isinstance(count, list) else (count,))
    centre = overrides.get("so_center_box", options.centre)
    return replace(
        options, guidance=guidance, object_guidance=own, centre=centre,
        align=overrides.get("align_with_overall_bboxes", options.align),
        horizontal_only=overrides.get("so_horizontal_center_only", options.needs_gligen),
        fast_schedule=overrides.get("use_fast_schedule", False),
    )  # fmt: skip


SHOWN = tuple(LAYERS)[1:]


def settings_of(case: dict):
    from ella_lmd.lmd.sampling.options import SamplingSettings

    class Settings(SamplingSettings):
        """The reference takes the objects' first seed as an argument."""

        def first_object_seed(self, image: int) -> int:
            return case.get("fg_seed_start", 0)

    return Settings(case["bg_seed"], case["steps"], case["cfg"], "ddim", "ddim_uniform")


def check_run(case: dict, expected: dict, tensors: dict) -> None:
    h = host()
    with torch.inference_mode(), as_published(h):
        {"lmd_plus": run_plus, "gligen": run_baseline, "community": run_community}[case["kind"]](
            h, case, expected, tensors
        )


@contextlib.contextmanager
def as_published(h: SimpleNamespace):
    """The reference's last target, its start at sqrt(sigma^2 + 1) times the noise, and no rounding of the result."""
    stages = h.object_stage, h.overall_stage
    sigmas_of, sample_latent = h.object_stage.sigmas_of, h.object_stage.sample_latent

    def sigmas(model, settings):
        found = sigmas_of(model, settings)
        found[-1] = model.model.model_sampling.sigmas[0]
        return found

    def sample(model, noise, settings, sampler, sigmas, *rest):
        first = float(sigmas[0])
        return sample_latent(model, noise * vp_to_ve(first) / first, settings, sampler, sigmas, *rest)

    for stage in stages:
        stage.sigmas_of, stage.sample_latent = sigmas, sample
    try:
        yield
    finally:
        for stage in stages:
            stage.sigmas_of, stage.sample_latent = sigmas_of, sample_latent


def recording(model):
    """A clone of MODEL, and the latents of its ordinary calls, without the scaled ones of guided passes."""
    seen: list[tuple[float, torch.Tensor]] = []
    key = host().attention.GUIDED_PASS

    def around(apply, args):
        if not args["c"]["transformer_options"].get(key):
            seen.append((float(args["timestep"][0]), args["input"][:1].clone()))
        return apply(args["input"], args["timestep"], **args["c"])

    clone = model.clone()
    clone.set_model_unet_function_wrapper(around)
    return clone, seen


def vp(x: torch.Tensor, sigma: float) -> torch.Tensor:
    return x / vp_to_ve(sigma)


def check_latents(seen: list, final: torch.Tensor, model, tensors: dict, names: tuple[str, str]) -> None:
    close(torch.stack([vp(x, sigma) for sigma, x in seen]), tensors[names[0]], 1e-4, "latents")
    last = float(model.model.model_sampling.sigmas[0])
    close(vp(final * LATENT_SCALE, last), tensors[names[1]], 1e-4, "result")


def run_plus(h, case: dict, expected: dict, tensors: dict) -> None:
    from ella_lmd.lmd.sampling.object_runs import ObjectRuns
    from ella_lmd.lmd.sampling.options import PRESETS
    from ella_lmd.nodes.host.lmd import run_cache

    run_cache.OBJECT_RUNS.clear()
    (model, gligen, clip), layout, settings = tiny(), layout_of(case), settings_of(case)
    overrides = dict(case["overrides"])
    if "max_index_step" in overrides:  # the reference counts steps, this pack fiftieths
        overrides["max_index_step"] = overrides["max_index_step"] * 50 // case["steps"]
    options = replace(with_overrides(PRESETS["lmd+"], overrides), reference_seeds=True)
    ratio = case["overrides"].get("frozen_step_ratio", 0.5)
    plain = not case["overrides"].get("use_ref_ca", True) and ratio == 0
    if plain:  # the reference has no object runs then: the composition of none, with all phrases guided
        return run_guided_alone(h, case, expected, tensors, options)
    objects = h.object_stage.sample_objects(model, clip, layout, settings, options, gligen=gligen)
    close(objects.noise, tensors["noise/background"], 1e-6, "background noise")
    for i, run in enumerate(objects.runs):
        close(run.noise, tensors[f"noise/{i}"], 1e-5, f"noise of object {i}")
        check_object(run, expected["per_object"][i], objects.sigmas, case["steps"], {
            k.removeprefix(f"so/{i}/"): v for k, v in tensors.items() if k.startswith(f"so/{i}/")
        })  # fmt: skip
    if objects.runs:
        objects = objects.with_masks([tensors[f"mask/{i}"][None] for i in range(len(objects.runs))])
    assert isinstance(objects, ObjectRuns)
    watched, seen = recording(model)
    final, trace, _ = h.overall_stage.compose_and_sample(watched, clip, objects, frozen_ratio=ratio, gligen=gligen)
    check_latents(seen, final, model, tensors, ("overall/x", "overall/final"))
    check_energies([(s, float(e[0])) for s, _, e in trace.rows], expected["overall"]["energy_log"])


def check_object(run, expected: dict, sigmas: tuple, steps: int, tensors: dict) -> None:
    exact = len(run.latents) - 1
    if "latents" in tensors:
        exact = len(tensors["latents"]) - 1
        # The reference's last latent of a fast run is stepped with the doubled stride; this pack keeps one step more.
        kept = exact if len(sigmas) - 1 < steps else exact + 1
        found = torch.stack([vp(x, s) for x, s in zip(run.latents, sigmas)][:kept])
        close(found, tensors["latents"][:kept], 1e-4, "object latents")
    for key in SHOWN:
        if f"attn/{key}" in tensors:
            maps = run.attention[LAYERS[key]][:exact, 0].flatten(-2)
            close(maps, tensors[f"attn/{key}"][:exact], 1e-4, f"object attention {key}")
    check_energies([(s, float(e[0])) for s, _, e in run.energies], expected["energy_log"])


def check_energies(found: list, wanted: list) -> None:
    equal([s for s, _ in found], [s for s, _ in wanted], "guided steps")
    for (_, e), (_, w) in zip(found, wanted):
        assert abs(e - w) <= 1e-4 * abs(w), f"energy {e}, not {w}"


def run_guided_alone(h, case: dict, expected: dict, tensors: dict, options) -> None:
    """Guidance and adapter without object runs, from the background's noise."""
    from ella_lmd.lmd.prompts import overall_negative
    from ella_lmd.lmd.sampling.object_runs import initial_noise

    (model, gligen, clip), layout, settings = tiny(), layout_of(case), settings_of(case)
    target, positive = h.guide.guidance_target(clip, layout, "")
    trace = h.guide.EnergyTrace()
    adapter = h.grounding.adapter_for(model, gligen, 768)
    watched, seen = recording(h.guide.patch_guidance(model, target, options.guidance, trace))
    adapter.patch(watched, options.gligen_share)
    slots = h.overall_stage.box_slots(clip, layout)[: h.grounding.MOST_BOXES]
    negative = clip.encode_from_tokens_scheduled(clip.tokenize(overall_negative(layout)))
    noise = initial_noise(settings, (4, layout.height // 8, layout.width // 8))
    final = h.object_stage.sample_latent(
        watched, noise, settings, h.object_stage.sampler_of(settings), h.object_stage.sigmas_of(model, settings),
        adapter.ground(positive, slots), adapter.ground(negative), lambda *a: None,
    )  # fmt: skip
    check_latents(seen, final, model, tensors, ("overall/x", "overall/final"))
    check_energies([(s, float(e[0])) for s, _, e in trace.rows], expected["overall"]["energy_log"])


def run_baseline(h, case: dict, expected: dict, tensors: dict) -> None:
    """GLIGEN alone, by the same adapter: individual names, no guidance."""
    (model, gligen, clip), settings = tiny(), settings_of(case)
    adapter = h.grounding.adapter_for(model, gligen, 768)
    watched, seen = recording(model)
    adapter.patch(watched, case["beta"])
    names = [h.grounding.phrase_embedding(clip, p) for p in expected["slots"]["phrases"]]
    slots = [h.grounding.Slot(box_from(b), e) for b, e in zip(expected["slots"]["boxes"], names)]
    encode = [
        clip.encode_from_tokens_scheduled(clip.tokenize(t)) for t in (expected["prompt"], expected["negative"]["text"])
    ]
    final = h.object_stage.sample_latent(
        watched, tensors["noise"], settings, h.object_stage.sampler_of(settings),
        h.object_stage.sigmas_of(model, settings), adapter.ground(encode[0], slots), adapter.ground(encode[1]),
        lambda *a: None,
    )  # fmt: skip
    check_latents(seen, final, model, tensors, ("x", "final"))


def run_community(h, case: dict, expected: dict, tensors: dict) -> None:
    """The simplified pipeline: guidance and adapter alone, the user's own prompt, and guided passes without adapter."""
    from comfy.patcher_extension import WrappersMP
    from ella_lmd.lmd.sampling.energy import EnergyOptions, GuidedObject
    from ella_lmd.lmd.sampling.guidance import GuidanceOptions

    (model, gligen, clip), settings = tiny(), settings_of({**case, "bg_seed": 0})
    own, each = case["lmd_guidance_kwargs"], 50 // case["steps"]
    options = GuidanceOptions(
        loss_scale=20.0, max_index_step=own["guidance_timesteps"] * each,
        max_iter=tuple(n for n in own["max_iter"] for _ in range(each)), energy=EnergyOptions(bg_weight=1.0),
    )  # fmt: skip
    positive, negative = (
        clip.encode_from_tokens_scheduled(clip.tokenize(t)) for t in (expected["prompt"], case["negative_prompt"])
    )
    boxes = [box_from(b) for b in case["boxes"]]
    objects = tuple(
        GuidedObject(p, (b,), tuple(at), at[-1])
        for p, b, at in zip(case["phrases"], boxes, expected["object_positions"])
    )
    target = h.guide.Target(objects, positive, (case["shape"][3] * 8, case["shape"][2] * 8))
    trace, adapter = h.guide.EnergyTrace(), h.grounding.adapter_for(model, gligen, 768)
    watched, seen = recording(h.guide.patch_guidance(model, target, options, trace))

    def plain_when_guided(executor, *args, **kwargs):
        if args[5].get(h.attention.GUIDED_PASS):
            kwargs.pop(h.grounding.KEY)
        return executor(*args, **kwargs)

    watched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "plain when guided", plain_when_guided)
    adapter.patch(watched, case["beta"])
    slots = [h.grounding.Slot(b, h.grounding.phrase_embedding(clip, p)) for b, p in zip(boxes, case["phrases"])]
    final = h.object_stage.sample_latent(
        watched, normal(case["latent"], *case["shape"]), settings, h.object_stage.sampler_of(settings),
        h.object_stage.sigmas_of(model, settings), adapter.ground(positive, slots), adapter.ground(negative),
        lambda *a: None,
    )  # fmt: skip
    check_latents(seen, final, model, tensors, ("x", "final"))
    check_energies(list(enumerate(float(e[0]) for _, _, e in trace.rows)), list(enumerate(expected["energy_log"])))


RECIPE = {
    "weight": weight,
    "normal": lambda name, shape: normal(name, *shape),
    "features": lambda name, shape: normal(f"features {name}", *shape),
    "pooled": lambda name, shape: normal(f"pooled {name}", *shape),
}


def check_recipe(case: dict, expected: dict, tensors: dict) -> None:
    """The functions above that make weights, features and noise from names."""
    found = RECIPE[case["function"]](case["name"], tuple(case["shape"]))
    equal(found.flatten()[:3].tolist(), expected["first"], "first values")
    total = float(found.double().sum())
    assert abs(total - expected["sum"]) <= 1e-5 * max(1.0, abs(expected["sum"])), f"sum: {total}, not {expected['sum']}"


HANDLERS = {
    "recipe": check_recipe,
    "lmdplus_run": check_run,
    "gligen_position": check_position,
    "gligen_fuser": check_fuser,
    "gligen_unet": check_unet,
    "gligen_grounding": check_grounding,
    "gligen_schedule": check_schedule,
    "lmdplus_options": check_options,
    "mask_box": check_mask_box,
}
