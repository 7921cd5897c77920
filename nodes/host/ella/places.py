"""Which rows of an LLM adapter's text features belong to a part of the text, on any tokenizer."""

from __future__ import annotations

from collections.abc import Sequence

from .text_model import TextModel


def rows_of(encoder: TextModel, text: str, span: tuple[int, int], system: str | None = None) -> range:
    """Rows of `encoder.features` for the characters `span` = (first, behind the last) of the text.

    The tokenizer itself tells: up to where do the ids of the text agree with those of the text cut off at either end? A
    token that is only partly inside is left out.
    """
    whole = encoder.prompt(text, system)
    behind = _alike(whole.ids[::-1], encoder.prompt("", system).ids[::-1])  # the template's end

    def upto(end: int) -> int:
        shared = _alike(whole.ids, encoder.prompt(text[:end].rstrip(), system).ids)
        return min(shared, len(whole.ids) - behind) - whole.skipped

    return range(max(upto(span[0]), 0), max(upto(span[1]), 0))


def _alike(a: Sequence[int], b: Sequence[int]) -> int:
    """How many ids two lists share at their front."""
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
