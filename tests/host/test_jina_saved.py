"""Graphs saved with ComfyUI_JinaCLIP_SDXL_Adapter, and LoRAs of both packs, run with our nodes to what they meant."""

import logging

import pytest
import torch
from ella_lmd.nodes.host.ella.adapter_compat import REPLACEMENTS, with_tags_first
from ella_lmd.nodes.llm_adapter import LLMAdapterEncode
from ella_lmd.nodes.llm_adapter_compat import LLMAdapterCompatJinaEncode
from ella_lmd.tests.host.test_jina_adapter import jina  # noqa: F401
from ella_lmd.tests.host.test_llm_adapter import adapter, encoders, models  # noqa: F401
from ella_lmd.tests.host.test_llm_adapter_saved import run

LOADED = {"device": "auto", "force_reload": False}
PLAIN = {"text": "a (red:1.5) cat, @the hill", "Padding_Mode": "Nearest-77"}
ADVANCED = {**PLAIN, "weighting_mode": "A1111", "custom_dtype": "auto", "format_text": False}


def graph(encoder: str, loader: str, widgets: dict) -> dict:
    """As the pack's users queue it, with the widgets and links of its nodes."""
    return {
        "1": {"class_type": "JinaClipLoader", "inputs": {"model_name": "jina", "dtype": "auto", **LOADED}},
        "2": {"class_type": loader, "inputs": {"adapter_name": "jina.safetensors", **LOADED}},
        "4": {"class_type": encoder, "inputs": {"jina_model": ["1", 0], "jina_adapter": ["2", 0], **widgets}},
    }


def test_the_simple_node_weighs_words_and_moves_tags(jina):  # noqa: F811
    [[tokens, extra]] = run(graph("JinaTextEncoder", "JinaAdapterLoader", PLAIN))
    [[wanted, more]] = LLMAdapterEncode.execute(*jina, "@ the hill, a (red:1.5) cat", weights="(word:1.2)").args[0]
    assert torch.equal(tokens, wanted) and torch.equal(extra["pooled_output"], more["pooled_output"])
    assert set(extra) == {"pooled_output"}


def test_the_advanced_node_keeps_its_way_of_weighting(jina, caplog):  # noqa: F811
    (unweighted,) = LLMAdapterEncode.execute(*jina, "a red cat, @the hill").args
    nodes = graph("JinaTextEncoderAdvanced", "JinaAdapterLoaderAdvanced", ADVANCED)
    tokens = run(nodes)[0][0]
    scales = torch.ones(tokens.shape[1])
    scales[2] = 1.5  # <s> a red
    torch.testing.assert_close(tokens, unweighted[0][0] * scales[:, None])
    nodes["4"]["inputs"]["weighting_mode"] = "skip"
    assert torch.equal(run(nodes)[0][0], unweighted[0][0])
    with caplog.at_level(logging.WARNING):
        found = {w: LLMAdapterCompatJinaEncode.execute(*jina[::-1], ADVANCED["text"], w, False).args[0][0][0]
                 for w in ("comfy", "comfy++")}  # fmt: skip
    assert torch.equal(found["comfy"], found["comfy++"]) and "'comfy++' is not offered" in caplog.text
    with pytest.raises(ValueError, match="weighting_mode"):
        LLMAdapterCompatJinaEncode.execute(*jina[::-1], "a cat", "odd")


@pytest.mark.parametrize("text, wanted", [
    ("a cat, @some  artist, grass", "@ some artist, a cat, grass"),
    ("@one,two\n @three, four", "@ one, @ three, two\nfour"),
    ("@alone", "@ alone"),
    ("a cat, @artist. it sits", "@ artist, a cat. it sits"),
    ("mail me@home, a cat,, ", "mail me@home, a cat,, "),
    ("@, a cat", "@, a cat"),
])  # fmt: skip
def test_tags_move_to_the_front(text, wanted):
    assert with_tags_first(text) == wanted


def test_a_long_foreign_text_takes_linear_time():
    for text in ("@a," * 200_000, " ," * 400_000 + "@a", "\n" * 500_000 + "@a", "@" * 500_000, " " * 500_000 + "@a. "):
        with_tags_first(text)


@pytest.mark.parametrize("old, widgets, links", [
    ("JinaAdapterLoRALoader", {"model_weight": 0.5, "adapter_weight": 0.25}, {"jina_adapter": "adapter"}),
    ("T5GEMMALORALOADER", {"strength_model": 0.5, "strength_adapter": 0.25}, {"llm_adapter": "adapter"}),
])  # fmt: skip
def test_a_lora_keeps_its_strengths_and_outputs(old, widgets, links):
    r = REPLACEMENTS[old]
    mapping = dict(r.inputs)
    assert r.new == "LLMAdapterLoRA" and r.outputs == 2 and list(r.widgets) == ["lora_name", *widgets]
    assert [mapping[w] for w in widgets] == ["strength_model", "strength_adapter"] and mapping.items() >= links.items()


def test_the_additions_nodes_are_exchanged_too(adapter, encoders):  # noqa: F811
    (wanted,) = LLMAdapterEncode.execute(adapter, encoders["t5gemma"], "a red cat").args
    for encoder, more in (("T5GEMMATextEncoderV2", {}), ("T5GEMMATextEncoder++", {"chunking": False})):
        found = run({
            "1": {"class_type": "T5GEMMALoaderS", "inputs": {"model_name": "t5gemma.safetensors", **LOADED}},
            "2": {"class_type": "LLMAdapterLoaderUnfused",
                  "inputs": {"adapter_name": "adapter.safetensors", "type": "t5gemma", **LOADED}},
            "4": {"class_type": encoder, "inputs": {
                "llm_model": ["1", 0], "llm_tokenizer": ["1", 1], "llm_adapter": ["2", 0], "text": "a red cat", **more}},
        })  # fmt: skip
        assert torch.equal(found[0][0], wanted[0][0]) and set(found[0][1]) == {"pooled_output"}
