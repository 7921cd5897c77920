"""Which rows of an LLM adapter's text features belong to a part of the text, on any tokenizer; and prompt weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from comfy import sd1_clip

from .text_model import Prompt, TextModel


def rows_of(encoder: TextModel, text: str, span: tuple[int, int], system: str | None = None) -> range:
    """Rows of `encoder.features` for the characters `span` = (first, behind the last) of the text.

    A token belongs to the part of the text that has its last character.
    """
    upto = _counted(encoder, text, system)
    return range(upto(span[0]), upto(span[1]))


def _counted(encoder: TextModel, text: str, system: str | None) -> Callable[[int], int]:
    """A function: how many rows end within the first `end` characters of the text.

    The tokenizer itself tells: up to where do the ids of the text agree with those of the text cut off there?
    """
    whole = encoder.prompt(text, system)
    behind = _alike(whole.ids[::-1], encoder.prompt("", system).ids[::-1])  # the template's end

    def upto(end: int) -> int:
        shared = _alike(whole.ids, encoder.prompt(text[:end].rstrip(), system).ids)
        return max(min(shared, len(whole.ids) - behind) - whole.skipped, 0)

    return upto


def rows_read(prompt: Prompt, limit: int) -> int:
    """How many rows of the text are read as they stand: where it is cut at `limit` rows, those before its kept end."""
    whole = len(prompt.ids) - prompt.skipped
    return whole if whole <= limit else limit - min(prompt.ending, limit)


def weights_of(encoder: TextModel, text: str, limit: int, system: str | None = None) -> tuple[str, torch.Tensor | None]:
    """The text without its prompt weights, written as for CLIP, and the weights of its rows (1, L), L at most `limit`.

    None where all are equal. Raises ValueError for a weight that is no number.
    """
    parsed = sd1_clip.token_weights(sd1_clip.escape_important(text), 1.0)
    parts = [(sd1_clip.unescape_important(part), weight) for part, weight in parsed]
    if any(math.isnan(weight) for _, weight in parts):
        raise ValueError(f'a prompt weight in the text "{text}" is no number. Write weights as in (red cat:1.2).')
    plain = "".join(part for part, _ in parts)
    prompt, upto = encoder.prompt(plain, system), _counted(encoder, plain, system)
    weights = torch.ones(1, min(len(prompt.ids) - prompt.skipped, limit))
    most, end, done = rows_read(prompt, limit), 0, 0
    for part, weight in parts:
        first, end = end, end + len(part)
        if weight != 1.0 and done < most:
            behind = min(upto(end), most)
            weights[:, max(upto(first), done) : behind] = weight
            done = max(done, behind)
    return plain, None if bool((weights == weights[0, 0]).all()) else weights


def _alike(a: Sequence[int], b: Sequence[int]) -> int:
    """How many ids two lists share at their front."""
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
