"""A process in which the published implementation of LMD runs its guided iteration; `bench reference` talks to it.

It has a process of its own because its packages, `utils` and `models` among them, have the names of ComfyUI's. The
checkout is copied with its device strings replaced and is otherwise unchanged. Requests and answers are lines of JSON.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

REPLACED = (('"cuda"', '"{device}"'), (".cuda()", '.to("{device}")'), ("is_cuda", "is_{device}"))
LOSS = {
    "loss_scale": 5, "loss_threshold": 5.0, "max_iter": 1, "max_index_step": 30, "fg_top_p": 0.2, "bg_top_p": 0.2,
    "fg_weight": 1.0, "bg_weight": 4.0, "use_ratio_based_loss": False,
}  # fmt: skip
"""The options of generation/lmd.py, with one iteration instead of four."""


def patched_copy(checkout: Path, device: str, to: Path) -> None:
    for name in ("utils", "models"):
        shutil.copytree(checkout / name, to / name)
    for path in to.rglob("*.py"):
        text = path.read_text()
        for old, new in REPLACED:
            text = text.replace(old, new.format(device=device))
        path.write_text(text)


def main(job: dict) -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # the published code prints
    with tempfile.TemporaryDirectory() as folder:
        patched_copy(Path(job["checkout"]), job["device"], Path(folder))
        sys.path[:0] = [folder, job["packages"]]
        sys.path.append(str(Path(__file__).resolve().parent))
        iteration = prepare(job)
        from ella_lmd.tools.bench import measure

        for line in sys.stdin:
            request = json.loads(line)
            if request == "seconds":
                answer = measure.seconds(iteration, job["device"])
            elif request == "memory":
                answer = measure.peak_bytes(iteration, job["device"])
            else:
                answer = iteration()
            print(json.dumps(answer), file=answers, flush=True)


def prepare(job: dict):
    """One guided iteration on the latent of the job's file, as a function that returns the path of its result."""
    import torch
    from diffusers import DDIMScheduler
    from models.pipelines import DEFAULT_GUIDANCE_ATTN_KEYS, latent_backward_guidance
    from models.unet_2d_condition import UNet2DConditionModel

    torch.set_num_threads(job["threads"])
    given = torch.load(job["given"])
    width = job["width"]
    unet = UNet2DConditionModel(
        sample_size=64, cross_attention_dim=768, block_out_channels=(width, width * 2, width * 4, width * 4)
    )
    unet.load_state_dict(torch.load(job["weights"], mmap=True), assign=True)
    unet.eval().to(job["device"])
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip
    scheduler.set_timesteps(50)
    latents, prompt = (given[name].to(job["device"], unet.dtype) for name in ("latents", "prompt"))
    t = scheduler.timesteps[0]

    def iteration() -> str:
        moved, loss = latent_backward_guidance(
            scheduler, unet, prompt, 0, given["boxes"], given["positions"], t, latents.clone(), torch.tensor(10000.0),
            cross_attention_kwargs={"offload_cross_attn_to_cpu": False, "enable_flash_attn": False},
            guidance_attn_keys=DEFAULT_GUIDANCE_ATTN_KEYS, **LOSS,
        )  # fmt: skip
        gradient = (latents - moved) / (1 - scheduler.alphas_cumprod[t]) ** 0.5 / LOSS["loss_scale"]
        torch.save({"energy": loss.detach() / LOSS["loss_scale"], "gradient": gradient}, job["result"])
        return job["result"]

    return iteration


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
