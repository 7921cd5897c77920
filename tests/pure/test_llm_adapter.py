"""Recognising LLM adapters and their text encoders by their tensors."""

import pytest
import torch
from ella_lmd.ella.adapter import AdapterConfig, LLMAdapter
from ella_lmd.ella.adapter_checkpoint import adapter_config, adapter_state, text_model_config, text_model_state
from ella_lmd.ella.checkpoint import describe
from ella_lmd.ella.jina_adapter import JinaAdapter, JinaAdapterConfig
from ella_lmd.ella.weights import weighted, weighted_rows
from ella_lmd.tests.adapter_models import flat, fused

SIZES = {"width": 32, "input_dim": 24, "positions": 16, "tokens": 12, "pooled": 20, "mlp": 64}


@pytest.fixture
def state():
    module = LLMAdapter(AdapterConfig(**SIZES))
    return {k: torch.randn(v.shape) for k, v in module.state_dict().items()}


@pytest.mark.parametrize("naming", [dict, fused, flat])
@pytest.mark.parametrize("prefix", ["", "module.", "adapter."])
def test_every_naming_is_the_same_network(state, naming, prefix):
    renamed = {prefix + k: v for k, v in naming(state).items()}
    assert naming is dict or renamed.keys() != state.keys()
    found = adapter_state(renamed)
    assert found.keys() == state.keys() and all(torch.equal(found[k], state[k]) for k in state)
    assert adapter_config(found) == AdapterConfig(**SIZES)
    assert "LLM adapter for SDXL" in describe(renamed)


def test_the_head_count_is_16_unless_the_file_says_otherwise(state):
    assert adapter_config(state).heads == 16 and adapter_config(state, "4").heads == 4
    for odd in ("0", "5", "many"):
        with pytest.raises(ValueError, match="attention heads"):
            adapter_config(state, odd)


def test_what_is_missing_or_too_much_is_named(state):
    with pytest.raises(ValueError, match=r"pooling_token is missing"):
        adapter_config({k: v for k, v in state.items() if k != "pooling_token"})
    with pytest.raises(ValueError, match=r"more\.weight does not belong there"):
        adapter_config({**state, "more.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"pooling_token has shape \(1, 2, 32\) instead of \(1, 1, 32\)"):
        adapter_config({**state, "pooling_token": torch.zeros(1, 2, 32)})
    with pytest.raises(ValueError, match="damaged"):
        adapter_config({**state, "compression_queries": torch.zeros(3)})


def test_rows_that_the_mask_leaves_out_change_nothing(state):
    model = LLMAdapter(AdapterConfig(**SIZES)).eval()
    model.load_state_dict(state)
    model.double()
    text = torch.randn(1, 5, 24, dtype=torch.float64)
    padded = torch.cat([text, torch.randn(1, 4, 24, dtype=torch.float64)], dim=1)
    mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0, 0, 0]])
    for alone, masked in zip(model(text), model(padded, mask)):
        torch.testing.assert_close(alone, masked, atol=1e-9, rtol=1e-9)
    with pytest.raises(ValueError, match="no row"):
        model(padded, torch.zeros(1, 9))
    with pytest.raises(ValueError, match=r"\(batch, tokens, 24\)"):
        model(torch.zeros(1, 5, 8))


def test_text_models_are_told_apart():
    def layer(root, **more):
        shapes = {"self_attn.q_proj": (32, 24), "self_attn.k_proj": (16, 24), "mlp.gate_proj": (48, 24), **more}
        return {f"{root}layers.0.{k}.weight": torch.zeros(v) for k, v in shapes.items()} | {
            root + "embed_tokens.weight": torch.zeros(90, 24)
        }

    norms = {"pre_feedforward_layernorm": (24,)}
    gemma = layer("language_model.model.", **norms, **{"self_attn.q_norm": (16,)})
    family, state = text_model_state({**gemma, "vision_tower.layers.0.self_attn.q_norm.weight": torch.zeros(3)})
    config = text_model_config(family, state, {})
    assert family == "gemma3" and all(k.startswith("model.layers.0.") or "embed" in k for k in state)
    assert (config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]) == (2, 1, 16)
    family, state = text_model_state(layer("encoder.", **norms, pre_self_attn_layernorm=(24,)))
    assert family == "t5gemma" and text_model_config(family, state, {"head_dim": 8})["num_attention_heads"] == 4
    with pytest.raises(ValueError, match="heads of width 256"):
        text_model_config(family, state, {})
    with pytest.raises(ValueError, match="seems to be a language model"):
        text_model_state(layer("model.", **{"self_attn.q_norm": (16,)}))


def jina(**sizes) -> tuple[JinaAdapter, dict[str, torch.Tensor]]:
    small = {"width": 32, "input_dim": 24, "pooled": 20, "mlp": 64, "blocks": 2, "heads": 4, **sizes}
    module = JinaAdapter(JinaAdapterConfig(**small)).eval()
    state = {k: torch.randn(v.shape) for k, v in module.state_dict().items()}
    module.load_state_dict(state)
    return module, state


@pytest.mark.parametrize("sizes", [{}, {"positions": 14}, {"positions": 14, "mean_pooled": 10}, {"mean_pooled": 24}])
@pytest.mark.parametrize("prefix", ["", "module.", "adapter."])
def test_a_jina_adapter_is_known_by_its_shapes(sizes, prefix):
    module, state = jina(**sizes)
    for naming in (dict, fused):
        renamed = {prefix + k: v for k, v in naming(state).items()}
        found = adapter_state(renamed)
        assert found.keys() == state.keys() and all(torch.equal(found[k], state[k]) for k in state)
        assert adapter_config(found, "4") == module.config
        assert "Jina CLIP adapter for SDXL; it belongs in models/llm_adapters" in describe(renamed)


def test_a_wrong_jina_adapter_is_explained():
    _, state = jina(positions=14)
    gate = {"model.layer_fusion.channel_gate": torch.zeros(1)}
    for missing in ("seq_projection.0.weight", "attention_pooler.query", "attention_blocks.1.norm1.bias"):
        with pytest.raises(ValueError, match=f"{missing} is missing"):
            adapter_config({k: v for k, v in state.items() if k != missing}, "4")
    with pytest.raises(ValueError, match=r"attention_blocks\.3\.\S+ does not belong there"):
        adapter_config({k.replace("blocks.1.", "blocks.3."): v for k, v in state.items()}, "4")
    with pytest.raises(ValueError, match="can't have 5 attention heads"):
        adapter_config(state, "4", pooler_heads="5")
    with pytest.raises(ValueError, match="a Jina CLIP adapter V3"):
        adapter_config(adapter_state({"model." + k: v for k, v in state.items()} | gate))


@pytest.mark.parametrize("sizes", [{"positions": 14}, {"mean_pooled": 24}])
def test_a_jina_adapter_gives_a_row_for_each_token_and_reads_no_padding(sizes):
    module, _ = jina(**sizes)
    text = torch.randn(1, 5, 24)
    mask = torch.tensor([[0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    padded = torch.cat([torch.randn(1, 1, 24), text], dim=1).expand(2, -1, -1)
    alone, other = module(padded[:1], mask[:1]), module(padded, mask)
    assert alone[0].shape == (1, 6, 32) and alone[1].shape == (1, 20)
    noise = padded[:1].clone()
    noise[:, 0] = 9.0
    for changed in (module(noise, mask[:1]), (other[0][:1], other[1][:1])):
        torch.testing.assert_close(changed[0][:, 1:], alone[0][:, 1:], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(changed[1], alone[1], atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="no row"):
        module(padded, 0 * mask)
    if module.config.positions:
        with pytest.raises(ValueError, match="at most 14 tokens, it received 15"):
            module(torch.zeros(1, 15, 24))


def test_a_jina_adapter_reads_what_it_was_trained_with_and_not_its_padding():
    lengths = {0: 512, 14: 14, 512: 512, 539: 512, 1078: 1024}
    assert {n: JinaAdapterConfig(positions=n).longest for n in lengths} == lengths


def test_jinas_text_encoder_is_known_in_whatever_file_it_lies():
    layers = {
        "embeddings.word_embeddings.weight": (90, 128),
        "embeddings.token_type_embeddings.weight": (1, 128),
        "emb_ln.weight": (128,),
        "encoder.layers.0.mixer.Wqkv.weight": (384, 128),
        "encoder.layers.0.mlp.fc1.weight": (64, 128),
    }
    for prefix in ("model.", "", "roberta.", "text_model.transformer.roberta."):
        file = {prefix + k: torch.zeros(v) for k, v in layers.items()}
        file |= {prefix + "pooler.dense.weight": torch.zeros(3), "vision_model.blocks.0.attn.weight": torch.zeros(3)}
        family, state = text_model_state(file)
        assert family == "jina" and state.keys() == {"model." + k for k in layers} and "Jina CLIP v2" in describe(file)
        config = text_model_config(family, state, {})
        assert (config["num_attention_heads"], config["num_hidden_layers"], config["vocab_size"]) == (2, 1, 90)
    for odd in (0, 3, "2", True):
        with pytest.raises(ValueError, match="heads"):
            text_model_config(family, state, {"num_attention_heads": odd})
    with pytest.raises(ValueError, match=r"fc1\.weight is missing"):
        text_model_config(family, {k: v for k, v in state.items() if "fc1" not in k}, {})


def test_weights_move_tokens_away_from_the_empty_text(state):
    model = LLMAdapter(AdapterConfig(**SIZES)).eval()
    model.load_state_dict(state)
    text, empty = torch.randn(1, 5, 24), torch.randn(1, 2, 24)
    (plain, pooled), (base, _) = model(text), model(empty)
    for uniform in (1.0, 2.5):  # only ratios count
        tokens, pool, scales = weighted(model, text, torch.full((1, 5), uniform), empty)
        torch.testing.assert_close(scales, torch.ones(1, SIZES["tokens"]))
        torch.testing.assert_close(tokens, plain, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(pool, pooled, atol=1e-4, rtol=1e-4)
    tokens, pool, scales = weighted(model, text, torch.tensor([[1.0, 99.0, 1.0, -5.0, 1.0]]), empty)
    assert scales.min() >= 1e-3 and scales.max() <= 4 and scales.std() > 0
    torch.testing.assert_close((tokens - base) / (plain - base), scales[..., None].expand_as(tokens), atol=1e-2, rtol=0)
    torch.testing.assert_close(pool, model.pool(tokens))
    padded = torch.cat([text, torch.randn(1, 3, 24)], 1), torch.tensor([[1.0, 3, 1, 1, 1, 9, 9, 9]])
    mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0, 0]])
    torch.testing.assert_close(
        weighted(model, *padded, empty, mask)[2], weighted(model, text, padded[1][:, :5], empty)[2]
    )


def test_weights_of_rows_are_the_rows_own():
    rows, base = torch.randn(1, 4, 3), torch.randn(1, 4, 3)
    assert torch.equal(weighted_rows(rows, torch.ones(1, 4), base * 0), rows)
    found = weighted_rows(rows, torch.tensor([[1.0, 2.0, 0.0, 0.5]]), base)
    torch.testing.assert_close(found[:, 1], 2 * rows[:, 1] - base[:, 1])
    torch.testing.assert_close(found[:, 2], base[:, 2])
    torch.testing.assert_close(found[:, 3], (rows[:, 3] + base[:, 3]) / 2)
