"""The command that looks at released files, on tiny ones."""

import json

import folder_paths
import pytest
import torch
from ella_lmd.ella import ConnectorConfig, TimestepAwareConnector
from ella_lmd.tests import adapter_models, ella_models
from ella_lmd.tools import check_weights
from safetensors.torch import save_file


@pytest.fixture(autouse=True)
def folders(monkeypatch):
    """The command makes the files' folders known; only for the length of a test."""
    known = {k: (list(paths), kinds) for k, (paths, kinds) in folder_paths.folder_names_and_paths.items()}
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", known)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})


def looked_at(*paths) -> tuple[str, int]:
    lines: list[str] = []
    report = check_weights.Report(lines.append)
    check_weights.check(paths, report)
    return "\n".join(lines), report.bad


def test_an_adapter_and_its_text_encoder_are_described_and_run_together(tmp_path):
    adapter_models.write_jina_adapter(tmp_path / "jina.safetensors", positions=64)
    adapter_models.write_encoder(tmp_path / "text", "jina")
    text, bad = looked_at(tmp_path / "jina.safetensors", tmp_path / "text")
    assert "JinaAdapterConfig(width=2048, input_dim=32" in text and "the usual number is assumed" in text
    assert "float16" in text and "layout jina_v2_first_release: DIFFERS" in text
    assert "'num_hidden_layers': 3" in text and "sizes of Jina CLIP v2: DIFFERS" in text and bad == 2
    assert "ids of 'a cat' [0, 4, 7, 2] have their marks: ok" in text
    for line in ("features (1, 21, 32): mean", "tokens finite: ok", "pads masked or left out, difference", "with half"):
        assert line in text.partition("jina.safetensors with text")[2]
    assert "difference 0.0e+00: ok" in text or "e-07: ok" in text or "e-06: ok" in text


def test_a_resampler_tells_how_much_of_the_words_its_tokens_hold(tmp_path):
    adapter_models.write_adapter(tmp_path / "adapter.safetensors")
    adapter_models.write_encoder(tmp_path / "gemma", "gemma3")
    adapter_models.write_config(tmp_path / "gemma", sliding_window=6)
    text, _ = looked_at(tmp_path / "adapter.safetensors", tmp_path / "gemma")
    assert "contrast of the first 8 words" in text and "pads masked or left out" in text
    assert "ids of 8 prompts as recorded: DIFFERS (8" in text  # a tokenizer of 22 words


def test_ellas_files_are_described_and_run_together(tmp_path):
    save_file(ella_models.connector_state(), tmp_path / "ella.safetensors")
    save_file(ella_models.t5_state(), tmp_path / "t5.safetensors")
    text, bad = looked_at(tmp_path / "t5.safetensors", tmp_path / "ella.safetensors")
    assert "an ELLA connector: ConnectorConfig(" in text and "a T5 encoder for ELLA: T5Config(" in text and bad == 2
    assert "tokens follow the timestep: ok" in text and "tokens at timestep 999 against 500" in text


def test_other_and_damaged_files_say_so(tmp_path):
    save_file({"model.diffusion_model.x": torch.zeros(2)}, tmp_path / "checkpoint.safetensors")
    (tmp_path / "empty.safetensors").touch()
    text, bad = looked_at(tmp_path / "checkpoint.safetensors", tmp_path / "empty.safetensors", tmp_path / "nowhere")
    assert bad == 3 and "a whole Stable Diffusion checkpoint" in text and "is empty (0 bytes)" in text


def test_the_releases_own_layouts_are_met():
    layouts = json.loads((check_weights.RECORDED / "adapters" / "full_shapes.json").read_text())
    for name, facts in layouts.items():
        state = {k: torch.empty(v, device="meta") for k, v in facts["shapes"].items()}
        assert check_weights.layout_of(state, layouts) == (name, [])
        key, _ = state.popitem()
        found, odd = check_weights.layout_of({**state, "more": torch.empty(3)}, layouts)
        assert found == name and odd == [f"{key} is missing", "more (3,)"]
    connector = TimestepAwareConnector(ConnectorConfig(), device="meta").state_dict()
    assert {
        "tensors": len(connector),
        "parameters": sum(v.numel() for v in connector.values()),
    } == check_weights.CONNECTOR
