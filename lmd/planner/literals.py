"""Reads one literal (list, mapping, text, number) out of free text: JSON and Python alike, and their usual slips.

A scanner of our own, because neither json nor ast forgives an apostrophe in 'a chef's knife', a curly quote, a comment
or a name without quotes. It builds lists, dicts, strings and numbers only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_DEPTH = 12
_CLOSERS = {"[": "]", "(": ")", "{": "}"}
_QUOTES = {'"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u2018": "\u2019", "\u201d": "\u201d", "\u2019": "\u2019",
           "\u00ab": "\u00bb"}  # fmt: skip
_SPACE = re.compile(r"(?:\s|#[^\n]*(?=\n)|//[^\n]*(?=\n)|/\*.*?\*/)*", re.S)
_NUMBER = re.compile(r"[-+]?(?:\d{1,12}(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3})?(?:\s*(?:px|pixels?))?(?=[\s,:\]\)}]|$)")
_PERCENT = re.compile(r"([-+]?\d{1,4}(?:\.\d*)?)\s*%")
_WORD = re.compile(r"[^\[\](){},:\"\n=]+")
_NAMED = {"none": None, "null": None, "true": True, "false": False}


@dataclass
class LiteralError(Exception):
    message: str
    position: int


def read_literal(text: str, start: int) -> tuple[object, int]:
    """The literal that begins at `start` and the position behind it. Raises LiteralError."""
    return _value(text, start, 0)


def _space(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()


def _value(text: str, at: int, depth: int) -> tuple[object, int]:
    at = _space(text, at)
    if at >= len(text):
        raise LiteralError("the text ends in the middle of a list", len(text))
    if depth > MAX_DEPTH:
        raise LiteralError("lists are nested too deeply", at)
    c = text[at]
    if c == "{":
        return _mapping(text, at, depth)
    if c in "[(":
        return _sequence(text, at, depth)
    if c in _QUOTES:
        return _string(text, at)
    if match := _PERCENT.match(text, at):
        return float(match.group(1)) / 100, match.end()
    if match := _NUMBER.match(text, at):
        digits = re.sub(r"\s*(?:px|pixels?)$", "", match.group())
        number = float(digits)
        return (int(number) if re.fullmatch(r"[-+]?\d+", digits) else number), match.end()
    if match := _WORD.match(text, at):
        word = match.group().strip()
        if re.match(r"[-+.]?\d", word):
            raise LiteralError(f"{word[:30]!r} is not a plain number (no arithmetic is done)", at)
        return _NAMED.get(word.lower(), word), match.end()
    raise LiteralError(f"unexpected {c!r}", at)


def _sequence(text: str, at: int, depth: int) -> tuple[list, int]:
    closer, opened = _CLOSERS[text[at]], at
    at = _space(text, at + 1)
    items: list = []
    while True:
        if at >= len(text):
            raise LiteralError(f"the {text[opened]!r} that begins here is never closed", opened)
        if text[at] == closer:
            return items, at + 1
        if text[at] in "])}":
            raise LiteralError(f"expected {closer!r}, found {text[at]!r}", at)
        item, at = _value(text, at, depth + 1)
        at = _space(text, at)
        if at < len(text) and text[at] in ":=" and isinstance(item, str):
            value, at = _value(text, at + 1, depth + 1)  # [name: box] without braces
            item = [item, value]
            at = _space(text, at)
        items.append(item)
        if at < len(text) and text[at] in ",;":
            at = _space(text, at + 1)
        elif at < len(text) and text[at] not in "])}" and text[at] not in "([{":
            raise LiteralError(f"expected ',' or {closer!r}, found {text[at]!r}", at)


def _mapping(text: str, at: int, depth: int) -> tuple[dict, int]:
    opened = at
    at = _space(text, at + 1)
    items: dict = {}
    while True:
        if at >= len(text):
            raise LiteralError("the '{' that begins here is never closed", opened)
        if text[at] == "}":
            return items, at + 1
        key, at = _value(text, at, depth + 1)
        at = _space(text, at)
        if at >= len(text) or text[at] not in ":=":
            raise LiteralError("expected ':' behind a name", min(at, len(text)))
        value, at = _value(text, at + 1, depth + 1)
        name = str(key) if isinstance(key, (str, int, float)) else ""
        items[name if name not in items else f"{name} "] = value
        at = _space(text, at)
        if at < len(text) and text[at] in ",;":
            at = _space(text, at + 1)
        elif at < len(text) and text[at] != "}":
            raise LiteralError(f"expected ',' or '}}', found {text[at]!r}", at)


def _string(text: str, at: int) -> tuple[str, int]:
    """A quoted text. A quote mark ends it only in front of a comma, a colon or a bracket, so apostrophes may stay."""
    opener = text[at]
    closers = {_QUOTES[opener], opener}
    if opener in "'\u2018\u2019":
        closers = {"'", "\u2019"}
    elif opener in '"\u201c\u201d':
        closers = {'"', "\u201d"}
    out, i = [], at + 1
    while i < len(text):
        c = text[i]
        if c == "\\" and i + 1 < len(text):
            out.append({"n": "\n", "t": "\t"}.get(text[i + 1], text[i + 1]))
            i += 2
            continue
        if c in closers:
            after = _space(text, i + 1)
            if after >= len(text) or text[after] in ",:;=)]}" or (c != "'" and c != "\u2019"):
                return "".join(out), i + 1
        out.append(c)
        i += 1
    raise LiteralError("a quoted name is never closed", at)
