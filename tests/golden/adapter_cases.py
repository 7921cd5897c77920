"""LLM adapters' reference vectors against this pack: `check(folder)` -> [(file, passed, total, messages), ...].

The folder may hold any subset of the files; weights that it lacks are those of this repository's own reference vectors.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from ella_lmd.ella.adapter_checkpoint import (
    adapter_config,
    adapter_state,
    build_adapter,
    text_model_config,
    text_model_state,
)
from safetensors import safe_open

OWN = Path(__file__).resolve().parents[1] / "data" / "golden" / "adapters"
NAMINGS = ("fused", "unfused", "turbo")


def _load(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(path, "pt") as f:
        return {k: f.get_tensor(k) for k in f.keys()}, f.metadata() or {}  # noqa: SIM118 (not a dict)


def _find(folder: Path, name: str) -> Path | None:
    return next((p for p in (folder / name, OWN / name) if p.exists()), None)


def _near(a: torch.Tensor, b: torch.Tensor, atol: float) -> bool:
    return a.shape == b.shape and bool(((a - b).abs() <= atol).all())


def adapter(path: Path):
    state, meta = _load(path)
    state = adapter_state(state)
    module = build_adapter(adapter_config(state, meta["heads"], meta.get("pooler_heads")))
    module.load_state_dict(state, strict=True)
    return module.eval()


@torch.no_grad()
def llm_adapter_cases(folder: Path):
    x, meta = _load(folder / "llm_adapter_cases.safetensors")
    for case in json.loads(meta["cases"]):
        if case + ".latent_weights" in x:
            yield case, None  # prompt weights of another pack, which these nodes do not offer
            continue
        for naming in [case] if case in ("input_norm", "no_projection") else NAMINGS:
            path = _find(folder, f"llm_adapter_state_{naming}.safetensors")
            if path is not None:
                tokens, pooled = adapter(path)(x[case + ".hidden"], x.get(case + ".mask"))
                met = _near(tokens, x[case + ".sequence"], 1e-4) and _near(pooled, x[case + ".pooled"], 1e-4)
                yield f"{case} ({naming})", met


@torch.no_grad()
def jina_v2_cases(folder: Path):
    x, meta = _load(folder / "jina_v2_cases.safetensors")
    for case in json.loads(meta["cases"]):
        path = _find(folder, f"jina_v2_state_{case.partition('.')[0]}.safetensors")
        if path is None:
            yield case, None
            continue
        mask, wanted = x.get(case + ".mask"), x[case + ".sequence"]
        tokens, pooled = adapter(path)(x[case + ".hidden"], mask, x[case + ".mean_pooled"])
        real = torch.ones(wanted.shape[:2], dtype=torch.bool) if mask is None else mask.bool()
        met = tokens.shape == wanted.shape and _near(tokens[real], wanted[real], 1e-4)
        yield case, met and _near(pooled, x[case + ".pooled"], 1e-4)


@torch.no_grad()
def text_cases(folder: Path):
    from ella_lmd.nodes.host.ella.text_model import KEY, build_text_model

    x, meta = _load(folder / "text_cases.safetensors")
    for family, cases in json.loads(meta["cases"]).items():
        path = _find(folder, f"{family}_tiny_state.safetensors")
        if family == "jina" or path is None:
            yield from ((f"{family}.{case}", None) for case in cases)
            continue
        raw, given = _load(path)
        name, state = text_model_state(raw)
        config = text_model_config(name, state, json.loads(given["config"]))
        model = build_text_model(name, config, state, lambda text: [], "reference vectors")
        for case in cases:
            ids, wanted = x[f"{family}.{case}.input_ids"], x[f"{family}.{case}.last_hidden"]
            mask = x.get(f"{family}.{case}.attention_mask", torch.ones_like(ids)).bool()
            rows = getattr(model.clip.cond_stage_model, KEY)([ids[mask].tolist()])[0]
            yield f"{family}.{case}", _near(rows[0], wanted[mask], 2e-5)


def full_shapes(folder: Path):
    for name, facts in json.loads((folder / "full_shapes.json").read_text()).items():
        state = adapter_state({k: torch.empty(v, device="meta") for k, v in facts["shapes"].items()})
        module = build_adapter(adapter_config(state), device="meta")
        yield name, sum(p.numel() for p in module.parameters()) == facts["parameters"]


FILES = {
    "jina_v2_cases": ("jina_v2_cases.safetensors", jina_v2_cases),
    "llm_adapter_cases": ("llm_adapter_cases.safetensors", llm_adapter_cases),
    "text_cases": ("text_cases.safetensors", text_cases),
    "full_shapes": ("full_shapes.json", full_shapes),
}


def check(folder: Path) -> list[tuple[str, int, int, list[str]]]:
    """What these nodes do not offer (weights inside the adapter) is named and not counted."""
    rows = []
    for name, (file, handler) in FILES.items():
        if (folder / file).exists():
            results = list(handler(folder))
            counted = [(case, met) for case, met in results if met is not None]
            messages = [f"FAIL {case}" for case, met in counted if not met]
            messages += [f"not offered: {case}" for case, met in results if met is None]
            rows.append((name, sum(met for _, met in counted), len(counted), messages))
    return rows
