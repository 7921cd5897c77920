"""Noun phrases: where one begins, which word is its noun, where it ends. Only nouns head a phrase."""

from __future__ import annotations

from dataclasses import dataclass, replace

from . import inflection, lexicon, verbs
from .style_words import is_style
from .tokens import Tokens
from .vocabulary import SOLID, kind, known, speech


@dataclass(frozen=True)
class NounPhrase:
    """One noun phrase. `before` are the words in front of the head, `tail` what follows it ("of flowers").

    `count` is None when the text gives none; `vague` marks "several" and its like; `plural` the form of the head;
    `at` tells two equal phrases apart; `style_of` marks "a painting of ...".
    """

    head: str  # in the singular, lower case unless a name; "" for "two" or "the other"
    before: tuple[str, ...] = ()
    tail: str = ""
    det: str = ""
    count: int | None = None
    vague: bool = False
    plural: bool = False
    name: bool = False  # capitalised in mid-sentence
    source: str = ""  # as written, without the determiner
    at: int = 0
    style_of: bool = False

    @property
    def kind(self) -> str:
        """See `vocabulary.kind`; "" for an unknown word."""
        low = self.head.lower()
        if self.name and not known(low):
            return "person"
        if self.name and self.before and all(w[0].isupper() for w in self.before) and kind(low) not in SOLID:
            return "person"  # "James Bond"
        found = kind(low, self.before[-1].lower() if self.before else "")
        return "person" if found == "name" else found

    @property
    def solid(self) -> bool:
        """True if it can have a box of its own."""
        return self.kind in SOLID

    @property
    def animate(self) -> bool:
        """True for people and animals."""
        return self.kind in ("person", "animal")

    @property
    def bare(self) -> bool:
        """True without article, number or "some"."""
        return not self.det and self.count is None and not self.vague

    @property
    def written(self) -> str:
        """The phrase as written, with its determiner or number."""
        start = self.det or (inflection.number_word(self.count) if self.count else "")
        return " ".join(w for w in (start, self.source, self.tail) if w)


class NounReader(Tokens):
    """A cursor over tokens that can read noun phrases."""

    def phrase(self) -> NounPhrase | None:
        """The noun phrase at the cursor, or None; the cursor then stands behind it, or behind lone adjectives."""
        start, (det, count, vague) = self.at, self._start()
        first = self.at
        if (
            det in ("each", "both", "all")
            and count is None
            and self.word(first).endswith("ing")
            and "v" in speech(self.word(first))
        ):
            return self._headless(start, det, count)
        taken = self._words(det)
        if not taken:
            return self._headless(start, det, count)
        last = len(taken)
        while last and not self._heads(taken[last - 1].lower(), last):
            last -= 1
        if not last:
            if count is not None and count < 20 or det in ("another",):  # "one black and one white"
                return NounPhrase("", tuple(t.lower() for t in taken), "", det, count, source=" ".join(taken), at=start)
            return None
        self.at -= len(taken) - last
        taken = _owner(taken[:last])
        last = len(taken)
        return self._of(self._finish(taken[:last], det, count, vague, first, start))

    def _heads(self, low: str, place: int) -> bool:
        """Can the word be the noun of a phrase? A colour or an adjective alone can't."""
        if low in ("one", "ones", "other", "others"):
            return True
        kinds = speech(low)
        if low in lexicon.NOT_THINGS or low.endswith("ing") and "n" not in kinds:
            return False
        if low in lexicon.KINDS and place == 1:
            return True
        if (
            place == 1
            and (low in lexicon.ADJECTIVES and kinds[:1] != "n" or kinds[:1] in ("j", "r"))
            and low not in lexicon.KINDS
        ):
            return False
        if kinds[:1] in ("j", "r") and low in lexicon.ADJECTIVES and low not in lexicon.KINDS:
            return False
        return self.noun_like(low)

    def _start(self) -> tuple[str, int | None, bool]:
        """Determiner and number in front of the words."""
        det, vague = "", False
        if self.word(self.at) in lexicon.DETERMINERS and self.word(self.at + 1):
            det = self.low[self.at]
            self.at += 1
            if det in ("all", "both") and self.word(self.at) in lexicon.DETERMINERS | {"of"}:
                self.at += 1
            if det == "some":
                det, vague = "", True
        count = None
        if self.at < len(self.low) and not self._part_of_compound(det):
            count, unclear = self._count()
            vague = unclear or (vague and count is None)
        if self.word(self.at) == "of":
            self.at += 1
            if det == "each" and count is None:
                count, vague = self._count()
        if count is not None and self.word(self.at) in lexicon.DETERMINERS:
            self.at += 1  # "two of the cats"
        return det, count, vague

    def _part_of_compound(self, det: str) -> bool:
        """ "a four poster bed", "two 2 story houses": the number belongs to the word behind it."""
        low = self.word(self.at)
        after = self.word(self.at + 1)
        number = low in lexicon.NUMBERS and low not in ("one", "hundred") or low.isdigit()
        return bool(number and det in ("a", "an") and after and not self.boundary(self.at + 1)
                    and inflection.singular(after) is None and after not in ("dozen", "hundred", "people"))  # fmt: skip

    def _count(self) -> tuple[int | None, bool]:
        """Reads number words at the cursor: `(count, vague)`."""
        low, after = self.word(self.at), self.word(self.at + 1)
        if low == "single" or (low == "lone" and self.starts_noun(self.at + 1)):
            self.at += 1
            return 1, False
        if low == "half" and self.rest(self.at).startswith("half a dozen"):
            self.at += 3
            return 6, False
        if low in lexicon.SETS and after == "of":
            number, vague = lexicon.SETS[low]
            self.at += 2
            return number, vague
        if low in ("dozen", "dozens"):
            self.at += 2 if after == "of" else 1
            return 12, low == "dozens"
        if (number := number_of(low)) is not None:
            if (
                not self.starts_noun(self.at + 1)
                and after not in ("of", "dozen", "hundred")
                and low.isdigit()
                and number > 20
            ):
                return None, False
            self.at += 1
            ones = lexicon.NUMBERS.get(self.word(self.at), 0)
            if number in range(20, 100, 10) and not low.isdigit() and 0 < ones < 10:
                number += ones
                self.at += 1
            if self.word(self.at) in ("dozen", "hundred"):
                number *= 12 if self.word(self.at) == "dozen" else 100
                self.at += 1
            if self.word(self.at) == "of" and self.word(self.at + 1) in ("the", "them", "these", "those"):
                self.at += 1
            return number, False
        if low in lexicon.VAGUE and (self.starts_noun(self.at + 1) or after == "of"):
            self.at += 2 if after == "of" else 1
            return lexicon.VAGUE[low], True
        return None, False

    def _words(self, det: str = "") -> list[str]:
        """Adjectives and nouns up to the predicate or the end."""
        taken: list[str] = []
        while self.at < len(self.tokens) and len(taken) < 12:
            low = self.word(self.at)
            if low in ("and", ",", "&") and taken and self._joined(taken, det):
                if low == ",":
                    taken = [t for t in taken if t.lower() in lexicon.PLAIN]
                taken += ["and"] if low in ("and", "&") and taken else []
                self.at += 1
                taken.append(self.tokens[self.at])
                self.at += 1
                continue
            if self.boundary(self.at) or low in lexicon.DETERMINERS:
                break
            if taken and (low in lexicon.NUMBERS or low.isdecimal()) and self.starts_noun(self.at + 1):
                break
            if taken and (low in lexicon.PRONOUNS or self.ends_as_verb(self.at, taken, det)):
                break
            kinds = speech(low)
            adverb = low in lexicon.ADVERBS or kinds[:1] == "r" and "n" not in kinds
            if adverb and low not in lexicon.NOT_ADVERBS and low not in lexicon.ADJECTIVES:
                if taken and not self.adjective(self.at + 1):
                    break
                self.at += 1
                continue
            if not taken and low in verbs.HAVE:
                break
            taken.append(self.tokens[self.at])
            self.at += 1
        return taken

    def _joined(self, taken: list[str], det: str) -> bool:
        """ "a red and white ball", "a big, old table": adjectives in a row, with their noun still to come."""
        after = self.word(self.at + 1)
        if self.word(self.at) == "," and (
            is_style(self._up_to_comma(self.at + 1)) or not det and not self.noun_after(self.at + 2, False)
        ):
            return False
        describing = all(t.lower() in lexicon.ADJECTIVES or speech(t.lower())[:1] == "j" or t == "and" for t in taken)
        participle = after.endswith(("ing", "ed")) and "v" in speech(after)
        return describing and (self.adjective(self.at + 1) or participle) and self.noun_after(self.at + 2)

    def _up_to_comma(self, at: int) -> list[str]:
        end = at
        while end < len(self.low) and end < at + 10 and self.low[end][-1].isalnum():
            end += 1
        return self.low[at:end]

    def _headless(self, start: int, det: str, count: int | None) -> NounPhrase | None:
        if count is not None or det in ("another", "each", "both", "all"):
            return NounPhrase("", (), "", det, count, source=" ".join(self.tokens[start : self.at]), at=start)
        return None

    def _finish(self, taken: list[str], det: str, count: int | None, vague: bool, first: int, start: int) -> NounPhrase:
        head, before = taken[-1], taken[:-1]
        proper = (
            head[0].isupper()
            and first > 0
            and self.word(first - 1) not in ".!?\n"
            and count is None
            and not det
            and not head.isupper()
        )
        one = None if proper else inflection.singular(head)
        if det == "a" and head.lower() == "glasses":
            one = None
        plural = one is not None and (count is not None or det not in ("a", "an"))
        opening = first == 0 or self.word(first - 1) in ".!?\n,"
        unknown = not speech(head.lower())
        name = (
            any(c.isupper() for c in head[1:])
            or head[0].isupper()
            and (unknown or not opening or bool(before and before[0][0].isupper()))
            and not head.isupper()
        )
        shown = (
            (one if plural and one else head.lower()) if not name else (one.capitalize() if plural and one else head)
        )
        keep = name or (before and not opening)
        words = tuple(w if keep and w[0].isupper() else w.lower() for w in before)
        if not plural and inflection.is_invariant(head) and (count or 0) != 1 and det not in ("a", "an", "the"):
            plural = count is not None or vague
        source = " ".join([*words, head if name else head.lower()])
        return NounPhrase(shown, words, "", det, count, vague, plural, name, source, start)

    def _of(self, noun: NounPhrase) -> NounPhrase:
        """Folds "of ..." into the phrase, or reads through a collective or picture noun to what it holds."""
        full = self.word(self.at) == "full" and self.word(self.at + 1) == "of"
        filled = (
            self.word(self.at) in ("filled", "covered", "topped", "stuffed", "loaded")
            and self.word(self.at + 1) == "with"
        )
        if self.word(self.at) != "of" and not full and not filled:
            return noun
        link = "of" if self.word(self.at) == "of" else f"{self.word(self.at)} {self.word(self.at + 1)}"
        self.at += len(link.split())
        picture = link == "of" and noun.head in lexicon.PICTURES and (noun.count or 1) == 1 and not noun.plural
        if picture and not self._printed(noun):
            return replace(noun, style_of=True)
        if link == "of" and noun.head in lexicon.COLLECTIVES | {"tower", "pyramid", "wall"}:
            probe = NounReader(self.tokens, self.at)
            inner = probe.phrase()
            if inner is not None and inner.head and (inner.count is not None or inner.det in ("a", "an")):
                self.at = probe.at
                return inner
        inner = self.phrase() if self.starts_noun(self.at) else None
        if inner is None or not inner.head:
            return noun
        article = f"{inner.det} " if inner.det else ""
        number = f"{inflection.number_word(inner.count)} " if inner.count and not inner.det else ""
        return replace(noun, tail=f"{link} {article}{number}{inner.source}{' ' + inner.tail if inner.tail else ''}")

    def _printed(self, noun: NounPhrase) -> bool:
        """ "the logo of a bear on a mug": is the picture itself a thing that lies on another?"""
        probe = NounReader(self.tokens, self.at)
        shown = probe.phrase()
        printing = probe.word(probe.at) in lexicon.PRINTING
        probe.at += printing
        found = probe.fixed(probe.at)
        if shown is None or found is None or found.value != "on":
            return False
        probe.at += found.length
        carrier = probe.phrase()
        if carrier is None or carrier.head in ("canvas", "paper", "parchment"):
            return False
        on_anything = printing or noun.head in lexicon.LABELS and not carrier.animate
        printed = lexicon.PRINTED_WITH_PRINTS if noun.head in lexicon.PRINTS else lexicon.PRINTED
        return carrier.head in printed or on_anything and carrier.kind not in ("place", "weather")


def _owner(taken: list[str]) -> list[str]:
    """ "a man's back" is a place on the man."""
    for i, word in enumerate(taken):
        if word.endswith("'s") and (i == len(taken) - 1 or kind(taken[-1].lower()) == "body"):
            return [*taken[:i], word[:-2]]
    return taken


def number_of(low: str) -> int | None:
    """The number that a word or numeral stands for."""
    if low.isascii() and low.isdigit() and len(low) < 6:
        return int(low)
    if low in lexicon.NUMBERS:
        return lexicon.NUMBERS[low]
    tens, _, ones = low.partition("-")
    if lexicon.NUMBERS.get(tens, 0) >= 20 and ones in lexicon.NUMBERS:
        return lexicon.NUMBERS[tens] + lexicon.NUMBERS[ones]
    return None
