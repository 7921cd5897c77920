"""LLM adapters for SDXL: files, text encoders, conditioning, and the stock sampler with it."""

import logging

import folder_paths
import pytest
import torch
from ella_lmd.ella.weights import weighted
from ella_lmd.nodes.ella import ELLAModelLoader
from ella_lmd.nodes.host.ella.places import weights_of
from ella_lmd.nodes.host.ella.text_model import SYSTEM
from ella_lmd.nodes.llm_adapter import LLMAdapterEncode, LLMAdapterLoader, LLMAdapterTextEncoderLoader
from ella_lmd.tests import adapter_models, ella_models
from ella_lmd.tests.golden import adapter_cases
from safetensors.torch import load_file, save_file

import nodes

FOLDERS = ("ella", "llm_adapters", "llm", "LLM", "text_encoders")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The loaders' folders, with an adapter and both text encoders in them, and nothing else."""
    base = tmp_path_factory.mktemp("adapters")
    with pytest.MonkeyPatch.context() as patch:
        known = dict(folder_paths.folder_names_and_paths)
        for key in FOLDERS:
            (base / key).mkdir()
            known[key] = ([str(base / key)], set(folder_paths.supported_pt_extensions))
        patch.setattr(folder_paths, "folder_names_and_paths", known)
        patch.setattr(folder_paths, "filename_list_cache", {})
        adapter_models.write_adapter(base / "llm_adapters" / "adapter.safetensors")
        adapter_models.write_encoder(base / "text_encoders" / "gemma", "gemma3")
        adapter_models.write_config(base / "text_encoders" / "gemma", sliding_window=6)
        adapter_models.write_encoder(base / "llm", "t5gemma")  # a single file
        (base / "llm" / "model.safetensors").rename(base / "llm" / "t5gemma.safetensors")
        yield base


@pytest.fixture(scope="module")
def adapter(models):
    with torch.inference_mode():
        return LLMAdapterLoader.execute("adapter.safetensors").args[0]


@pytest.fixture(scope="module")
def encoders(models):
    with torch.inference_mode():
        names = {"gemma3": "gemma", "t5gemma": "t5gemma.safetensors"}
        return {family: LLMAdapterTextEncoderLoader.execute(name).args[0] for family, name in names.items()}


@pytest.fixture(scope="module")
def unet():
    import test_models

    with torch.inference_mode():
        return nodes.UNETLoader().load_unet(test_models.diffusion_model("sdxl").name, "default")[0]


def encode(adapter, encoder, text, **more):
    return LLMAdapterEncode.execute(adapter, encoder, text, **more).args[0]


def sample(model, positive, negative, latent=None):
    latent = latent or {"samples": torch.zeros(1, 4, 8, 8)}
    return nodes.KSampler().sample(model, 3, 1, 4.0, "euler", "normal", positive, negative, latent)[0]["samples"]


def test_every_reference_vector_that_is_offered_is_met(golden):
    results = adapter_cases.check(golden / "adapters")
    assert {name for name, *_ in results} == set(adapter_cases.FILES)
    assert [r for r in results if r[1] != r[2] or r[2] == 0] == []


@pytest.mark.parametrize("family", ["gemma3", "t5gemma"])
def test_a_prompt_conditions_sdxl_in_the_stock_sampler(adapter, encoders, unet, family):
    weights = {k: v.clone() for k, v in unet.model.state_dict().items()}
    positive, negative = (encode(adapter, encoders[family], text) for text in ("a red cat", ""))
    [[tokens, extra]] = positive
    assert tokens.shape == (1, 308, 2048) and tokens.dtype == torch.float32 and set(extra) == {"pooled_output"}
    assert extra["pooled_output"].shape == (1, 1280)
    drawn, plain = sample(unet, positive, negative), sample(unet, negative, negative)
    assert drawn.isfinite().all() and not torch.allclose(drawn, plain, atol=1e-4)
    assert all(torch.equal(v, weights[k]) for k, v in unet.model.state_dict().items())


@pytest.mark.parametrize("family", ["gemma3", "t5gemma"])
def test_a_text_is_read_once(adapter, models, encoders, family, monkeypatch):
    encoder, calls = encoders[family], []
    read = encoder.clip.encode_from_tokens
    monkeypatch.setattr(encoder.clip, "encode_from_tokens", lambda tokens: calls.append(tokens) or read(tokens))
    first = encode(adapter, encoder, "the dog on a hill")
    assert torch.equal(first[0][0], encode(adapter, encoder, "the dog on a hill")[0][0]) and len(calls) == 1


def test_gemma_drops_its_counted_start_and_keeps_the_rest(encoders):
    encoder = encoders["gemma3"]
    for system in (SYSTEM, "You draw.", ""):
        prompt = encoder.prompt(" a red cat\n", system)
        rest = encoder.tokenize("a red cat<end_of_turn>\n<start_of_turn>model\n")
        assert prompt.ids[prompt.skipped :] == rest and prompt.skipped == len(prompt.ids) - len(rest)
        assert encoder.features("a red cat", 64, system).shape[1] == len(rest)
    changed = encoder.features("a red cat", 64, "You draw.")
    assert not torch.allclose(changed, encoder.features("a red cat", 64), atol=1e-3)
    assert encoders["t5gemma"].prompt("a cat").ids[-1] == 1 and encoders["t5gemma"].prompt("").ids == [1]


def test_a_text_too_long_is_cut_and_told(adapter, encoders, caplog):
    with caplog.at_level(logging.WARNING):
        rows = encoders["t5gemma"].features("cat " * 100, adapter.config.longest)
    assert rows.shape[1] == 64 and "101 tokens" in caplog.text and "37 at its end" in caplog.text


def weights(encoder, text, limit=64):
    plain, found = weights_of(encoder, text, limit)
    return plain, None if found is None else [round(w, 3) for w in found[0].tolist()]


def test_weights_are_those_of_the_words_tokens(encoders):
    gemma, t5gemma = encoders["gemma3"], encoders["t5gemma"]
    tail = [1.0] * (len(gemma.prompt("").ids) - gemma.prompt("").skipped)
    assert weights(gemma, "a (red cat:1.2) on the hill") == ("a red cat on the hill", [1, 1.2, 1.2, 1, 1, 1, *tail])
    assert weights(t5gemma, "((a)) [red] (cat:0.5)")[1] == [1.21, *[1.0] * 3, 0.5, 1.0]
    assert weights(t5gemma, "a (red (cat:2) dog:1.5)")[1] == [1, 1.5, 2, 1.5, 1]
    assert weights(t5gemma, r"a \(red:3\) cat")[0] == "a (red:3) cat" and weights(t5gemma, r"a \(red\)")[1] is None
    assert weights(t5gemma, "a (red cat:1.2) on", limit=2)[1] == [1, 1.2]
    assert weights(t5gemma, "a cat")[1] is None and weights(t5gemma, "") == ("", None)
    with pytest.raises(ValueError, match="no number"):
        weights(t5gemma, "a (cat:nan)")


def test_neutral_weights_change_no_bit_and_others_do(adapter, encoders):
    encoder, on = encoders["gemma3"], {"weights": "(word:1.2)"}
    [[plain, pooled]] = encode(adapter, encoder, "a red cat")
    for text in ("a red cat", "a (red:1.0) cat", "(a red cat:1)"):
        [[tokens, extra]] = encode(adapter, encoder, text, **on)
        assert torch.equal(tokens, plain) and torch.equal(extra["pooled_output"], pooled["pooled_output"])
    [[tokens, extra]] = encode(adapter, encoder, "a (red:1.4) cat", **on)
    assert not torch.allclose(tokens, plain, atol=1e-3) and set(extra) == {"pooled_output"}
    assert not torch.allclose(extra["pooled_output"], pooled["pooled_output"], atol=1e-4)
    given = torch.ones(1, encoder.features("a red cat", 64).shape[1])
    given[0, 1] = 1.4
    wanted = weighted(adapter.patcher.model, encoder.features("a red cat", 64), given, encoder.features("", 64))
    torch.testing.assert_close(tokens, wanted[0], atol=1e-5, rtol=1e-5)
    [[literal, _]] = encode(adapter, encoder, "a (red:1.4) cat")
    assert torch.equal(literal, adapter(encoder.features("a (red:1.4) cat", 64))[0])
    with pytest.raises(ValueError, match="weights of LLMAdapterEncode"):
        encode(adapter, encoder, "a cat", weights="on")


def test_an_encoder_of_another_width_is_refused(models, encoders):
    adapter_models.write_adapter(models / "llm_adapters" / "wide.safetensors", input_dim=48)
    other = LLMAdapterLoader.execute("wide.safetensors").args[0]
    (models / "llm_adapters" / "wide.safetensors").unlink()
    with pytest.raises(ValueError, match="width 48.*gives width 32.*LLMAdapterTextEncoderLoader"):
        encode(other, encoders["gemma3"], "a cat")


def test_wrong_files_say_what_they_seem_to_be(models):
    tiny = load_file(adapter_models.GOLDEN / "gemma3_tiny_state.safetensors")
    fused = load_file(adapter_models.GOLDEN / "llm_adapter_state_fused.safetensors")
    jina = {"seq_projection.4.weight": torch.zeros(4, 4), "layer_fusion.channel_gate": torch.zeros(4)}
    for name, state in {"gemma": tiny, "ella": ella_models.connector_state(), "jina": jina}.items():
        save_file(state, models / "llm_adapters" / f"{name}.safetensors")
    with pytest.raises(ValueError, match="seems to be a Gemma language model"):
        LLMAdapterLoader.execute("gemma.safetensors")
    with pytest.raises(ValueError, match="seems to be an ELLA connector"):
        LLMAdapterLoader.execute("ella.safetensors")
    with pytest.raises(ValueError, match="a Jina CLIP adapter V3"):
        LLMAdapterLoader.execute("jina.safetensors")
    save_file(fused, models / "ella" / "adapter.safetensors")
    with pytest.raises(ValueError, match="seems to be an LLM adapter for SDXL.*LLMAdapterLoader"):
        ELLAModelLoader.execute("adapter.safetensors")
    save_file(ella_models.t5_state(vocab=64), models / "text_encoders" / "flan.safetensors")
    with pytest.raises(ValueError, match="seems to be a T5 model"):
        LLMAdapterTextEncoderLoader.execute("flan.safetensors")


def test_a_missing_or_foreign_tokenizer_is_named(models):
    folder = models / "llm" / "bare"
    adapter_models.write_encoder(folder, "gemma3")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match="no tokenizer in .*bare.*tokenizer.json"):
        LLMAdapterTextEncoderLoader.execute("bare")
    adapter_models.write_tokenizer(folder, ("<s>", "</s>", "<unk>"))
    with pytest.raises(ValueError, match="belongs to another model"):
        LLMAdapterTextEncoderLoader.execute("bare")


def test_files_are_listed_and_missed(models):
    assert "adapter.safetensors" in LLMAdapterLoader.define_schema().inputs[0].options
    assert {"gemma", "t5gemma.safetensors"} <= set(LLMAdapterTextEncoderLoader.define_schema().inputs[0].options)
    assert "models" not in str(LLMAdapterLoader.validate_inputs("adapter.safetensors"))
    assert "llm_adapters" in LLMAdapterLoader.validate_inputs("nowhere.safetensors")
    assert "was not found" in LLMAdapterTextEncoderLoader.validate_inputs("nowhere")


def test_a_text_stands_where_its_tokenizers_trainer_padded_from(adapter, models, encoders):
    folder = models / "text_encoders" / "left"
    adapter_models.write_encoder(folder, "t5gemma")
    (folder / "tokenizer_config.json").write_text('{"padding_side": "left"}')
    encoder = LLMAdapterTextEncoderLoader.execute("left").args[0]
    features = encoder.features("a red cat", 64)
    assert torch.equal(features, encoders["t5gemma"].features("a red cat", 64))
    padded = torch.cat([torch.randn(1, 60, 32), features], dim=1)
    with torch.no_grad():
        wanted = adapter.patcher.model(padded, torch.arange(64)[None] >= 60)
    [[tokens, extra]] = encode(adapter, encoder, "a red cat")
    assert torch.allclose(tokens, wanted[0], atol=1e-4) and torch.allclose(extra["pooled_output"], wanted[1], atol=1e-4)
    assert not torch.allclose(tokens, encode(adapter, encoders["t5gemma"], "a red cat")[0][0], atol=0.1)
    neutral, heavy = (encode(adapter, encoder, f"a (red:{w}) cat", weights="(word:1.2)")[0][0] for w in (1.0, 3.0))
    assert torch.equal(neutral, tokens) and not torch.allclose(heavy, tokens, atol=1e-3)
    shares, _ = adapter.text_shares(features, 64)
    assert shares.shape == (308, 4) and bool((shares > 0).all())
    for text, side in (("{}", False), ('{"padding_side": "right"}', False), ("[]", False)):
        (folder / "tokenizer_config.json").write_text(text)
        assert LLMAdapterTextEncoderLoader.execute("left").args[0].pads_left is side
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer_config\.json is damaged"):
        LLMAdapterTextEncoderLoader.execute("left")
