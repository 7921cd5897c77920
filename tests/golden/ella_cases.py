"""ELLA's reference vectors against this pack: `check(folder)` -> [(file, passed, total, messages), ...].

The folder may hold any subset of the files and cases that its README describes. The T5 and the tokenizer are those of
ComfyUI, which is put on the path when it is not there yet.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from ella_lmd.ella import ConnectorConfig, TimestepAwareConnector, connector_config
from ella_lmd.ella.connector import AdaLayerNorm, ConnectorBlock, TimeEmbedding, sinusoid, squared_relu
from ella_lmd.evaluation import dpg_bench
from safetensors import safe_open

Checks = Iterator[bool]


def _load(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    with safe_open(path, "pt") as f:
        meta = {k: json.loads(v) for k, v in (f.metadata() or {}).items() if v[:1] in "[{"}
        return {k: f.get_tensor(k) for k in f.keys()}, meta  # noqa: SIM118 (not a dict)


def _near(a: torch.Tensor, b: torch.Tensor, atol: float) -> bool:
    return a.shape == b.shape and bool(((a.float() - b.float()).abs() <= atol).all())


def _relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.float() - b.float()).norm() / b.float().norm())


def _part(tensors: dict, prefix: str) -> dict:
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}


def _loaded(module: torch.nn.Module, state: dict) -> torch.nn.Module:
    module.load_state_dict(state, strict=True)
    return module.eval()


def timestep_embedding(folder: Path) -> Checks:
    x, _ = _load(folder / "timestep_embedding.safetensors")
    for name in (k for k in x if k.startswith("emb_")):
        yield _near(sinusoid(x["timesteps"], int(name[4:])), x[name], 1e-4)


def units(folder: Path) -> Checks:
    x, _ = _load(folder / "units.safetensors")
    if "adaln.x" in x:
        norm = AdaLayerNorm(x["adaln.x"].shape[-1], x["adaln.time"].shape[-1])
        _loaded(norm, {k: v for k, v in _part(x, "adaln.").items() if k.startswith("linear.")})
        yield _near(norm(x["adaln.x"], x["adaln.time"]), x["adaln.out"], 1e-5)
        _loaded(norm, {k: torch.zeros_like(v) for k, v in norm.state_dict().items()})
        yield _near(norm(x["adaln.x"], x["adaln.time"]), x["adaln_zero_init.out"], 1e-5)
    if "sqrelu.x" in x:
        yield _near(squared_relu(x["sqrelu.x"]), x["sqrelu.out"], 1e-5)
    if "block.text" in x:
        block = ConnectorBlock(x["block.latents"].shape[-1], 4, x["block.time"].shape[-1])
        _loaded(block, _part(x, "block.sd."))
        yield _near(block(x["block.latents"], x["block.text"], x["block.time"]), x["block.out"], 1e-5)
    if "temb.in" in x:
        time = _loaded(TimeEmbedding(x["temb.in"].shape[-1], x["temb.out"].shape[-1]), _part(x, "temb.sd."))
        yield _near(time(x["temb.in"]), x["temb.out"], 1e-5)


def reduced_cases(folder: Path) -> Checks:
    x, meta = _load(folder / "reduced_cases.safetensors")
    state, _ = _load(folder / "reduced_state.safetensors")
    model = _loaded(TimestepAwareConnector(connector_config(state, heads=4)), state)
    for case in meta["cases"]:
        name = f"case{case['case']}."
        yield _near(model(x[name + "text"], x[name + "timesteps"]), x[name + "out"], 5e-5)
    traced: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable:
        return lambda _module, _args, output: traced.__setitem__(name, output)

    trace = _part(x, "trace0.")
    if trace:
        parts = {"time_embedding": model.time_embedding, "text_proj": model.connector.proj_in}
        parts |= {f"block{i}": block for i, block in enumerate(model.connector.perceiver_blocks)}
        hooks = [part.register_forward_hook(keep(name)) for name, part in parts.items()]
        first = model.connector.perceiver_blocks[0]
        hooks.append(first.register_forward_pre_hook(lambda _m, args: traced.__setitem__("latents_in", args[0])))
        model(x["case0.text"], x["case0.timesteps"])
        traced["sinusoid"] = sinusoid(x["case0.timesteps"].reshape(-1), model.config.time_channels)
        for hook in hooks:
            hook.remove()
        for name, wanted in trace.items():
            atol = 1e-4 if name == "sinusoid" else 5e-5
            yield bool(((traced[name] - wanted).abs() <= atol).all())


def formula(key: str, shape: tuple[int, ...], spread: float | None = None) -> torch.Tensor:
    """The weights that the README defines by a hash of the key and the index."""
    n = int(np.prod(shape))
    with np.errstate(over="ignore"):
        z = np.uint64(zlib.crc32(key.encode()) << 32) + np.arange(n, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        h = z ^ (z >> np.uint64(31))
    u = (h >> np.uint64(40)).astype(np.float64) / 2.0**24
    if spread is None:
        spread = np.sqrt(3) / np.sqrt(shape[1]) if len(shape) > 1 else 0.1
    return torch.from_numpy(((u - 0.5) * 2 * spread).astype(np.float32)).reshape(shape)


def _full_shapes() -> dict[str, tuple[int, ...]]:
    return {k: tuple(v.shape) for k, v in TimestepAwareConnector(ConnectorConfig(), device="meta").state_dict().items()}


def full_weight_checks(folder: Path) -> Checks:
    wanted = json.loads((folder / "full_weight_checks.json").read_text())
    shapes = _full_shapes()
    for key, facts in wanted.items():
        if not isinstance(facts, dict) or "shape" not in facts:
            continue
        w = formula(key, tuple(facts["shape"]))
        total = float(w.double().sum())
        yield (
            shapes.get(key) == tuple(facts["shape"])
            and w.flatten()[:4].tolist() == facts["first4"]
            and abs(total - facts["sum_f64"]) <= 1e-9 * max(1.0, abs(facts["sum_f64"]))
            and float(w.abs().max()) == facts["absmax"]
        )


def full_checks(folder: Path) -> Checks:
    x, meta = _load(folder / "full_checks.safetensors")
    state = {k: formula(k, shape) for k, shape in _full_shapes().items()}
    model = _loaded(TimestepAwareConnector(connector_config(state)), state)
    for case in meta["cases"]:
        features = formula(case["input"], (1, case["L"], model.config.input_dim), np.sqrt(3))
        out, wanted = model(features, case["t"])[0], x[f"{case['input']}.t{case['t']}.out"]
        yield _relative(out, wanted) <= 5e-5 and _near(out, wanted, 2e-3)


def _host_t5(state: dict[str, torch.Tensor], as_trained: bool) -> torch.nn.Module:
    """The encoder as the pack's loader builds it, for a state dict in memory."""
    from ella_lmd.ella.checkpoint import t5_config, t5_encoder_state
    from ella_lmd.nodes.host.ella.t5 import KEY, build_text_encoder

    state = t5_encoder_state(state)
    encoder = build_text_encoder(state, t5_config(state), "reference vectors", as_trained)
    return getattr(encoder.clip.cond_stage_model, KEY)


def t5_tiny_cases(folder: Path) -> Checks:
    x, meta = _load(folder / "t5_tiny_cases.safetensors")
    state, _ = _load(folder / "t5_tiny_state.safetensors")
    model = _host_t5(state, as_trained=False)
    for case in meta["cases"]:
        ids, mask = x[case["name"] + ".input_ids"], x[case["name"] + ".attention_mask"]
        out, _, extra = model(ids.tolist())
        yield _near(out, x[case["name"] + ".last_hidden_state"], 2e-5) and torch.equal(extra["attention_mask"], mask)


def t5_relative_buckets(folder: Path) -> Checks:
    from comfy.text_encoders.t5 import T5Attention

    x, _ = _load(folder / "t5_relative_buckets.safetensors")
    yield torch.equal(T5Attention._relative_position_bucket(x["relative_position"]), x["bucket"])


def t5_tiny_fp16_saturation(folder: Path) -> Checks:
    import comfy.model_management

    x, _ = _load(folder / "t5_tiny_fp16_saturation.safetensors")
    state, ids = _part(x, "sd."), x["input_ids"].tolist()
    emulated = _host_t5(state, as_trained=True)
    yield _relative(emulated(ids)[0], x["last_hidden_state_fp16"]) <= 1e-2
    original = comfy.model_management.should_use_fp16
    comfy.model_management.should_use_fp16 = lambda *args, **kwargs: True
    try:
        out = emulated(ids)[0]
    finally:
        comfy.model_management.should_use_fp16 = original
    yield bool(out.isfinite().all()) and _relative(out, x["last_hidden_state_fp16"]) <= 1e-2
    wide = _host_t5(state, as_trained=False)(ids)[0]
    yield _near(wide, x["last_hidden_state_fp32_same_weights"], 2e-5)


def token_ids(folder: Path) -> Checks:
    from ella_lmd.nodes.host.ella.t5 import PAD, tokenizer_class

    tokenizer = tokenizer_class(2048)()
    for case in json.loads((folder / "token_ids.json").read_text())["cases"]:
        (pairs,) = next(iter(tokenizer.tokenize_with_weights(case["text"], disable_weights=True).values()))
        ids = [i for i, _ in pairs]
        cut = ids if len(ids) <= 128 else [*ids[:127], ids[-1]]
        yield ids == case["flexible_ids"]
        yield [*cut, *[PAD] * (128 - len(cut))] == case["fixed128_ids"] and len(cut) == case["fixed128_mask_sum"]


def dpg_scoring(folder: Path) -> Checks:
    def close(mine: dict, theirs: dict) -> bool:
        return mine.keys() == theirs.keys() and all(abs(mine[k] - v) <= 1e-12 for k, v in theirs.items())

    for case in json.loads((folder / "dpg_scoring.json").read_text())["cases"]:
        rows, wanted = dpg_bench.questions(case["csv_header"], case["csv_rows"]), case["expected"]
        report = dpg_bench.score(rows, lambda q, tile, a=case["answers"]: a[q][tile], case["pic_num"], reference=True)
        items = wanted["per_item"]
        yield close(report.items, {k: v["score"] for k, v in items.items()})
        yield all(
            close(dict(enumerate(report.tiles[k])), dict(enumerate(v["per_image"]))) for k, v in items.items()
        ) and all(
            close(report.raw[k][-1], {int(n): x for n, x in v["last_image_raw_question_scores"].items()})
            for k, v in items.items()
        )
        yield abs(report.mean - wanted["overall_mean"]) <= 1e-12
        yield close(report.detailed, wanted["l2"]) and close(report.broad, wanted["l1"])
        yield set(report.failed) == {name for name, *_ in wanted["failed"]}


FILES: dict[str, Callable[[Path], Checks]] = {
    "timestep_embedding.safetensors": timestep_embedding,
    "units.safetensors": units,
    "reduced_cases.safetensors": reduced_cases,
    "full_weight_checks.json": full_weight_checks,
    "full_checks.safetensors": full_checks,
    "t5_tiny_cases.safetensors": t5_tiny_cases,
    "t5_relative_buckets.safetensors": t5_relative_buckets,
    "t5_tiny_fp16_saturation.safetensors": t5_tiny_fp16_saturation,
    "token_ids.json": token_ids,
    "dpg_scoring.json": dpg_scoring,
}


def find_host() -> None:
    """Make ComfyUI importable, on the CPU; for runs outside the tests, whose conftest does the same."""
    if importlib.util.find_spec("comfy") is None:
        host = os.environ.get("COMFYUI_PATH") or Path.home() / ".cache" / "ella-lmd" / "ComfyUI-0.30.0"
        sys.path.insert(0, str(host))
        sys.argv = [sys.argv[0], "--cpu"]
        import comfy.options

        comfy.options.enable_args_parsing()


def check(folder: Path) -> list[tuple[str, int, int, list[str]]]:
    """(file, passed, total, messages) for every file of the folder that this module knows."""
    find_host()
    rows = []
    with torch.inference_mode():
        for name, run in FILES.items():
            if (folder / name).exists():
                results = list(run(folder))
                messages = [f"FAIL {name}: check number {i + 1}" for i, passed in enumerate(results) if not passed]
                rows.append((name, sum(results), len(results), messages))
    return rows
