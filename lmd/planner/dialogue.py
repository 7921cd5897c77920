"""Stage 1 with a language model: ask, read, check, ask again listing the faults, repair the geometry.

The model is any callable `ask(messages) -> reply`; nothing here knows how it is reached. A reply is the model's whole
output, or an `Answer` where the caller knows more about it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ...chat.answer import Answer, answer_in
from ..layout import Layout
from .check import Violation, check
from .keep_unspoken import keep_unspoken
from .quality import tidy
from .repair import repair
from .reply import ReplyError, parse, to_layout
from .request import EXAMPLES, complaint, edit_messages, messages

Messages = list[dict[str, str]]
Ask = Callable[[Messages], "str | Answer"]


@dataclass(frozen=True)
class Request:
    """What to ask for. With `previous`, `change` says how that layout is to be changed.

    `examples` 0..7; `reasks`: how many times to ask again after a faulty answer; `repair`: repair the geometry at the end;
    `as_json`: the answer's form.
    """

    prompt: str
    width: int = 512
    height: int = 512
    examples: int = len(EXAMPLES)
    reasks: int = 1
    repair: bool = True
    as_json: bool = False
    previous: Layout | None = None
    change: str = ""

    def messages(self) -> Messages:
        """The first question to the language model: a new layout, or a change of the previous one."""
        shape = (self.width, self.height, self.examples, self.as_json)
        if self.previous is None:
            return messages(self.prompt, *shape)
        return edit_messages(self.previous, self.change, *shape)

    def layout(self, reply: str | Answer) -> Layout:
        """The layout in a reply. Raises ReplyError."""
        layout = to_layout(parse(reply), self.width, self.height, self.prompt.strip())
        if self.previous is None:
            return layout
        before = self.previous.prompt.strip()
        prompt = f"{before}; {self.change.strip()}" if before else self.change.strip()
        return replace(keep_unspoken(self.previous, layout, self.change), prompt=prompt)

    def faults(self, layout: Layout) -> tuple[tuple[Violation, ...], tuple[str, ...]]:
        """What is wrong, and what could not be checked. A change is checked for the places that it names."""
        if self.previous is None:
            verdict = check(self.prompt, layout)
            return verdict.violations, verdict.unsure
        asked = check(self.change, layout)
        places = tuple(v for v in asked.violations if v.kind == "relation")
        return (*check("", layout).violations, *places), asked.unsure


@dataclass(frozen=True)
class Outcome:
    """The finished layout and how it came about: `replies` as received, `asked` what was asked again, `repaired` what
    code changed in the geometry, `left` what is still wrong. `first` is the first reply's layout, None when it could
    not be read; `chosen` the best layout before any repair.
    """

    layout: Layout
    replies: tuple[str, ...]
    asked: tuple[str, ...]
    repaired: tuple[str, ...]
    left: tuple[str, ...]
    first: Layout | None
    chosen: Layout

    @property
    def report(self) -> tuple[str, ...]:
        """What to show a user, line by line."""
        out = list(self.layout.notes)
        for i, reply in enumerate(self.replies):
            out.append(f"reply {i + 1}: {reply.strip()}")
            if i < len(self.asked):
                out.append(f"asked again: {self.asked[i]}")
        return tuple(out)


class NoLayoutError(ValueError):
    """No answer could be read; the message holds the last one."""


@dataclass(frozen=True)
class _Read:
    """One reply's layout and its faults."""

    turn: int
    layout: Layout
    violations: tuple[Violation, ...]
    unsure: tuple[str, ...]


def converse(ask: Ask, request: Request) -> Outcome:
    """Get a layout from a language model. Raises NoLayoutError when none of its answers can be read."""
    talk = request.messages()
    replies: list[str] = []
    asked: list[str] = []
    read: list[_Read] = []
    trouble = ""
    for turn in range(request.reasks + 1):
        given = ask(talk)
        reply = given if isinstance(given, Answer) else answer_in(given)
        replies.append(reply.text)
        try:
            layout = request.layout(reply if isinstance(given, Answer) else given)
        except ReplyError as error:
            trouble = str(error)
            faults: Sequence[str] = [f"it can't be read: {error}"]
        else:
            read.append(_Read(turn, layout, *request.faults(layout)))
            faults = [v.text + v.advice for v in read[-1].violations]
        hopeless = reply.cut and not read  # the same limit cuts the next answer too
        if not faults or turn == request.reasks or hopeless:
            break
        asked.append("; ".join(faults))
        talk = [
            *talk,
            {"role": "assistant", "content": reply.text or "(nothing)"},
            {"role": "user", "content": complaint(faults)},
        ]
    if not read:
        last = f"The last one was: {replies[-1].strip()[:600]!r}. " if replies[-1].strip() else ""
        raise NoLayoutError(
            f"no answer of the language model could be read ({len(replies)} received). {trouble.rstrip('.')}. {last}"
            "Try another seed, more examples, or a larger model"
        )
    best = min(reversed(read), key=lambda r: len(r.violations))
    first = read[0].layout if read[0].turn == 0 else None
    return _finished(request, best.layout, best.unsure, first, tuple(replies), tuple(asked))


def _finished(
    request: Request,
    chosen: Layout,
    unsure: tuple[str, ...],
    first: Layout | None,
    replies: tuple[str, ...],
    asked: tuple[str, ...],
) -> Outcome:
    layout, repaired = tidy(chosen), ()
    if request.repair and request.previous is None:  # a change must leave the other boxes where they are
        layout, repaired = repair(request.prompt, layout)
    left = tuple(v.text for v in request.faults(layout)[0])
    notes = [*layout.notes, *(f"repaired: {m}" for m in repaired), *(f"still wrong: {x}" for x in left)]
    notes += [f"not checked: {u}" for u in unsure]
    layout = replace(layout, notes=tuple(dict.fromkeys(notes)))
    return Outcome(layout, replies, asked, repaired, left, first, chosen)
