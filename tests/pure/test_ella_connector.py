"""Properties of the connector that no reference vector is needed for."""

import math
import re

import pytest
import torch
from ella_lmd.chat.answer import Answer
from ella_lmd.ella import ConnectorConfig, TimestepAwareConnector, connector_config
from ella_lmd.ella.connector import AdaLayerNorm, sinusoid
from ella_lmd.ella.schedule import RecomputeOptions, checked_timestep
from ella_lmd.ella.upsample import caption_from_reply, doubts, needs_upsampling, upsampling_request
from ella_lmd.tests import ella_models


@pytest.fixture(scope="module")
def connector():
    state = ella_models.connector_state(layers=2, width=64, input_dim=16, time_dim=32, time_channels=32, latents=8)
    module = TimestepAwareConnector(connector_config(state))
    module.load_state_dict(state, strict=True)
    return module.requires_grad_(False)


def text(rows, length):
    return torch.randn(rows, length, 16, generator=torch.Generator().manual_seed(length))


def slowly(state, features, timestep):
    """The paper's formula for one text and one timestep, in float64 and with torch's own attention."""
    w = {k: v.double() for k, v in state.items()}
    silu = torch.nn.functional.silu

    def linear(name, x):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def normed(name, x, time):
        shift, scale = linear(f"{name}.linear", silu(time)).chunk(2, dim=-1)
        variance = ((x - x.mean(-1, keepdim=True)) ** 2).mean(-1, keepdim=True)
        return (x - x.mean(-1, keepdim=True)) / (variance + 1e-6).sqrt() * (1 + scale) + shift

    angles = [timestep * 10000 ** (-i / 16) for i in range(16)]
    wave = torch.tensor([math.cos(a) for a in angles] + [math.sin(a) for a in angles], dtype=torch.float64)
    time = linear("time_embedding.linear_2", silu(linear("time_embedding.linear_1", wave)))
    latents = w["connector.latents"] + linear("connector.time_aware_linear", silu(time))
    text = linear("connector.proj_in", features.double())
    for i in range(2):
        block = f"connector.perceiver_blocks.{i}"
        attention = torch.nn.MultiheadAttention(64, 8, dtype=torch.float64)
        attention.load_state_dict({k: w[f"{block}.attn.{k}"] for k in attention.state_dict()})
        own, read = normed(f"{block}.ln_1", latents, time), normed(f"{block}.ln_2", text, time)
        both = torch.cat([own, read])
        latents = latents + attention(own, both, both, need_weights=False)[0]
        hidden = linear(f"{block}.mlp.c_fc", normed(f"{block}.ln_ff", latents, time)).relu() ** 2
        latents = latents + linear(f"{block}.mlp.c_proj", hidden)
    return latents


@pytest.mark.parametrize("timestep", [0.0, 333.5, 999.0])
def test_the_tokens_are_those_of_the_papers_formula(connector, timestep):
    x = text(1, 9)
    wanted = slowly(connector.state_dict(), x[0], timestep).detach()
    assert torch.allclose(connector(x, timestep)[0].double(), wanted, rtol=1e-3, atol=1e-3 * float(wanted.std()))


def test_a_nearly_constant_token_is_divided_by_a_deviation_with_a_millionth_added_to_the_variance():
    norm = AdaLayerNorm(2, 3)
    torch.nn.init.zeros_(norm.linear.weight)
    torch.nn.init.zeros_(norm.linear.bias)
    found = norm(torch.tensor([[[0.001, -0.001]]]), torch.zeros(1, 1, 3))
    assert found.flatten().tolist() == pytest.approx([0.5**0.5, -(0.5**0.5)], rel=1e-4)


def test_the_default_sizes_are_those_of_the_released_model():
    config = ConnectorConfig()
    assert config == ConnectorConfig(768, 6, 8, 64, 2048, 320, 768) and hash(config) == hash(ConnectorConfig())
    shapes = {k: tuple(v.shape) for k, v in TimestepAwareConnector(config, device="meta").state_dict().items()}
    assert shapes["connector.latents"] == (64, 768) and shapes["connector.proj_in.weight"] == (768, 2048)
    assert shapes["connector.perceiver_blocks.5.mlp.c_fc.weight"] == (3072, 768)
    assert shapes["time_embedding.linear_1.weight"] == (768, 320) and "connector.perceiver_blocks.6.ln_1" not in shapes


@pytest.mark.parametrize(
    ("sizes", "said"),
    [({"width": 60}, "width 60 cannot have 8"), ({"time_channels": 321}, "even; this connector has 321"),
     ({"layers": 0}, "layers must be"), ({"heads": True}, "heads must be"), ({"latents": 64.0}, "latents must be")],
)  # fmt: skip
def test_sizes_that_no_connector_can_have_are_refused(sizes, said):
    with pytest.raises(ValueError, match=said):
        ConnectorConfig(**sizes)


def test_timesteps_become_cosines_and_then_sines():
    found = sinusoid(torch.tensor([0.0, 100.0]), 4)
    assert found[0].tolist() == [1, 1, 0, 0]
    wave = [math.cos(100), math.cos(1), math.sin(100), math.sin(1)]  # frequencies 1 and 1 / 100
    assert found[1].tolist() == pytest.approx(wave, abs=1e-4)


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
    assert needs_upsampling("cat") and needs_upsampling("word " * 24) and not needs_upsampling("word " * 25)


@pytest.mark.parametrize(
    ("reply", "caption"),
    [
        ('{"short": "x", "caption": "a cube."}', "a cube."),
        ('{"caption": "y", "long": "a cube."}', "a cube."),
        ('{"n": 3, "description": "a cube."}', "a cube."),
        ('{"long": 5, "text": "a cube."}', "a cube."),
        ('{"n": 3}', "prompt"),
        ("{a cube.", "{a cube."),
    ],
)
def test_the_caption_is_found_in_json(reply, caption):
    assert caption_from_reply(reply, "prompt") == caption


def test_an_answer_that_was_read_before_is_not_read_again():
    assert caption_from_reply(Answer("a <think> cube"), "prompt") == "a <think> cube"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer("a cube."), ()),
        (Answer("a cube.", notes=("the answer was doubtful",)), ("the answer was doubtful",)),
        (Answer("a cu", cut=True), ("stopped at its limit of length: turn its thinking off, or choose another$",)),
        (Answer("", cut=True), ("stopped at its limit of length.*another; the prompt passes unchanged$",)),
        (Answer("", why="the answer is empty"), ("the answer is empty; the prompt passes unchanged$",)),
        (Answer("I'm sorry, but I can't help with that."), ("refuses.*; the prompt passes unchanged$",)),
    ],
)
def test_doubts_about_a_caption_are_told(answer, said):
    found = doubts(answer)
    assert len(found) == len(said) and all(re.search(s, f) for s, f in zip(said, found))


def test_texts_of_different_lengths_share_an_evaluation_and_each_reads_itself_alone(connector):
    texts = [text(1, 9), text(1, 1), text(1, 130)]
    together = connector(texts, 700)
    for x, tokens in zip(texts, together):
        assert torch.allclose(tokens[None], connector(x, 700), atol=1e-5)
