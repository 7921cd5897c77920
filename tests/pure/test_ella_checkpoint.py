"""Recognising connector and T5 files by keys and shapes, and saying what a wrong file seems to be."""

import pytest
import torch
from ella_lmd.ella import ConnectorConfig, TimestepAwareConnector, connector_config
from ella_lmd.ella.checkpoint import connector_state, describe, t5_config, t5_encoder_state
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


def test_another_t5_is_refused_by_name():
    state = ella_models.t5_state(vocab=100)
    bias = "encoder.block.{}.layer.0.SelfAttention.relative_attention_bias.weight"
    with pytest.raises(ValueError, match="pile-T5"):
        t5_config({**state, bias.format(1): state[bias.format(0)]})
    with pytest.raises(ValueError, match="first version"):
        t5_config({k: v for k, v in state.items() if ".wi_0." not in k})
    with pytest.raises(ValueError, match="CLIP"):
        t5_config({"text_model.encoder.layers.0.mlp.fc1.weight": torch.zeros(2, 2)})
