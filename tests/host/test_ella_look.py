"""Where the model looks for words that ELLA or an LLM adapter has read: the estimate, its label, and that it only looks."""

import logging

import pytest
import torch
from ella_lmd.ella.rollout import adapter_rollout, connector_rollout
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.pictures import sheets
from ella_lmd.lmd.sampling.tokens import PhraseNotFound
from ella_lmd.nodes.ella_look import ELLAAttentionRecorder
from ella_lmd.nodes.host.ella.look import _of_adapter, phrases_of
from ella_lmd.nodes.host.ella.places import rows_of
from ella_lmd.nodes.host.guidance.attention import add_patches, probabilities, resolve_layers
from ella_lmd.nodes.lmd_inspect import LMDAttentionOverlay
from ella_lmd.tests.host.test_ella_graphs import graph  # noqa: F401
from ella_lmd.tests.host.test_llm_adapter import adapter, encode, encoders, models, unet  # noqa: F401

import nodes

TEXT = "a photo of a red cat, left of two dogs on the hill"
RED_CAT = slice(6, 8)  # its tokens in FLAN-T5's
LAYOUT = Layout(64, 64, (LayoutObject("a red cat", Box(0, 0, 0.5, 1)), LayoutObject("a hill", Box(0.5, 0, 0.5, 1))), "")


def recorder(model, source, encoder, text=TEXT, phrases="", **more):
    return ELLAAttentionRecorder.execute(model, source, encoder, text, phrases, **more).args


def sample(model, positive, negative, steps=2):
    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    return nodes.common_ksampler(model, 5, steps, 4.0, "euler", "karras", positive, negative, latent)[0]["samples"]


def looked_at(model, offset, count):
    """A plain patch that keeps, layer by layer and call by call, the attention (S, N) to some tokens of the positive."""
    seen = {layer: [] for layer in resolve_layers("auto", model.model.diffusion_model)}

    def make(layer, previous):
        def replace(q, k, v, extra_options):
            marks = extra_options["cond_or_uncond"]
            if 0 in marks:
                i = marks.index(0)
                own = probabilities(q.chunk(len(marks))[i], k.chunk(len(marks))[i], extra_options["n_heads"])
                seen[layer].append((own.mean(1)[0, :, offset : offset + count], extra_options["sigmas"]))
            from comfy.ldm.modules.attention import optimized_attention

            return optimized_attention(q, k, v, heads=extra_options["n_heads"])

        return replace

    patched = model.clone()
    add_patches(patched.model_options["transformer_options"], list(seen), make)
    return patched, seen


def expected(seen, step, shares):
    """(P, h, w) of one step from what `looked_at` kept, with `shares(sigma)` (N, P)."""
    maps = []
    for calls in seen.values():
        probs, sigma = calls[step]
        side = round(probs.shape[0] ** 0.5)
        maps.append((probs @ shares(sigma)).T.unflatten(-1, (side, side)))
    finest = max(m.shape[-1] for m in maps)
    fitted = [torch.nn.functional.interpolate(m[None], (finest, finest), mode="bilinear")[0] for m in maps]
    return torch.stack(fitted).mean(0)


@pytest.mark.parametrize(("mode", "length"), [("ELLA only", "flexible"), ("ELLA + CLIP", "fixed 128")])
def test_ellas_maps_follow_the_rollout_of_every_steps_timestep(graph, mode, length):  # noqa: F811
    positive, negative = graph.ella(TEXT, mode, length=length), graph.ella("", mode)
    model, record = recorder(graph.patched, graph.connector, graph.encoder, phrases="red cat\ntwo dogs")
    drawn = sample(model, positive, negative)
    assert torch.equal(drawn, sample(graph.patched, positive, negative))
    assert record.estimate and [look.step for look in record.looks] == [1, 2]
    patched, seen = looked_at(graph.patched, 0, 64)
    sample(patched, positive, negative)
    features = graph.encoder.features(TEXT, 128 if length != "flexible" else 0)
    (pairs,) = graph.encoder.clip.tokenize(TEXT)["flan_t5"]
    assert graph.encoder.clip.tokenizer.decode([i for i, _ in pairs[RED_CAT]]) == "red cat"
    module, sampling = graph.connector.patcher.model, graph.model.model.model_sampling

    def shares(sigma):
        text, _ = connector_rollout(module, features.float(), sampling.timestep(sigma))
        return text[0, :, RED_CAT].sum(-1, keepdim=True)

    for step, look in enumerate(record.looks):
        torch.testing.assert_close(look.maps[0, :1], expected(seen, step, shares), atol=1e-5, rtol=1e-3)


def test_tokens_that_do_not_follow_are_looked_at_as_they_are(graph):  # noqa: F811
    positive, negative = graph.ella(TEXT), graph.ella("")
    model, record = recorder(graph.model, graph.connector, graph.encoder, phrases="red cat")
    sample(model, positive, negative)
    patched, seen = looked_at(graph.model, 0, 64)
    sample(patched, positive, negative)
    text, _ = connector_rollout(graph.connector.patcher.model, graph.encoder.features(TEXT).float(), 500)
    for step, look in enumerate(record.looks):
        wanted = expected(seen, step, lambda _: text[0, :, RED_CAT].sum(-1, keepdim=True))
        torch.testing.assert_close(look.maps[0], wanted, atol=1e-5, rtol=1e-3)


def test_an_adapters_maps_follow_its_rollout(adapter, encoders, unet):  # noqa: F811
    encoder = encoders["gemma3"]
    positive, negative = encode(adapter, encoder, "a red cat on the hill"), encode(adapter, encoder, "")
    model, record = recorder(unet, adapter, encoder, "a red cat on the hill", "Red cat\nthe hill")
    assert torch.equal(sample(model, positive, negative, 1), sample(unet, positive, negative, 1))
    patched, seen = looked_at(unet, 0, 308)
    sample(patched, positive, negative, 1)
    text, _ = adapter_rollout(adapter.patcher.model, encoder.features("a red cat on the hill", 64))
    shares = torch.stack([text[0][:, 1:3].sum(-1), text[0][:, 4:6].sum(-1)], 1)
    assert record.estimate and len(record.looks) == 1
    for step, look in enumerate(record.looks):
        torch.testing.assert_close(look.maps[0], expected(seen, step, lambda _: shares), atol=1e-5, rtol=1e-3)


def test_a_prompt_with_weights_is_found_however_it_was_read(adapter, encoders):  # noqa: F811
    text, encoder = "a (red:1.4) cat", encoders["t5gemma"]
    origins, _ = _of_adapter(adapter, encoder, text, phrases_of("red", None), None)
    for origin, weights in zip(origins, ["off", "(word:1.2)"], strict=True):
        assert torch.equal(origin.tokens, encode(adapter, encoder, text, weights=weights)[0][0])
    literal, by_weight = (origin.shares(None, {}) for origin in origins)
    assert literal.shape == by_weight.shape == (308, 1) and not torch.equal(literal, by_weight)


@pytest.mark.parametrize("family", ["gemma3", "t5gemma"])
def test_a_phrases_rows_are_those_of_its_words(encoders, family):  # noqa: F811
    encoder, text = encoders[family], "a red cat on the red hill"
    words = text.split()
    for first, behind in ((0, 1), (0, 3), (1, 3), (5, 7), (0, 7)):
        phrase = " ".join(words[first:behind])
        start = len(" ".join([*words[:first], ""]))
        assert list(rows_of(encoder, text, (start, start + len(phrase)))) == list(range(first, behind))
    assert not rows_of(encoder, "a cat", (0, 0))


def test_a_layouts_phrases_are_found_in_other_words_and_its_boxes_drawn(graph):  # noqa: F811
    model, record = recorder(graph.patched, graph.connector, graph.encoder, layout=LAYOUT)
    assert record.phrases == ("a hill", "a red cat") and record.numbers == ((2,), (1,))
    sample(model, graph.ella(TEXT), graph.ella(""))
    (sheet,) = LMDAttentionOverlay.execute(record, "sheet", 3).result
    assert sheet.shape[0] == 1 and sheet.shape[-1] == 3 and record.canvas == (64, 64)


def test_the_picture_says_that_it_is_an_estimate(graph, monkeypatch):  # noqa: F811
    model, record = recorder(graph.patched, graph.connector, graph.encoder, phrases="red cat")
    sample(model, graph.ella(TEXT), graph.ella(""))
    told = []
    plain = sheets.Sheet.text
    monkeypatch.setattr(sheets.Sheet, "text", lambda self, text, *a: told.append(text) or plain(self, text, *a))
    LMDAttentionOverlay.execute(record, "sheet", 3)
    LMDAttentionOverlay.execute(record, "film", 3)
    assert told[0] == sheets.ESTIMATE_TOLD and all("estimate" in text for text in told[1:])
    assert 0 <= record.contrast(record.looks[0], 0, 0) < 1


def test_another_text_records_nothing_and_says_why(graph, caplog):  # noqa: F811
    model, record = recorder(graph.patched, graph.connector, graph.encoder, phrases="red cat")
    with caplog.at_level(logging.WARNING):
        sample(model, graph.ella("a red cat"), graph.ella(""))
    assert record.looks == [] and "ELLAAttentionRecorder the text of the encode node" in caplog.text


def test_what_cannot_be_looked_for_is_refused(graph, adapter, encoders):  # noqa: F811
    with pytest.raises(PhraseNotFound, match='"green ring" is not in the text'):
        recorder(graph.patched, graph.connector, graph.encoder, phrases="green ring")
    with pytest.raises(PhraseNotFound, match='"ca" is not in the text'):
        recorder(graph.model, adapter, encoders["gemma3"], "a cat", "ca")
    with pytest.raises(ValueError, match="models that belong together"):
        recorder(graph.model, adapter, graph.encoder, phrases="red cat")
    same, record = recorder(graph.model, graph.connector, graph.encoder)
    assert same is graph.model and record.phrases == ()
