"""Reads one literal (list, mapping, text, number) out of free text: JSON and Python alike, and their usual slips.

A scanner of our own, because neither json nor ast forgives an apostrophe in 'a chef's knife', a curly quote, a comment
or a name without quotes. It builds lists, dicts, strings and numbers only, in linear time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_DEPTH = 12
_CLOSERS = {"[": "]", "(": ")", "{": "}"}
_QUOTES = {'"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u2018": "\u2019", "\u201d": "\u201d", "\u2019": "\u2019",
           "\u00ab": "\u00bb"}  # fmt: skip
_BLANK = re.compile(r"\s*")
_COMMENT = re.compile(r"#[^\n]*(?=\n)|//[^\n]*(?=\n)")
_NUMBER = re.compile(
    r"([-+]?(?:\d{1,12}(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3})?)[ \t]{0,8}(?:px|pixels?)?(?=[\s,:\]\)}]|$)"
)
_PERCENT = re.compile(r"([-+]?\d{1,4}(?:\.\d{0,20})?)[ \t]{0,8}%")
_WORD = re.compile(r"[^\[\](){},:\"\n=]+")
_WHOLE = re.compile(r"[-+]?\d+")
_NAMED = {"none": None, "null": None, "true": True, "false": False}
_ESCAPES = {"n": "\n", "t": "\t", "r": " ", "b": " ", "f": " "}
_HEX = {"u": re.compile(r"[0-9a-fA-F]{4}"), "U": re.compile(r"[0-9a-fA-F]{8}"), "x": re.compile(r"[0-9a-fA-F]{2}")}
_LOW_SURROGATE = re.compile(r"\\u([dD][c-fC-F][0-9a-fA-F]{2})")


@dataclass
class LiteralError(Exception):
    """What can't be read and where; `open_end`: the text ends before the literal does."""

    message: str
    position: int
    open_end: bool = False


class Budget:
    """The steps that are left for one text, over all literals that are tried in it."""

    def __init__(self, text: str) -> None:
        self.left = 4 * len(text) + 10_000

    def spend(self, steps: int, at: int) -> None:
        """Takes steps from the budget; LiteralError once it is used up."""
        self.left -= steps
        if self.left < 0:
            raise LiteralError("the text is too tangled to be read", at)


def _end(pattern: re.Pattern, text: str, at: int, stop: int) -> int:
    found = pattern.match(text, at, stop)
    return found.end() if found else at


def read_literal(text: str, start: int, budget: Budget | None = None) -> tuple[object, int]:
    """The literal that begins at `start` and the position behind it. Raises LiteralError.

    `budget` is shared by the calls for one text, so that together they stay linear.
    """
    return _Scanner(text, budget or Budget(text)).value(start, 0)


class _Scanner:
    def __init__(self, text: str, budget: Budget) -> None:
        self.text, self.budget = text, budget

    def space(self, at: int) -> int:
        """Behind white space and comments."""
        text, start = self.text, at
        while True:
            at = _end(_BLANK, text, at, len(text))
            c = text[at : at + 1]
            if c == "/" and text.startswith("/*", at):
                end = text.find("*/", at + 2)
                self.budget.spend((end if end >= 0 else len(text)) - start, at)
                if end < 0:
                    return at
                at = end + 2
            elif c and c in "#/" and (comment := _COMMENT.match(text, at)):
                at = comment.end()
            else:
                if c and c in "#/":
                    self.budget.spend(len(text) - at, at)
                self.budget.spend(at - start + 1, at)
                return at

    def value(self, at: int, depth: int) -> tuple[object, int]:
        text, at = self.text, self.space(at)
        self.budget.spend(4, at)
        if at >= len(text):
            raise LiteralError("the text ends in the middle of a list", len(text), True)
        if depth > MAX_DEPTH:
            raise LiteralError("lists are nested too deeply", at)
        c = text[at]
        if c == "{":
            return self.mapping(at, depth)
        if c in "[(":
            return self.sequence(at, depth)
        if c in _QUOTES:
            return self.string(at)
        return self.bare(at)

    def bare(self, at: int) -> tuple[object, int]:
        """A number, a share of hundred, or words without quotes."""
        if match := _PERCENT.match(self.text, at):
            return float(match[1]) / 100, match.end()
        if match := _NUMBER.match(self.text, at):
            number = float(match[1])
            return (int(match[1]) if _WHOLE.fullmatch(match[1]) else number), match.end()
        match = _WORD.match(self.text, at)
        if match is None:
            raise LiteralError(f"unexpected {self.text[at]!r}", at)
        self.budget.spend(match.end() - at, at)
        word = match.group().strip()
        if re.match(r"[-+.]?\d", word):
            raise LiteralError(f"{word[:30]!r} is not a plain number (no arithmetic is done)", at)
        return _NAMED.get(word.lower(), word), match.end()

    def sequence(self, at: int, depth: int) -> tuple[list, int]:
        text, opened = self.text, at
        closer = _CLOSERS[text[at]]
        at = self.space(at + 1)
        items: list = []
        while True:
            if at >= len(text):
                raise LiteralError(f"the {text[opened]!r} that begins here is never closed", opened, True)
            if text[at] == closer:
                return items, at + 1
            if text[at] in "])}":
                raise LiteralError(f"expected {closer!r}, found {text[at]!r}", at)
            item, at = self.value(at, depth + 1)
            at = self.space(at)
            if at < len(text) and text[at] in ":=" and isinstance(item, str):
                value, at = self.value(at + 1, depth + 1)  # [name: box] without braces
                item = [item, value]
                at = self.space(at)
            items.append(item)
            if at < len(text) and text[at] in ",;":
                at = self.space(at + 1)
            elif at < len(text) and text[at] not in "])}" and text[at] not in "([{":
                raise LiteralError(f"expected ',' or {closer!r}, found {text[at]!r}", at)

    def mapping(self, at: int, depth: int) -> tuple[dict, int]:
        text, opened = self.text, at
        at = self.space(at + 1)
        items: dict = {}
        while True:
            if at >= len(text):
                raise LiteralError("the '{' that begins here is never closed", opened, True)
            if text[at] == "}":
                return items, at + 1
            key, at = self.value(at, depth + 1)
            at = self.space(at)
            if at >= len(text) or text[at] not in ":=":
                raise LiteralError("expected ':' behind a name", min(at, len(text)), at >= len(text))
            value, at = self.value(at + 1, depth + 1)
            name = str(key) if isinstance(key, (str, int, float)) else ""
            while name in items and items[name] != value:
                name += " "
                self.budget.spend(len(name), at)
            items[name] = value
            at = self.space(at)
            if at < len(text) and text[at] in ",;":
                at = self.space(at + 1)
            elif at < len(text) and text[at] != "}":
                raise LiteralError(f"expected ',' or '}}', found {text[at]!r}", at)

    def string(self, at: int) -> tuple[str, int]:
        """A quoted text. A quote mark ends it only in front of a comma, a colon or a bracket, so apostrophes may stay."""
        text, opener, start = self.text, self.text[at], at
        closers = {_QUOTES[opener], opener}
        if opener in "'\u2018\u2019":
            closers = {"'", "\u2019"}
        elif opener in '"\u201c\u201d':
            closers = {'"', "\u201d"}
        special = _SPECIAL[frozenset(closers)]
        out, i = [], at + 1
        while match := special.search(text, i):
            out.append(text[i : match.start()])
            i = match.start()
            if text[i] == "\\":
                piece, i = self.escape(i)
                out.append(piece)
                continue
            after = _end(_BLANK, text, i + 1, i + 200)
            if after >= len(text) or text[after] in ",:;=)]}" or text[i] not in "'\u2019" or self.is_comment(after):
                self.budget.spend(i + 1 - start, at)
                return "".join(out), i + 1
            out.append(text[i])
            i += 1
        self.budget.spend(len(text) - start, at)
        raise LiteralError("a quoted name is never closed", at, True)

    def is_comment(self, at: int) -> bool:
        return self.text.startswith(("#", "//", "/*"), at)

    def escape(self, at: int) -> tuple[str, int]:
        """What the backslash at `at` stands for, as in JSON and Python, and the position behind it."""
        text, letter = self.text, self.text[at + 1 : at + 2]
        digits = _HEX[letter].match(text, at + 2) if letter in _HEX else None
        if digits is None:
            return _ESCAPES.get(letter, letter), at + 2
        code, end = int(digits.group(), 16), digits.end()
        if 0xD800 <= code < 0xDC00 and (low := _LOW_SURROGATE.match(text, end)):
            return chr(0x10000 + ((code - 0xD800) << 10) + int(low[1], 16) - 0xDC00), low.end()
        return (chr(code) if code <= 0x10FFFF and not 0xD800 <= code < 0xE000 else "\ufffd"), end


_SPECIAL = {
    frozenset(closers): re.compile("[\\\\" + closers + "]") for closers in ("'\u2019", '"\u201d', "`", "\u00bb\u00ab")
}
