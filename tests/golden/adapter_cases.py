"""LLM adapters' reference vectors against this pack: `check(folder)` -> [(file, passed, total, messages), ...].

The folder may hold any subset of the files; weights that it lacks are those of this repository's own reference vectors.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import torch
from ella_lmd.ella.adapter_checkpoint import (
    adapter_config,
    adapter_state,
    build_adapter,
    text_model_config,
    text_model_state,
)
from ella_lmd.ella.checkpoint import connector_config
from ella_lmd.ella.connector import TimestepAwareConnector
from ella_lmd.ella.rollout import adapter_rollout, connector_attention, connector_rollout
from ella_lmd.ella.weights import weighted
from safetensors import safe_open

OWN = Path(__file__).resolve().parents[1] / "data" / "golden" / "adapters"
NAMINGS = ("fused", "unfused", "turbo")
TEXT_STATES = {"jina": "jina_text_tiny_state"}


def _load(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(path, "pt") as f:
        return {k: f.get_tensor(k) for k in f.keys()}, f.metadata() or {}  # noqa: SIM118 (not a dict)


def _find(folder: Path, name: str) -> Path | None:
    return next((p for p in (folder / name, OWN / name, OWN.parent / "ella" / name) if p.exists()), None)


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
            yield case, _weighted(folder, {k.rpartition(".")[2]: v for k, v in x.items() if k.startswith(case + ".")})
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
        path = _find(folder, TEXT_STATES.get(family, family + "_tiny_state") + ".safetensors")
        if path is None:
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
            mean = x.get(f"{family}.{case}.mean_pooled", rows.mean(dim=1))
            yield f"{family}.{case}", _near(rows[0], wanted[mask], 2e-5) and _near(rows.mean(dim=1), mean, 2e-5)


def full_shapes(folder: Path):
    for name, facts in json.loads((folder / "full_shapes.json").read_text()).items():
        state = adapter_state({k: torch.empty(v, device="meta") for k, v in facts["shapes"].items()})
        module = build_adapter(adapter_config(state), device="meta")
        yield name, sum(p.numel() for p in module.parameters()) == facts["parameters"]


def _weighted(folder: Path, x: dict[str, torch.Tensor]) -> bool:
    model = adapter(_find(folder, "llm_adapter_state_fused.safetensors"))
    given = x["hidden"], x["token_weights"], x["empty_hidden"], x.get("mask"), x.get("empty_mask")
    tokens, pooled, scales = weighted(model, *given)
    met = (_near(tokens, x["sequence"], 1e-4), _near(pooled, x["pooled"], 1e-4))
    return all(met) and _near(scales, x["latent_weights"], 1e-5)


@torch.no_grad()
def attention_rollout(folder: Path):
    x, meta = _load(folder / "attention_rollout.safetensors")
    share, cases = float(meta["beta"]), {k.rpartition(".")[0] for k in x}
    inputs = _connector_inputs(folder)
    texts, _ = _load(_find(folder, "llm_adapter_cases.safetensors"))
    for case in sorted(cases):
        kind, _, name = case.partition(".")
        wanted = {k.rpartition(".")[2]: v for k, v in x.items() if k.rpartition(".")[0] == case}
        if kind == "tsc":
            yield case, _connector_rollout(folder, inputs, name, wanted, share, meta["heads"])
            continue
        module = adapter(_find(folder, "llm_adapter_state_fused.safetensors"))
        hidden, mask = texts[name + ".hidden"], texts.get(name + ".mask")
        text, learned = adapter_rollout(module, hidden, mask, share)
        columns = wanted["text_rollout"].shape[-1]  # the reference pads or cuts the text to the adapter's positions
        text = torch.nn.functional.pad(text, (0, columns - text.shape[-1]))
        yield case, _near(text, wanted["text_rollout"], 1e-5) and _near(learned, wanted["null"], 1e-5)


def _connector_inputs(folder: Path) -> dict[str, torch.Tensor]:
    """The inputs of ELLA's own cases, of this repository and, where they are, of the folder beside this one."""
    found = (p / "reduced_cases.safetensors" for p in (OWN.parent / "ella", folder.parent / "ella", folder))
    return {k: v for path in found if path.exists() for k, v in _load(path)[0].items()}


def _connector_rollout(folder, inputs, name: str, wanted: dict[str, torch.Tensor], share: float, heads: str) -> bool:
    state, _ = _load(_find(folder, "reduced_state.safetensors"))
    model = TimestepAwareConnector(connector_config(state, heads=heads)).eval()
    model.load_state_dict(state, strict=True)
    given = inputs[name + ".text"], inputs[name + ".timesteps"]
    text, latents = connector_rollout(model, *given, share)
    return (
        _near(torch.stack(connector_attention(model, *given), 1), wanted["probs"], 1e-5)
        and _near(text, wanted["text_rollout"], 1e-5)
        and _near(latents, wanted["latent_rollout"], 1e-5)
    )


def gemma3_chat_ids(folder: Path):
    """With Gemma's tokenizer.json in the folder, or at $GEMMA3_TOKENIZER, all ids are its own.

    Without it, the prompt's own ids are the file's, and the template's, their order and what is dropped are checked.
    """
    from ella_lmd.nodes.host.ella.text_model import SYSTEM, TextModel
    from ella_lmd.nodes.host.ella.tokenizers import load_tokenizer

    data = json.loads((folder / "gemma3_chat_ids.json").read_text())
    path = Path(os.environ.get("GEMMA3_TOKENIZER", folder / "tokenizer.json"))
    real = load_tokenizer(str(path.parent), None, "gemma3", 262145) if path.exists() else None
    given = {k: data[k] for k in ("prefix_ids", "tail_ids")}
    yield "system prompt", data["system"] == SYSTEM
    for case in [*data["cases"], *data["other_systems"]]:
        system = case.get("system", data["system"])
        tokenize = real or _segments(case["text"], system, case["input_ids"], case["features_from"], **given)
        prompt = TextModel(None, "gemma3", 1152, tokenize, "reference vectors").prompt(case["text"], system)
        kept = len(prompt.ids) - prompt.skipped
        met = (prompt.ids, prompt.skipped) == (case["input_ids"], case["features_from"])
        yield f"{case['text']!r} after {system[:20]!r}", met and kept == case.get("features", kept)


def _segments(text: str, system: str, ids: list[int], start: int, prefix_ids: list[int], tail_ids: list[int]):
    """A tokenizer of one prompt's parts, which reads nothing else."""
    end, newline, turn, model, _ = tail_ids
    known = {
        "<bos>": prefix_ids[:1], "<start_of_turn>": [turn], "<end_of_turn>": [end], "user": prefix_ids[2:3],
        "model": [model], f"\n{system}\n\n": ids[3:start], text.strip(): ids[start : -len(tail_ids)], "\n": [newline],
    }  # fmt: skip
    known.pop("", None)
    longest_first = re.compile("|".join(re.escape(part) for part in sorted(known, key=len, reverse=True)))

    def tokenize(whole: str) -> list[int]:
        parts = longest_first.findall(whole)
        return [i for part in parts for i in known[part]] if "".join(parts) == whole else []

    return tokenize


FILES = {
    "jina_v2_cases": ("jina_v2_cases.safetensors", jina_v2_cases),
    "llm_adapter_cases": ("llm_adapter_cases.safetensors", llm_adapter_cases),
    "text_cases": ("text_cases.safetensors", text_cases),
    "attention_rollout": ("attention_rollout.safetensors", attention_rollout),
    "gemma3_chat_ids": ("gemma3_chat_ids.json", gemma3_chat_ids),
    "full_shapes": ("full_shapes.json", full_shapes),
}


def check(folder: Path) -> list[tuple[str, int, int, list[str]]]:
    """What these nodes do not offer is named and not counted."""
    rows = []
    for name, (file, handler) in FILES.items():
        if (folder / file).exists():
            results = list(handler(folder))
            counted = [(case, met) for case, met in results if met is not None]
            messages = [f"FAIL {case}" for case, met in counted if not met]
            messages += [f"not offered: {case}" for case, met in results if met is None]
            rows.append((name, sum(met for _, met in counted), len(counted), messages))
    return rows
