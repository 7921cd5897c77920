"""Properties of the connector that no reference vector is needed for."""

import pytest
import torch
from ella_lmd.ella import TimestepAwareConnector, connector_config
from ella_lmd.ella.schedule import RecomputeOptions, checked_timestep
from ella_lmd.ella.upsample import caption_from_reply, needs_upsampling, upsampling_request
from ella_lmd.tests import ella_models


@pytest.fixture(scope="module")
def connector():
    state = ella_models.connector_state(layers=2, width=64, input_dim=16, time_dim=32, time_channels=32, latents=8)
    module = TimestepAwareConnector(connector_config(state))
    module.load_state_dict(state, strict=True)
    return module.requires_grad_(False)


def text(rows, length):
    return torch.randn(rows, length, 16, generator=torch.Generator().manual_seed(length))


def test_rows_of_a_batch_do_not_influence_each_other(connector):
    x = text(3, 9)
    t = torch.tensor([999, 500, 1])
    together = connector(x, t)
    for i in range(3):
        assert torch.allclose(together[i : i + 1], connector(x[i : i + 1], t[i]), atol=1e-5)


def test_the_order_of_text_tokens_does_not_matter(connector):
    x = text(1, 9)
    assert torch.allclose(connector(x, 300), connector(x.flip(1), 300), atol=1e-5)


def test_padding_is_read_like_any_other_token(connector):
    x = text(1, 9)
    assert not torch.allclose(connector(x, 300), connector(torch.cat([x, text(1, 4)], 1), 300), atol=1e-2)


@pytest.mark.parametrize("length", [1, 77, 129, 200])
def test_any_length_gives_the_same_number_of_tokens(connector, length):
    assert connector(text(1, length), 500).shape == (1, 8, 64)


def test_the_timestep_changes_the_tokens_and_is_not_rounded(connector):
    x = text(1, 9)
    assert (connector(x, 999) - connector(x, 0)).norm() > 0.1 * connector(x, 0).norm()
    assert not torch.equal(connector(x, 333.5), connector(x, 333))


@pytest.mark.parametrize("shape", [(2, 9), (1, 0, 16), (1, 9, 17)])
def test_features_of_another_shape_are_refused(connector, shape):
    with pytest.raises(ValueError, match="text features of shape"):
        connector(torch.zeros(shape), 1)


def test_a_wrong_number_of_timesteps_is_refused(connector):
    with pytest.raises(ValueError, match="1 or 3 timesteps"):
        connector(text(3, 4), torch.tensor([1, 2]))


def test_layers_are_injected():
    made = []

    class Ops:
        class Linear(torch.nn.Linear):
            def __init__(self, *args, **kwargs):
                made.append(args)
                super().__init__(*args, **kwargs)

    config = connector_config(ella_models.connector_state(layers=1))
    module = TimestepAwareConnector(config, operations=Ops, device="meta")
    assert len(made) == sum(isinstance(m, torch.nn.Linear) for m in module.modules()) == 10


@pytest.mark.parametrize(
    "options, expected",
    [
        (RecomputeOptions(), {999: 1.0, 500: 1.0, 0: 1.0}),
        (RecomputeOptions(0.5), {999: 0.5, 0: 0.5}),
        (RecomputeOptions(1.0, 0.25, 0.75), {999: 0.0, 600: 1.0, 400: 1.0, 100: 0.0}),
        (RecomputeOptions(schedule="fade in"), {999: 0.0, 499.5: 0.5, 0: 1.0}),
        (RecomputeOptions(schedule="fade out"), {999: 1.0, 499.5: 0.5, 0: 0.0}),
        (RecomputeOptions(0.0), {999: 0.0, 0: 0.0}),
        (RecomputeOptions(1.0, 0.5, 0.5), {500: 0.0}),
    ],
)
def test_strength_over_the_schedule(options, expected):
    for timestep, strength in expected.items():
        assert options.strength_at(timestep) == pytest.approx(strength)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match="fade in"):
        RecomputeOptions(schedule="sideways")


@pytest.mark.parametrize("value", [-1.0, 1000.0, 3.5, float("nan"), float("inf")])
def test_a_model_with_another_notion_of_time_is_refused(value):
    with pytest.raises(ValueError, match="Continuous"):
        checked_timestep(value, "ModelSamplingContinuousEDM")


def test_the_upsampling_request_ends_with_the_prompt_after_four_examples():
    request = upsampling_request(" a red cube ")
    assert request.endswith("Short: a red cube\nLong:")
    assert request.count("Short: ") == 5
    assert "3 to 5" in request and "mood" in request and "colour, shape, texture or spatial relation" in request


@pytest.mark.parametrize(
    "reply, caption",
    [
        ("a red cube\nstands there.", "a red cube stands there."),
        ('<think>hm</think>\n"a cube."', "a cube."),
        ("Short: x\nLong: a cube.\n\nShort: another\nLong: b", "a cube."),
        ("```\na cube.\n```", "a cube."),
        ("  \n", "prompt"),
    ],
)
def test_the_caption_is_found_in_a_reply(reply, caption):
    assert caption_from_reply(reply, "prompt") == caption


def test_only_short_prompts_need_a_longer_form():
    assert needs_upsampling("a cat")
    assert not needs_upsampling("")
    assert not needs_upsampling("word " * 40)


def test_texts_of_different_lengths_share_an_evaluation_and_each_reads_itself_alone(connector):
    texts = [text(1, 9), text(1, 1), text(1, 130)]
    together = connector(texts, 700)
    for x, tokens in zip(texts, together):
        assert torch.allclose(tokens[None], connector(x, 700), atol=1e-5)
