"""SentencePiece tokenizers of the adapters' text encoders, trained here: beside the weights and inside them."""

import io
import logging
import random

import pytest
import sentencepiece
import torch
from ella_lmd.nodes.host.ella.text_model import SYSTEM
from ella_lmd.nodes.host.ella.tokenizers import load_tokenizer
from ella_lmd.nodes.llm_adapter import LLMAdapterTextEncoderLoader
from ella_lmd.tests import adapter_models
from ella_lmd.tests.host.test_llm_adapter import models  # noqa: F401
from safetensors.torch import load_file, save_file

GEMMA = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "pad_piece": "<pad>", "eos_piece": "<eos>",
         "bos_piece": "<bos>", "user_defined_symbols": ["<start_of_turn>", "<end_of_turn>", "\n", "\n\n"],
         "normalization_rule_name": "identity", "remove_extra_whitespaces": False, "add_dummy_prefix": False}  # fmt: skip
XLM = {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1}  # as sentencepiece.bpe.model of XLM-RoBERTa
JINA = {"bos_id": 0, "pad_id": 1, "eos_id": 2, "unk_id": 3, "pad_piece": "<pad>"}  # as in NewBie's file for the host
FAMILIES = {"gemma3": GEMMA, "t5gemma": GEMMA, "jina": JINA}


def trained(vocabulary: int, settings: dict) -> bytes:
    words = [
        *adapter_models.WORDS,
        *["grass", "tree", "stone", "river", "mountain", "light", "evening", "knitted", "textured", "realistic"],
    ]
    generator, out = random.Random(1), io.BytesIO()
    lines = [" ".join(generator.choices(words, k=8)) for _ in range(400)] + [SYSTEM] * 9
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, vocab_size=vocabulary, model_type="bpe", minloglevel=2, **settings
    )  # fmt: skip
    return out.getvalue()


@pytest.fixture(scope="module")
def spm():
    """The bytes of a SentencePiece model by family, of at most as many pieces as the tiny text encoders have."""
    made = {"gemma": trained(80, GEMMA), "jina": trained(80, JINA)}
    return {"gemma3": made["gemma"], "t5gemma": made["gemma"], "jina": made["jina"]}


def pieces(model: bytes) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=model)


def folder_with(models, family, name, model: bytes | None = None):  # noqa: F811
    folder = models / "text_encoders" / f"{family}-{name}"
    adapter_models.write_encoder(folder, family)
    (folder / "tokenizer.json").unlink()
    adapter_models.write_config(folder, sliding_window=6, head_dim=8, num_attention_heads=4)
    if model is not None:
        (folder / name).write_bytes(model)
    return folder


@pytest.mark.parametrize("name", ["tokenizer.model", "spiece.model"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_encoder_reads_with_the_sentencepiece_model_beside_it(models, spm, family, name):  # noqa: F811
    own = pieces(spm[family])
    encoder = LLMAdapterTextEncoderLoader.execute(folder_with(models, family, name, spm[family]).name).args[0]
    prompt = encoder.prompt("a red cat on the hill")
    text = own.encode("a red cat on the hill")
    assert own.unk_id() not in prompt.ids
    if family == "gemma3":
        turn, end = (own.piece_to_id(f"<{x}_of_turn>") for x in ("start", "end"))
        start = [2, turn, *own.encode("user\n" + SYSTEM + "\n\n")]
        wanted = [*start, *text, end, *own.encode("\n"), turn, *own.encode("model\n")]
        assert prompt.ids == wanted and prompt.skipped == len(start)
    else:
        assert prompt.ids == ([0, *text, 2] if family == "jina" else [*text, 1])
    assert encoder.features("a red cat on the hill", 64).shape == (1, len(prompt.ids) - prompt.skipped, 32)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_single_file_may_carry_its_own(models, spm, family):  # noqa: F811
    folder = folder_with(models, family, "carried")
    weights = load_file(folder / "model.safetensors")
    weights["spiece_model"] = torch.frombuffer(bytearray(spm[family]), dtype=torch.uint8)
    save_file(weights, folder / "model.safetensors")
    adapter_models.write_tokenizer(folder, ("<s>", "</s>", "<unk>"))  # of another model: what the file carries counts
    encoder = LLMAdapterTextEncoderLoader.execute(folder.name).args[0]
    assert encoder.tokenize("a knitted tree") == pieces(spm[family]).encode("a knitted tree")


def test_xlm_robertas_numbers_become_the_text_encoders(models, spm):  # noqa: F811
    plain = trained(79, XLM)
    assert pieces(plain).encode("a cat") != pieces(spm["jina"]).encode("a cat")
    folder = folder_with(models, "jina", "sentencepiece.bpe.model", plain)
    tokenize = load_tokenizer(str(folder), None, "jina", 90)
    for text in ("a red cat on the hill", "a realistic river", "", "<s>a cat</s>", "cat ☃"):
        inner = text.removeprefix("<s>").removesuffix("</s>")
        ids = pieces(spm["jina"]).encode(inner)
        assert tokenize(text) == ([0, *ids, 2] if text != inner else ids)
    assert 3 in tokenize("cat ☃")  # <unk>


def test_special_tokens_within_a_text_keep_what_is_around_them(models, spm):  # noqa: F811
    tokenize = load_tokenizer(str(folder_with(models, "gemma3", "tokenizer.model", spm["gemma3"])), None, "gemma3", 90)
    own = pieces(spm["gemma3"])
    turn = own.piece_to_id("<start_of_turn>")
    assert tokenize("<bos>a cat<start_of_turn>user") == [2, *own.encode("a cat"), turn, *own.encode("user")]
    assert tokenize("<bos") == own.encode("<bos")


@pytest.mark.parametrize(
    "model, complaint", [(b"\x0a\x03abc", "damaged"), (b"", "damaged"), ("foreign", "another model")]
)
def test_a_damaged_or_foreign_model_is_named(models, spm, model, complaint):  # noqa: F811
    model = spm["gemma3"] if model == "foreign" else model
    folder = folder_with(models, "jina", "tokenizer.model", model)
    with pytest.raises(ValueError, match=rf"jina-tokenizer\.model.*{complaint}"):
        LLMAdapterTextEncoderLoader.execute(folder.name)


def test_a_tokenizer_with_more_tokens_than_the_text_encoder_is_told_and_stops_at_the_first(models, spm, caplog):  # noqa: F811
    folder = str(folder_with(models, "gemma3", "tokenizer.model", spm["gemma3"]))
    with caplog.at_level(logging.WARNING):
        tokenize = load_tokenizer(folder, None, "gemma3", 80)
        assert not caplog.text
        tokenize = load_tokenizer(folder, None, "gemma3", 20)
    assert "has 80 tokens, its text encoder 20" in caplog.text
    with pytest.raises(ValueError, match="belongs to another model: it reads a cat as"):
        tokenize("a cat")
