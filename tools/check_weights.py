"""Look at released files: ELLA's connector, its T5, LLM adapters for SDXL, and the text encoders that adapters read.

    python run.py python tools/check_weights.py FILE_OR_FOLDER [FILE_OR_FOLDER ...]

Prints what each one is, its sizes and dtypes, and whether its tensors are those of a release as this pack expects it;
whether a text encoder's tokenizer gives the recorded ids; and, for a connector with its T5 and for an adapter with its
text encoder, figures of a fixed prompt beside those that were measured on random weights. `ok` and `DIFFERS` stand only
where one value is right. The exit status is 1 if something differs or can't be read.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ella_lmd.tools.host_setup import prepare_host

RECORDED = Path(__file__).resolve().parents[1] / "tests" / "data" / "golden"
PROMPT = "white haired fox girl in intricate aqua dress riding giant black cat that flies over a town at night"
PHRASE = 8  # tokens of the prompt's start, whose share in the result is looked at
CONNECTOR = {"tensors": 93, "parameters": 66_820_608}
TEXT_SIZES = {
    "gemma3": {
        "hidden_size": 1152, "num_hidden_layers": 26, "intermediate_size": 6912, "num_attention_heads": 4,
        "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 262144,
    },
    "t5gemma": {
        "hidden_size": 2304, "num_hidden_layers": 26, "intermediate_size": 9216, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 256000,
    },
    "jina": {
        "hidden_size": 1024, "num_hidden_layers": 24, "intermediate_size": 4096, "num_attention_heads": 16,
        "vocab_size": 250002,
    },
    "t5": {"d_model": 2048, "d_ff": 5120, "d_kv": 64, "num_heads": 32, "num_layers": 24, "vocab_size": 32128},
}  # fmt: skip
RELEASES = {"gemma3": "Gemma-3-1b", "t5gemma": "T5Gemma-2b's encoder", "jina": "Jina CLIP v2", "t5": "FLAN-T5-XL"}


class Report:
    """Lines for the user, and whether one of them is bad."""

    def __init__(self, say: Callable[[str], None] = print):
        self.say, self.bad = say, 0

    def fact(self, text: str) -> None:
        """Something that can't be right or wrong."""
        self.say(f"  {text}")

    def test(self, what: str, met: bool, otherwise: str) -> None:
        """`what` with ok, or with what differs."""
        self.bad += not met
        self.say(f"  {what}: {'ok' if met else f'DIFFERS ({otherwise})'}")


def _tensors(paths: Iterable[str]) -> tuple[dict[str, Any], dict[str, str]]:
    from ella_lmd.nodes.host import model_files

    state, metadata = {}, {}
    for path in paths:
        part, more = model_files.load(path, "Choose a file of ELLA or of an LLM adapter.")
        state.update(part)
        metadata.update(more)
    return state, metadata


def _in_its_folder(path: Path, key: str) -> str:
    """The name by which the pack's loaders find this file or folder."""
    import folder_paths

    folder_paths.add_model_folder_path(key, str(path.parent), is_default=True)
    folder_paths.filename_list_cache.clear()
    return path.name


def _counted(report: Report, state: Mapping[str, Any]) -> None:
    kinds = sorted({str(v.dtype).removeprefix("torch.") for v in state.values()})
    numbers = sum(v.numel() for v in state.values())
    report.fact(f"{len(state)} tensors, {numbers:,} numbers, {', '.join(kinds)}")


def layout_of(state: Mapping[str, Any], layouts: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The recorded layout that is nearest to these tensors, and the keys or shapes in which they differ."""

    def odd(shapes: Mapping[str, Any]) -> list[str]:
        found = [f"{k} is missing" for k in shapes if k not in state]
        found += [f"{k} {tuple(v.shape)}" for k, v in state.items() if tuple(v.shape) != tuple(shapes.get(k, ()))]
        return found

    return min(((name, odd(facts["shapes"])) for name, facts in layouts.items()), key=lambda pair: len(pair[1]))


def look_at(report: Report, path: Path) -> Any:
    """Describe one file or folder; what the pack makes of it, or None."""
    from ella_lmd.ella.adapter_checkpoint import adapter_state
    from ella_lmd.ella.checkpoint import connector_state, describe
    from ella_lmd.nodes.host.ella import files

    report.say(str(path))
    try:
        paths = files.text_model_files(_in_its_folder(path, "text_encoders")) if path.is_dir() else [str(path)]
        state, metadata = _tensors(paths)
        if "connector.latents" in connector_state(state):
            return _connector(report, path, connector_state(state))
        if any("relative_attention_bias" in k for k in state):
            return _t5(report, path)
        split = adapter_state(state)
        if "compression_queries" in split or "seq_projection.4.weight" in split:
            return _adapter(report, path, state, metadata)
        if describe(state).endswith("LLMAdapterTextEncoderLoader"):
            return _text_model(report, path)
        raise ValueError(f"It seems to be {describe(state)}: not a file of ELLA or of an LLM adapter.")
    except (ValueError, OSError) as error:
        report.test("loading", False, str(error))
        return None


def _connector(report: Report, path: Path, state: Mapping[str, Any]) -> Any:
    from ella_lmd.nodes.host.ella.connector import load_connector

    connector = load_connector(_in_its_folder(path, "ella"))
    report.fact(f"an ELLA connector: {connector.config}")
    _counted(report, state)
    found = {"tensors": len(state), "parameters": sum(v.numel() for v in state.values())}
    report.test("tensors as in ella-sd1.5-tsc-t5xl", found == CONNECTOR, f"expected {CONNECTOR}")
    return connector


def _adapter(report: Report, path: Path, state: Mapping[str, Any], metadata: Mapping[str, str]) -> Any:
    from ella_lmd.nodes.host.ella.adapter import load_adapter

    adapter = load_adapter(_in_its_folder(path, "llm_adapters"))
    report.fact(f"an LLM adapter for SDXL: {adapter.config}")
    report.fact(
        "heads are the file's" if "heads" in metadata else "heads are not in the file; the usual number is assumed"
    )
    _counted(report, state)
    name, odd = layout_of(state, json.loads((RECORDED / "adapters" / "full_shapes.json").read_text()))
    report.test(f"tensors as in the layout {name}", not odd, f"{len(odd)}, first {odd[:3]}")
    return adapter


def _text_model(report: Report, path: Path) -> Any:
    from ella_lmd.nodes.host.ella.text_model import KEY, load_text_model

    encoder = load_text_model(_in_its_folder(path, "text_encoders"))
    sizes = TEXT_SIZES[encoder.family]
    found = {k: encoder.sizes[k] for k in sizes}
    report.fact(f"a text encoder for LLM adapters ({encoder.family}): {encoder.sizes}")
    _counted(report, getattr(encoder.clip.cond_stage_model, KEY).transformer.state_dict())
    report.test(f"sizes of {RELEASES[encoder.family]}", found == sizes, f"expected {sizes}")
    report.fact(f"texts stand at the {'last' if encoder.pads_left else 'first'} of the adapter's positions")
    _ids(report, encoder)
    return encoder


def _ids(report: Report, encoder: Any) -> None:
    if encoder.family == "gemma3":
        data = json.loads((RECORDED / "adapters" / "gemma3_chat_ids.json").read_text())
        odd = []
        for case in data["cases"]:
            prompt = encoder.prompt(case["text"], data["system"])
            if (prompt.ids, prompt.skipped) != (case["input_ids"], case["features_from"]):
                odd.append(case["text"])
        report.test(f"ids of {len(data['cases'])} prompts as recorded", not odd, f"{len(odd)}, first {odd[:1]}")
        return
    ids = encoder.prompt("a cat").ids
    ends = (None, 1) if encoder.family == "t5gemma" else (0, 2)
    met = ids[-1] == ends[1] and ends[0] in (None, ids[0])
    report.test(f"ids of 'a cat' {ids} have their marks", met, f"expected {ends} at the ends")


def _t5(report: Report, path: Path) -> Any:
    from ella_lmd.nodes.host.ella.t5 import KEY, load_text_encoder

    encoder = load_text_encoder(_in_its_folder(path, "ella_encoder"))
    found = encoder.config.as_dict()
    sizes = TEXT_SIZES["t5"]
    report.fact(f"a T5 encoder for ELLA: {encoder.config}")
    _counted(report, getattr(encoder.clip.cond_stage_model, KEY).transformer.state_dict())
    report.test(f"sizes of {RELEASES['t5']}", {k: found[k] for k in sizes} == sizes, f"expected {sizes}")
    return encoder


def _relative(a: Any, b: Any) -> float:
    return float((a - b).norm() / b.norm())


def _numbers(report: Report, what: str, x: Any) -> None:
    report.fact(f"{what} {tuple(x.shape)}: mean {x.mean():.4g}, deviation {x.std():.4g}, largest {x.abs().max():.4g}")
    report.test(f"{what} finite", bool(x.isfinite().all()), "NaN or infinity")


def compare_adapter(report: Report, adapter: Any, encoder: Any) -> None:
    """A fixed prompt through an adapter and its text encoder."""
    import torch
    from ella_lmd.ella.adapter import LLMAdapter

    report.say(f"{adapter.name} with {encoder.name}, prompt {PROMPT!r}")
    longest = adapter.config.longest
    end = longest if encoder.pads_left else 0
    features = encoder.features(PROMPT, longest)
    tokens, pooled = adapter(features, end)
    for what, x in (("features", features), ("tokens", tokens), ("pooled", pooled)):
        _numbers(report, what, x)
    empty = adapter(encoder.features("", longest), end)
    report.fact(f"pooled of the prompt against the empty prompt: {_relative(pooled, empty[1]):.3f}")
    model, features = adapter.patcher.model, features.to(adapter.patcher.load_device, torch.float32)
    length, rest = features.shape[1], max(0, longest - features.shape[1])
    padded = torch.cat([features, features.new_ones(1, rest, features.shape[2])], dim=1)
    mask = (torch.arange(length + rest, device=features.device) < length)[None]
    with torch.no_grad():
        plain = model(features)
        difference = _relative(model(padded, mask)[1], plain[1])
        report.test(f"pads masked or left out, difference {difference:.1e}", difference < 1e-4, "must be next to 0")
        heads = [m for m in model.modules() if isinstance(getattr(m, "heads", None), int) and m.heads % 2 == 0]
        for m in heads:
            m.heads //= 2
        halved = model(features)[0]
        for m in heads:
            m.heads *= 2
    report.fact(f"tokens with half the heads: {_relative(halved, plain[0]):.2f} (random weights: 0.44)")
    if isinstance(model, LLMAdapter):
        share = adapter.text_shares(features, end)[0][:, :PHRASE].sum(dim=1)
        report.fact(f"contrast of the first {PHRASE} words over the tokens: {_contrast(share)} (random weights: 0.025)")


def _contrast(share: Any) -> str:
    return f"{float(share.std() / share.mean()):.3f}"


def compare_connector(report: Report, connector: Any, encoder: Any) -> None:
    """A fixed prompt through ELLA's connector and its T5."""
    import torch
    from ella_lmd.ella.rollout import connector_rollout
    from ella_lmd.nodes.host.ella.connector import EllaText

    report.say(f"{connector.name} with {encoder.name}, prompt {PROMPT!r}")
    text = EllaText(connector, encoder.features(PROMPT))
    connector.load()
    _numbers(report, "features", text.features)
    tokens = {t: text.at(t).float() for t in (999, 500, 0)}
    _numbers(report, "tokens at timestep 500", tokens[500])
    for t in (999, 0):
        report.fact(f"tokens at timestep {t} against 500: {_relative(tokens[t], tokens[500]):.3f}")
    report.test("tokens follow the timestep", not torch.equal(tokens[999], tokens[0]), "they are the same")
    device = connector.patcher.load_device
    with torch.no_grad():
        features = text.features.to(device, connector.dtype)
        share = connector_rollout(connector.patcher.model, features, torch.tensor([500], device=device))[0][0]
    contrast = _contrast(share[:, :PHRASE].sum(dim=1))
    report.fact(f"contrast of the first {PHRASE} words over the tokens: {contrast} (random weights: 0.098)")


def check(paths: Iterable[Path], report: Report) -> None:
    """Look at every file, then at every pair that belongs together."""
    from ella_lmd.nodes.host.ella import files
    from ella_lmd.nodes.host.ella.adapter import HostedAdapter
    from ella_lmd.nodes.host.ella.connector import EllaConnector
    from ella_lmd.nodes.host.ella.t5 import EllaTextEncoder
    from ella_lmd.nodes.host.ella.text_model import TextModel

    files.register_folders()
    found = [look_at(report, path) for path in paths]
    for one in found:
        for other in found:
            if isinstance(one, HostedAdapter) and isinstance(other, TextModel) and one.config.input_dim == other.width:
                compare_adapter(report, one, other)
            ella = isinstance(one, EllaConnector) and isinstance(other, EllaTextEncoder)
            if ella and one.config.input_dim == other.config.d_model:
                compare_connector(report, one, other)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, metavar="FILE_OR_FOLDER")
    parser.add_argument("--cuda", action="store_true", help="compute on the graphics card")
    options = parser.parse_args()
    prepare_host(device="cuda" if options.cuda else "cpu")
    report = Report()
    check([p.expanduser().resolve() for p in options.paths], report)
    report.say(f"{report.bad} things differ" if report.bad else "nothing differs")
    return int(report.bad > 0)


if __name__ == "__main__":
    sys.exit(main())
