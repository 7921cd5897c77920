"""The adapters' text encoders from files in 8-bit floats, with scales and without."""

import folder_paths
import pytest
import torch
from ella_lmd.nodes.llm_adapter import LLMAdapterTextEncoderLoader
from ella_lmd.tests import adapter_models
from safetensors.torch import load_file, save_file

EIGHT = torch.float8_e4m3fn


@pytest.fixture
def folder(monkeypatch, tmp_path):
    known = dict(folder_paths.folder_names_and_paths)
    known |= {k: ([str(tmp_path)], {".safetensors"}) for k in ("text_encoders", "llm", "LLM")}
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", known)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path / "model"


def rounded(state, kind):
    """(tensors as such a file has them, what they mean)."""
    stored, meant = {}, {}
    for key, value in state.items():
        eight = kind == "all" or (value.ndim == 2 and (kind == "matrices" or "embed" not in key))
        if not eight:
            stored[key] = meant[key] = value.bfloat16()
            continue
        scale = value.abs().max() / 448 if kind == "scaled" else torch.tensor(1.0)
        stored[key] = (value / scale).to(EIGHT)
        meant[key] = (stored[key].float() * scale).bfloat16()
        if kind == "scaled":
            stored[key.removesuffix("weight") + "scale_weight"] = scale
    if kind == "scaled":
        stored["scaled_fp8"] = torch.zeros(2, dtype=EIGHT)
    return stored, meant


@pytest.mark.parametrize("family", ["gemma3", "t5gemma", "jina"])
@pytest.mark.parametrize("kind", ["all", "matrices", "layers", "scaled"])
def test_an_8_bit_file_gives_what_its_numbers_mean(folder, family, kind):
    adapter_models.write_encoder(folder, family)
    adapter_models.write_config(
        folder, sliding_window=6, head_dim=16, num_attention_heads=4, attn_logit_softcapping=4.0
    )
    exact = load_file(folder / "model.safetensors")
    rows = []
    for state in rounded(exact, kind):
        save_file(state, folder / "model.safetensors")
        rows.append(LLMAdapterTextEncoderLoader.execute("model").args[0].features("a red cat", 64))
    assert float((rows[0] - rows[1]).norm() / rows[1].norm()) < 0.02 and rows[0].isfinite().all()


def test_a_scale_without_its_layer_is_named(folder):
    adapter_models.write_encoder(folder, "jina")
    adapter_models.write_config(folder, num_attention_heads=4)
    state = load_file(folder / "model.safetensors")
    del state["model.encoder.layers.0.mlp.fc1.weight"]
    state |= {"model.encoder.layers.0.mlp.fc1.scale_weight": torch.ones(()), "scaled_fp8": torch.zeros(2, dtype=EIGHT)}
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"layers\.0\.mlp\.fc1\.weight is missing"):
        LLMAdapterTextEncoderLoader.execute("model")
