"""Where the phrases stand in the encoded prompt (docs/lmd.md, 3), on any tokenizer's pieces."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

Piece = tuple[int, Hashable]  # position on the text axis of the attention maps, the token's content
Tokenize = Callable[[str], Sequence[Piece]]
Place = tuple[int, int]  # the first piece of a phrase among the prompt's, and the one behind its last


class PhraseNotFound(ValueError):
    """A phrase of the layout does not occur in the prompt."""


def places(pieces: Sequence[Piece], phrase: Sequence[Piece]) -> list[Place]:
    """Every place of the phrase's tokens among the prompt's, from left to right.

    Whole tokens are compared, never text, so a match cannot start inside a word (the reference's can).
    """
    ids, wanted = [p[1] for p in pieces], [p[1] for p in phrase]
    size = len(wanted)
    if not size:
        return []
    return [(i, i + size) for i in range(len(ids) - size + 1) if ids[i] == wanted[0] and ids[i : i + size] == wanted]


def find(pieces: Sequence[Piece], phrase: Sequence[Piece]) -> tuple[int, ...] | None:
    """Positions of the first occurrence of the phrase's tokens among the prompt's; None if there is none."""
    found = places(pieces, phrase)
    return tuple(p[0] for p in pieces[slice(*found[0])]) if found else None


def place_of(prompt: str, span: tuple[int, int], tokenize: Tokenize) -> Place | None:
    """The place of the characters `span` = (first, behind the last) of the prompt; None if no tokens are theirs alone.

    The tokenizer itself tells, by how many pieces it makes of the text before them and of the text up to their end.
    """
    pieces, before, upto = tokenize(prompt), tokenize(prompt[: span[0]]), tokenize(prompt[: span[1]])
    if len(before) == len(upto) or [t for _, t in upto] != [t for _, t in pieces[: len(upto)]]:
        return None
    return len(before), len(upto)


def free(found: Sequence[Place], taken: Sequence[Place]) -> list[Place]:
    """Those places that share no token with one that is taken."""
    return [(a, b) for a, b in found if all(b <= start or end <= a for start, end in taken)]


def extend(prompt: str, phrases: Sequence[str], tokenize: Tokenize) -> str:
    """The prompt with `| phrase` appended for every phrase that has no place of its own in it, longest phrases first."""
    pieces = tokenize(prompt)
    taken: list[Place] = []
    missing = set()
    for i, phrase in sorted(enumerate(phrases), key=lambda pair: -len(tokenize(pair[1]))):
        own = free(places(pieces, tokenize(phrase)), taken)
        taken += own[:1]
        if not own:
            missing.add(i)
    ends_in_phrase = any(end == len(pieces) for _, end in taken)
    for i in sorted(missing):
        # A bar right behind a phrase that ends with a mark would become one token with it.
        apart = " " if ends_in_phrase and not prompt[-1:].isalnum() else ""
        prompt += f"{apart}| {phrases[i]}"
        ends_in_phrase = True
    return prompt


def locate(prompt: str, phrase: str, word: str, tokenize: Tokenize) -> tuple[tuple[int, ...], int]:
    """`(positions of the phrase, position of its word token)`: the last piece of `word` inside the phrase.

    Raises PhraseNotFound (a ValueError) if the phrase is not in the prompt, or the word not in the phrase.
    """
    pieces = tokenize(prompt)
    found = places(pieces, tokenize(phrase))
    if not found:
        raise PhraseNotFound(
            f'the phrase "{phrase}" of the layout is not in the prompt "{prompt}": '
            "write it there word for word, or leave the prompt empty to use the layout's own"
        )
    own = pieces[slice(*found[0])]
    inside = find(own, tokenize(word))
    if inside is None:
        raise PhraseNotFound(f'the word "{word}" is not a word of the phrase "{phrase}"')
    return tuple(p for p, _ in own), inside[-1]
