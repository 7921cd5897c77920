"""Recognising connector and T5 files by keys and shapes, and saying what a wrong file seems to be."""

import pytest
import torch
from ella_lmd.ella import ConnectorConfig, TimestepAwareConnector, connector_config
from ella_lmd.ella.checkpoint import T5Config, connector_state, describe, t5_config, t5_encoder_state
from ella_lmd.tests import ella_models


def test_the_released_layout_has_93_tensors_and_66_8_million_parameters():
    state = TimestepAwareConnector(ConnectorConfig(), device="meta").state_dict()
    assert len(state) == 93
    assert sum(v.numel() for v in state.values()) == 66_820_608


@pytest.mark.parametrize(
    "config",
    [
        ConnectorConfig(),
        ConnectorConfig(width=64, layers=2, latents=8, input_dim=32, time_channels=32, time_dim=64),
        ConnectorConfig(width=1024, layers=3, latents=77, input_dim=4096),
    ],
)
def test_sizes_are_read_from_the_shapes(config):
    state = TimestepAwareConnector(config, device="meta").state_dict()
    assert connector_config(state) == config


def test_the_number_of_heads_can_be_given():
    state = TimestepAwareConnector(ConnectorConfig(width=64, heads=4), device="meta").state_dict()
    assert connector_config(state, heads=4).heads == 4


@pytest.mark.parametrize("heads", [1, "8", 64])
def test_any_number_of_heads_that_divides_the_width_is_taken(heads):
    assert connector_config(ella_models.connector_state(width=64), heads).heads == int(heads)


@pytest.mark.parametrize("heads", [0, -8, 7, "many", "8.0", ""])
def test_a_number_of_heads_that_does_not_divide_the_width_is_refused(heads):
    with pytest.raises(ValueError, match=f"has {heads} attention heads"):
        connector_config(ella_models.connector_state(width=64), heads)


@pytest.mark.parametrize("shape", [(4,), (0, 4), (4, 0), (2, 2, 2)])
@pytest.mark.parametrize(
    "key", ["connector.latents", "connector.proj_in.weight", "time_embedding.linear_1.weight", "shared.weight"]
)
def test_a_damaged_matrix_is_named(key, shape):
    t5 = key == "shared.weight"
    state = ella_models.t5_state(vocab=100) if t5 else ella_models.connector_state()
    with pytest.raises(ValueError, match=rf"{key} has shape \({shape[0]}, ?.*Get .*ella-sd1.5|{key} has .*FLAN-T5-XL"):
        (t5_config if t5 else connector_config)({**state, key: torch.zeros(shape)})


def test_a_connector_without_its_first_layer_says_what_it_lacks():
    state = ella_models.connector_state()
    del state["connector.proj_in.weight"]
    with pytest.raises(ValueError, match="It lacks connector.proj_in.weight. "):
        connector_config(state)


def test_a_tensor_of_another_shape_is_named_with_the_right_one():
    state = {**ella_models.connector_state(width=64), "connector.proj_in.bias": torch.zeros(3)}
    with pytest.raises(ValueError, match=r"proj_in.bias has shape \(3,\) instead of \(64,\)"):
        connector_config(state)


def test_a_file_without_tensors_is_called_empty():
    assert describe([]) == "an empty file"


@pytest.mark.parametrize("prefix", ["module.", "model.", "ella."])
def test_a_prefix_from_saving_again_is_cut(prefix):
    state = ella_models.connector_state()
    assert connector_config(connector_state({prefix + k: v for k, v in state.items()})) == connector_config(state)


def test_a_damaged_file_names_the_tensors():
    state = ella_models.connector_state()
    del state["connector.perceiver_blocks.0.mlp.c_fc.bias"]
    state["extra"] = torch.zeros(1)
    with pytest.raises(ValueError, match="c_fc.bias is missing; extra does not belong there"):
        connector_config(state)


@pytest.mark.parametrize(
    "key, seems",
    [
        ("model.diffusion_model.input_blocks.0.0.weight", "checkpoint"),
        ("lora_unet_down_blocks_0.lora_down.weight", "LoRA"),
        ("control_model.input_blocks.0.0.weight", "ControlNet"),
        ("image_proj.proj.weight", "IPAdapter"),
        ("text_model.encoder.layers.0.mlp.fc1.weight", "CLIP"),
        ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", "T5"),
        ("first_stage_model.decoder.conv_in.weight", "VAE"),
        ("something.else", "unknown kind"),
    ],
)
def test_a_wrong_file_says_what_it_seems_to_be(key, seems):
    assert seems in describe([key])
    with pytest.raises(ValueError, match=seems):
        connector_config({key: torch.zeros(2, 2)})


def test_a_whole_t5_is_read_as_its_encoder():
    state = ella_models.t5_state(width=64, layers=3, heads=4, vocab=100)
    whole = {**state, "lm_head.weight": state["shared.weight"], "decoder.final_layer_norm.weight": torch.ones(64)}
    assert t5_encoder_state(whole).keys() == state.keys()
    config = t5_config(t5_encoder_state(whole))
    assert (config.d_model, config.d_ff, config.d_kv, config.num_heads, config.num_layers, config.vocab_size) == (
        64, 128, 16, 4, 3, 100,
    )  # fmt: skip


def test_an_embedding_stored_only_in_the_encoder_is_found():
    state = ella_models.t5_state(vocab=100)
    state["encoder.embed_tokens.weight"] = state.pop("shared.weight")
    assert "shared.weight" in t5_encoder_state(state)


def test_one_block_is_enough_for_a_t5():
    assert t5_config(ella_models.t5_state(layers=1, vocab=100)).num_layers == 1


def test_another_t5_is_refused_by_name():
    state = ella_models.t5_state(vocab=100)
    bias = "encoder.block.{}.layer.0.SelfAttention.relative_attention_bias.weight"
    with pytest.raises(ValueError, match="pile-T5"):
        t5_config({**state, bias.format(1): state[bias.format(0)]})
    with pytest.raises(ValueError, match="first version"):
        t5_config({k: v for k, v in state.items() if ".wi_0." not in k})
    with pytest.raises(ValueError, match="CLIP"):
        t5_config({"text_model.encoder.layers.0.mlp.fc1.weight": torch.zeros(2, 2)})


@pytest.mark.parametrize(
    "key", ["shared.weight", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
)
def test_a_t5_without_embedding_or_bias_is_refused(key):
    state = {k: v for k, v in ella_models.t5_state(vocab=100).items() if k != key}
    with pytest.raises(ValueError, match="not a T5 text encoder"):
        t5_config(t5_encoder_state(state))


@pytest.mark.parametrize("size", [0, -1, True, 1.5, None])
def test_a_t5_size_that_is_no_whole_number_is_refused(size):
    sizes = {"d_model": 1, "d_ff": 1, "d_kv": 1, "num_heads": 1, "num_layers": 1, "vocab_size": 1}
    assert T5Config(**sizes).as_dict()["is_gated_act"] is True
    for name in sizes:
        with pytest.raises(ValueError, match=name):
            T5Config(**{**sizes, name: size})
