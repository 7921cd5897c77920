"""The tokenizer of an LLM adapter's text encoder, from what lies beside its weights; nothing is downloaded."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import torch

Tokenize = Callable[[str], list[int]]

_SPECIALS = {
    "gemma3": ("<bos>", "<start_of_turn>", "<end_of_turn>"),
    "t5gemma": ("<eos>",),
    "jina": ("<s>", "</s>"),
}
_SENTENCEPIECE = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")


def load_tokenizer(folder: str, embedded: torch.Tensor | None, family: str, vocabulary: int) -> Tokenize:
    """A function from text to ids: the file's own SentencePiece model, else tokenizer.json or tokenizer.model in the folder.

    Raises:
        FileNotFoundError: none of them is there.
        ValueError: it is damaged, or belongs to another model.
    """
    for name, read in (("tokenizer.json", _from_json), *((n, _from_sentencepiece) for n in _SENTENCEPIECE)):
        path = os.path.join(folder, name)
        if embedded is not None:
            path, tokenize = "spiece_model in the file", _sentencepiece(embedded.numpy().tobytes(), family)
            break
        if os.path.isfile(path):
            tokenize = read(path, family)
            break
    else:
        raise FileNotFoundError(
            f"There is no tokenizer in {folder}. Put tokenizer.json (or tokenizer.model) of the text encoder beside its "
            "weights, best in a folder of their own, and choose that in LLMAdapterTextEncoderLoader. Nothing is downloaded."
        )
    for special in _SPECIALS[family]:
        ids = tokenize(special)
        if len(ids) != 1 or ids[0] >= vocabulary:
            raise ValueError(
                f"The tokenizer {path} belongs to another model: it reads {special} as {ids[:5]}, where this text encoder "
                f"has one of {vocabulary} ids. Put the text encoder's own tokenizer beside its weights."
            )
    return tokenize


def _from_json(path: str, _family: str) -> Tokenize:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(path)
    except Exception as error:  # the library raises plain Exception
        raise ValueError(f"The tokenizer {path} is damaged ({error}). Get it again.") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def _from_sentencepiece(path: str, family: str) -> Tokenize:
    with open(path, "rb") as file:
        return _sentencepiece(file.read(), family)


def _sentencepiece(model: bytes, family: str) -> Tokenize:
    """SentencePiece reads control symbols as text, so they are put in here by their ids."""
    import sentencepiece

    try:
        pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    except Exception as error:
        raise ValueError(f"The SentencePiece model of this text encoder is damaged ({error}). Get it again.") from None
    ids = _numbering(pieces, family)
    known = {s: pieces.piece_to_id(s) for s in _SPECIALS[family]}
    known = {s: ids(i) for s, i in known.items() if i != pieces.unk_id()}
    split = re.compile("(" + "|".join(map(re.escape, known)) + ")") if known else None

    def tokenize(text: str) -> list[int]:
        parts = split.split(text) if split else [text]
        found = ([known[p]] if p in known else map(ids, pieces.encode(p)) for p in parts if p)
        return [i for part in found for i in part]

    return tokenize


def _numbering(pieces, family: str) -> Callable[[int], int]:
    """From a SentencePiece model's own ids to the text encoder's.

    XLM-RoBERTa's model counts <unk>, <s>, </s>, its text encoder <s>, <pad>, </s>, <unk>; a file that was made from it
    for this text encoder (in which <s> is 0) counts as the text encoder does.
    """
    if family == "jina" and (pieces.unk_id(), pieces.piece_to_id("<s>"), pieces.piece_to_id("</s>")) == (0, 1, 2):
        return lambda i: {0: 3, 1: 0, 2: 2}.get(i, i + 1)
    return lambda i: i
