"""Tokens of a prompt and what each can be in its place: the start of a fixed phrase, an adjective, a noun, a verb."""

from __future__ import annotations

from typing import NamedTuple

from . import inflection, lexicon, verbs
from .phrases import NEGATIONS, POSITIONS, RELATIONS, STARTS
from .vocabulary import kind, known, speech


class Fixed(NamedTuple):
    """A fixed phrase at some token: a relation or a position."""

    position: bool
    value: object
    text: str
    length: int


class Tokens:
    """A cursor over tokens that knows what a word can be where it stands."""

    def __init__(self, tokens: list[str], at: int = 0) -> None:
        self.tokens, self.at = tokens, at
        self.low = [t.lower() for t in tokens]
        self._found: dict[int, Fixed | None] = {}

    def word(self, at: int) -> str:
        """The word at `at`, in lower case; empty beyond the ends."""
        return self.low[at] if 0 <= at < len(self.low) else ""

    def rest(self, at: int) -> str:
        """The next twelve words from `at` on, in lower case."""
        return " ".join(self.low[at : at + 12])

    def may_start(self, at: int) -> bool:
        """True if a noun phrase may start with this word."""
        return self.word(at) in STARTS

    def fixed(self, at: int) -> Fixed | None:
        """The relation or position that begins at token `at`."""
        if at not in self._found:
            self._found[at] = self._match(at) if self.may_start(at) else None
        return self._found[at]

    def _match(self, at: int) -> Fixed | None:
        text = self.rest(at)
        for position, patterns in ((True, POSITIONS), (False, RELATIONS)):
            for pattern, value in patterns:
                match = pattern.match(text)
                if match and match.group().strip():
                    return Fixed(position, value, match.group(), len(match.group().split()))
        return None

    def is_plural(self, at: int) -> bool:
        """True if the word is a plural."""
        word = self.word(at)
        return bool(word) and (inflection.singular(word) is not None or word == "people")

    def boundary(self, at: int) -> bool:
        """No noun phrase goes on with this token."""
        low = self.word(at)
        if not low or not low[0].isalnum():
            return True
        if low in lexicon.CONJUNCTIONS or low in lexicon.RELATIVES or low in ("with", "not", "of", "as"):
            return True
        if low in lexicon.AUXILIARIES:
            return not (low == "can" and self._noun_can(at))
        if low in verbs.WEAR or (low in lexicon.PRONOUNS and low != "her"):
            return True
        return self.fixed(at) is not None or bool(self.may_start(at) and NEGATIONS.match(self.rest(at)))

    def _noun_can(self, at: int) -> bool:
        """ "a soda can", not "a dog can swim"."""
        before = self.word(at - 1)
        after = self.word(at + 1)
        return (before in ("a", "the", "one") or known(f"{before}_can") or "j" in speech(before)) and (
            not after or not after[0].isalpha() or speech(after)[:1] not in ("v", "")
        )

    def starts_noun(self, at: int) -> bool:
        """True if a noun may start here."""
        low = self.word(at)
        return bool(low) and low[0].isalnum() and not self.boundary(at)

    def adjective(self, at: int) -> bool:
        """True if the word can be an adjective."""
        low = self.word(at)
        kinds = speech(low)
        return low in lexicon.ADJECTIVES or "j" in kinds

    def noun_like(self, low: str) -> bool:
        """True if the word can be a noun; an unknown word can."""
        kinds = speech(low)
        if not kinds:
            return low.replace("-", "").replace("'", "").isalpha()
        return "n" in kinds

    def noun_after(self, at: int, commas: bool = True) -> bool:
        """Is there a noun from token `at` on, behind adjectives?"""
        for i in range(at, at + 5):
            low = self.word(i)
            if self.boundary(i) and low not in ("and", ",") or low == "," and not commas:
                return False
            if speech(low)[:1] in ("n", "") and low not in lexicon.ADJECTIVES and low not in ("and", ","):
                return low[0].isalpha()
            if low in lexicon.DETERMINERS:
                return False
        return False

    def verb_here(self, at: int, last: str) -> bool:
        """Is the token at a place where a clause's verb stands, behind a piece of kind `last`?"""
        low = self.word(at)
        kinds = speech(low)
        if "v" not in kinds:
            return False
        if last in ("noun", "pron", "rel", "adverb", "position", "one", "quote"):
            return True
        participle = low.endswith(("ing", "ed")) or low in verbs.PAST
        if last == "denied":
            return True
        if last in ("cop", "neg"):
            modifies = last == "neg" and self.starts_noun(at + 1) and self.word(at + 1) not in lexicon.DETERMINERS
            return not modifies and (participle or kinds[0] == "v" and not self.adjective(at))
        if last in ("comma", "and", "but", "stop", "or", "adjective", "verb"):
            finite = kinds[0] == "v" and (participle or low.endswith("s"))
            object_next = self.word(at + 1) in lexicon.DETERMINERS or self.boundary(at + 1)
            doing = low in verbs.TRANSITIVE and low.endswith("ing")
            return (
                bool(participle or finite)
                and low not in verbs.NOUNS_ING
                and (object_next or doing)
                and not ("n" in kinds[:1] and not object_next)
            )
        return last == "relation" and low.endswith("ing") and self.word(at + 1) in lexicon.DETERMINERS

    def ends_as_verb(self, at: int, taken: list[str], det: str) -> bool:
        """Inside a noun phrase with `taken` words so far: does the word at `at` start the predicate instead?"""
        low, last = self.word(at), taken[-1].lower()
        kinds, prior = speech(low), speech(last)
        if "v" not in kinds or not self.noun_like(last):
            return False
        after = self.word(at + 1)
        moves = low.endswith("s") and (speech(after) == "r" or after in _PATHS)
        closes = self.boundary(at + 1) or after in lexicon.DETERMINERS
        above = closes or after in lexicon.ADVERBS  # "gulls circle overhead"
        describing = last in lexicon.ADJECTIVES or prior[:1] == "j"
        if describing and not closes:
            return False
        if low in verbs.NOUNS_ING:
            return self.word(at + 1) in lexicon.DETERMINERS
        if low.endswith("ing") and len(low) > 4:
            return not (kinds[0] == "n" and closes and known(f"{last}_{low}"))
        if describing and "n" in kinds and not moves:
            return False
        if det in ("a", "an", "each") and low.endswith("s") and kinds[0] == "v" and closes and prior[:1] == "n":
            return True  # "in a long coat stands on": no noun in the plural follows "a"
        if "n" not in kinds and "j" not in kinds:
            return True
        if known(f"{last}_{low}") or known(f"{last}_{inflection.singular(low) or low}"):
            return False
        if det in ("a", "an", "each") and low.endswith("s") and inflection.singular(low) is not None:
            return True  # "a child in a raincoat jumps"
        plural = inflection.singular(last) is not None or (
            last in ("people", "sheep", "fish", "deer") and det not in ("a", "an", "each")
        )
        if low.endswith("ed") or low in verbs.PAST:
            return kinds[0] == "v" or plural or closes
        if low.endswith("s") and (after in lexicon.DETERMINERS or moves or plural and closes):
            return True
        if low.endswith("s") and not plural:
            return kinds[0] == "v" or (closes and kind(last) in ("person", "animal") and kinds[-1] == "v")
        joined = (
            kinds[0] == "v"
            and closes
            and kind(last) in ("person", "animal")
            and "and" in self.low[max(at - 5, 0) : at - 1]
        )
        return not low.endswith("s") and (plural and (above or kinds[0] == "v") or joined)


_PATHS = frozenset(("through", "into", "onto", "towards", "toward", "against", "across", "from"))
