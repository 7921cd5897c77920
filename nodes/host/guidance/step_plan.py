"""Which of a sampler's model calls open its steps, found by a dry run on a tiny analytic denoiser."""

from __future__ import annotations

import torch
from torch import Tensor

MAX_DRY_RUN_CALLS = 4000


def call_plan(function, model, sigmas: Tensor, extra_args: dict, options: dict, device) -> dict[int, int]:
    """{number of a model call: index of the step that it opens}, found by a dry run on a tiny analytic denoiser.

    Sigmas alone do not tell: heun and others call the model at the next step's sigma within a step. The call right
    before the callback of step i opens it. The global random state is left as it was.
    """
    calls: list[int | None] = []
    own = list(extra_args["model_options"].get("sampler_post_cfg_function", []))

    class Toy:
        def __getattr__(self, name):
            return getattr(model, name)

        def __call__(self, x, sigma, **kwargs):
            if len(calls) > MAX_DRY_RUN_CALLS:
                raise RuntimeError("the dry run does not end")
            calls.append(None)
            denoised = x / (1 + sigma.view(-1, *[1] * (x.ndim - 1)) ** 2)
            for post in kwargs["model_options"].get("sampler_post_cfg_function", []):
                if post not in own:  # added by a CFG++ sampler, which needs its answer
                    denoised = post(
                        {"denoised": denoised, "uncond_denoised": denoised, "cond_denoised": denoised, "input": x,
                         "sigma": sigma, "model": None, "model_options": {}, "cond": None, "uncond": None,
                         "cond_scale": 1.0}
                    )  # fmt: skip
            return denoised

    def callback(d: dict) -> None:
        if calls:
            calls[-1] = d["i"]

    with torch.random.fork_rng(devices=[] if torch.device(device).type == "cpu" else [device]):
        x = torch.ones(1, 4, 2, 2, device=device) * float(sigmas[0])
        args = {**extra_args, "denoise_mask": None}
        function(Toy(), x, sigmas.clone(), extra_args=args, callback=callback, disable=True, **options)
    return {call: index for call, index in enumerate(calls) if index is not None}
