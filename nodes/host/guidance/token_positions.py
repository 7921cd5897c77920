"""Token positions from the host's own tokenizer, and where they lie in a conditioning's cross-attention tensor."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ....lmd.english.nouns import strip_article
from ....lmd.prompts import Group, written
from ....lmd.sampling import tokens
from ....lmd.sampling.energy import GuidedObject

log = logging.getLogger(__name__)


def tokenizer(clip: Any) -> tokens.Tokenize:
    """A function text -> [(position, token)] of the words of `text`, as the host encodes it.

    Positions run over all chunks (77 tokens each, with their own start and end), so they index the tensor that the
    text encoder returns. Prompt weights are resolved, start, end and padding left out. A token is its number, or for
    textual inversion its vector by content; a vector of another width, which the host leaves out, is none.
    """

    @functools.cache
    def tokenize(text: str) -> tuple[tokens.Piece, ...]:
        by_encoder = clip.tokenize(text, return_word_ids=True)
        alone = getattr(getattr(clip, "cond_stage_model", None), "clip_name", None)
        # SDXL's refiner encodes by G alone, though its tokenizer has L's tokens too.
        name = next((n for n in (alone, "l", "g", "h") if n in by_encoder), next(iter(by_encoder)))
        width = getattr(getattr(clip.tokenizer, f"clip_{name}", None), "embedding_size", None)
        found, start = [], 0
        for chunk in by_encoder[name]:
            used = [
                (t, word) for t, _, word in chunk if not (isinstance(t, Tensor) and width not in (None, t.shape[-1]))
            ]
            found += [(start + i, token_content(t)) for i, (t, word) in enumerate(used) if word]
            start += len(chunk)
        return tuple(found)

    return tokenize


def token_content(token: Any) -> Hashable:
    """What makes a token equal to another one: its number, or the numbers of its vector."""
    if isinstance(token, Tensor):
        return tuple(token.shape), hashlib.sha256(token.detach().cpu().float().numpy().tobytes()).hexdigest()
    if isinstance(token, dict):
        return tuple((k, token_content(v)) for k, v in sorted(token.items()))
    return token if isinstance(token, Hashable) else repr(token)


def encode(clip: Any, text: str) -> list:
    """CONDITIONING of a prompt, as CLIPTextEncode makes it."""
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def guided_objects(groups: Sequence[Group], prompt: str, tokenize: tokens.Tokenize) -> tuple[GuidedObject, ...]:
    """The groups with their token positions in `prompt`, in order; no two share a token if the prompt allows it.

    In the layout's own prompt every phrase is where it was put. In any other it is looked for: by its words ("two
    cats"), then without the first one ("cats"), then by its word alone; a group of several boxes also by the name of
    one ("a cat"), and then the n-th box has the n-th mention. Raises PhraseNotFound if the prompt holds none of them.
    """
    if all(g.span and prompt[slice(*g.span)] == written(g.phrase) for g in groups):
        return tuple(_placed(g, prompt, tokenize) for g in groups)
    return _searched(groups, prompt, tokenize)


def _placed(group: Group, prompt: str, tokenize: tokens.Tokenize) -> GuidedObject:
    place = None if group.span is None else tokens.place_of(prompt, group.span, tokenize)
    if place is None:
        raise tokens.PhraseNotFound(
            f'the text encoder makes no tokens of its own of the phrase "{group.phrase}" in the prompt "{prompt}" (a '
            "textual inversion that is not installed or belongs to another model?): word it differently in the layout"
        )
    return _object(group, group.word, tokenize(prompt)[slice(*place)], tokenize)


def _object(group: Group, word: str, pieces: Sequence[tokens.Piece], tokenize: tokens.Tokenize) -> GuidedObject:
    positions = tuple(p for p, _ in pieces)
    own = (tokens.find(pieces, tokenize(word)) or positions)[-1]
    return GuidedObject(group.phrase, group.boxes, positions, own, group.numbers)


def _searched(groups: Sequence[Group], prompt: str, tokenize: tokens.Tokenize) -> tuple[GuidedObject, ...]:
    pieces = tokenize(prompt)
    found: dict[int, list[GuidedObject]] = {}
    taken: list[tokens.Place] = []
    # Those that can be found word for word choose first, longer ones before those that they contain.
    for wording in _WORDINGS:
        wanted: list[Any] = [(i, *wording(g)) for i, g in enumerate(groups) if i not in found]
        wanted.sort(key=lambda w: (-len(tokenize(w[1])), groups[w[0]].numbers))
        for i, phrase, word in wanted:
            group = groups[i]
            everywhere = tokens.places(pieces, tokenize(phrase))
            if not everywhere:
                continue
            own = tokens.free(everywhere, taken)
            if not own:
                log.warning('the phrase "%s" shares its words in the prompt with another phrase of the layout', phrase)
            own = own or everywhere
            own = own[: len(group.boxes)] if wording in _OF_ONE else own[:1]
            taken += own
            parts = _divided(group, len(own))
            found[i] = [_object(g, word, pieces[slice(*place)], tokenize) for g, place in zip(parts, own)]
    for i, group in enumerate(groups):
        if i not in found:
            tokens.locate(prompt, group.phrase, group.word, tokenize)  # raises, naming the phrase and the prompt
    return tuple(o for i in sorted(found) for o in found[i])


def _divided(group: Group, mentions: int) -> list[Group]:
    """A group for each mention: the n-th box has the n-th; boxes beyond the last mention share it."""
    if mentions < 2:
        return [group]
    shares = [slice(k, k + 1) for k in range(mentions - 1)] + [slice(mentions - 1, None)]
    return [replace(group, phrase=group.name, boxes=group.boxes[s], numbers=group.numbers[s]) for s in shares]


def _one_of(group: Group) -> str:
    return group.name if len(group.boxes) > 1 else ""


def _last(phrase: str) -> str:
    return phrase.split(" ")[-1]


# How a group may be worded in a user's prompt, the surest first: functions Group -> (phrase, its word).
_OF_ONE: tuple[Callable[[Group], tuple[str, str]], ...] = (
    lambda g: (_one_of(g), _last(_one_of(g))),
    lambda g: (strip_article(_one_of(g)), _last(_one_of(g))),
)
_WORDINGS = (
    lambda g: (g.phrase, g.word),
    lambda g: (g.phrase.partition(" ")[2], g.word),
    lambda g: (g.word, g.word),
    lambda g: (_last(g.phrase), _last(g.phrase)),
    *_OF_ONE,
)


def offset_in(cross_attention: Tensor, expected: Tensor) -> int | None:
    """Where the text's own encoding [1, L, C] starts on the token axis of a conditioning's tensor [B, T, C].

    Other tokens may stand before it (ELLA's) or after it (ConditioningConcat). None if it is not there in every row,
    because the conditioning was made from another text, another CLIP, or was averaged.
    """
    return next((start for start, rows in encoded_at(cross_attention, expected) if rows.all()), None)


def encoded_at(cross_attention: Tensor, expected: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Each place on the token axis of a tensor [B, T, C], and in which rows [B] the encoding [1, L, C] stands there."""
    have, want = cross_attention.float(), expected.to(cross_attention.device).float()
    length = want.shape[1]
    if have.shape[-1] != want.shape[-1]:
        return
    for start in range(have.shape[1] - length + 1):
        part = have[:, start : start + length]
        yield start, torch.isclose(part, want, rtol=1e-3, atol=1e-3).flatten(1).all(1)


def shifted(objects: Sequence[GuidedObject], offset: int) -> tuple[GuidedObject, ...]:
    """The objects with their positions moved along the token axis."""
    return tuple(replace(o, positions=tuple(p + offset for p in o.positions), word=o.word + offset) for o in objects)
