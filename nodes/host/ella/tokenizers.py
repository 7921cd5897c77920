"""The tokenizer of an LLM adapter's text encoder, from what lies beside its weights; nothing is downloaded."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable

import torch

log = logging.getLogger(__name__)

Tokenize = Callable[[str], list[int]]
NEAR = 0.01  # tokenizers have a few tokens more or fewer than their models have rows

_SPECIALS = {
    "gemma3": ("<bos>", "<start_of_turn>", "<end_of_turn>"),
    "t5gemma": ("<eos>",),
    "jina": ("<s>", "</s>"),
}
_SENTENCEPIECE = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")


def load_tokenizer(folder: str, embedded: torch.Tensor | None, family: str, vocabulary: int) -> Tokenize:
    """A function from text to ids: the file's own SentencePiece model, else tokenizer.json or tokenizer.model in the folder.

    It raises ValueError for a text with an id that the text encoder, of `vocabulary` ids, does not have.

    Raises:
        FileNotFoundError: none of them is there.
        ValueError: it is damaged, or belongs to another model.
    """
    path, tokenize, size = _found(folder, embedded, family)
    if abs(size - vocabulary) > NEAR * vocabulary:
        log.warning(
            "The tokenizer %s has %d tokens, its text encoder %d. If prompts are not obeyed, look whether it belongs to "
            "another model.", path, size, vocabulary,
        )  # fmt: skip

    def checked(text: str) -> list[int]:
        ids = tokenize(text)
        if ids and max(ids) >= vocabulary:
            raise ValueError(_foreign(path, text, ids, vocabulary))
        return ids

    for special in _SPECIALS[family]:
        ids = tokenize(special)
        if len(ids) != 1 or ids[0] >= vocabulary:
            raise ValueError(_foreign(path, special, ids, vocabulary))
    return checked


def padding_side(folder: str) -> str:
    """Where the model's trainer put pads, "left" or "right", by tokenizer_config.json in the folder; "right" without one.

    Raises ValueError for a damaged file.
    """
    path = os.path.join(folder, "tokenizer_config.json")
    if not os.path.isfile(path):
        return "right"
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}). Get it again.") from None
    side = found.get("padding_side") if isinstance(found, dict) else None
    return "left" if side == "left" else "right"


def _foreign(path: str, text: str, ids: list[int], vocabulary: int) -> str:
    return (
        f"The tokenizer {path} belongs to another model: it reads {text[:40]} as {ids[:5]}, where this text encoder has one "
        f"of {vocabulary} ids for a token. Put the text encoder's own tokenizer beside its weights."
    )


def _found(folder: str, embedded: torch.Tensor | None, family: str) -> tuple[str, Tokenize, int]:
    """Where the tokenizer is, the function, and how many tokens it knows."""
    if embedded is not None:
        path = f"spiece_model in a file of {folder}"
        return path, *_sentencepiece(embedded.numpy().tobytes(), family, path)
    path = os.path.join(folder, "tokenizer.json")
    if os.path.isfile(path):
        return path, *_from_json(path)
    for path in (os.path.join(folder, name) for name in _SENTENCEPIECE):
        if os.path.isfile(path):
            with open(path, "rb") as file:
                return path, *_sentencepiece(file.read(), family, path)
    raise FileNotFoundError(
        f"There is no tokenizer in {folder}. Put tokenizer.json (or tokenizer.model) of the text encoder beside its "
        "weights, best in a folder of their own, and choose that in LLMAdapterTextEncoderLoader. Nothing is downloaded."
    )


def _from_json(path: str) -> tuple[Tokenize, int]:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(path)
    except Exception as error:  # the library raises plain Exception
        raise ValueError(f"The tokenizer {path} is damaged ({error}). Get it again.") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids, tokenizer.get_vocab_size()


def _sentencepiece(model: bytes, family: str, path: str) -> tuple[Tokenize, int]:
    """SentencePiece reads control symbols as text, so they are put in here by their ids."""
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor()
    try:
        whole = bool(model) and pieces.LoadFromSerializedProto(model)
    except Exception as error:  # the library's own types
        raise ValueError(f"The SentencePiece model {path} is damaged ({error}). Get it again.") from None
    if not whole:
        raise ValueError(f"The SentencePiece model {path} is damaged: it is empty. Get it again.")
    ids = _numbering(pieces, family)
    known = {s: pieces.piece_to_id(s) for s in _SPECIALS[family]}
    known = {s: ids(i) for s, i in known.items() if i != pieces.unk_id()}
    split = re.compile("(" + "|".join(map(re.escape, known)) + ")") if known else None

    def tokenize(text: str) -> list[int]:
        parts = split.split(text) if split else [text]
        found = ([known[p]] if p in known else map(ids, pieces.encode(p)) for p in parts if p)
        return [i for part in found for i in part]

    return tokenize, pieces.get_piece_size()


def _numbering(pieces, family: str) -> Callable[[int], int]:
    """From a SentencePiece model's own ids to the text encoder's.

    XLM-RoBERTa's model counts <unk>, <s>, </s>, its text encoder <s>, <pad>, </s>, <unk>; a file that was made from it
    for this text encoder (in which <s> is 0) counts as the text encoder does.
    """
    if family == "jina" and (pieces.unk_id(), pieces.piece_to_id("<s>"), pieces.piece_to_id("</s>")) == (0, 1, 2):
        return lambda i: {0: 3, 1: 0, 2: 2}.get(i, i + 1)
    return lambda i: i
