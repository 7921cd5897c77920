"""A language model's reply -> boxes, background and negative prompt. Literals are read, nothing is ever executed.

`parse_strict` is the reference's grammar (docs/lmd.md, 1.4); `parse` also understands what chat models
really send. Both raise only ReplyError, a ValueError that says where.
"""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass, field
from typing import Any

from ...chat.answer import CUT, Answer, answer_in, is_refusal, refused, unescaped
from ..layout import Box, Layout, LayoutObject
from ..limits import MAX_OBJECTS, MAX_PHRASE, MAX_REPLY, MAX_TEXT, readable, within
from .box_filter import NamedBox, filter_boxes, filter_boxes_exact, with_sizes
from .reply_lists import Broken, Listing, chosen

_MAX_NESTING = 40
_FIX = "correct it in the reply, or ask the language model again"


class ReplyError(ValueError):
    """A reply that can't be read. `kind` is the reference's exception class, `position` a character offset or None."""

    def __init__(self, message: str, text: str = "", position: int | None = None, kind: str = "UserError") -> None:
        if position is not None and text:
            line = text.count("\n", 0, position) + 1
            column = position - (text.rfind("\n", 0, position) + 1) + 1
            near = text[max(0, position - 25) : position + 25].replace("\n", " ")
            message = f"{message} (line {line}, column {column}, near {near!r})"
        super().__init__(message)
        self.kind = kind
        self.position = position


@dataclass(frozen=True)
class Reply:
    """A parsed reply. `boxes` as written: `(name, [x, y, w, h])`.

    `canvas` is the size that the reply itself names; `fractions` tells that the numbers are shares of the canvas,
    `unsure` that the last two may be the far corner instead of a size.
    """

    boxes: list[NamedBox]
    background: str = ""
    negative: str = ""
    canvas: tuple[int, int] | None = None
    fractions: bool = False
    notes: tuple[str, ...] = field(default=())
    unsure: bool = False


def parse_strict(text: str | None) -> Reply:
    """The reference's grammar, character by character."""
    if not text:
        raise ReplyError("the reply is empty")
    _not_too_long(text)
    start = 0
    if "Objects: " in text:
        start = text.index("Objects: ") + len("Objects: ")
        text_body = text.split("Objects: ")[1]
    else:
        text_body = text
    pieces = text_body.split("Background prompt:")
    if len(pieces) != 2:
        raise ReplyError(f'the reply needs exactly one line "Background prompt:", got {len(pieces) - 1}', text, start)
    listing, rest = pieces
    tail = rest.split("Negative prompt:")
    if len(tail) > 2:
        raise ReplyError(f'the reply may have one line "Negative prompt:", got {len(tail) - 1}')
    background, negative = tail[0].strip(), tail[1].strip() if len(tail) == 2 else ""
    return Reply(_literal_list(listing, text, start), background, "" if negative == "None" else negative)


def _literal_list(listing: str, text: str, start: int) -> list[NamedBox]:
    deepest = depth = 0
    for c in listing:
        depth += (c in "([{") - (c in ")]}")
        deepest = max(deepest, depth)
    if deepest > _MAX_NESTING or re.search(r"[-+~]\s*(?:[-+~]\s*){20}", listing):
        raise ReplyError("the object list is nested too deeply", text, start, "SyntaxError")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = ast.literal_eval(listing)
    except SyntaxError as error:
        if "No objects" in listing or not listing.strip():
            return []
        at = start + _offset(listing, error.lineno or 1, error.offset or 1)
        raise ReplyError(
            f"the object list can't be read: {error.msg}", text, min(at, len(text)), "SyntaxError"
        ) from None
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        message = f"the object list may hold only quoted names and numbers: {type(error).__name__}"
        raise ReplyError(message, text, start, "ValueError") from None
    return value


def _offset(text: str, line: int, column: int) -> int:
    lines = text.split("\n")
    return sum(len(x) + 1 for x in lines[: line - 1]) + column - 1


_LABEL = r"(?:^|(?<=[\n\]\)}}]))[ \t>*#_`'\"-]{{0,20}}(?:the )?{name}[*_`'\"]{{0,8}}[ \t]{{0,8}}[:=][*_`]{{0,8}}[ \t]{{0,20}}"
_OBJECTS = re.compile(_LABEL.format(name=r"(?:objects?|boxes|bounding boxes|layout)(?: list)?"), re.I)
_BACKGROUND = re.compile(_LABEL.format(name=r"background(?: prompt| description)?"), re.I)
_NEGATIVE = re.compile(_LABEL.format(name=r"negative(?: prompt)?"), re.I)
_ANY_LABEL = re.compile(
    _LABEL.format(name=r"(?:objects?|boxes|background(?: prompt| description)?|negative(?: prompt)?|caption)"), re.I
)
_NOTHING = re.compile(r"\s{0,40}[`*_]{0,8}(?:no objects?|none|empty|n/a|null)\b", re.I)
_BLANK_LINE = re.compile(r"\n[ \t\r]{0,200}\n|```")
_EMPTY_WORDS = frozenset(("none", "none.", "n/a", "empty", "-", "null", "(none)", "[]", '""'))
_EMPTY_REPLY = "the reply is empty: paste the language model's whole answer, or connect a node that gives it"


def parse(reply: str | Answer) -> Reply:
    """What chat models send: thoughts, code fences, talk around it, JSON in the usual shapes, drafts, several lists.

    Doubts are in the result's notes. Raises ReplyError when the reply holds no answer or no boxes.
    """
    if not isinstance(reply, Answer):
        if not isinstance(reply, str) or not reply.strip():
            raise ReplyError(_EMPTY_REPLY)
        _not_too_long(reply)
        reply = answer_in(reply)
    _not_too_long(reply.text)
    if not reply.text:
        raise ReplyError(reply.why)
    text, unescaping = unescaped(reply.text)
    notes = (*reply.notes, *unescaping)
    match chosen(text):
        case Broken(_, error):
            cut = f"; {CUT}" if reply.cut else ""
            message = f"the object list can't be read: {error.message}{cut}; {_FIX}"
            raise ReplyError(message, text, error.position, "SyntaxError")
        case Listing() as listing:
            found = listing.found
            background, negative = (_line(label, text, listing) for label in (_BACKGROUND, _NEGATIVE))
            return Reply(
                found.boxes,
                found.background or background,
                found.negative or negative,
                found.canvas,
                found.fractions,
                (*notes, *listing.notes, *found.notes),
                found.unsure,
            )
    background, negative = _line(_BACKGROUND, text), _line(_NEGATIVE, text)
    label = _OBJECTS.search(text)
    if label and _NOTHING.match(text, label.end()):
        return Reply([], background, negative, notes=notes)
    if re.search(r"\bno objects\b", text, re.I) and (background or negative):
        return Reply([], background, negative, notes=notes)
    raise ReplyError(_nothing_found(text, reply.cut))


def _not_too_long(text: str) -> None:
    if len(text) > MAX_REPLY:
        raise ReplyError(f"the reply has {len(text)} characters, more than the {MAX_REPLY} that are read: shorten it")


def _nothing_found(text: str, cut: bool) -> str:
    message = "the reply holds no list of boxes such as [('a cat', [x, y, width, height])]"
    if is_refusal(text):
        return f"{message}: {refused(text)}"
    return f"{message}, got {text.strip()[:80]!r}: {CUT if cut else _FIX}"


def _line(label: re.Pattern[str], text: str, listing: Listing | None = None) -> str:
    """The text behind a label, up to the next label or a blank line; behind the list that counts, or before it."""
    match = label.search(text, listing.stop if listing else 0)
    if match is None and listing is not None:
        match = next(iter(reversed(list(label.finditer(text, 0, listing.start)))), None)
    if not match:
        return ""
    following = _ANY_LABEL.search(text, match.end())
    rest = text[match.end() : following.start() if following else len(text)]
    rest = _BLANK_LINE.split(rest.strip(), maxsplit=1)[0]
    value = " ".join(rest.split()).strip("*_`\"' \u201c\u201d").strip()
    return "" if value.lower() in _EMPTY_WORDS else value


def to_layout(reply: Reply, width: int, height: int, prompt: str = "", exact: bool = False) -> Layout:
    """A layout on a canvas of `width` x `height` pixels; what had to be changed is in its notes.

    `exact` filters as the reference does, on the 512 x 512 canvas that its requests ask for. Raises ReplyError for
    boxes that are no boxes, more than 50 of them, or when none of them can be drawn.
    """
    if not isinstance(reply.boxes, (list, tuple)):
        raise ReplyError(f"the object list must be a list of names with boxes, got {repr(reply.boxes)[:80]}: {_FIX}")
    boxes = [_checked(i, item) for i, item in enumerate(reply.boxes)]
    if len(boxes) > MAX_OBJECTS:
        raise ReplyError(
            f"a layout holds at most {MAX_OBJECTS} objects, the reply has {len(boxes)}: "
            "ask for fewer in the prompt, or group small ones"
        )
    notes = list(reply.notes)
    if exact:
        kept, unit = filter_boxes_exact(boxes, scale_boxes=False), (512.0, 512.0)
    else:
        unit = (1.0, 1.0) if reply.fractions else tuple(map(float, reply.canvas or (width, height)))
        boxes, told = with_sizes(boxes, *unit) if reply.unsure else (boxes, [])
        kept, changes = filter_boxes(boxes, *unit)
        notes += told + changes
        if reply.canvas and reply.canvas != (width, height):
            notes.append(
                f"the reply is for a {reply.canvas[0]} x {reply.canvas[1]} canvas; "
                f"its boxes were stretched to {width} x {height}"
            )
    if boxes and not kept and not exact and not all("whole canvas" in n for n in changes):
        raise ReplyError(
            f"none of the {len(boxes)} boxes can be drawn on a {width} x {height} canvas: {'; '.join(notes)}; "
            "boxes are [left, top, width, height] in pixels of the canvas set on the node"
        )
    if not boxes:
        notes.append("the reply has no boxes, so the background prompt alone makes the image")
    objects = []
    for name, (x, y, w, h) in kept:
        if w <= 0 or h <= 0:  # the exact filter rounds
            continue
        try:
            objects.append(LayoutObject(name, Box(x / unit[0], y / unit[1], w / unit[0], h / unit[1])))
        except ValueError as error:
            raise ReplyError(f"{error}; {_FIX}") from None
    try:
        background = within("the reply's background prompt", reply.background, MAX_TEXT)
        negative = within("the reply's negative prompt", reply.negative, MAX_TEXT)
    except ValueError as error:
        raise ReplyError(str(error)) from None
    return Layout(width, height, tuple(objects), background, negative, prompt, tuple(notes))


def _checked(index: int, item: Any) -> NamedBox:
    try:
        name, box = item
        numbers = [float(v) for v in box]
        if not isinstance(name, str) or not name.strip(" .") or len(numbers) != 4 or isinstance(box, str):
            raise ValueError
        if not all(abs(v) < 1e7 for v in numbers):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        shown = repr(item)[:80]
        raise ReplyError(
            f"object {index + 1} must be a name and four numbers, ('a cat', [left, top, width, height]), "
            f"got {shown}: {_FIX}"
        ) from None
    if len(name) > MAX_PHRASE:
        raise ReplyError(
            f"the name of object {index + 1} has {len(name)} characters, at most {MAX_PHRASE} are read: {_FIX}"
        )
    return readable(name), numbers
