"""Which rows of a transformer's conditioning hold which words, through the host's own tokenizer and text encoder.

Text encoders of transformers wrap the prompt in a template, of which some cut a part from their output. Nothing here
knows which: two prompts that differ behind a known token tell where the rows begin to differ. Source: docs/lmd.md, 11.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ....lmd.prompts import Group
from ....lmd.sampling import tokens
from ....lmd.sampling.energy import GuidedObject
from .token_positions import encode, guided_objects, token_content, tokenizer

CLIP_ENCODERS = ("l", "g", "h")
PROBE = " zebra"
SAME_ROW = 1e-3  # of a row's size


@dataclass(frozen=True)
class _Encoder:
    """One encoder's rows in a conditioning: token number `i` of all its tokens is row `i + shift`."""

    name: str
    shift: int
    causal: bool


def has_clip_alone(clip: Any) -> bool:
    """Whether a text encoder is made of CLIP alone, whose rows are its tokens (SD1.x, SD2.x, SDXL)."""
    return set(clip.tokenize("")) <= set(CLIP_ENCODERS)


def phrase_tokenizer(clip: Any) -> tokens.Tokenize:
    """A function text -> [(position, token)] of the words of `text` itself, for looking for phrases in a prompt."""
    if has_clip_alone(clip):
        return tokenizer(clip)
    return _words(clip, next(name for name in clip.tokenize("") if name not in CLIP_ENCODERS))


def phrase_objects(groups: Sequence[Group], prompt: str, clip: Any, encoding: Tensor) -> tuple[GuidedObject, ...]:
    """The groups with their rows in `encoding` [1, L, C], the conditioning of `prompt`.

    A causal encoder has read a phrase only at its last token, so that is the one that is guided. Where the conditioning
    holds the prompt by several encoders (SD3), the rows of all count. Raises ValueError, saying what did not fit, when
    the rows are not certain; PhraseNotFound for a phrase that the prompt does not hold.
    """
    if has_clip_alone(clip):
        return guided_objects(groups, prompt, tokenizer(clip))
    found = [
        _rows_of(guided_objects(groups, prompt, _words(clip, e.name)), e) for e in _encoders(clip, prompt, encoding)
    ]
    first, *others = found
    return tuple(
        replace(o, positions=tuple(p for same in (o, *more) for p in same.positions))
        for o, *more in zip(first, *others, strict=True)
    )


def _rows_of(objects: Sequence[GuidedObject], encoder: _Encoder) -> list[GuidedObject]:
    moved = []
    for o in objects:
        positions = o.positions[-1:] if encoder.causal else o.positions
        rows = tuple(p + encoder.shift for p in positions)
        moved.append(replace(o, positions=rows, word=rows[-1] if encoder.causal else o.word + encoder.shift))
    return moved


def _words(clip: Any, name: str) -> tokens.Tokenize:
    """text -> [(token number, content)] of the words of `text` itself: without template, start, end and padding."""

    def everything(text: str) -> list[tokens.Piece]:
        flat = [piece for chunk in clip.tokenize(text, return_word_ids=True)[name] for piece in chunk]
        return [(i, token_content(piece[0])) for i, piece in enumerate(flat) if piece[2]]

    empty = [content for _, content in everything("")]

    @functools.cache
    def tokenize(text: str) -> tuple[tokens.Piece, ...]:
        found = everything(text.rstrip())  # a space belongs to the token behind it
        contents = [content for _, content in found]
        before = _common(contents, empty)
        behind = min(_common(contents[::-1], empty[::-1]), len(empty) - before)
        return tuple(found[before : len(found) - behind])

    return tokenize


def _common(a: Sequence[Any], b: Sequence[Any]) -> int:
    """How many first elements two sequences share."""
    same = 0
    while same < min(len(a), len(b)) and a[same] == b[same]:
        same += 1
    return same


def _encoders(clip: Any, prompt: str, encoding: Tensor) -> list[_Encoder]:
    lengths = {name: sum(map(len, chunks)) for name, chunks in clip.tokenize(prompt).items()}
    own = [name for name in lengths if name not in CLIP_ENCODERS]
    rows, clip_rows = encoding.shape[1], lengths.get("l", lengths.get("g", 0))
    if clip_rows and own and rows == clip_rows + lengths[own[0]]:  # CLIP's rows, then the other encoder's
        name = "l" if "l" in lengths else "g"
        return [_Encoder(name, 0, False), _Encoder(own[0], clip_rows, False)]
    name = own[0]
    token, row = _first_difference(clip, prompt, name, encoding)
    if row == 0 and token > 0:  # every row has read the whole prompt
        if rows != lengths[name]:
            raise ValueError(_MISMATCH.format(rows=rows, name=name, count=lengths[name]))
        return [_Encoder(name, 0, False)]
    if row is None or row > token or rows > lengths[name]:
        raise ValueError(_MISMATCH.format(rows=rows, name=name, count=lengths[name]))
    return [_Encoder(name, row - token, True)]


_MISMATCH = (
    "layout guidance can't tell which row of the conditioning is which word: it has {rows} rows, and the text encoder "
    "{name} makes {count} tokens of the prompt. Use the text encoder that the model was made for, loaded by ComfyUI's "
    "own Load CLIP"
)


def _first_difference(clip: Any, prompt: str, name: str, encoding: Tensor) -> tuple[int, int | None]:
    """The first token and the first row in which a longer prompt differs from `prompt`."""
    longer = prompt.rstrip() + PROBE
    flat = [[token_content(p[0]) for chunk in clip.tokenize(t)[name] for p in chunk] for t in (prompt, longer)]
    other = encode(clip, longer)[0][0]
    length = min(encoding.shape[1], other.shape[1])
    a, b = encoding[0, :length].float(), other[0, :length].to(encoding.device).float()
    differs = (a - b).norm(dim=1) > SAME_ROW * torch.maximum(a.norm(dim=1), b.norm(dim=1)).clamp_min(1e-6)
    rows = differs.nonzero()[:, 0].tolist()
    return _common(*flat), rows[0] if rows else None
