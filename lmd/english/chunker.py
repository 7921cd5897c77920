"""English text -> a flat sequence of pieces: noun phrases, relations, positions, verbs, connectives."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from . import inflection, lexicon, verbs
from .phrases import NEGATIONS, OPENERS, POSITIONS, RELATIONS, tokens_of


@dataclass(frozen=True)
class NounPhrase:
    """One noun phrase. `before` are the words in front of the head, `tail` what follows it ("of flowers").

    `count` is None when the text gives none; `vague` marks "several" and its like; `plural` the form of the head.
    """

    head: str  # in the singular, lower case unless a name
    before: tuple[str, ...] = ()
    tail: str = ""
    det: str = ""
    count: int | None = None
    vague: bool = False
    plural: bool = False
    name: bool = False  # capitalised in mid-sentence
    source: str = ""  # as written, without the determiner


@dataclass(frozen=True)
class Piece:
    """`kind`: np relation position order verb wear have with neg and or comma stop but pron cop there adj junk."""

    kind: str
    value: object = None
    text: str = ""


class Chunker:
    """Reads the tokens from left to right; see `pieces`."""

    def __init__(self, text: str) -> None:
        self.tokens = tokens_of(text)
        long = [t for t in self.tokens if len(t) > 3]
        if len(long) > 2 and sum(t[0].isupper() for t in long) > 0.7 * len(long):  # a title tells no names apart
            self.tokens = [t.lower() for t in self.tokens]
        self.low = [t.lower().replace("’", "'") for t in self.tokens]
        self.at = 0

    def pieces(self) -> list[Piece]:
        out: list[Piece] = []
        while self.at < len(self.tokens):
            before = self.at
            piece = self._next(out)
            if piece is not None:
                out.append(piece)
            if self.at == before:
                self.at += 1
        return out

    # matching

    def _rest(self, at: int) -> str:
        return " ".join(self.low[at : at + 12])

    def _take(self, pattern: re.Pattern[str], at: int | None = None) -> tuple[re.Match[str], int] | None:
        match = pattern.match(self._rest(self.at if at is None else at))
        return (match, len(match.group().split())) if match and match.group().strip() else None

    def _word(self, at: int) -> str:
        return self.low[at] if 0 <= at < len(self.low) else ""

    def _next(self, out: list[Piece]) -> Piece | None:
        low = self.low[self.at]
        if low in ".;!?\n":
            return self._one("stop")
        if low in ',:()[]{}"':
            return self._one("comma")
        if (not out or out[-1].kind == "stop") and (taken := self._take(OPENERS)):
            self.at += taken[1]
            return None
        exists = low == "there" and self._word(self.at + 1) in ("is", "are", "was", "were", "stands", "sits", "lies")
        if exists and not self._take(NEGATIONS):
            self.at += 2
            return Piece("there")
        if low in ("is", "are", "was", "were") and self._word(self.at + 1) in ("not", "never"):
            self.at += 2
            return Piece("neg", "copula")
        if taken := self._take(NEGATIONS):
            self.at += taken[1]
            return Piece("neg", "weak" if taken[0].group() in ("nor",) else "strong")
        if low == "not":
            return self._one("neg")
        for pattern, value in POSITIONS:
            if taken := self._take(pattern):
                self.at += taken[1]
                return _position(value, taken[0].group())
        if (wear := self._wear(out)) is not None:
            return wear
        if low == "with":
            return self._one("with")
        for pattern, value in RELATIONS:
            if taken := self._take(pattern):
                self.at += taken[1]
                return Piece("relation", value, taken[0].group())
        if low in lexicon.PRONOUNS and not (low == "her" and self._starts_noun(self.at + 1)):
            return self._one("pron")
        if low in lexicon.CONJUNCTIONS or low in ("while",):
            return self._one({"or": "or", "nor": "or", "but": "but"}.get(low, "and"))
        if low in lexicon.RELATIVES:
            return self._one("rel") if low != "that" or not self._starts_noun(self.at + 1) else self._noun_phrase(out)
        if low in verbs.HAVE and self._is_verb_here(out):
            full = self._word(self.at + 1)
            self.at += 2 if full in ("with", "by") else 1
            return Piece("have", low)
        if low in lexicon.AUXILIARIES:
            return self._one("cop")
        if low in lexicon.ADVERBS or (
            low.endswith("ly") and low not in lexicon.NOT_ADVERBS and not self._adj_at(self.at + 1)
        ):
            return self._one("adverb") if not self._adj_at(self.at + 1) else self._noun_phrase(out)
        if self._is_verb_here(out) and self._verb_word(low):
            return self._one("verb", low)
        return self._noun_phrase(out)

    def _one(self, kind: str, value: object = None) -> Piece:
        text = self.tokens[self.at]
        self.at += 1
        return Piece(kind, value if value is not None else text.lower(), text)

    def _wear(self, out: list[Piece]) -> Piece | None:
        low = self.low[self.at]
        if low in verbs.WEAR:
            self.at += 2 if self._word(self.at + 1) == "in" else 1
            return Piece("wear", "wearing")
        hosts = [p.value for p in out if p.kind == "np"]
        if not hosts or hosts[-1].head.lower() in lexicon.PLACES:
            return None
        if low == "with" and not is_animate(hosts[-1].head):
            return None
        if low in ("made", "built", "carved", "woven") and self._word(self.at + 1) in ("of", "from", "out"):
            self.at += 3 if self._word(self.at + 1) == "out" else 2
            return Piece("wear", "made of")
        if low in ("in", "with") and self._starts_noun(self.at + 1):
            probe = Chunker.__new__(Chunker)
            probe.tokens, probe.low, probe.at = self.tokens, self.low, self.at + 1
            piece = probe._noun_phrase([])
            noun = piece.value if piece else None
            if isinstance(noun, NounPhrase) and (
                is_clothing(noun.head) or (low == "in" and noun.head in lexicon.COLOURS and not noun.before)
            ):
                after = probe._word(probe.at)
                if low == "in" or after in ("", ".", ",", "and", "in", "standing", "sitting", "walking"):
                    self.at += 1
                    return Piece("wear", low)
        return None

    # noun phrases

    def _adj_at(self, at: int) -> bool:
        low = self._word(at)
        return (
            low in lexicon.ADJECTIVES or low.endswith(("ed", "en", "ous", "ful", "ish")) and self._starts_noun(at + 1)
        )

    def _starts_noun(self, at: int) -> bool:
        low = self._word(at)
        return bool(low) and low[0].isalnum() and not self._boundary(at)

    def _boundary(self, at: int) -> bool:
        low = self._word(at)
        if not low or not (low[0].isalnum()):
            return True
        if low in lexicon.CONJUNCTIONS or low in lexicon.AUXILIARIES or low in lexicon.RELATIVES - {"that"}:
            return True
        if low in ("with", "not", "of") or low in verbs.WEAR or (low in lexicon.PRONOUNS and low not in ("her",)):
            return True
        if any(self._take(p, at) for p, _ in POSITIONS) or self._take(NEGATIONS, at):
            return True
        return any(self._take(p, at) for p, _ in RELATIONS)

    def _verb_word(self, low: str) -> bool:
        known = low in verbs.THIRD or low in verbs.PAST or low in verbs.BASE or verbs.ing_form(low) is not None
        return known or (low.endswith("ed") and len(low) > 4 and low not in lexicon.ADJECTIVES)

    def _is_verb_here(self, out: list[Piece]) -> bool:
        """A verb form that opens a piece: after a noun phrase, a pronoun or an auxiliary, not in front of its own noun."""
        low = self.low[self.at]
        last = out[-1].kind if out else "stop"
        if last in ("np", "pron", "rel", "adverb", "position"):
            return True
        if last in ("cop", "neg"):
            return not (low in verbs.BASE and low not in verbs.PAST)
        if last in ("comma", "and", "but", "stop"):
            if low in verbs.HAVE and len(out) > 1:
                return True
            following = self._word(self.at + 1)
            opens = low in verbs.ING or low in verbs.PAST or low in verbs.THIRD
            acts = low in verbs.ING and low not in lexicon.ADJECTIVES | verbs.NOUNS_ING and last == "comma"
            doer = any(p.kind == "np" and is_animate(p.value.head) for p in out)
            return opens and (following in lexicon.DETERMINERS or self._boundary(self.at + 1) or (acts and doer))
        return last == "relation" and low in verbs.ING and self._word(self.at + 1) in lexicon.DETERMINERS

    def _ends_as_verb(self, at: int, taken: list[str]) -> bool:
        """Inside a noun phrase with `taken` words so far: does the word at `at` start the predicate instead?"""
        low = self._word(at)
        last = taken[-1].lower()
        if last in lexicon.ADJECTIVES and last not in lexicon.CLOTHES and not self._boundary(at + 1):
            return False
        if low in verbs.NOUNS_ING:
            return low in verbs.ING and self._word(at + 1) in lexicon.DETERMINERS
        if low in verbs.ING or (low.endswith("ing") and len(low) > 5):
            return True
        if last in lexicon.ADJECTIVES:
            return False
        if low in verbs.THIRD or low in verbs.HAVE:
            return True
        if low in verbs.PAST or (low.endswith("ed") and len(low) > 4 and low not in lexicon.ADJECTIVES):
            return self._boundary(at + 1) or low in verbs.PAST
        plural = inflection.singular(last) is not None or last in ("people", "sheep", "fish", "deer")
        return low in verbs.BASE and (plural or (is_animate(last) and self._boundary(at + 1)))

    def _count(self) -> tuple[int | None, bool]:
        """Reads number words at the cursor: `(count, vague)`."""
        low = self.low[self.at]
        number = int(low) if low.isascii() and low.isdigit() and len(low) < 6 else lexicon.NUMBERS.get(low)
        if number is None and "-" in low:
            tens, _, ones = low.partition("-")
            if lexicon.NUMBERS.get(tens, 0) >= 20 and ones in lexicon.NUMBERS:
                number = lexicon.NUMBERS[tens] + lexicon.NUMBERS[ones]
        if low == "single" or (low == "lone" and self._starts_noun(self.at + 1)):
            self.at += 1
            return 1, False
        if number is None and low == "half" and self._rest(self.at).startswith("half a dozen"):
            self.at += 3
            return 6, False
        if low in ("couple", "pair") and self._word(self.at + 1) == "of":
            self.at += 2
            return 2, False
        if low in ("trio", "trio") and self._word(self.at + 1) == "of":
            self.at += 2
            return 3, False
        if low == "dozen" or low == "dozens":
            self.at += 2 if self._word(self.at + 1) == "of" else 1
            return 12, low == "dozens"
        if low in ("hundreds", "thousands", "lots", "lot", "plenty", "tons") and self._word(self.at + 1) == "of":
            self.at += 2
            return 12 if low in ("hundreds", "thousands") else 6, True
        if low == "number" and self._word(self.at + 1) == "of":
            self.at += 2
            return 4, True
        if number is not None:
            self.at += 1
            if self._word(self.at) in ("dozen", "hundred"):
                number *= 12 if self._word(self.at) == "dozen" else 100
                self.at += 1
            if self._word(self.at) == "of" and self._word(self.at + 1) in ("the", "them", "these", "those"):
                self.at += 1
            return number, False
        if low in lexicon.VAGUE and (self._starts_noun(self.at + 1) or self._word(self.at + 1) == "of"):
            self.at += 1
            if self._word(self.at) == "of":
                self.at += 1
            return lexicon.VAGUE[low], True
        return None, False

    def _noun_phrase(self, out: list[Piece]) -> Piece | None:
        start, det, count, vague = self.at, "", None, False
        if self.low[self.at] in lexicon.DETERMINERS and self._word(self.at + 1):
            det = self.low[self.at]
            self.at += 1
            if det in ("all", "both") and self._word(self.at) in lexicon.DETERMINERS | {"of"}:
                self.at += 1
            if det == "some":
                det, vague = "", True
        elif self._word(self.at) in ("any",):
            self.at += 1
        if self.at < len(self.low):
            pair = self.low[self.at] == "pair"
            number, unclear = self._count()
            if pair and self._word(self.at) == "glasses":
                self.at += 1
                return Piece("np", NounPhrase("glasses", det="a", source="glasses"))
            count = number
            vague = unclear or (vague and number is None)
        if self._word(self.at) in ("of",):
            self.at += 1
        if self._word(self.at) in lexicon.DETERMINERS and count is not None:
            self.at += 1  # "two of the cats", "a pair of the"
        first = self.at
        taken = self._words()
        if not taken:
            return self._headless(start, det, count, out)
        phrase = self._finish(taken, det, count, vague, first)
        return self._of(phrase, det, count, out)

    def _words(self) -> list[str]:
        """Adjectives and nouns up to the head."""
        taken: list[str] = []
        while self.at < len(self.tokens):
            low = self._word(self.at)
            colours = bool(taken) and all(t.lower() in lexicon.ADJECTIVES for t in taken)
            another = low in ("and", ",", "&") and self._word(self.at + 1) in lexicon.ADJECTIVES
            if colours and another and self._noun_follows(self.at + 1):
                joint = ["and"] if low in ("and", "&") else []
                taken += [*joint, self.tokens[self.at + 1]]
                self.at += 2
                continue
            if low in lexicon.ADVERBS and taken and not self._adj_at(self.at + 1):
                break
            if low == "that" or self._boundary(self.at):
                break
            if low in lexicon.DETERMINERS:
                break
            if taken and (low in lexicon.NUMBERS or low.isdecimal()) and self._starts_noun(self.at + 1):
                break
            if not taken and low in verbs.HAVE:
                break
            if taken and self._ends_as_verb(self.at, taken):
                break
            if low in lexicon.PRONOUNS and taken:
                break
            taken.append(self.tokens[self.at])
            self.at += 1
        return taken

    def _noun_follows(self, at: int) -> bool:
        """After adjectives from `at` on, is there a noun (and not the end of the phrase)?"""
        while self._word(at) in lexicon.ADJECTIVES or self._word(at) in ("and", ","):
            at += 1
        return bool(self._word(at)) and not self._boundary(at) and self._word(at) not in lexicon.DETERMINERS

    def _headless(self, start: int, det: str, count: int | None, out: list[Piece]) -> Piece | None:
        if count is not None or det in ("another", "each", "both"):
            return Piece("np", NounPhrase("", det=det, count=count, source=" ".join(self.tokens[start : self.at])))
        if self.at == start:
            return self._one("junk")
        return None

    def _finish(self, taken: list[str], det: str, count: int | None, vague: bool, first: int) -> NounPhrase:
        head, before = taken[-1], taken[:-1]
        if head.lower() in ("pair", "couple") and self._word(self.at) == "of":
            pass
        one = inflection.singular(head)
        proper = head[0].isupper() and first > 0 and count is None and not det and not head.isupper()
        one = None if proper else one
        plural = one is not None and (count is not None or det not in ("a", "an"))
        opening = first == 0 or self._word(first - 1) in ".!?\n"
        name = (
            any(c.isupper() for c in head[1:])
            or head[0].isupper()
            and (not opening or bool(before and before[0][0].isupper()))
            and not head.isupper()
        )
        low_head = (one if plural else head.lower()) if not name else (one.capitalize() if plural and one else head)
        keep = name or (before and not opening)
        before = tuple(w if keep and w[0].isupper() else w.lower() for w in before)
        if not plural and inflection.is_invariant(head) and (count or 0) != 1 and det not in ("a", "an", "the"):
            plural = count is not None or vague
        source = " ".join([*before, head if name else head.lower()])
        return NounPhrase(low_head, before, "", det, count, vague, plural, name, source)

    def _of(self, noun: NounPhrase, det: str, count: int | None, out: list[Piece]) -> Piece:
        """Folds "of ..." into the phrase, or reads through a collective or picture noun to what it holds."""
        if self._word(self.at) not in ("of", "full") or (
            self._word(self.at) == "full" and self._word(self.at + 1) != "of"
        ):
            return Piece("np", noun)
        link = "full of" if self._word(self.at) == "full" else "of"
        mark = self.at
        style = link == "of" and noun.head in lexicon.STYLE_NOUNS and not any(p.kind == "np" for p in out)
        self.at += len(link.split())
        if style:
            return Piece("style", noun)
        if link == "of" and noun.head in lexicon.COLLECTIVES:
            inner_det = self._word(self.at)
            probe = self.at
            inner_count, _ = self._count() if self.at < len(self.low) else (None, False)
            self.at = probe
            if inner_count is not None or inner_det in ("a", "an"):
                return self._noun_phrase(out) or Piece("np", noun)
        inner = self._noun_phrase([Piece("np")]) if self._starts_noun(self.at) else None
        if inner is None or inner.kind != "np" or not inner.value.head:
            number = " ".join(self.tokens[mark : self.at]) if inner is not None else ""
            return Piece("np", replace(noun, tail=number))
        inside: NounPhrase = inner.value
        article = f"{inside.det} " if inside.det else ""
        number = f"{inflection.number_word(inside.count)} " if inside.count and not inside.det else ""
        tail = f"{link} {article}{number}{inside.source}{' ' + inside.tail if inside.tail else ''}"
        return Piece("np", replace(noun, tail=tail))


def is_clothing(head: str) -> bool:
    """Something to wear, by its noun or its ending."""
    low = head.lower()
    return low in lexicon.CLOTHES or low.endswith(("coat", "shirt", "dress", "suit", "wear", "jacket", "boots", "hat"))


def is_scenery(noun: NounPhrase, around: bool = False) -> bool:
    """Does the noun name surroundings? `around` says that its place in the sentence speaks for it ("in the square")."""
    head = noun.head.lower()
    if head == "square":  # a shape, unless a town or the sentence makes it a place
        before = {w.lower() for w in noun.before}
        return bool(before & _SQUARES_OF) or (around and not before & lexicon.COLOURS)
    last = head.split("-")[-1]
    return head in lexicon.PLACES or last in lexicon.PLACES or head.endswith(lexicon.PLACE_ENDINGS)


_SQUARES_OF = frozenset(["town", "city", "village", "market", "public", "main", "central", "busy", "crowded"])


def is_animate(head: str) -> bool:
    """A person or an animal, by its noun."""
    last = head.lower().split("-")[-1]
    return last in lexicon.ANIMATE or last.endswith(("man", "woman", "ist", "boy", "girl"))


def _position(value: object, text: str) -> Piece:
    if isinstance(value, tuple) and value[0] == "order":
        return Piece("order", value[1], text)
    if value in ("corner", "side"):
        x = 0.15 if "left" in text else 0.85 if "right" in text else 0.5 if re.search(r"middle|cent", text) else None
        y = 0.15 if re.search(r"\b(?:top|upper)", text) else 0.85 if re.search(r"\b(?:bottom|lower)", text) else None
        return Piece("position", (x, y), text)
    return Piece("position", value, text)


def pieces_of(text: str) -> list[Piece]:
    """All pieces of a prompt, in order."""
    return Chunker(text).pieces()
