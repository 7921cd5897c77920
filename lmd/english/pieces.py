"""English text -> a flat sequence of pieces: noun phrases, relations, positions, verbs, connectives."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from . import lexicon, verbs
from .noun_phrases import NounPhrase, NounReader
from .phrases import NEGATIONS, OPENERS, tokens_of
from .style_words import is_style, opens_style, solid_or_place
from .vocabulary import SOLID, kind, speech

Where = tuple[float | None, float | None]


@dataclass(frozen=True)
class Piece:
    """`kind`: noun relation position order verb wear have with neg and or but comma stop pron cop there rel adjective
    adverb quote one style other. `value` is the relation or position, `where` the place in the picture."""

    kind: str
    text: str = ""
    value: str = ""
    noun: NounPhrase | None = None
    where: Where = (None, None)


_STOP = Piece("stop")


class Chunker(NounReader):
    """Reads the tokens from left to right; see `pieces_of`."""

    def __init__(self, text: str) -> None:
        tokens = tokens_of(text)
        long = [t for t in tokens if len(t) > 3]
        if len(long) > 2 and sum(t[0].isupper() for t in long) > 0.7 * len(long):  # a title tells no names apart
            tokens = [t if t[0] in "\"'" else t.lower() for t in tokens]
        super().__init__(tokens)
        self.out: list[Piece] = []

    def pieces(self) -> list[Piece]:
        """All pieces of the text, in order."""
        while self.at < len(self.tokens):
            before = self.at
            piece = self._next()
            if piece is not None:
                self.out.append(piece)
            if self.at == before:
                self.at += 1
        return self.out

    def _last(self) -> Piece:
        return self.out[-1] if self.out else _STOP

    def _one(self, kind: str, value: str = "") -> Piece:
        text = self.tokens[self.at]
        self.at += 1
        return Piece(kind, text.lower(), value)

    def _next(self) -> Piece | None:
        low = self.low[self.at]
        if (tag := self._style(low)) is not None:
            return tag
        if low in ".;!?\n":
            return self._one("stop")
        if low in ',:()[]{}"':
            return self._one("comma", ",")
        if low[0] in "\"'" and len(low) > 2:
            self.at += 1
            return Piece("quote", '"' + self.tokens[self.at - 1][1:-1] + '"')
        if self._last().kind == "stop" and (match := OPENERS.match(self.rest(self.at))):
            self.at += len(match.group().split())
            return None
        for read in (self._lettering, self._negation, self._fixed, self._linking, self._predicate):
            if (piece := read(low)) is not None:
                return piece
        return self._noun()

    def _style(self, low: str) -> Piece | None:
        """A whole piece between commas that is style, or "by NAME" up to the comma."""
        begins = self.at == 0 or not self.low[self.at - 1][-1].isalnum()
        if not begins and low not in (
            "by",
            "trending",
            "in",
            "from",
            "inspired",
            "rendered",
            "painted",
            "made",
            "reminiscent",
        ):
            return None
        end = self.at
        while end < len(self.tokens) and self.low[end] not in _ENDS and end < self.at + 40:
            end += 1
        words = self.low[self.at : end]
        if not words:
            return None
        named = low == "by" and self._name(self.at + 1)
        listed = (
            begins and self._last().value == "," and self._before_last().value == "by" and not any(map(speech, words))
        )
        if named or listed or opens_style(" ".join(words)) or (begins and is_style(words)):
            self.at = end
            return Piece(
                "tag", " ".join(self.tokens[end - len(words) : end]), "by" if named or listed or "by" in words else ""
            )
        return None

    def _before_last(self) -> Piece:
        return self.out[-2] if len(self.out) > 1 else _STOP

    def _name(self, at: int) -> bool:
        """Does a name stand there, and not a place or a thing?"""
        word = self.word(at)
        if (
            not word
            or not word[0].isalpha()
            or word in lexicon.DETERMINERS | lexicon.PRONOUNS
            or word in lexicon.NUMBERS
        ):
            return False
        capital = self.tokens[at][0].isupper() and any(t[0].islower() for t in self.tokens)
        if capital or not speech(word) or kind(word) in ("name", "person"):
            return True
        return not solid_or_place(word) and not word.endswith("ing") and kind(word) not in SOLID

    def _lettering(self, low: str) -> Piece | None:
        """ "(a sign that) says OPEN": what is written, up to the end of the phrase."""
        if low not in _SAYS or self.at + 1 >= len(self.tokens):
            return None
        quoted = self.low[self.at + 1][0] in "\"'"
        carrier = next((p.noun.head for p in reversed(self.out) if p.noun is not None), "")
        if quoted:
            self.at += 1
            return Piece("comma", "", "says")
        if carrier not in lexicon.CARRIERS:
            return None
        end = self.at + 1
        while end < len(self.tokens) and end < self.at + 7 and self.low[end] not in _BREAKS and not self.fixed(end):
            end += 1
        if end == self.at + 1:
            return None
        text = " ".join(self.tokens[self.at + 1 : end])
        self.at = end
        return Piece("quote", f'"{text}"')

    def _negation(self, low: str) -> Piece | None:
        exists = low == "there" and self.word(self.at + 1) in ("is", "are", "was", "were", "stands", "sits", "lies")
        match = NEGATIONS.match(self.rest(self.at)) if self.may_start(self.at) else None
        if match is None and exists:
            self.at += 2
            return Piece("there")
        if low in ("is", "are", "was", "were") and self.word(self.at + 1) in ("not", "never"):
            self.at += 2
            return Piece("neg", value="copula")
        if match is not None:
            self.at += len(match.group().split())
            return Piece("neg", match.group(), "strong")
        if low in ("not", "never"):
            return self._one("neg", "verb" if low == "never" or self._last().kind == "cop" else "")
        if low in ("zero", "0") and self._last().kind in _BEFORE_ZERO and self.is_plural(self.at + 1):
            return self._one("neg", "strong")
        return None

    def _fixed(self, low: str) -> Piece | None:
        found = self.fixed(self.at)
        if (wear := self._wear(low)) is not None:
            return wear
        if low == "with":
            return self._one("with")
        if found is None:
            return None
        self.at += found.length
        if found.position:
            return _position(found.value, found.text)
        return Piece("relation", found.text, str(found.value))

    def _linking(self, low: str) -> Piece | None:
        if low in lexicon.PRONOUNS and not (low == "her" and self.starts_noun(self.at + 1)):
            return self._one("pron")
        if low in lexicon.CONJUNCTIONS:
            if low == "as" and self._last().kind in ("noun", "verb"):
                return self._one("as")
            return self._one({"or": "or", "nor": "or", "but": "but"}.get(low, "and"))
        if low in lexicon.RELATIVES:
            return (
                self._one("rel")
                if low != "that" or not self.starts_noun(self.at + 1) or self._last().kind == "noun"
                else None
            )
        if low in verbs.HAVE and self._last().kind in _PREDICATE:
            self.at += 2 if self.word(self.at + 1) in ("with", "by") else 1
            return Piece("have", low)
        if low in lexicon.AUXILIARIES:
            return self._one("cop")
        return None

    def _predicate(self, low: str) -> Piece | None:
        kinds = speech(low)
        adverb = (
            low in lexicon.ADVERBS
            or kinds[:1] == "r"
            and "n" not in kinds
            or (low.endswith("ly") and kinds in ("", "r"))
        )
        if adverb and low not in lexicon.NOT_ADVERBS:
            return self._one("adverb")
        last = self._last()
        if last.kind in ("cop", "adverb") and self.adjective(self.at) and self.boundary(self.at + 1):
            return self._one("adjective")
        if (
            last.kind == "relation"
            and last.text == "to"
            and "v" in kinds
            and (self.word(self.at + 1) in lexicon.DETERMINERS or self.boundary(self.at + 1))
        ):
            return self._one("verb", low)  # "used a brush to paint a wall"
        place = "denied" if last.kind == "neg" and last.value == "verb" else last.kind
        if place in ("comma", "and") and low.endswith("ing") and "v" in kinds and self._has_verb():
            place = "denied"  # "..., casting long shadows"
        if self.verb_here(self.at, place):
            return self._one("verb", low)
        return None

    def _has_verb(self) -> bool:
        """Has the sentence a verb already?"""
        for piece in reversed(self.out):
            if piece.kind in ("stop", "verb", "cop", "have"):
                return piece.kind != "stop"
        return False

    def _wear(self, low: str) -> Piece | None:
        if low in verbs.WEAR:
            self.at += 2 if self.word(self.at + 1) in ("in", "up") else 1
            if low == "dressed" and self.word(self.at) == "as":
                return self._one("as")
            return Piece("wear", "wearing")
        host = next((p.noun for p in reversed(self.out) if p.noun is not None), None)
        if host is None or self._last().kind == "comma" and low != "in":
            return None
        if low in ("made", "built", "carved", "woven") and self.word(self.at + 1) in ("of", "from", "out"):
            self.at += 3 if self.word(self.at + 1) == "out" else 2
            return Piece("wear", "made of")
        if low != "in" or not (host.animate or host.head in _DRESSED) or not self.starts_noun(self.at + 1):
            return None
        noun = NounReader(self.tokens, self.at + 1).phrase()
        if noun is not None and (noun.kind == "worn" or noun.head in lexicon.COLOURS and not noun.before):
            self.at += 1
            return Piece("wear", "in")
        return None

    def _noun(self) -> Piece | None:
        start = self.at
        noun = self.phrase()
        if noun is not None and noun.style_of:
            if not any(p.kind == "noun" for p in self.out):
                return Piece("style", noun.source, noun=noun)
            inner = self.phrase() if self.starts_noun(self.at) else None
            noun = replace(noun, style_of=False, tail=f"of {inner.written}" if inner is not None else "")
        if noun is not None and not noun.head:
            return Piece("one", noun.source, noun=noun)
        if noun is not None:
            return Piece("noun", noun.source, noun=noun)
        if self.at > start:
            return Piece("adjective", " ".join(self.low[start : self.at]))
        return self._one("other")


_ENDS = frozenset((",", ".", ";", "!", "?", "\n", ":", "(", ")", "[", "]", "{", "}"))
_DRESSED = frozenset(("figure", "character", "mannequin", "silhouette", "doll", "statue"))
_SAYS = frozenset(("says", "say", "saying", "reads", "reading", "said"))
_BREAKS = frozenset((".", ",", ";", "!", "?", "\n", ":", "and", "with", "while"))
_BEFORE_ZERO = frozenset(("stop", "comma", "with", "and", "have", "there", "cop"))
_PREDICATE = frozenset(("noun", "pron", "rel", "adverb", "position", "cop", "neg", "comma", "and", "one", "verb"))


def _position(value: object, text: str) -> Piece:
    if isinstance(value, tuple) and value[0] == "order":
        return Piece("order", text, value[1])
    if value in ("corner", "side"):
        x = 0.15 if "left" in text else 0.85 if "right" in text else 0.5 if re.search(r"middle|cent", text) else None
        y = 0.15 if re.search(r"\b(?:top|upper)", text) else 0.85 if re.search(r"\b(?:bottom|lower)", text) else None
        return Piece("position", text, "at", where=(x, y))
    if isinstance(value, tuple):
        return Piece("position", text, "at", where=value)
    return Piece("position", text, str(value))


def pieces_of(text: str) -> list[Piece]:
    """All pieces of a prompt, in order."""
    return Chunker(text).pieces()
