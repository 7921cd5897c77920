"""Graphs saved with ComfyUI_LLM_SDXL_Adapter run with our nodes, to what they meant."""

import pytest
import torch
from ella_lmd.nodes import NODES, llm_adapter_compat
from ella_lmd.nodes.host.ella.adapter_compat import REPLACEMENTS
from ella_lmd.nodes.host.ella.compat import convert_prompt
from ella_lmd.nodes.llm_adapter import LLMAdapterEncode
from ella_lmd.tests.host.test_llm_adapter import adapter, encoders, models  # noqa: F401

import nodes

SIZES = {"width": 1024, "height": 768, "target_width": 1024, "target_height": 768, "crop_w": 0, "crop_h": 8}
LOADED = {"device": "auto", "force_reload": False}


def gemma_graph() -> dict:
    """As the pack's users queue it, with the widgets and links of its nodes."""
    return {
        "1": {"class_type": "LLMModelLoader", "inputs": {"model_name": "gemma", **LOADED}},
        "2": {"class_type": "LLMAdapterLoader", "inputs": {"adapter_name": "adapter.safetensors", "type": "gemma", **LOADED}},
        "3": {"class_type": "LLMTextEncoder", "inputs": {
            "model": ["1", 0], "tokenizer": ["1", 1], "text": "a red cat", "system_prompt": "You draw.", "skip_first": 27}},
        "4": {"class_type": "ApplyLLMToSDXLAdapter", "inputs": {"llm_hidden_states": ["3", 0], "llm_adapter": ["2", 0]}},
    }  # fmt: skip


def t5gemma_graph() -> dict:
    custom = {"llm_dim": 32, "num_heads": 16, "dropout": 0.1, **LOADED}
    return {
        "1": {"class_type": "T5GEMMALoader", "inputs": {"model_name": "t5gemma.safetensors", **LOADED}},
        "2": {"class_type": "LLMAdapterLoaderCustom", "inputs": {"adapter_name": "adapter.safetensors", **custom}},
        "3": {"class_type": "T5GEMMATextEncoder", "inputs": {
            "llm_model": ["1", 0], "llm_tokenizer": ["1", 1], "text": "a red cat on the hill", "max_length": 8,
            "device": "cuda", "dtype": "bfloat16"}},
        "4": {"class_type": "t5gemmaApplyLLMToSDXLAdapter", "inputs": {
            "llm_hidden_states": ["3", 0], "llm_attention_mask": ["3", 1], "llm_adapter": ["2", 0], **SIZES}},
    }  # fmt: skip


def run(prompt: dict):
    """Convert and execute a prompt node by node; the conditioning. Inputs that a schema lacks are left out, as by the host."""
    ours, outputs = {n.GET_SCHEMA().node_id: n for n in NODES}, {}
    for key, node in convert_prompt({"prompt": prompt})["prompt"].items():
        kind = ours[node["class_type"]]
        known = {i.id for i in kind.GET_SCHEMA().inputs}
        given = {k: v for k, v in node["inputs"].items() if k in known}
        given = {k: outputs[v[0]][v[1]] if isinstance(v, list) else v for k, v in given.items()}
        outputs[key] = kind.execute(**given).args
    return outputs["4"][0]


def test_a_gemma_graph_runs_to_what_it_meant(adapter, encoders):  # noqa: F811
    [[tokens, extra]] = run(gemma_graph())
    [[wanted, more]] = LLMAdapterEncode.execute(
        adapter, encoders["gemma3"], "a red cat", system_prompt="You draw."
    ).args[0]
    assert torch.equal(tokens, wanted) and set(extra) == {"pooled_output"}
    assert torch.equal(extra["pooled_output"], more["pooled_output"])


def test_a_t5gemma_graph_keeps_its_sizes_and_its_length(adapter, encoders):  # noqa: F811
    [[tokens, extra]] = run(t5gemma_graph())
    [[wanted, _]] = LLMAdapterEncode.execute(adapter, encoders["t5gemma"], "a red cat on the hill").args[0]
    assert torch.equal(tokens, wanted) and {k: extra[k] for k in SIZES} == SIZES
    short = t5gemma_graph()
    short["3"]["inputs"]["max_length"] = 3
    cut = adapter(encoders["t5gemma"].features("a red cat on the hill", 3))[0]
    assert not torch.allclose(cut, wanted, atol=1e-3)
    assert torch.allclose(run(short)[0][0], cut, atol=1e-4)


def test_a_gguf_file_is_refused_with_what_to_take(models):  # noqa: F811
    (models / "llm" / "gemma.gguf").touch()
    node = {"1": {"class_type": "LLMGGUFModelLoader", "inputs": {"model_name": "gemma.gguf"}}}
    (converted,) = convert_prompt({"prompt": node})["prompt"].values()
    ours = {n.GET_SCHEMA().node_id: n for n in NODES}[converted["class_type"]]
    assert "a folder as on Hugging Face" in ours.validate_inputs(**converted["inputs"])


def test_nothing_is_exchanged_where_that_pack_is_installed(monkeypatch):
    monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, "LLMTextEncoder", object)
    assert convert_prompt({"prompt": gemma_graph()})["prompt"]["3"]["class_type"] == "LLMTextEncoder"


def test_every_compatibility_node_stands_in_for_some_node():
    assert {n.GET_SCHEMA().node_id for n in llm_adapter_compat.NODES} <= {r.new for r in REPLACEMENTS.values()}


def test_an_adapter_of_another_pack_is_refused(encoders):  # noqa: F811
    with pytest.raises(ValueError, match="Switch off one of the two packs"):
        LLMAdapterEncode.execute(torch.nn.Linear(1, 1), encoders["gemma3"], "a cat")
