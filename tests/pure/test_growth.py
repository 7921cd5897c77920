"""Every function that takes foreign text takes time in proportion to its length.

The processor time for n, 2n and 4n characters, each the least of several runs: four times the text may take eight times
as long, never sixteen. What takes less than a tenth of a second is fast enough, however it grows.
"""

import contextlib
import json
import time

import pytest
from ella_lmd.chat.answer import answer_in, answer_of
from ella_lmd.ella.upsample import caption_from_reply, needs_upsampling, upsampling_request
from ella_lmd.lmd.convert import user_edits
from ella_lmd.lmd.convert.boxes import layout_from
from ella_lmd.lmd.layout import Box, Layout, LayoutObject
from ella_lmd.lmd.pictures import fonts
from ella_lmd.lmd.pictures.layout_picture import draw
from ella_lmd.lmd.planner.keep_unspoken import keep_unspoken
from ella_lmd.lmd.planner.literals import LiteralError, read_literal
from ella_lmd.lmd.planner.reply import parse, parse_strict, to_layout
from ella_lmd.lmd.planner.request import edit_messages, messages, text
from ella_lmd.lmd.prompts import overall_prompt

FAST, FACTOR = 0.1, 8.0


def grows(work, make, n: int) -> str:
    """ "" if `work(make(size))` grows in proportion, else the times."""
    times = []
    for size in (n, 2 * n, 4 * n):
        given = make(size)
        best = float("inf")
        for _ in range(3):
            start = time.process_time()
            with contextlib.suppress(ValueError, LiteralError):
                work(given)
            best = min(best, time.process_time() - start)
            if best < FAST / 4:
                break
        times.append(best)
    return "" if times[2] < max(FAST, FACTOR * times[0]) else str([round(t, 3) for t in times])


PIECES = ["\n", " ", "a", "a ", "[", "(", "{", "'", '"', "\\", "[] ", "{'a':", "('a',[1,2,3,4]) ", "[('a',[1,2,3,4]),", "/*",
          "'#", "' ", "1,", "Objects: ", "\nBackground:", "caption: x\n", "<think>", "</think>", "<|channel|>final", "```",
          "* ", "<", "&lt;", "[[1,2],", "\u201c", "\u732b", "e\u0301", "('a' 5)"]  # fmt: skip
BEGINNINGS = ["", '{"caption": "x', "Objects: [('a', "]
READERS = {
    "parse": lambda t: to_layout(parse(t), 512, 512),
    "parse_strict": lambda t: to_layout(parse_strict(t), 512, 512),
    "read_literal": lambda t: read_literal(t, 0),
    "answer_in": answer_in,
    "answer_of": lambda t: answer_of({"message": {"content": "", "reasoning": t}}),
    "caption": lambda t: caption_from_reply(t, "a cat"),
    "request": lambda t: (text(t), messages(t), upsampling_request(t), needs_upsampling(t)),
    "edits": user_edits.read,
    "layout": Layout.from_json,
    "boxes": lambda t: layout_from(t, 512, 512),
}


@pytest.mark.parametrize("name", READERS)
def test_reading_text_is_linear(name):
    slow = {}
    for piece in PIECES:
        for beginning in BEGINNINGS if name in ("parse", "read_literal") else BEGINNINGS[:1]:
            make = lambda n: (beginning + piece * n)[:n]  # noqa: B023, E731
            if told := grows(READERS[name], make, 4_000):
                slow[beginning + piece] = told
    assert not slow


def _layout(phrase: str = "a cat", background: str = "") -> Layout:
    return Layout(512, 512, (LayoutObject(phrase, Box(0.1, 0.1, 0.5, 0.5)),), background, background, background)


USERS = {
    "picture of a phrase": lambda t: draw(_layout(t)),
    "picture of a background": lambda t: draw(_layout("a cat", t)),
    "wrapped": lambda t: fonts.wrapped(t, 20, 400, 12),
    "shortened": lambda t: fonts.shortened(t, 20, 400),
    "fingerprint": lambda t: user_edits.fingerprint(_layout(t, t)),
    "edits of a long layout": lambda t: user_edits.apply(_layout(t, t), json.dumps(_layout(t, t).to_json())),
    "overall prompt": lambda t: overall_prompt(_layout(t, t)),
    "a change": lambda t: keep_unspoken(_layout(), _layout(), t),
    "a change of a long layout": lambda t: edit_messages(_layout(t, t), "move it", 512, 512),
}


@pytest.mark.parametrize("piece", ["a", "a ", "a cat, ", "\u732b", "\u0301", "\n", ", ", "'", "the red dog and "])
@pytest.mark.parametrize("name", USERS)
def test_using_text_is_linear(name, piece):
    assert not grows(USERS[name], lambda n: "x" + (piece * n)[: n - 1], 2_500)


@pytest.mark.parametrize(
    "piece", ["a ", "red ", "a cat, ", "a cat and a dog, ", "cat", ", ", "no ", "\n", "two ", "of the "]
)
def test_planning_is_linear(piece):
    from ella_lmd.lmd.planner.offline import plan

    assert not grows(lambda t: plan(t, 512, 512), lambda n: (piece * n)[:n], 1_500)
