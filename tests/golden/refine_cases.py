"""Reference vectors of the SDXL refinement: prompts, seed, executed steps and noise levels, by this pack's own numbers."""

from __future__ import annotations

from ella_lmd.lmd.sampling import refinement

INPUT = {
    "prompt": ("prompt", "positive", "caption"),
    "extra_neg_prompt": ("extra_neg_prompt", "negative_prompt", "negative", "extra_negative"),
    "step_ratio": ("step_ratio", "strength", "sdxl_step_ratio", "denoise"),
    "bg_seed": ("bg_seed", "seed"),
}  # fmt: skip
"""What a case may call each input; the first name is the published vectors' own."""


def inputs_of(case: dict) -> tuple[str, str, float, int]:
    """`(prompt, negative, strength, seed)`. Raises AssertionError naming a field that is unknown, twice there or absent."""
    names = {name: key for key, own in INPUT.items() for name in own}
    found: dict = {}
    for name, value in case.items():
        assert name in names, f"input: unknown field {name!r}"
        assert names[name] not in found, f"input: {name!r} is there twice, under other names"
        found[names[name]] = value
    absent = [key for key in ("prompt", "step_ratio", "bg_seed") if key not in found]
    assert not absent, f"input: no field {absent[0]!r}"
    return found["prompt"], found.get("extra_neg_prompt") or "", found["step_ratio"], found["bg_seed"]


def stock(own: refinement.Refinement) -> dict:
    """The stock KSampler's widgets, and whether it has the sigmas that it should."""
    return {
        "sampler": refinement.SAMPLER, "scheduler": refinement.SCHEDULER, "steps": own.steps, "denoise": own.strength,
        "exact": own.one_ksampler,
    }  # fmt: skip


def numbers(case: dict) -> dict:
    """Every field that a case may expect. Sizes are `[width, height]` of a square picture."""
    prompt, negative, strength, seed = inputs_of(case)
    own, size = refinement.Refinement(strength), [refinement.SIDE] * 2
    found = {
        "positive": prompt, "negative": refinement.refinement_negative(negative, exact=True), "image_size": size,
        "seed": refinement.refinement_seed(seed), "steps_run": own.steps, "timesteps": list(own.timesteps),
        "guidance_scale": refinement.CFG, "aesthetic_score": refinement.ASCORE,
        "negative_aesthetic_score": refinement.NEGATIVE_ASCORE, "original_size": size, "target_size": size,
        "crop": [0, 0], "sampler": refinement.SAMPLER, "resample": refinement.RESAMPLE, "stock_ksampler": stock(own),
        "sigmas": list(own.sigmas),
    }  # fmt: skip
    same = {"prompt": "positive", "negative_prompt": "negative", "steps": "steps_run", "executed_steps": "steps_run"}
    return found | {other: found[name] for other, name in (same | {"noise_seed": "seed"}).items()}


def check_refinement(case: dict, expected: dict, tensors: dict) -> None:
    found = numbers(case)
    for name in (*expected, *tensors):
        assert name in found, f"expected: unknown field {name!r}"
    for name, wanted in {**expected, **{k: v.flatten().tolist() for k, v in tensors.items()}}.items():
        if name != "sigmas":
            assert found[name] == wanted, f"{name}: {found[name]!r}, expected {wanted!r}"
            continue
        assert len(found[name]) == len(wanted), f"{name}: {len(found[name])} of them, expected {len(wanted)}"
        apart = max((abs(a - b) for a, b in zip(found[name], wanted)), default=0.0)
        assert apart <= 1e-5, f"{name}: {apart:.3g} apart"


HANDLERS = {"sdxl_refine": check_refinement}
