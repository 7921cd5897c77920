"""What an LLM adapter costs: full-size SDXL and a full-size adapter, random weights.

    python run.py bench ella --adapters [--size 128] [--steps 1] [--rounds 3] [--tokens 45] [--device cpu] [--dtype bf16]

Two comparisons, each in turns in one process. **encode**: the adapter on the tokens of the text alone, as the nodes run
it, over the adapter on 512 rows with a mask, as the published nodes run it; with the sizes of RouWei-Gemma, in float32.
**step**: the host's sampler with the adapter's 308 tokens for both prompts, over CLIP's 154 (a prompt of two chunks).
`arithmetic` is the ratio of the operations, which a machine cannot beat by much; it needs no weights. Exit status 0 only
if the encode ratio is at most 0.6 and that of a step at most 1.02.
"""

from __future__ import annotations

import argparse

from ella_lmd.tools.bench import measure, random_models

ENCODE_GOAL, STEP_GOAL = 0.6, 1.02
PADDED, OURS, CLIP, ADAPTER = "512 rows with a mask", "the text's rows", "CLIP, 154 tokens", "adapter, 308 tokens"
TOKENS = {CLIP: 154, ADAPTER: 308}


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapters", action="store_true", help="this measurement, and not ELLA's own")
    parser.add_argument("--size", type=int, default=128, help="side of the latent; 128 is an image of 1024 px")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=45, help="rows of the text that the adapter reads")
    random_models.add_device_options(parser)
    return parser.parse_args(argv)


def encode_times(tokens: int, rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds of the adapter, both ways, after a check that they give the same."""
    import comfy.model_management
    import torch
    from ella_lmd.ella.adapter import AdapterConfig, LLMAdapter

    place = comfy.model_management.get_torch_device()
    adapter = LLMAdapter(AdapterConfig(), device=place).eval().requires_grad_(False)
    random_models.randomise(adapter)
    positions, width = adapter.config.positions, adapter.config.input_dim
    padded = torch.zeros(1, positions, width, device=place)
    padded[:, :tokens] = torch.randn(1, tokens, width, device=place)
    mask = torch.arange(positions, device=place)[None] < tokens
    ours, theirs = adapter(padded[:, :tokens])[0], adapter(padded, mask)[0]
    assert torch.allclose(ours, theirs, atol=1e-3, rtol=1e-3), "skipped rows must change nothing"
    calls = {PADDED: lambda: adapter(padded, mask), OURS: lambda: adapter(padded[:, :tokens])}
    return measure.alternate(calls, rounds, device)


def step_times(args: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of a sampler's run with CLIP's and with the adapter's number of tokens."""
    import comfy.sample
    import torch

    model = random_models.unet(random_models.SDXL, random_models.dtype_of(args.dtype))
    noise = torch.randn(1, 4, args.size, args.size)

    def run(tokens: int) -> None:
        prompts = [[[torch.randn(1, tokens, 2048), {"pooled_output": torch.randn(1, 1280)}]] for _ in range(2)]
        comfy.sample.sample(
            model,
            noise,
            args.steps,
            7.0,
            "euler",
            "normal",
            *prompts,
            torch.zeros_like(noise),
            disable_pbar=True,
            seed=1,
        )

    calls = {name: lambda tokens=tokens: run(tokens) for name, tokens in TOKENS.items()}
    return measure.alternate(calls, args.rounds, args.device, warm_up=args.device != "cpu")


def arithmetic(size: int) -> float:
    """Operations of the U-Net with the adapter's tokens over those with CLIP's, for both prompts of a step."""
    import comfy.ops
    import torch
    from comfy.ldm.modules.attention import attention_basic
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    config = random_models.unet_config(random_models.SDXL)
    unet = UNetModel(**config, dtype=torch.float32, device="meta", operations=comfy.ops.disable_weight_init)
    options = {"optimized_attention_override": lambda _host, *given, **more: attention_basic(*given, **more)}
    counted = []
    for tokens in (TOKENS[ADAPTER], TOKENS[CLIP]):
        shapes = (2, 4, size, size), (2,), (2, tokens, 2048), (2, 2816)
        x, t, context, y = (torch.empty(shape, device="meta") for shape in shapes)
        counted.append(measure.flops(lambda x=x, t=t, c=context, y=y: unet(x, t, c, y=y, transformer_options=options)))
    return counted[0] / counted[1]


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    random_models.find_host(args)
    import torch

    torch.manual_seed(0)
    with torch.inference_mode():
        print(f"step, arithmetic at {args.size}x{args.size}: {arithmetic(args.size):.4f}")
        encode = measure.ratio(encode_times(args.tokens, args.rounds, args.device), OURS, PADDED)
        print(f"encode, {args.tokens} rows of 512: {_told(encode)}")
        times = step_times(args)
    step = measure.ratio(times, ADAPTER, CLIP)
    print(f"step, {args.dtype} at {args.size}x{args.size}: {_told(step)}")
    print("; ".join(f"{name} {min(seconds) / args.steps:.2f} s a step" for name, seconds in times.items()))
    print(f"encode {encode[0]:.3f} (at most {ENCODE_GOAL}); step {step[0]:.4f} (at most {STEP_GOAL})")
    return 0 if encode[0] <= ENCODE_GOAL and step[0] <= STEP_GOAL else 1


def _told(ratio: tuple[float, float, float]) -> str:
    return f"{ratio[0]:.4f} ({ratio[1]:.4f} to {ratio[2]:.4f})"
