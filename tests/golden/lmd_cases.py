"""One handler per file of LMD reference vectors: it raises if the pack's own functions give something else."""

from __future__ import annotations

import functools
import os
from dataclasses import replace
from pathlib import Path

import torch
from ella_lmd.lmd.layout import Box
from ella_lmd.lmd.sampling import compose, energy, guidance, masks, schedule, stages, tokens

# Quirk cases that are not reproduced on purpose, by file, with the reason.
DEVIATIONS = {
    "token_indices": "whole tokens are matched, case folded, so nothing is appended that is already there and a "
    "match cannot start inside a word; positions beyond the context are kept because ComfyUI encodes in chunks",
}


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float, what: str) -> None:
    actual, expected = actual.detach().double(), expected.detach().double()
    assert actual.shape == expected.shape, f"{what}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    limit = tolerance * max(1.0, float(expected.abs().max()) if expected.numel() else 1.0)
    worst = float((actual - expected).abs().max()) if expected.numel() else 0.0
    assert worst <= limit, f"{what}: off by {worst:.3g}, allowed {limit:.3g}"


def near(actual: float, expected: float, relative: float, what: str) -> None:
    assert abs(actual - expected) <= relative * max(abs(expected), 1e-12), f"{what}: {actual!r}, expected {expected!r}"


def equal(actual: object, expected: object, what: str) -> None:
    assert actual == expected, f"{what}: {actual!r}, expected {expected!r}"


def boxes_of(item) -> tuple[Box, ...]:
    """One object's boxes from `[[x0, y0, x1, y1], ...]` or one flat box."""
    return tuple(Box.from_corners(*b) for b in ([item] if isinstance(item[0], (int, float)) else item))


def guided_objects(case: dict) -> list[energy.GuidedObject]:
    words = case.get("word_token_indices") or [p[-1] for p in case["object_positions"]]
    boxes = case["boxes_xyxy_norm"]
    return [
        energy.GuidedObject(f"object {i}", boxes_of(boxes[i]), tuple(p), words[i])
        for i, p in enumerate(case["object_positions"])
    ]


def energy_options(params: dict | None, weight: float = 0.0) -> energy.EnergyOptions:
    params = params or {}
    return energy.EnergyOptions(
        fg_top_p=params.get("fg_top_p", 0.2),
        bg_top_p=params.get("bg_top_p", 0.2),
        fg_weight=params.get("fg_weight", 1.0),
        bg_weight=params.get("bg_weight", 1.0),
        reference_weight=weight,
        kind="ratio" if params.get("use_ratio_based_loss", True) else "top",
    )


def attention_inputs(case: dict, tensors: dict) -> tuple[dict, list[energy.AttentionMap]]:
    """Leaf tensors by layer, and the maps in the order of `attn_keys` (a layer may be listed twice)."""
    leaves = {k: tensors[f"attn/{k}"].clone().requires_grad_() for k in dict.fromkeys(case["attn_keys"])}
    return leaves, [energy.AttentionMap(leaves[k], g, g) for k, g in zip(case["attn_keys"], case["grids"])]


def check_value_and_gradient(value: torch.Tensor, expected: float, leaves: dict, columns: list, tensors: dict) -> None:
    near(float(value.detach().sum()), expected, 1e-5, "value")
    if not value.requires_grad:
        assert not any(t.any() for n, t in tensors.items() if n.startswith("grad/")), (
            "no gradient where one is expected"
        )
        return
    grads = torch.autograd.grad(value.sum(), list(leaves.values()), allow_unused=True)
    for (key, leaf), grad in zip(leaves.items(), grads):
        grad = torch.zeros_like(leaf) if grad is None else grad
        if f"grad/{key}" in tensors:
            close(grad[..., columns], tensors[f"grad/{key}"], 1e-5, f"gradient {key}")
        others = [c for c in range(leaf.shape[-1]) if c not in columns]
        assert not grad[..., others].any(), f"gradient {key}: other columns must be zero"


def check_energy(case: dict, expected: dict, tensors: dict) -> None:
    leaves, maps = attention_inputs(case, tensors)
    value = energy.energies(maps, guided_objects(case), energy_options(case["params"])).total
    check_value_and_gradient(value, expected["energy"], leaves, expected["grad_cols"], tensors)


def check_baseline(case: dict, expected: dict, tensors: dict) -> None:
    if case.get("method") != "boxdiff":
        return check_energy(case, expected, tensors)
    leaves, maps = attention_inputs(case, tensors)
    names = {"P": "top_p", "L": "corner_width", "smooth_attentions": "smooth"}
    options = {names[k]: v for k, v in (case["params"] or {}).items()}
    value = sum(energy.boxdiff_terms(maps, guided_objects(case), **options))
    check_value_and_gradient(value, expected["energy"], leaves, expected["grad_cols"], tensors)


def transfer(maps: list, item: energy.GuidedObject, saved: list, columns: tuple[int, ...]) -> torch.Tensor:
    """The transfer term of one object [B], averaged over several tokens as the reference can do."""
    terms = [energy.transfer_terms(maps, [replace(item, word=c)], [saved])[0] for c in columns]
    return sum(terms, torch.zeros(())) / len(terms)


def check_reference(case: dict, expected: dict, tensors: dict) -> None:
    leaves, maps = attention_inputs(case, tensors)
    objects = guided_objects(case)
    step, keys = case["index"], case["attn_keys"]
    saved = [
        [[tensors[f"ref/obj{o}/box{b}/step{step}/{k}"][..., 0] for k in keys] for b in range(len(obj.boxes))]
        for o, obj in enumerate(objects)
    ]
    columns = [(o.word,) for o in objects]
    if not case["ref_ca_word_token_only"]:
        columns = [o.positions[-1:] if case["ref_ca_last_token_only"] else o.positions for o in objects]
    weight = case["ref_ca_loss_weight"]
    value = sum(transfer(maps, o, s, c) for o, s, c in zip(objects, saved, columns)) * weight
    if case["kind"] == "combined":
        layout = energy.energies(maps, objects, energy_options(case["params"])).total
        value = layout + value / (len(objects) * len(maps))
        if case["ref_ca_word_token_only"]:
            whole = energy.energies(maps, objects, energy_options(case["params"], weight), saved).total
            close(whole, value, 1e-7, "total energy")
    expected_value = expected["loss"] if "loss" in expected else expected["energy"]
    check_value_and_gradient(value, expected_value, leaves, expected["grad_cols"], tensors)


def check_raster(case: dict, expected: dict, tensors: dict) -> None:
    box = Box.from_corners(*case["box"])
    for grid, wanted in expected.items():
        height, width = (32, 64) if grid == "h32_w64" else (int(grid), int(grid))
        y0, y1, x0, x1 = box.cells(height, width)
        equal([x0, y0, x1, y1], wanted["cells"], f"cells on {grid}")
        if "mask_sum" in wanted:
            mask = energy.union_mask([box], height, width, torch.zeros(1))
            equal(int(mask.sum()), wanted["mask_sum"], f"mask on {grid}")


def check_centred(case: dict, expected: dict, tensors: dict) -> None:
    names = {"horizontal_center_only": "horizontal_only", "vertical_placement": "placement",
             "vertical_center": "vertical_centre", "floor_padding": "floor_padding"}  # fmt: skip
    options = {names[k]: v for k, v in case["params"].items()}
    if "error" in expected:
        return must_fail(lambda: compose.centred_box(Box.from_corners(*case["box"]), **options))
    actual = compose.centred_box(Box.from_corners(*case["box"]), **options).corners
    close(torch.tensor(actual, dtype=torch.float64), torch.tensor(expected["box"], dtype=torch.float64), 1e-12, "box")


def must_fail(run) -> None:
    try:
        result = run()
    except ValueError:
        return
    raise AssertionError(f"an error was expected, got {result!r}")


def check_latents(case: dict, expected: dict, tensors: dict) -> None:
    globals()[f"latents_{case['op']}"](case, expected, tensors)


def latents_shift_tensor(case: dict, expected: dict, tensors: dict) -> None:
    x = tensors["in"].movedim(-1, 0) if case["ignore_last_dim"] else tensors["in"]
    if case["offset_normalized"]:
        out = compose.shift(x, case["x_offset"], case["y_offset"])
    else:
        out = compose.shift_cells(x, int(case["x_offset"]), int(case["y_offset"]))
    out = out.movedim(0, -1) if case["ignore_last_dim"] else out
    assert torch.equal(out, tensors["out"])


def latents_mask_geometry(case: dict, expected: dict, tensors: dict) -> None:
    mask = tensors["mask"].bool()
    if "error" in expected:
        return must_fail(lambda: (compose.centre_of_mass(mask), compose.tight_cells(mask)))
    cx, cy = compose.centre_of_mass(mask)
    close(torch.tensor([cx, cy]), torch.tensor(expected["center_norm_xy"]), 1e-6, "centre")
    equal(list(compose.tight_cells(mask)), expected["box_tight"], "tight box")
    equal(list(compose.grown_cells(mask)), expected["box_enlarged"], "grown box")
    equal([v * 32 for v in compose.grown_cells(mask)], expected["box_scaled32"], "SAM box")
    assert torch.equal(compose.grown_box_mask(mask).float(), tensors["box_mask"].float()), "grown box mask"


def latents_align_with_bboxes(case: dict, expected: dict, tensors: dict) -> None:
    for i in range(case["num"]):
        mask = tensors[f"mask_in/{i}"].bool()
        dx, dy = compose.alignment(mask, Box.from_corners(*case["boxes"][i]), case["horizontal_shift_only"])
        close(torch.tensor([dx, dy]), torch.tensor(expected["offsets_xy"][i]), 1e-6, "offset")
        assert torch.equal(compose.shift(tensors[f"latents_in/{i}"], dx, dy), tensors[f"latents_out/{i}"]), "latents"
        assert torch.equal(compose.shift(mask, dx, dy), tensors[f"mask_out/{i}"].bool()), "mask"


def latents_compose_latents(case: dict, expected: dict, tensors: dict) -> None:
    steps = case["fast_after_steps"] if case["fast_after_steps"] is not None else case["num_inference_steps"]
    objects = [
        compose.Placed(tensors[f"latents/{i}"][: steps + 1, 0], tensors[f"mask/{i}"].bool()) for i in range(case["num"])
    ]
    composed, owner = compose.compose(tensors["latents_bg"][0], objects, case["compose_box_to_bg"])
    wanted = tensors["composed"][:, 0]
    if not objects:  # nothing beyond the first step is known; the reference stores zeros there
        assert not wanted[1:].any()
        wanted = wanted[:1]
    close(composed, wanted, 1e-6, "composed")
    assert torch.equal(owner, tensors["foreground_indices"]), "foreground indices"


def latents_input_latents(case: dict, expected: dict, tensors: dict) -> None:
    shape = (1, 4, case["height"] // 8, case["width"] // 8)
    scale = case["init_noise_sigma"]
    background = compose.seeded_noise(case["bg_seed"], shape)
    close(background * scale, tensors["latents_bg"], 1e-6, "background")
    for i, corners in enumerate(case["boxes"]):
        seed = compose.object_seed(case["bg_seed"], case["fg_seed_start"], i)
        equal(seed, expected["fg_seeds"][i], "seed")
        own = compose.seeded_noise(seed, shape)
        close(own, tensors[f"fg_noise/{i}"], 1e-6, "own noise")
        mixed = compose.blended_noise(background, own, Box.from_corners(*corners), case["fg_blending_ratio"])
        close(mixed * scale, tensors[f"input/{i}"], 1e-6, "input latent")


def latents_shift_saved_attns(case: dict, expected: dict, tensors: dict) -> None:
    dx, dy = case["offset_xy"]
    for name in ("mid", "up"):
        a = tensors[f"in/{name}"]
        side = int(a.shape[2] ** 0.5)
        grid = a[..., 0].unflatten(2, (side, side))
        out = compose.shift(grid, dx, 0.0 if case["horizontal_shift_only"] else dy)
        assert torch.equal(out.flatten(2)[..., None], tensors[f"out/{name}"]), name


def unpack_bits(packed: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    bits = (packed[..., None] >> torch.arange(7, -1, -1, dtype=torch.uint8)) & 1
    return bits.reshape(shape).bool()


def check_masks(case: dict, expected: dict, tensors: dict) -> None:
    globals()[f"masks_{case['op']}"](case, expected, tensors)


def masks_aggregate(case: dict, expected: dict, tensors: dict) -> None:
    attention = tensors["attn"][:, 0, :, :, 0].unflatten(-1, (case["grid"], case["grid"]))
    close(masks.aggregate(attention, case["attn_aggregation_step_start"]), tensors["out"], 1e-6, "mean")


def masks_coarse_mask(case: dict, expected: dict, tensors: dict) -> None:
    options = masks.MaskOptions(case["gaussian_sigma"], case["mask_th"], case["n_erode_dilate"])
    smoothed = masks.smooth(tensors["attn"], options.sigma)
    close(smoothed, tensors["smooth"], 1e-6, "smoothed")
    mask = masks.coarse_mask(smoothed, options)
    assert torch.equal(mask, tensors["coarse"].bool()), "coarse mask"
    equal(int(mask.sum()), expected["coarse_sum"], "size")
    if "sam_point_xy" in expected:
        equal([32 * v for v in masks.peak(smoothed)], expected["sam_point_xy"], "SAM point")
    if "sam_box" in expected:
        equal([32 * v for v in compose.grown_cells(mask)], expected["sam_box"], "SAM box")


def masks_select(case: dict, expected: dict, tensors: dict) -> None:
    candidates = []
    for i, (x, y, w, h) in enumerate(case["candidate_rects_xywh_512"]):
        full = torch.zeros(512, 512, dtype=torch.bool)
        full[y : y + h, x : x + w] = True
        candidates.append(masks.reduce(full, 64, 64))
        assert torch.equal(candidates[-1], unpack_bits(tensors["latent_masks"][i], (64, 64))), f"latent mask {i}"
    coarse = tensors["coarse"].bool()
    equal([int(c.sum()) for c in candidates], expected["latent_mask_sizes"], "sizes")
    overlaps = [masks.iou(masks.reduce(c, *coarse.shape), coarse) for c in candidates]
    close(torch.tensor(overlaps), torch.tensor(expected["coarse_ious"]), 1e-6, "overlap with the attention")
    chosen = masks.select(candidates, case["conf"], coarse, case["min_conf"], case["min_iou"])
    equal(chosen, expected["selected"], "selected")


def masks_downsample(case: dict, expected: dict, tensors: dict) -> None:
    n = case["from"]
    full = unpack_bits(tensors["full"], (n, n))
    latent = masks.reduce(full, case["to"], case["to"])
    coarse = masks.reduce(latent, case["then"], case["then"])
    assert torch.equal(latent, tensors["latent"].bool()) and torch.equal(coarse, tensors["coarse"].bool())


def check_schedule(case: dict, expected: dict, tensors: dict) -> None:
    if "rows" in expected:
        return schedule_ddim(case, expected["rows"])
    if "timesteps" in expected:
        return schedule_fast(case, expected)
    if "frozen" in expected:
        for row in expected["frozen"]:
            equal(schedule.frozen_steps(row["steps"], row["ratio"]), row["frozen_steps"], "frozen steps")
        for row in expected["grounding"]:
            equal(schedule.grounding_steps(row["steps"], row["beta"]), row["grounding_steps"], "grounding steps")
        return None
    for row in expected["cases"]:
        counts = row["max_iter"] if isinstance(row["max_iter"], list) else [row["max_iter"]]
        options = guidance.GuidanceOptions(max_iter=tuple(counts), max_index_step=50)
        equal(options.iterations(row["index"]), row["iters"], "iterations")
    equal(list(guidance.GuidanceOptions().max_iter), case["max_iter_default"], "default iterations")


def ddim_timesteps(steps: int) -> list[int]:
    """Timesteps of DDIM with leading spacing and offset 1: 50 steps visit 981, 961, ..., 1."""
    ratio = schedule.TRAIN_TIMESTEPS // steps
    return [i * ratio + 1 for i in reversed(range(steps))]


def schedule_ddim(case: dict, rows: list[dict]) -> None:
    steps = case["num_inference_steps"]
    times, alphas = ddim_timesteps(steps), schedule.alphas_cumprod().double()
    for i, row in enumerate(rows):
        equal(times[i], row["t"], "timestep")
        a = float(alphas[times[i]])
        sigma = ((1 - a) / a) ** 0.5
        near(a, row["alpha_cumprod"], 1e-6, "alpha")
        previous = times[i + 1] if i + 1 < steps else 0
        near(float(alphas[previous]), row["alpha_cumprod_prev"], 1e-6, "previous alpha")
        near((1 - a) ** 0.5, row["step_scale_vp"], 1e-6, "VP step")
        near(sigma, row["sigma"], 1e-6, "sigma")
        near(guidance.step_scale(1, sigma), row["step_scale_ve_equiv"], 1e-6, "VE step")
        near(sigma**2, row["sigma_sq"], 1e-6, "sigma squared")
        if steps == guidance.REFERENCE_STEPS:
            equal(guidance.reference_index(row["t"]), row["index"], "reference index")
        if "max_iter_default" in row:
            options = guidance.GuidanceOptions(max_index_step=50)
            equal(options.iterations(row["index"]) if row["index"] < 30 else row["max_iter_default"],
                  row["max_iter_default"], "iterations")  # fmt: skip


def schedule_fast(case: dict, expected: dict) -> None:
    times = ddim_timesteps(case["num_inference_steps"])
    visited = [times[i] for i in schedule.fast_indices(len(times), case["fast_after_steps"], case["fast_rate"])]
    equal(visited, expected["timesteps"], "visited timesteps")
    strides = [1000 // (t - n) for t, n in zip(visited, [*visited[1:], -1])]
    equal(strides, expected["num_inference_steps_per_step"], "strides")
    equal(schedule.grounding_steps(len(visited), 0.4), expected["grounding_steps_beta_0.4"], "grounding steps")


class ToyUNet:
    """The analytic network of the reference vectors: see the folder's README."""

    def __init__(self, case: dict, tensors: dict):
        self.weights = {k: tensors[f"W/{k}"] for k in case["pools"]}
        self.pools = case["pools"]
        self.cond, self.uncond = tensors["ctx_cond"], tensors.get("ctx_uncond")

    def eps(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return torch.tanh(0.8 * x + context.mean())

    def maps(self, x: torch.Tensor, keys: list[str]) -> list[energy.AttentionMap]:
        out = []
        for k in keys:
            q = torch.nn.functional.avg_pool2d(x, self.pools[k])
            logits = torch.einsum("htc,bcn->bhnt", self.weights[k], q.flatten(2)) + self.cond[:, None, None, :, 0]
            out.append(energy.AttentionMap(logits.softmax(-1), *q.shape[-2:]))
        return out


def guidance_options(case: dict, weight: float) -> guidance.GuidanceOptions:
    g = case["guidance"]
    counts = g["max_iter"] if isinstance(g["max_iter"], list) else [g["max_iter"]]
    params = {"use_ratio_based_loss": False, **g}
    return guidance.GuidanceOptions(
        g["loss_scale"], g["loss_threshold"], g["max_index_step"], tuple(counts), energy_options(params, weight)
    )


def check_loop(case: dict, expected: dict, tensors: dict) -> None:
    """A whole run in ComfyUI's frame of reference: latents x0 + sigma * noise, Euler steps (which is DDIM, eta 0)."""
    toy = ToyUNet(case, tensors)
    keys = case.get("guidance_attn_keys") or ["mid_0_0_0", "up_1_0_0", "up_1_1_0", "up_1_2_0"]
    weight = case.get("ref_ca_loss_weight") or 0.0
    options = guidance_options(case, weight)
    if case["kind"] == "overall":
        boxes = [boxes_of(b) for b in case["boxes_xyxy_norm"]]
    else:
        boxes = [boxes_of(case["box_xyxy_norm"])]
    words = case.get("word_token_indices") or [case.get("word_token_index", p[-1]) for p in case["object_positions"]]
    objects = [
        energy.GuidedObject("", b, tuple(p), w) for b, p, w in zip(boxes, case["object_positions"], words)
    ]  # fmt: skip
    run = guidance.Guidance(options)

    def evaluator(step: int, sigma: float):
        saved = None
        if weight:
            saved = [
                [[tensors[f"ref/{o}/{b}/{k}"][step, ..., 0] if f"ref/{o}/{b}/{k}" in tensors else
                  tensors[f"ref/obj{o}/box{b}/{k}"][step, ..., 0] for k in keys] for b in range(len(obj.boxes))]
                for o, obj in enumerate(objects)
            ]  # fmt: skip

        def evaluate(x: torch.Tensor):
            x = x.detach().requires_grad_()
            maps = toy.maps(x / (sigma**2 + 1) ** 0.5, keys)
            value = energy.energies(maps, objects, options.energy, saved).total
            return value.detach(), torch.autograd.grad(value.sum(), x)[0]

        return evaluate

    if case["kind"] == "single":
        return loop_single(case, expected, tensors, run, evaluator)

    alphas = schedule.alphas_cumprod().double()
    fast_after = case.get("fast_after_steps")
    times = ddim_timesteps(case["num_inference_steps"])
    if fast_after is not None:
        times = [times[i] for i in schedule.fast_indices(len(times), fast_after)]
    equal(times, expected["timesteps"], "timesteps")
    a = [float(alphas[t]) for t in [*times, 0]]
    sigmas = [((1 - v) / v) ** 0.5 for v in a]
    if case["kind"] == "per_box":
        stage = stages.ObjectStage(run)
        x = tensors["x0"]
    else:
        composed = tensors["composed"]
        ve = torch.stack([composed[i] / a[min(i, len(a) - 1)] ** 0.5 for i in range(len(composed))])
        stage = stages.OverallStage(run, ve, tensors["frozen_mask"].bool()[None, None], case["frozen_steps"])
        x = composed[0]
    x = x / a[0] ** 0.5
    saved = {k: [] for k in case.get("saved_keys", [])}
    for i in range(len(times)):
        x = stage.before_step(x, i, i, evaluator(i, sigmas[i]), guidance.step_scale(1, sigmas[i]))
        seen = x / (sigmas[i] ** 2 + 1) ** 0.5
        uncond, cond = toy.eps(seen, toy.uncond), toy.eps(seen, toy.cond)
        for k, m in zip(saved, toy.maps(seen, list(saved))):
            saved[k].append(m.probs[..., words[0] : words[0] + 1])
        x = x + (sigmas[i + 1] - sigmas[i]) * (uncond + case["guidance_scale"] * (cond - uncond))
    x = stage.finish(x, len(times))
    trace = [(i, float(e)) for i, e in run.trace]
    equal([i for i, _ in trace], [r["index"] for r in expected["energy_log"]], "evaluated steps")
    for (_, actual), row in zip(trace, expected["energy_log"]):
        near(actual, row["energy"], 1e-4, "energy")
    close(x * a[-1] ** 0.5, tensors["final"], 1e-4, "final latent")
    if case["kind"] == "per_box":
        latents = torch.stack([v * s**0.5 for v, s in zip(stage.latents, a)])
        close(latents, tensors["latents_all"], 1e-4, "latents")
        for k, values in saved.items():
            if f"saved_attn/{k}" in tensors:
                close(torch.stack(values), tensors[f"saved_attn/{k}"], 1e-4, f"attention {k}")


def loop_single(case: dict, expected: dict, tensors: dict, run: guidance.Guidance, evaluator) -> None:
    if case["scheduler"] == "ddim":
        a = case["alpha_cumprod"]
        sigma = ((1 - a) / a) ** 0.5
        x = tensors["x_in"] / a**0.5
        x = run.step(x, case["index"], evaluator(0, sigma), guidance.step_scale(1, sigma)) * a**0.5
    else:
        sigma = case["sigma"]
        x = run.step(tensors["x_in"], case["index"], evaluator(0, sigma), sigma**2)
    close(x, tensors["x_out"], 1e-4, "latent")
    near(float(run.trace[-1][1]) * run.options.loss_scale, expected["last_scaled_loss"], 1e-4, "last scaled loss")


@functools.cache
def clip_vocabulary():
    from transformers import CLIPTokenizer

    host = os.environ.get("COMFYUI_PATH") or Path.home() / ".cache" / "ella-lmd" / "ComfyUI-0.30.0"
    return CLIPTokenizer.from_pretrained(str(Path(host) / "comfy" / "sd1_tokenizer"))


def check_tokens(case: dict, expected: dict, tensors: dict) -> None:
    vocabulary = clip_vocabulary()

    def tokenize(text: str) -> list[tuple[int, str]]:
        ids = vocabulary(text, truncation=False)["input_ids"][1:-1]
        return [(i + 1, piece) for i, piece in enumerate(vocabulary.convert_ids_to_tokens(ids))]

    def run() -> tuple:
        prompt = tokens.extend(case["prompt"], case["phrases"], tokenize)
        return prompt, [tokens.locate(prompt, p, w, tokenize) for p, w in zip(case["phrases"], case["words"])]

    if "error" in expected:
        return must_fail(run)
    prompt, found = run()
    equal(prompt, expected["prompt_used"], "prompt")
    equal([list(p) for p, _ in found], expected["object_positions"], "phrase positions")
    equal([w for _, w in found], expected["word_token_indices"], "word positions")


HANDLERS = {
    "energy": check_energy,
    "ref_energy": check_reference,
    "baseline_energy": check_baseline,
    "box_raster": check_raster,
    "centered_box": check_centred,
    "latent_ops": check_latents,
    "mask_refine": check_masks,
    "schedule": check_schedule,
    "guidance_loop": check_loop,
    "token_indices": check_tokens,
}
