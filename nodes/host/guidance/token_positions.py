"""Token positions from the host's own tokenizer, and where they lie in a conditioning's cross-attention tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ....lmd.prompts import Group
from ....lmd.sampling import tokens
from ....lmd.sampling.energy import GuidedObject


def tokenizer(clip: Any) -> tokens.Tokenize:
    """A function text -> [(position, token id)] of the words of `text`, as the host encodes it.

    Positions run over all chunks (77 tokens each, with their own start and end), so they index the tensor that the
    text encoder returns. Prompt weights are resolved, start, end and padding left out.
    """

    def tokenize(text: str) -> list[tokens.Piece]:
        by_encoder = clip.tokenize(text, return_word_ids=True)
        name = next((n for n in ("l", "g", "h") if n in by_encoder), next(iter(by_encoder)))
        found, position = [], 0
        for chunk in by_encoder[name]:
            for token, _weight, word in chunk:
                if word:
                    found.append((position, token if isinstance(token, int) else id(token)))
                position += 1
        return found

    return tokenize


def encode(clip: Any, text: str) -> list:
    """CONDITIONING of a prompt, as CLIPTextEncode makes it."""
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def guided_objects(groups: Sequence[Group], prompt: str, tokenize: tokens.Tokenize) -> tuple[GuidedObject, ...]:
    """The groups with their token positions in `prompt`.

    A group is looked for by its phrase ("two cats"), then without its first word ("cats"), then by its word alone.
    Raises PhraseNotFound if the prompt holds none of them.
    """
    return tuple(_guided_object(g, prompt, tokenize) for g in groups)


def _guided_object(group: Group, prompt: str, tokenize: tokens.Tokenize) -> GuidedObject:
    last_word = group.phrase.split(" ")[-1]
    attempts = [(group.phrase, group.word), (group.phrase.partition(" ")[2], group.word), (group.word, group.word)]
    for phrase, word in [*attempts, (last_word, last_word)]:
        if phrase and tokens.find(tokenize(prompt), tokenize(phrase)) is not None:
            positions, at = tokens.locate(prompt, phrase, word, tokenize)
            return GuidedObject(group.phrase, group.boxes, positions, at)
    tokens.locate(prompt, group.phrase, group.word, tokenize)  # raises, naming the phrase and the prompt
    raise AssertionError("unreachable")


def offset_in(cross_attention: Tensor, expected: Tensor) -> int | None:
    """Where the text's own encoding [1, L, C] starts on the token axis of a conditioning's tensor [B, T, C].

    Other tokens may stand before it (ELLA's) or after it (ConditioningConcat). None if it is not there, because the
    conditioning was made from another text, another CLIP, or was averaged.
    """
    have, want = cross_attention[:1].float(), expected.to(cross_attention.device).float()
    length = want.shape[1]
    if have.shape[-1] != want.shape[-1]:
        return None
    for start in range(have.shape[1] - length + 1):
        if torch.allclose(have[:, start : start + length], want, rtol=1e-3, atol=1e-3):
            return start
    return None


def shifted(objects: Sequence[GuidedObject], offset: int) -> tuple[GuidedObject, ...]:
    """The objects with their positions moved along the token axis."""
    move: Callable[[int], int] = lambda p: p + offset  # noqa: E731
    return tuple(GuidedObject(o.phrase, o.boxes, tuple(map(move, o.positions)), move(o.word)) for o in objects)
