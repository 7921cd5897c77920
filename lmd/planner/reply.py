"""A language model's reply -> boxes, background and negative prompt. Literals are read, nothing is ever executed.

`parse_strict` is the reference's grammar (docs/lmd.md, 1.4); `parse` also understands what chat models
really send. Both raise only ReplyError, a ValueError that says where.
"""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass, field

from ..layout import MAX_OBJECTS, Box, Layout, LayoutObject
from .box_filter import NamedBox, filter_boxes, filter_boxes_exact
from .literals import LiteralError, read_literal
from .reply_shapes import boxes_in, looks_like_boxes

MAX_REPLY = 100_000
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

    `canvas` is the size that the reply itself names; `fractions` tells that the numbers are shares of the canvas.
    """

    boxes: list[NamedBox]
    background: str = ""
    negative: str = ""
    canvas: tuple[int, int] | None = None
    fractions: bool = False
    notes: tuple[str, ...] = field(default=())


def parse_strict(text: str | None) -> Reply:
    """The reference's grammar, character by character."""
    if not text:
        raise ReplyError("the reply is empty")
    if len(text) > MAX_REPLY:
        raise ReplyError(f"the reply has {len(text)} characters, more than the {MAX_REPLY} that are read")
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


_LABEL = r"(?:^|(?<=[\n\]\)}}]))[\s>*#_`'\"-]*(?:the )?{name}[*_`'\"]*\s*[:=][*_`]*[ \t]*"
_OBJECTS = re.compile(_LABEL.format(name=r"(?:objects?|boxes|bounding boxes|layout)(?: list)?"), re.I)
_BACKGROUND = re.compile(_LABEL.format(name=r"background(?: prompt| description)?"), re.I)
_NEGATIVE = re.compile(_LABEL.format(name=r"negative(?: prompt)?"), re.I)
_ANY_LABEL = re.compile(
    _LABEL.format(name=r"(?:objects?|boxes|background(?: prompt| description)?|negative(?: prompt)?|caption)"), re.I
)
_NOTHING = re.compile(r"\s*[`*_]*(?:no objects?|none|empty|n/a|null)\b", re.I)
_EMPTY_WORDS = frozenset(("none", "none.", "n/a", "empty", "-", "null", "(none)", "[]", '""'))


def parse(text: str) -> Reply:
    """What chat models send: code fences, talk around it, JSON in the usual shapes, curly quotes, bold labels."""
    if not isinstance(text, str) or not text.strip():
        raise ReplyError("the reply is empty: paste the language model's whole answer, or connect a node that gives it")
    if len(text) > MAX_REPLY:
        raise ReplyError(f"the reply has {len(text)} characters, more than the {MAX_REPLY} that are read: shorten it")
    text = re.sub(r"<think>.*?</think>", lambda m: " " * len(m.group()), text.lstrip("\ufeff"), flags=re.S)
    background, negative = _line(_BACKGROUND, text), _line(_NEGATIVE, text)
    label = _OBJECTS.search(text)
    starts = [m.start() for m in re.finditer(r"[\[{(]", text)]
    if label:
        starts = [s for s in starts if s >= label.end()] + [s for s in starts if s < label.end()]
        if _NOTHING.match(text, label.end()):
            return Reply([], background, negative)
    end = -1
    for start in starts[:200]:
        if start < end:
            continue
        try:
            value, stop = read_literal(text, start)
        except LiteralError as error:
            if looks_like_boxes(text[start : start + 400]):
                message = f"the object list can't be read: {error.message}; {_FIX}"
                raise ReplyError(message, text, error.position, "SyntaxError") from None
            continue
        found = boxes_in(value)
        if found is not None and (found.boxes or isinstance(value, dict) or _alone(text, start, stop)):
            return Reply(
                found.boxes,
                found.background or background,
                found.negative or negative,
                found.canvas,
                found.fractions,
                found.notes,
            )
        end = stop if not isinstance(value, (dict, list)) else -1
    if re.search(r"\bno objects\b", text, re.I) and (background or negative):
        return Reply([], background, negative)
    raise ReplyError(
        "the reply holds no list of boxes such as [('a cat', [x, y, width, height])], "
        f"got {text.strip()[:80]!r}: {_FIX}"
    )


def _alone(text: str, start: int, stop: int) -> bool:
    """Does the empty list at `start` stand alone, on its own line or behind the objects label?"""
    before = text[text.rfind("\n", 0, start) + 1 : start].strip(" `*>")
    return (not before or bool(_OBJECTS.fullmatch(before + " "))) and text[stop : stop + 1] in (
        "",
        "\n",
        "\r",
        " ",
        "`",
    )


def _line(label: re.Pattern[str], text: str) -> str:
    """The text behind a label, up to the next label or a blank line."""
    match = label.search(text)
    if not match:
        return ""
    rest = text[match.end() :]
    following = _ANY_LABEL.search(rest)
    rest = rest[: following.start()] if following else rest
    rest = re.split(r"\n\s*\n|```", rest.strip(), maxsplit=1)[0]
    value = " ".join(rest.split()).strip("*_`\"' \u201c\u201d").strip()
    return "" if value.lower() in _EMPTY_WORDS else value


def to_layout(reply: Reply, width: int, height: int, prompt: str = "", exact: bool = False) -> Layout:
    """A layout on a canvas of `width` x `height` pixels; what had to be changed is in its notes.

    `exact` filters as the reference does, on the 512 x 512 canvas that its requests ask for. Raises ReplyError for
    boxes that are no boxes, more than 50 of them, or when none of them can be drawn.
    """
    boxes = [_checked(i, item) for i, item in enumerate(reply.boxes or [])]
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
        kept, changes = filter_boxes(boxes, *unit)
        notes += changes
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
    return Layout(width, height, tuple(objects), reply.background, reply.negative, prompt, tuple(notes))


def _checked(index: int, item: object) -> NamedBox:
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
    return name, numbers
