"""Which timestep the connector saw against which the U-Net saw: every sampler x scheduler x denoise of the host.

    python run.py bench timesteps [--steps 20] [--samplers euler heun ...] [--schedulers normal ...] [--json FILE]

Runs the host's own KSampler on a real SD1.5 sampling model whose U-Net is replaced by a formula (so a run takes
milliseconds), with ELLA conditioning from a small random connector on both prompts. The timestep is recorded twice,
independently: where the U-Net is called, and inside the connector (whose tokens are marked with their timestep).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from ella_lmd.tools.host_setup import prepare_host

# What the official ComfyUI-ELLA pack was measured to serve, 20 steps (specification of ELLA, section 9):
# (sampler, scheduler, denoise) -> (wrong calls, calls, mean error in timesteps)
OFFICIAL = {
    ("euler", "normal", 1.0): (0, 20, 0),
    ("euler", "simple", 1.0): (0, 20, 0),
    ("euler", "ddim_uniform", 1.0): (0, 20, 0),
    ("euler", "sgm_uniform", 1.0): (19, 20, 48),
    ("euler", "karras", 1.0): (16, 20, 60),
    ("dpmpp_2m", "karras", 1.0): (16, 20, 60),
    ("euler", "exponential", 1.0): (15, 20, 84),
    ("euler", "beta", 1.0): (16, 20, 51),
    ("euler", "linear_quadratic", 1.0): (18, 20, 46),
    ("euler", "kl_optimal", 1.0): (18, 20, 104),
    ("dpm_2", "normal", 1.0): (38, 39, 25),
    ("dpm_2", "karras", 1.0): (38, 39, 65),
    ("uni_pc", "normal", 1.0): (19, 20, 37),
    ("uni_pc", "karras", 1.0): (19, 20, 64),
    ("dpmpp_sde", "normal", 1.0): (19, 39, 12),
    ("dpmpp_sde", "karras", 1.0): (35, 39, 62),
    ("euler", "normal", 0.75): (19, 20, 98),
    ("euler", "normal", 0.5): (19, 20, 128),
    ("euler", "normal", 0.3): (19, 20, 109),
}
DENOISE = (1.0, 0.75, 0.5, 0.3)


def small_model():
    """A MODEL with SD1.5's sampling and a U-Net of almost no weights (never called)."""
    import comfy.model_base
    import comfy.model_patcher
    import comfy.supported_models
    import torch

    unet = {
        "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1],
        "channel_mult": (1,), "transformer_depth": [1], "transformer_depth_output": [1, 1],
        "transformer_depth_middle": 1, "context_dim": 768, "num_heads": 8, "use_spatial_transformer": True,
        "use_linear_in_transformer": False, "legacy": False, "adm_in_channels": None, "use_temporal_attention": False,
        "dtype": torch.float32,
    }  # fmt: skip
    config = comfy.supported_models.SD15(unet)
    config.set_inference_dtype(torch.float32, None)
    model = comfy.model_base.BaseModel(config, device="cpu").eval()
    return comfy.model_patcher.ModelPatcher(model, load_device=torch.device("cpu"), offload_device=torch.device("cpu"))


class MarkingConnector:
    """Stands where the connector stands; its tokens say which timestep they were made for."""

    def __init__(self):
        import comfy.model_patcher
        import torch

        class Sizes:
            input_dim = 4

        self.config, self.name = Sizes, "marking"
        module = torch.nn.Linear(1, 1)
        self.patcher = comfy.model_patcher.ModelPatcher(module, torch.device("cpu"), torch.device("cpu"))

    def load(self) -> None: ...

    def __call__(self, features, timestep: int):
        return features[0].new_full((len(features), 64, 768), float(timestep))


def measure(sampler: str, scheduler: str, denoise: float, steps: int, model, conditioning) -> dict:
    """One run -> calls, wrong calls, mean and largest error in timesteps, rows per call."""
    import comfy.sample
    import torch

    served: list[tuple[int, int, int]] = []
    sampling = model.model.model_sampling

    def unet(_apply, args):
        timestep = int(sampling.timestep(args["timestep"][:1]))
        marks = {int(m) for m in args["c"]["c_crossattn"][:, :64].flatten(1)[:, ::768].flatten().round().tolist()}
        wrong = max(abs(m - timestep) for m in marks)
        served.append((timestep, wrong, args["input"].shape[0]))
        sigma = args["timestep"].view(-1, 1, 1, 1)
        return args["input"] / (1 + sigma**2)  # the denoised mean for data of unit variance

    model = model.clone()
    model.set_model_unet_function_wrapper(unet)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    latent = torch.zeros_like(noise)
    comfy.sample.sample(
        model, noise, steps, 4.0, sampler, scheduler, *conditioning, latent, denoise=denoise, disable_pbar=True, seed=1
    )
    errors = [wrong for _, wrong, _ in served]
    return {
        "sampler": sampler, "scheduler": scheduler, "denoise": denoise, "calls": len(served),
        "wrong": sum(e > 0 for e in errors), "mean_error": sum(errors) / len(errors), "max_error": max(errors),
        "rows": max(rows for *_, rows in served),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--samplers", nargs="*")
    parser.add_argument("--schedulers", nargs="*")
    parser.add_argument("--json", help="also write every run to this file")
    args = parser.parse_args()
    prepare_host()
    import comfy.samplers
    import torch
    from ella_lmd.ella.schedule import RecomputeOptions
    from ella_lmd.nodes.host.ella.connector import EllaText
    from ella_lmd.nodes.host.ella.recompute import patch_model

    started, runs = time.time(), []
    with torch.inference_mode():
        connector = MarkingConnector()
        model = patch_model(small_model(), RecomputeOptions())
        for sampler in args.samplers or comfy.samplers.KSampler.SAMPLERS:
            for scheduler in args.schedulers or comfy.samplers.KSampler.SCHEDULERS:
                for denoise in DENOISE:
                    texts = (EllaText(connector, torch.zeros(1, 1, 4)) for _ in range(2))
                    conditioning = [[[text.conditioning_tokens(), {}]] for text in texts]
                    runs.append(measure(sampler, scheduler, denoise, args.steps, model, conditioning))
    report(runs, time.time() - started)
    if args.json:
        Path(args.json).write_text(json.dumps(runs, indent=1))
    return int(any(r["wrong"] for r in runs))


def report(runs: list[dict], seconds: float) -> None:
    print(f"{'sampler':28}{'scheduler':18}{'denoise':>8}{'calls':>7}{'wrong':>7}{'rows':>6}   official pack")
    for r in runs:
        key = (r["sampler"], r["scheduler"], r["denoise"])
        if key in OFFICIAL or r["wrong"]:
            wrong, calls, mean = OFFICIAL.get(key, (None, None, None))
            theirs = "not measured" if wrong is None else f"{wrong} of {calls} wrong, mean error {mean} timesteps"
            print(f"{key[0]:28}{key[1]:18}{key[2]:>8}{r['calls']:>7}{r['wrong']:>7}{r['rows']:>6}   {theirs}")
    calls, wrong = sum(r["calls"] for r in runs), sum(r["wrong"] for r in runs)
    print(f"all {len(runs)} runs: {wrong} of {calls} calls with another timestep than the U-Net's;", end=" ")
    print(f"at most {max(r['rows'] for r in runs)} U-Net rows per call; {seconds:.0f} s")
