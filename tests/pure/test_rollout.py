"""Attention rollout: where each token that the U-Net reads comes from, as a distribution over the text."""

import pytest
import torch
from ella_lmd.ella.adapter import AdapterConfig, LLMAdapter
from ella_lmd.ella.connector import ConnectorConfig, TimestepAwareConnector
from ella_lmd.ella.rollout import adapter_rollout, connector_rollout


@pytest.fixture(scope="module")
def adapter():
    torch.manual_seed(1)
    config = AdapterConfig(width=32, input_dim=24, positions=10, tokens=6, pooled=20, mlp=48, heads=4)
    model = LLMAdapter(config).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model


@pytest.fixture(scope="module")
def connector():
    torch.manual_seed(2)
    config = ConnectorConfig(width=32, layers=3, heads=4, latents=6, input_dim=24, time_channels=8, time_dim=16)
    model = TimestepAwareConnector(config).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_a_tokens_origins_add_up_to_one(adapter, connector, share):
    features = torch.randn(2, 7, 24)
    text, latents = connector_rollout(connector, features, torch.tensor([10.0, 900.0]), share)
    torch.testing.assert_close(text.sum(-1) + latents.sum(-1), torch.ones(2, 6))
    text, learned = adapter_rollout(adapter, features, share=share)
    torch.testing.assert_close(text.sum(-1) + learned, torch.ones(2, 6))
    assert text.min() >= 0 and learned.min() >= 0


def test_rows_that_are_not_read_are_no_origin(adapter):
    text, _ = adapter_rollout(adapter, torch.randn(1, 14, 24), torch.tensor([[0, 1, 1, 0, 1, *[1] * 9]]))
    assert text.shape == (1, 6, 14)
    assert (text[..., [0, 3, 10, 11, 12, 13]] == 0).all() and (text[..., [1, 2, 4, 9]] > 0).all()


def test_a_text_of_one_token_is_the_only_origin(adapter, connector):
    text, learned = adapter_rollout(adapter, torch.randn(1, 1, 24))
    torch.testing.assert_close(text[..., 0], 1 - learned)
    none, own = connector_rollout(connector, torch.randn(1, 1, 24), 500, share=0.0)
    assert torch.equal(none, torch.zeros(1, 6, 1)) and torch.equal(own, torch.eye(6)[None])


def test_looking_leaves_the_models_as_they_are(adapter, connector):
    features = torch.randn(1, 7, 24)
    before = adapter(features)[0], connector(features, 300)
    adapter_rollout(adapter, features)
    connector_rollout(connector, features, 300)
    assert torch.equal(adapter(features)[0], before[0]) and torch.equal(connector(features, 300), before[1])
    assert not any(m._forward_hooks or m._forward_pre_hooks for model in (adapter, connector) for m in model.modules())
