"""Where the model looks for a phrase while ELLA or an LLM adapter conditions it: an estimate, for looking only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ....ella.schedule import STATIC_TIMESTEP
from ....ella.timed import plain
from ....lmd.english.nouns import strip_article
from ....lmd.layout import Layout
from ....lmd.pictures.attention_record import AttentionRecord
from ....lmd.prompts import Group, overall_prompt
from ....lmd.sampling.tokens import PhraseNotFound, find
from ..guidance.attention_recorder import Read, watched
from ..guidance.token_positions import offset_in, tokenizer
from .adapter import HostedAdapter, check_pair, encode
from .connector import EllaConnector, EllaText
from .encode import LENGTHS
from .places import rows_of, rows_read, weights_of
from .recompute import strength_in, timestep_of
from .t5 import EllaTextEncoder
from .text_model import TextModel

UNFOUND = (
    "the positive conditioning was not encoded from the recorder's text by the same two models. Give "
    "ELLAAttentionRecorder the text of the encode node, word for word"
)
Rows = Callable[[str], Sequence[int]]  # a phrase -> its rows in the text's features; none where it is not in the text


@dataclass(frozen=True)
class Origin:
    """Tokens (1, N, W) as the encode node gives them, and how much of each comes from each phrase.

    `shares` gets the model's sampling and the options of a call, and gives (N, P).
    """

    tokens: Tensor
    shares: Callable[[Any, dict], Tensor]


def recorded(
    model: Any,
    connector: EllaConnector | HostedAdapter,
    encoder: EllaTextEncoder | TextModel,
    text: str,
    groups: Sequence[Group],
    canvas: tuple[int, int] = (0, 0),
    system: str | None = None,
) -> tuple[Any, AttentionRecord]:
    """`(a clone of MODEL that records, the AttentionRecord)` for phrases of a text; without phrases, `model` itself.

    Raises:
        PhraseNotFound: a phrase is not in the text.
        ValueError: the connector or adapter and the text encoder do not belong together.
    """
    record = AttentionRecord(
        canvas, tuple(g.phrase for g in groups), tuple(g.boxes for g in groups), tuple(g.numbers for g in groups)
    )
    if not groups:
        return model, record
    if isinstance(connector, EllaConnector) and isinstance(encoder, EllaTextEncoder):
        origins, record.estimate = _of_ella(connector, encoder, text, groups), True
    elif isinstance(encoder, TextModel) and not isinstance(connector, EllaConnector):
        origins, record.estimate = _of_adapter(connector, encoder, text, groups, system)
    else:
        raise ValueError(
            "ELLAAttentionRecorder needs models that belong together: Load ELLA Model with Load ELLA Text Encoder, or "
            "Load LLM Adapter with Load LLM Adapter Text Encoder."
        )

    def look(guider: Any) -> dict[Any, Read]:
        sampling = guider.inner_model.model_sampling
        return dict(_read(guider.conds.get("positive") or [], origins, sampling))

    return watched(model, record, look, UNFOUND), record


def phrases_of(phrases: str, layout: Layout | None) -> list[Group]:
    """The phrases to look for, one a line, without boxes; where there are none, the layout's with theirs."""
    lines = [line.strip() for line in phrases.splitlines() if line.strip()]
    if lines or layout is None:
        return [Group(line, line.split()[-1], (), None, line, (i,)) for i, line in enumerate(dict.fromkeys(lines), 1)]
    return list(overall_prompt(layout).groups)


def _read(positive: Sequence[dict], origins: Sequence[Origin], sampling: Any) -> Iterator[tuple[Any, Read]]:
    for cond in positive:
        if cond.get("area") is not None:
            continue
        context = plain(cond["model_conds"]["c_crossattn"].cond)
        for origin in origins:
            offset = offset_in(context, origin.tokens)
            if offset is not None:
                yield cond["uuid"], _maps(origin, offset, sampling)
                break


def _maps(origin: Origin, offset: int, sampling: Any) -> Read:
    own = slice(offset, offset + origin.tokens.shape[1])
    return lambda probs, options: (probs[..., own] @ origin.shares(sampling, options).to(probs)).movedim(-1, 1)


def _of_ella(connector: EllaConnector, encoder: EllaTextEncoder, text: str, groups: Sequence[Group]) -> list[Origin]:
    """One origin for each length that the encode node offers."""
    tokenize = tokenizer(encoder.clip)
    rows = _rows(groups, text, lambda phrase: find(tokenize(text), tokenize(phrase)) or ())
    found = []
    for length in LENGTHS.values():
        features = encoder.features(text, length)
        tokens = plain(EllaText(connector, features).conditioning_tokens())
        found.append(Origin(tokens, _timed_shares(connector, features, rows)))
    return found


def _timed_shares(connector: EllaConnector, features: Tensor, rows: Sequence[Sequence[int]]) -> Callable:
    known: dict[int, Tensor] = {}

    def at(timestep: int) -> Tensor:
        if timestep not in known:
            known[timestep] = _summed(connector.text_shares(features, timestep), rows)
        return known[timestep]

    at(STATIC_TIMESTEP)  # now, while the connector is on its device

    def shares(sampling: Any, options: dict) -> Tensor:
        timestep = timestep_of(sampling, options["sigmas"])
        strength = strength_in(options, timestep)
        if strength in (0.0, 1.0):
            return at(timestep if strength else STATIC_TIMESTEP)
        return torch.lerp(at(STATIC_TIMESTEP), at(timestep), strength)

    return shares


def _of_adapter(
    adapter: HostedAdapter, encoder: TextModel, text: str, groups: Sequence[Group], system: str | None
) -> tuple[list[Origin], bool]:
    """One origin for each way in which the encode node reads parentheses; and whether they are estimates."""
    check_pair(adapter, encoder)
    longest = adapter.config.longest
    unweighted, weights = weights_of(encoder, text, longest, system)
    readings = {text: False} | ({unweighted: True} if unweighted != text or weights is not None else {})
    found, estimate, missing = [], True, None
    for plain_text, by_weight in readings.items():
        try:
            rows = _rows(groups, plain_text, _by_characters(encoder, plain_text, system))
        except PhraseNotFound as error:
            missing = missing or error
            continue
        end = longest if encoder.pads_left else 0
        shares, estimate = adapter.text_shares(encoder.features(plain_text, longest, system), end)
        most = rows_read(encoder.prompt(plain_text, system), longest)
        summed = _summed(shares, [[r for r in own if r < most] for own in rows])
        tokens = encode(adapter, encoder, text, system, weights=by_weight)[0][0]
        found.append(Origin(tokens, lambda _sampling, _options, summed=summed: summed))
    if missing and not found:
        raise missing
    return found, estimate


def _by_characters(encoder: TextModel, text: str, system: str | None) -> Rows:
    def in_text(phrase: str) -> Sequence[int]:
        found = re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, re.IGNORECASE)
        return rows_of(encoder, text, found.span(), system) if found else ()

    return in_text


def _summed(shares: Tensor, rows: Sequence[Sequence[int]]) -> Tensor:
    """(N, L) -> (N, P): the share of each phrase's rows together."""
    return torch.stack([shares[:, list(own)].sum(dim=-1) for own in rows], dim=-1)


def _rows(groups: Sequence[Group], text: str, in_text: Rows) -> list[Sequence[int]]:
    """Every group's rows, by the fullest wording of it that the text has."""
    found = []
    for group in groups:
        names = [group.phrase, strip_article(group.phrase), group.name, strip_article(group.name), group.word]
        own = next((rows for name in names if name for rows in [in_text(name)] if rows), None)
        if own is None:
            raise PhraseNotFound(
                f'the phrase "{group.phrase}" is not in the text "{text}". Write phrases in ELLAAttentionRecorder as '
                "they stand in the text, one a line"
            )
        found.append(own)
    return found
