"""Where the phrases stand in the encoded prompt (docs/lmd.md, 3), on any tokenizer's pieces."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

Piece = tuple[int, Hashable]  # position on the text axis of the attention maps, token id (or vocabulary string)
Tokenize = Callable[[str], Sequence[Piece]]


class PhraseNotFound(ValueError):
    """A phrase of the layout does not occur in the prompt."""


def find(pieces: Sequence[Piece], phrase: Sequence[Piece]) -> tuple[int, ...] | None:
    """Positions of the first occurrence of the phrase's tokens among the prompt's; None if there is none.

    Whole tokens are compared, never text, so a match cannot start inside a word (the reference's can).
    """
    ids, wanted = [p[1] for p in pieces], [p[1] for p in phrase]
    if not wanted:
        return None
    for start in range(len(ids) - len(wanted) + 1):
        if ids[start : start + len(wanted)] == wanted:
            return tuple(p[0] for p in pieces[start : start + len(wanted)])
    return None


def extend(prompt: str, phrases: Sequence[str], tokenize: Tokenize) -> str:
    """The prompt with `| phrase` appended for every phrase whose tokens it does not contain."""
    for phrase in phrases:
        if find(tokenize(prompt), tokenize(phrase)) is None:
            prompt += "| " + phrase
    return prompt


def locate(prompt: str, phrase: str, word: str, tokenize: Tokenize) -> tuple[tuple[int, ...], int]:
    """`(positions of the phrase, position of its word token)`: the last piece of `word` inside the phrase.

    Raises PhraseNotFound (a ValueError) if the phrase is not in the prompt, or the word not in the phrase.
    """
    pieces, own = tokenize(prompt), tokenize(phrase)
    positions = find(pieces, own)
    if positions is None:
        raise PhraseNotFound(
            f'the phrase "{phrase}" of the layout is not in the prompt "{prompt}": '
            "write it there word for word, or leave the prompt empty to use the layout's own"
        )
    by_place = [(positions[i], token) for i, (_, token) in enumerate(own)]
    inside = find(by_place, tokenize(word))
    if inside is None:
        raise PhraseNotFound(f'the word "{word}" is not a word of the phrase "{phrase}"')
    return positions, inside[-1]
