"""Jina CLIP v2 adapters for SDXL: text encoder, adapter, conditioning, and the stock sampler with it."""

import json
import logging
import shutil

import pytest
import torch
from ella_lmd.nodes.host.ella.places import weights_of
from ella_lmd.nodes.llm_adapter import LLMAdapterLoader, LLMAdapterTextEncoderLoader
from ella_lmd.tests import adapter_models
from ella_lmd.tests.host.test_llm_adapter import encode, models, sample, unet  # noqa: F401
from safetensors.torch import load_file, save_file

from nodes import ConditioningConcat

WORDS = ("a", "red", "cat")


@pytest.fixture(scope="module")
def jina(models):  # noqa: F811
    """(adapter, text encoder), loaded by the nodes."""
    adapter_models.write_jina_adapter(models / "llm_adapters" / "jina.safetensors", positions=16)
    adapter_models.write_encoder(models / "text_encoders" / "jina", "jina")
    with torch.inference_mode():
        adapter = LLMAdapterLoader.execute("jina.safetensors").args[0]
        return adapter, LLMAdapterTextEncoderLoader.execute("jina").args[0]


def ids(*words: str) -> list[int]:
    known = [*adapter_models.JINA_SPECIALS, *adapter_models.WORDS]
    return [known.index(word) for word in words]


def test_a_prompt_gives_a_row_for_each_token(jina):
    adapter, encoder = jina
    [[tokens, extra]] = encode(adapter, encoder, "a red cat")
    assert tokens.shape == (1, 5, 2048) and tokens.dtype == torch.float32 and set(extra) == {"pooled_output"}
    assert extra["pooled_output"].shape == (1, 1280)
    assert encoder.prompt("a red cat").ids == ids("<s>", *WORDS, "</s>")
    assert encode(adapter, encoder, "")[0][0].shape == (1, 2, 2048)


def test_the_stock_sampler_takes_texts_of_two_lengths(jina, unet):  # noqa: F811
    weights = {k: v.clone() for k, v in unet.model.state_dict().items()}
    positive, negative = encode(*jina, "a red cat"), encode(*jina, "")
    drawn, plain = sample(unet, positive, negative), sample(unet, negative, negative)
    assert drawn.isfinite().all() and not torch.allclose(drawn, plain, atol=1e-4)
    both = ConditioningConcat().concat(positive, encode(*jina, "the hill"))[0]
    assert sample(unet, both, negative).isfinite().all()
    assert all(torch.equal(v, weights[k]) for k, v in unet.model.state_dict().items())


def test_a_text_too_long_is_cut_told_and_keeps_its_end(jina, caplog):
    adapter, encoder = jina
    text = " ".join(["cat"] * 20 + ["dog"])
    with caplog.at_level(logging.WARNING):
        tokens = encode(adapter, encoder, text)[0][0]
    assert "the text has 23 tokens, the adapter reads 16; 7 at its end are not used" in caplog.text
    assert tokens.shape[1] == 16 and torch.equal(tokens, encode(adapter, encoder, " ".join(["cat"] * 14))[0][0])


def test_prompt_weights_act_on_the_words_own_rows(jina):
    adapter, encoder = jina
    on = {"weights": "(word:1.2)"}
    plain, pooled = encode(adapter, encoder, "a red cat")[0]
    mask = torch.tensor([[1, 1, 0, 0, 0]])
    with torch.no_grad():
        base = adapter.patcher.model(encoder.features("", 16, rows=5), mask)[0]
    torch.testing.assert_close(base[:, :2], encode(adapter, encoder, "")[0][0])  # the pads behind it change nothing
    assert torch.equal(encode(adapter, encoder, "a (red:1) cat", **on)[0][0], plain)
    [[tokens, extra]] = encode(adapter, encoder, "a (red:1.5) cat", **on)
    assert torch.equal(tokens[:, [0, 1, 3, 4]], plain[:, [0, 1, 3, 4]])
    torch.testing.assert_close(tokens[:, 2], base[:, 2] + 1.5 * (plain[:, 2] - base[:, 2]))
    assert torch.equal(extra["pooled_output"], pooled["pooled_output"])
    assert weights_of(encoder, "cat " * 20 + "(dog:2)", 16)[1] is None, "what is cut has no row"
    assert weights_of(encoder, "cat " * 13 + "(dog dog:2)", 16)[1].tolist() == [[*[1.0] * 14, 2.0, 1.0]]


def test_the_pooled_vector_may_come_from_the_texts_mean(models, jina):  # noqa: F811
    adapter_models.write_jina_adapter(models / "llm_adapters" / "mean.safetensors", mean_pooled=32)
    adapter = LLMAdapterLoader.execute("mean.safetensors").args[0]
    features = jina[1].features("a red cat", 16)
    with torch.no_grad():
        wanted = adapter.patcher.model.pooled_projection(features.mean(dim=1))
    assert torch.allclose(encode(adapter, jina[1], "a red cat")[0][1]["pooled_output"], wanted, atol=1e-5)


def released(state: dict, config: dict, tasks: int) -> dict:
    """The text encoder as on Hugging Face: inside a larger model, with a LoRA of each task beside each matrix."""
    generator, out = (
        torch.Generator().manual_seed(3),
        {"vision_model.encoder.layers.0.mixer.Wqkv.weight": torch.ones(2, 2)},
    )
    for key, weight in state.items():
        name = "text_model.transformer.roberta." + key.removeprefix("model.")
        if weight.ndim < 2:
            out[name] = weight
            continue
        first, second = (tasks, config["lora_rank"], weight.shape[1]), (tasks, weight.shape[0], config["lora_rank"])
        if "embeddings" in key:
            first, second = second, first
        stem = name.removesuffix("weight") + "parametrizations.weight."
        out[stem + "original"] = weight
        out[stem + "0.lora_A"] = torch.randn(first, generator=generator)
        out[stem + "0.lora_B"] = torch.randn(second, generator=generator) * 0.1
    return out


@pytest.mark.parametrize("tasks", [1, 2])
def test_the_release_reads_with_the_lora_of_its_default_task(models, jina, tasks):  # noqa: F811
    tiny = load_file(adapter_models.GOLDEN / "jina_text_tiny_state.safetensors")
    lora = {"lora_rank": 4, "lora_alpha": 2, "lora_adaptations": ["other", "query"][-tasks:]}
    state = released(tiny, lora, tasks)
    whole, merged = (models / "text_encoders" / f"{name}{tasks}" for name in ("whole", "merged"))
    for folder in (whole, merged):
        folder.mkdir()
        shutil.copy(models / "text_encoders" / "jina" / "tokenizer.json", folder)
    text = {"default_lora_task": "query", "num_attention_heads": 4, "hf_model_config_kwargs": lora}
    (whole / "config.json").write_text(json.dumps({"text_config": text}))
    save_file(state, whole / "model.safetensors")
    stems = {k: "text_model.transformer.roberta." + k.removeprefix("model.").removesuffix("weight") for k in tiny}
    summed = dict(tiny)
    for key in (k for k, v in tiny.items() if v.ndim == 2):
        a, b = (state[f"{stems[key]}parametrizations.weight.0.lora_{x}"][-1] for x in "AB")
        summed[key] = tiny[key] + 0.5 * (a @ b if "embeddings" in key else b @ a)
    save_file(summed, merged / "model.safetensors", {"config": json.dumps({"num_attention_heads": 4})})
    rows, wanted = (
        LLMAdapterTextEncoderLoader.execute(f.name).args[0].features("a red cat", 16) for f in (whole, merged)
    )
    assert torch.allclose(rows, wanted, atol=1e-4) and not torch.allclose(
        rows, jina[1].features("a red cat", 16), atol=1e-2
    )


def test_what_cannot_be_known_about_the_release_is_asked_for(models, jina):  # noqa: F811
    folder = models / "text_encoders" / "tasks"
    folder.mkdir()
    shutil.copy(models / "text_encoders" / "jina" / "tokenizer.json", folder)
    tiny = load_file(adapter_models.GOLDEN / "jina_text_tiny_state.safetensors")
    save_file(released(tiny, {"lora_rank": 4}, 2), folder / "model.safetensors")
    with pytest.raises(ValueError, match="LoRAs of 2 tasks and nothing says which"):
        LLMAdapterTextEncoderLoader.execute("tasks")
    save_file(tiny, folder / "model.safetensors")  # heads of width 64 in a text encoder of width 32
    with pytest.raises(ValueError, match="can't have 0 heads"):
        LLMAdapterTextEncoderLoader.execute("tasks")


def test_an_adapter_and_the_text_encoder_of_another_are_refused(models, jina):  # noqa: F811
    adapter_models.write_jina_adapter(models / "llm_adapters" / "wide.safetensors", input_dim=48)
    with pytest.raises(ValueError, match="width 48.*gives width 32.*1024: Jina CLIP v2"):
        encode(LLMAdapterLoader.execute("wide.safetensors").args[0], jina[1], "a cat")
