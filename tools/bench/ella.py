"""What ELLA costs per step: the full-size connector beside the full-size SD1.5 U-Net, on the CPU, random weights.

    python run.py bench ella [--rounds 4] [--steps 2] [--size 64] [--threads 1] [--kinds ELLA "ELLA + CLIP"]

Runs of the host's sampler with CLIP and with ELLA (with `--kinds` also ELLA + CLIP, or ELLA on the positive side alone),
and a second image of each ELLA run (same prompt and sigmas) alternate in one process. Times are processor times of this process, so
that other load matters little. Two numbers are printed for each kind: `run / CLIP`, the run's time per step over the
mean of the CLIP runs right before and after it (median over the rounds, and their range); and `added`, the time spent
in this pack's code over the rest of that same run, which has next to no noise. Exit status 0 only if
`run / CLIP` is at most 1.01 for ELLA and at most 1.002 for a second image.

`--adapters` measures LLM adapters for SDXL instead (ella_adapters.py, which has its own options).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

KINDS = ["ELLA", "ELLA + CLIP", "ELLA positive only"]


def full_size_model():
    """A MODEL with SD1.5's U-Net, 860 million random parameters in float32."""
    import comfy.model_base
    import comfy.model_patcher
    import comfy.supported_models
    import torch

    config = comfy.supported_models.SD15(
        {
            "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320,
            "num_res_blocks": [2, 2, 2, 2], "channel_mult": (1, 2, 4, 4),
            "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
            "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "transformer_depth_middle": 1,
            "context_dim": 768, "num_heads": 8, "use_spatial_transformer": True, "use_linear_in_transformer": False,
            "legacy": False, "adm_in_channels": None, "use_temporal_attention": False, "dtype": torch.float32,
        }
    )  # fmt: skip
    config.set_inference_dtype(torch.float32, None)
    model = comfy.model_base.BaseModel(config, device="cpu").eval()
    for p in model.parameters():
        p.requires_grad_(False)
        torch.nn.init.normal_(p, std=0.02 if p.ndim > 1 else 0.0)
    return comfy.model_patcher.ModelPatcher(model, load_device=torch.device("cpu"), offload_device=torch.device("cpu"))


def full_size_connector():
    """The released connector's layout (66.8 million parameters) as the loader makes it, with random weights."""
    import comfy.model_patcher
    import comfy.ops
    import torch
    from ella_lmd.ella import ConnectorConfig, TimestepAwareConnector
    from ella_lmd.nodes.host.ella.connector import EllaConnector

    module = TimestepAwareConnector(
        ConnectorConfig(), operations=comfy.ops.manual_cast, cast=comfy.ops.cast_to_input, dtype=torch.float32
    ).eval()
    for p in module.parameters():
        p.requires_grad_(False)
        torch.nn.init.normal_(p, std=0.02)
    cpu = torch.device("cpu")
    return EllaConnector(comfy.model_patcher.CoreModelPatcher(module, cpu, cpu), torch.float32, "random")


def timed_patch():
    """(patch function, list that collects the seconds spent in the pack's own code at each model call)."""
    from ella_lmd.ella.schedule import RecomputeOptions
    from ella_lmd.nodes.host.ella import recompute

    own: list[float] = []

    class Timed(recompute.TimestepAware):
        def calc_cond_batch(self, executor, *args):
            inner = []

            def run(*a):
                start = time.process_time()
                out = executor(*a)
                inner.append(time.process_time() - start)
                return out

            start = time.process_time()
            out = super().calc_cond_batch(run, *args)
            own.append(time.process_time() - start - sum(inner))
            return out

    def patch(model):
        model = model.clone()
        for kind, keyed in Timed(RecomputeOptions()).wrappers().items():
            model.add_wrapper_with_key(kind, recompute.KEY, keyed[recompute.KEY][0])
        return model

    return patch, own


def main() -> int:
    if "--adapters" in sys.argv:
        from ella_lmd.tools.bench import ella_adapters

        return ella_adapters.main()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--size", type=int, default=64, help="side of the latent; 64 is an image of 512 px")
    parser.add_argument("--tokens", type=int, default=98, help="T5 tokens of the prompt (98 is DPG-Bench's mean)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS[:1], help="ELLA's own goal counts")
    args = parser.parse_args()
    from ella_lmd.tools.host_setup import prepare_host

    prepare_host()
    import comfy.sample
    import torch
    from ella_lmd.nodes.host.ella.connector import EllaText

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    with torch.inference_mode():
        model, connector = full_size_model(), full_size_connector()
        patch, own = timed_patch()
        patched = patch(model)
        features = torch.randn(1, args.tokens, 2048), torch.randn(1, 1, 2048)  # the prompt; the empty negative
        clip = torch.randn(1, 77, 768), torch.randn(1, 77, 768)
        noise = torch.randn(1, 4, args.size, args.size)

        def fresh(kind: str) -> list:
            if kind == "CLIP":
                return [[[c, {}]] for c in clip]
            tokens = [EllaText(connector, f).conditioning_tokens() for f in features]
            if kind == "ELLA positive only":  # 64 tokens and 77: the host calls the U-Net once for each prompt
                return [[[tokens[0], {}]], [[clip[1], {}]]]
            return [[[t if kind == "ELLA" else torch.cat([t, c], 1), {}]] for t, c in zip(tokens, clip)]

        def run(conditioning) -> tuple[float, float]:
            """(seconds per step, seconds per step in this pack's code)"""
            del own[:]
            start = time.process_time()
            comfy.sample.sample(
                patched, noise, args.steps, 7.0, "euler", "normal", *conditioning, torch.zeros_like(noise),
                disable_pbar=True, seed=1,
            )  # fmt: skip
            return (time.process_time() - start) / args.steps, sum(own) / args.steps

        run(fresh("CLIP"))  # first touch of all memory
        clip_runs = [run(fresh("CLIP"))]
        results: dict[str, list[tuple[float, float]]] = {}  # kind: (run / CLIP, added) of every round
        for _ in range(args.rounds):
            for kind in args.kinds:
                conditioning = fresh(kind)
                runs = {kind: run(conditioning), f"{kind}, second image": run(conditioning)}
                clip_runs.append(run(fresh("CLIP")))
                base = (clip_runs[-2][0] + clip_runs[-1][0]) / 2
                for name, (seconds, mine) in runs.items():
                    results.setdefault(name, []).append((seconds / base, 1 + mine / (seconds - mine)))
    per_step = [s for s, _ in clip_runs]
    print(f"{args.size}x{args.size} latent, {args.tokens} T5 tokens, {args.steps} steps x {args.rounds} rounds")
    print(f"CLIP: {statistics.median(per_step):.2f} s a step ({min(per_step):.2f} to {max(per_step):.2f})")
    print(f"{'':34}{'run / CLIP':>12}{'range':>18}{'added':>9}")
    for kind, rounds in results.items():
        ratios = [r for r, _ in rounds]
        print(
            f"{kind:34}{statistics.median(ratios):12.4f}{f'{min(ratios):.4f} to {max(ratios):.4f}':>18}"
            f"{statistics.median(a for _, a in rounds):9.4f}"
        )
    print("official pack: 1.010 at 64x64, 1.035 at 32x32 (connector time over U-Net time, all before sampling)")
    holds, figures = True, []
    for kind, goal in (("ELLA", 1.01), ("ELLA, second image", 1.002)):
        if kind not in results:
            continue
        ratio = statistics.median(r for r, _ in results[kind])
        holds = holds and ratio <= goal
        figures.append(f"{kind} {ratio:.4f} (at most {goal})")
    print("; ".join(figures))
    return 0 if holds else 1
