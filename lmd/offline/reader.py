"""Pieces of English -> Scene: who is where, what is background, what must not appear."""

from __future__ import annotations

from .. import words
from . import lexicon, verbs
from .chunks import NounPhrase, Piece, is_animate, pieces_of
from .scene import Relation, Scene, Thing

MOST_PER_KIND = 40
_FLAT = {"left", "right", "near", "between", "front", "behind"}
_PLACE_WORD = {"in": "in", "inside": "in", "amid": "in", "on": "on", "near": "by", "along": "along", "above": "over",
               "under": "under", "below": "under", "during": "during", "from": "in", "behind": "in", "loose": "in"}  # fmt: skip
_OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above", "front": "behind", "behind": "front"}


class Reader:
    """Walks over the pieces once, keeping the current subjects and the most recent things."""

    def __init__(self, prompt: str) -> None:
        self.pieces = pieces_of(prompt)
        self.scene = Scene()
        self.at = 0
        self.subjects: list[Thing] = []  # what a verb or relation that comes now talks about
        self.recent: list[Thing] = []  # the last mentioned things, for "it" and for close attachment
        self.settled = False  # the subjects have had their relation, so the next noun starts a new clause
        self.last_relation = ""
        self.mode: tuple = ()
        self.pending: tuple = ()  # a relation or position in front of its subject
        self.mentions: list[Thing] = []
        self.host: Thing | None = None  # what "with ..." belongs to
        self.in_place = False  # the last noun named a place
        self.each: Thing | None = None  # "..., each with ..."

    # looking around

    def _peek(self, n: int = 1) -> Piece:
        i = self.at + n
        return self.pieces[i] if 0 <= i < len(self.pieces) else Piece("stop")

    def _kind_after(self) -> str:
        n = 1
        while self._peek(n).kind in ("adverb", "rel", "cop"):
            n += 1
        return self._peek(n).kind

    def read(self) -> Scene:
        while self.at < len(self.pieces):
            piece = self.pieces[self.at]
            getattr(self, f"_on_{piece.kind}", self._skip)(piece)
            self.at += 1
        self._finish()
        return self.scene

    def _skip(self, piece: Piece) -> None:
        if piece.kind == "junk" and piece.text.isalnum():
            self.scene.note(f'not understood: "{piece.text}"')

    # pieces

    def _on_style(self, piece: Piece) -> None:
        noun: NounPhrase = piece.value
        if not self.scene.style:
            article = "" if noun.name else ("a " if not noun.det or noun.det in ("a", "an", "the") else "")
            self.scene.style = words.with_article(noun.source) if article else noun.source

    def _on_stop(self, piece: Piece) -> None:
        self.subjects, self.mode, self.pending, self.settled = [], (), (), True
        self.in_place, self.last_relation, self.host = False, "", None

    def _on_comma(self, piece: Piece) -> None:
        if self.mode[:1] in (("relation",), ("verb",)):
            self.mode = ()
        if self.mode[:1] == ("neg",) and not (
            self._peek().kind in ("np", "or", "and") and self._bare(self._peek(1 if self._peek().kind == "np" else 2))
        ):
            self.mode = ()
        if self.mode[:1] == ("with",) and self._peek().kind not in ("np", "and"):
            self.mode = ()

    def _bare(self, piece: Piece) -> bool:
        return piece.kind == "np" and not piece.value.det and piece.value.count is None

    def _on_and(self, piece: Piece) -> None:
        following = self._peek()
        if self.mode[:1] == ("neg",) and following.kind == "np":
            if not self._bare(following) and not (self.mode[1] and following.value.count is None):
                self.mode = ()
        elif self.mode[:1] == ("verb",):
            self.mode = ()

    _on_or = _skip

    def _on_but(self, piece: Piece) -> None:
        if self.mode[:1] == ("neg",):
            self.mode = ()

    def _on_there(self, piece: Piece) -> None:
        self.mode = ()
        if not self.pending:
            self.settled = True

    def _on_neg(self, piece: Piece) -> None:
        if piece.value == "copula":
            after = self._peek()
            n = 2 if after.kind in ("verb", "relation") and self._peek(2).kind in ("np", "pron") else 1
            if after.kind in ("relation", "verb", "position") and not (
                after.kind == "verb" and after.value in verbs.WEAR
            ):
                self.scene.note(f'not drawn: "not {after.text or after.value}"; a layout can only say where things are')
                self.at += n
                return
        self.mode = ("neg", False)

    def _on_with(self, piece: Piece) -> None:
        if self.mode[:1] == ("neg",):
            self.mode = ()
        if self._peek().kind == "np":
            self.mode = ("with",)
            self.host = None if self.in_place else (self.recent[-1] if self.recent else None)
            if not self.recent and not self.subjects:
                self.host = None

    def _on_have(self, piece: Piece) -> None:
        if self.mode[:1] == ("neg",):
            return
        self.mode = ("with",)
        self.host = None if self.in_place else (self.subjects or self.recent or [None])[-1]

    def _on_wear(self, piece: Piece) -> None:
        if self.mode[:1] == ("neg",):
            return
        self.mode = ("wear", piece.value)

    def _on_rel(self, piece: Piece) -> None:
        if self.recent:
            self.subjects, self.settled = list(self.recent[-1:]), False

    def _on_cop(self, piece: Piece) -> None:
        if self.mode[:1] == ("neg",):
            self.mode = ()
        if self._peek().kind == "np" and self.subjects and not self.pending:
            self.mode = ("is",)

    def _on_verb(self, piece: Piece) -> None:
        verb = piece.value
        if self.mode[:1] == ("neg",):
            return
        if self.settled and self._peek(-1).kind in ("comma", "and") and self.subjects:
            self.settled = False
        actors = self.subjects or self.recent[-1:]
        action = verbs.ing_form(verb)
        following = self._kind_after()
        if following == "np" and action in ("holding", "supporting", "carrying") and actors and not actors[-1].animate:
            self.mode, self.host = ("with",), actors[-1]
        elif following in ("np", "pron") and not self.pending:
            self.mode = ("verb", "on" if verb in verbs.RIDE | verbs.CROSS else "near")
        elif action and action not in verbs.STATIC and not self.pending:
            for thing in actors:
                if action not in thing.actions and (
                    thing.animate or action in lexicon.ADJECTIVES or action in _VISIBLE
                ):
                    thing.actions.insert(0, action)

    def _on_position(self, piece: Piece) -> None:
        where = piece.value
        if where == "skip":
            return
        before, following = self._peek(-1).kind, self._kind_after()
        if where == "background" and not (before in ("stop", "comma", "and") and following in ("np", "there")):
            self._to_background()
            return
        opens = before in ("stop", "comma", "and", "but") and following in ("np", "there", "verb", "comma")
        if (
            opens
            and not (following == "comma" and self._peek(2).kind != "np")
            and where not in ("row", "stack", "ontop", "sides", "beside")
        ):
            self.pending, self.subjects, self.settled, self.in_place = ("position", where), [], True, False
            self.mode = ()
            return
        if where in ("row", "stack"):
            self._in_order("near" if where == "row" else "above", self.subjects or self.recent)
        elif where in ("ontop", "sides", "beside"):
            anchor = [t for t in self.scene.things if t not in self.subjects][-1:]
            if anchor and self.subjects:
                self._relate({"ontop": "on", "sides": "around", "beside": "near"}[where], self.subjects, anchor)
            elif where == "ontop" and self.subjects:
                self._place(self.subjects, (None, 0.15))
        elif self.subjects or self.recent:
            self._place(self.subjects or self.recent, where)
        self.settled = True

    def _place(self, things: list[Thing], where: tuple[float | None, float | None]) -> None:
        free = [t for t in things if t.position == (None, None)]
        for thing in (free if len(free) == len(things) else free[-1:]) or things[-1:]:
            thing.position = tuple(new if new is not None else old for new, old in zip(where, thing.position))
        self.settled = True

    def _on_order(self, piece: Piece) -> None:
        self._in_order(piece.value, self.scene.things if len(self.subjects) < 2 else self.subjects)

    def _in_order(self, kind: str, things: list[Thing]) -> None:
        for first, second in zip(things, things[1:]):
            self._relate(kind, [first], [second])

    def _on_relation(self, piece: Piece) -> None:
        kind, following = piece.value, self._peek()
        if self.mode[:1] == ("neg",):
            if following.kind == "np":
                self.at += 1  # "without a dog on the sofa": the place of an absent thing is not drawn
                self.mode = ()
                self._background_if_place(kind, following.value)
            return
        if following.kind == "neg" or following.kind not in ("np", "pron", "verb", "style", "adverb"):
            if kind not in ("loose", "near", "along", "from", "during"):
                self.scene.note(f'not understood: "{piece.text}" with nothing after it')
            return
        before = self._peek(-1).kind
        if before in ("comma", "and", "but") and self.subjects and not self._inverted():
            self.mode = ("relation", kind, list(self.subjects))
            return
        if before in ("stop", "comma", "and", "but", "there") and (not self.subjects or self._inverted()):
            self.mode = ("relation", kind, None)  # "On the table stands a lamp"
            return
        if piece.text in ("into", "onto") and self.recent:
            self.mode = ("relation", kind, list(self.recent))
            return
        after_verb = before in ("verb", "cop", "adverb", "rel")
        if self.settled and self.recent and not after_verb:
            if kind in ("on", "in", "inside") and self.last_relation in ("left", "right", "near", "between"):
                subjects = [*self.subjects, *(t for t in self.recent if t not in self.subjects)]
            else:
                subjects = list(self.recent)
        else:
            subjects = list(self.subjects or self.recent)
        self.mode = ("relation", kind, subjects)

    def _inverted(self) -> bool:
        """Is this relation in front of its subject: relation, noun, then comma or verb, then another noun?"""
        n = 2
        while self._peek(n).kind in ("and", "np") and self._peek(n - 1).kind in ("np", "and"):
            n += 1
        link = self._peek(n).kind
        if link == "comma" and self._peek(-1).kind in ("stop", "comma"):
            return self._peek(n + 1).kind in ("np", "there", "adverb") and self._peek(-1).kind == "stop"
        if link == "there":
            return True
        return (
            link in ("verb", "cop")
            and self._peek(n + 1).kind == "np"
            and self._peek(-1).kind in ("stop", "and", "comma")
        )

    def _on_pron(self, piece: Piece) -> None:
        things = self._antecedent(piece.text.lower())
        if self.mode[:1] == ("relation",) or self.mode[:1] == ("verb",):
            if not things:
                self.scene.note(f'not understood: what "{piece.text}" stands for')
            else:
                self._target(things)
        elif things and self._kind_after() in ("verb", "cop", "relation", "have", "wear", "neg"):
            self.subjects, self.settled = things, False

    def _antecedent(self, pronoun: str) -> list[Thing]:
        subjects = self.mode[2] or [] if self.mode[:1] == ("relation",) else self.subjects
        pool = [t for t in self.mentions if t not in subjects and t in self.scene.things]
        kind = self.mode[1] if self.mode[:1] == ("relation",) else ""
        if pronoun == "it" and self.host in pool and kind in ("on", "under", "front", "behind", "in", "inside", "near"):
            return [self.host]
        if pronoun in ("it", "itself"):
            pool = [t for t in pool if t.count == 1] or pool
        if pronoun in ("them", "they", "themselves"):
            many = [t for t in pool if t.count > 1]
            return many[-1:] or pool[-2:]
        if pronoun in ("he", "him", "she"):
            pool = [t for t in pool if t.animate] or pool
        return pool[-1:]

    # nouns

    def _on_np(self, piece: Piece) -> None:
        noun: NounPhrase = piece.value
        mode = self.mode[0] if self.mode else ""
        if not noun.head or noun.head in ("one", "other", "ones", "others") or self._one_of(noun):
            self._instance(noun)
        elif mode == "neg":
            self._absent(noun)
        elif mode == "is":
            self._predicate(noun)
        elif mode == "wear":
            text = f"{self.mode[1]} {_plain(noun)}"
            for thing in self.recent[-1:] if self.mode[1] == "made of" else self.subjects or self.recent[-1:]:
                thing.worn = f"{thing.worn} and {_plain(noun)}" if thing.worn else text
            if not (self._peek().kind == "and" and _clothing(self._peek(2))):
                self.mode = ()
        elif self._is_tag(noun):
            self.scene.tags.append(f"{_plain(noun)}")
        elif mode == "relation":
            self._relation_target(noun)
        elif mode == "verb":
            things = self._things(noun)
            self._relate(self.mode[1], self.subjects or self.recent[-1:], things)
            self.settled = self.mode[1] == "on" or not self.subjects
            self.mode, self.recent = (), things
        elif mode == "with":
            self._with(noun)
        else:
            self._subject(noun)

    def _one_of(self, noun: NounPhrase) -> bool:
        """ "one black and one white": a colour or size alone that picks from a group."""
        return (
            noun.head in lexicon.ADJECTIVES
            and (noun.count == 1 or noun.det in ("the", "another"))
            and any(t.count > 1 or (t.group and not t.claimed) for t in self.scene.things)
        )

    def _instance(self, noun: NounPhrase) -> None:
        """ "one ... the other ...", "each": picks instances out of the last group."""
        groups = [t for t in self.scene.things if t.count > 1]
        if noun.det in ("each", "both", "all") and groups:
            self.subjects, self.recent, self.settled = [groups[-1]], [groups[-1]], False
            self.each = groups[-1] if noun.det == "each" else None
            return
        left = [t for t in self.scene.things if t.group and not t.claimed]
        if not left and groups:
            left = self._split(groups[-1])
        if not left and noun.head == "other" and self.mentions and noun.det == "the":
            left = [Thing(self.mentions[-1].head, counted=True)]
            self.scene.things.append(left[0])
        if not left:
            self.scene.note(f'not understood: what "{noun.source or noun.det}" refers to')
            return
        taken = left[: noun.count or 1]
        extra = [w for w in (*noun.before, noun.head) if w and w not in ("one", "other", "ones", "others")]
        for thing in taken:
            thing.claimed = True
            thing.before = [*extra, *(w for w in thing.before if w not in ("different", "colored", "coloured"))]
        self.subjects, self.recent, self.settled, self.mode = taken, taken, False, ()

    def _split(self, whole: Thing) -> list[Thing]:
        number = 1 + max((t.group for t in self.scene.things), default=0)
        parts = [
            Thing(
                whole.head, list(whole.before), whole.tail, whole.worn, list(whole.actions), counted=True, group=number
            )
            for _ in range(whole.count)
        ]
        at = self.scene.things.index(whole)
        self.scene.things[at : at + 1] = parts

        def swap(things: tuple[Thing, ...]) -> tuple[Thing, ...]:
            return tuple(p for t in things for p in (parts if t is whole else [t]))

        self.scene.relations = [Relation(r.kind, swap(r.subjects), swap(r.targets)) for r in self.scene.relations]
        return parts

    def _absent(self, noun: NounPhrase) -> None:
        adjectives = [w for w in (*noun.before, noun.head) if w in lexicon.ADJECTIVES]
        if self._peek(-1).value == "copula" and adjectives and noun.before == tuple(adjectives)[: len(noun.before)]:
            self.scene.absent += [f"{' '.join(adjectives)} {t.head}" for t in self.subjects[-1:]]
            self.mode = ()
            return
        text = words.plural(noun.source) if noun.plural and not noun.source.endswith("s") else noun.source
        if noun.head == "person" and noun.plural:
            text = noun.source
        full = f"{text} {noun.tail}".strip()
        if full not in self.scene.absent:
            self.scene.absent.append(full)
        self.scene.absent_heads.add(noun.head)
        self.mode, self.in_place = ("neg", noun.det in ("a", "an")), False

    def _predicate(self, noun: NounPhrase) -> None:
        self.mode = ()
        if not noun.det and noun.count is None and (noun.head in lexicon.ADJECTIVES or noun.head.endswith("ed")):
            for thing in self.subjects:
                thing.before = [*noun.before, noun.head, *thing.before]
        elif noun.count is not None and self.subjects:
            self._subject(noun)
        else:
            self._subject(noun)

    def _is_tag(self, noun: NounPhrase) -> bool:
        if not (self._peek(-1).kind in ("comma", "stop") and self.scene.things or self.mode[:1] == ("relation",)):
            if not (self.at == 0 and noun.head in lexicon.STYLE_NOUNS and self._peek().kind in ("comma", "stop")):
                return self._peek(-1).kind in ("comma", "and") and self._tagged(noun) and bool(self.scene.tags)
        if self.mode[:1] == ("relation",):
            return noun.head in ("style",) and self.mode[1] == "in"
        return self._tagged(noun)

    def _tagged(self, noun: NounPhrase) -> bool:
        low = {noun.head.lower(), *(w.lower() for w in noun.before)}
        head = noun.head.lower() in lexicon.STYLE_TAGS or noun.head.lower() in lexicon.STYLE_NOUNS - {"icon", "film"}
        return noun.count is None and noun.det in ("", "the") and (
            head or (bool(low & lexicon.STYLE_TAGS) and noun.head.lower() not in lexicon.ANIMATE and not noun.plural)
        )  # fmt: skip

    def _is_place(self, noun: NounPhrase, kind: str) -> bool:
        """Does the noun after relation `kind` name surroundings rather than a thing with a box?"""
        head = noun.head.lower()
        if self._known(noun):
            return False
        last = head.split("-")[-1]
        scenery = head in lexicon.PLACES or last in lexicon.PLACES or head.endswith(lexicon.PLACE_ENDINGS)
        if head in lexicon.TIMES and (kind in ("near", "during", "in", "on", "amid", "under", "along") or noun.before):
            return True
        if kind in ("in", "inside", "amid", "near", "along", "during", "from", "loose", "surrounded"):
            if head in lexicon.CONTAINERS and head not in lexicon.ROOMS | {"mirror"}:
                return False
            built = (
                head in lexicon.BUILT and kind == "near" and self.pieces[self.at - 1].text not in ("at", "by", "along")
            )
            return (scenery and not (built and head not in lexicon.MATTER)) or (
                kind in ("in", "amid") and head not in lexicon.SUPPORTS and not self._concrete(noun)
            )
        if kind == "on":
            return scenery and head not in ("bridge", "wall", "cloud", "moon") or head == "wall" and noun.det != "a"
        if kind in ("under", "below"):
            return head in lexicon.SKY or last in lexicon.SKY or head in ("rain", "snow", "sunlight", "shade")
        if kind in ("above", "along", "behind", "front"):
            return scenery and head not in lexicon.BUILT - {
                "village",
                "town",
                "mountain",
                "island",
                "hill",
                "lake",
                "market",
                "pond",
            }
        return False

    def _concrete(self, noun: NounPhrase) -> bool:
        """After "in", an unknown noun is taken for a place; these are things one can look into."""
        return noun.head.lower() in lexicon.CONTAINERS or noun.head.lower() in lexicon.ANIMATE

    def _background_if_place(self, kind: str, noun: NounPhrase) -> bool:
        if not self._is_place(noun, kind):
            return False
        written = self._written(kind)
        self.scene.places.append(f"{written} {_plain(noun)}".strip())
        self.in_place = self.settled = True
        return True

    def _written(self, kind: str) -> str:
        for n in (0, -1, -2):
            piece = self._peek(n)
            if piece.kind == "relation":
                return piece.text if piece.text in ("in", "on", "at", "by", "under", "along", "over", "above", "across",
                    "through", "against", "near", "during") else _PLACE_WORD.get(kind, "in")  # fmt: skip
        return _PLACE_WORD.get(kind, "in")

    def _own_part(self, noun: NounPhrase, kind: str, subjects: list[Thing]) -> bool:
        """ "on its back", "in her hand": the owner stands in for its part."""
        part = noun.head in lexicon.PARTS or noun.head in (
            "back",
            "lap",
            "shoulder",
            "shoulders",
            "side",
            "feet",
            "foot",
        )
        if noun.det not in lexicon.POSSESSIVES or not part:
            return False
        owners = [t for t in self.mentions if t not in subjects and t in self.scene.things]
        owners = [t for t in owners if t.animate] or owners
        together = [{*r.subjects, *r.targets} for r in self.scene.relations]
        if owners and not any({owners[-1], s} <= ends for ends in together for s in subjects):
            self._relate("on" if kind == "on" else "near", subjects, owners[-1:])
        self.mode, self.settled = (), True
        return True

    def _relation_target(self, noun: NounPhrase) -> None:
        _, kind, subjects = self.mode
        if self._own_part(noun, kind, subjects or []):
            return
        if noun.head in ("style",) and kind == "in":
            self.scene.tags.append(f"in {_plain(noun)}")
            self.mode = ()
            return
        if self._background_if_place(kind, noun):
            head_of_list = self._peek().kind == "and" and self._peek(2).kind == "np"
            self.mode = () if not (head_of_list and kind == "between") else self.mode
            if subjects is None:
                self.subjects, self.settled, self.in_place = [], True, True
                self.recent = []
            return
        if kind in ("loose", "during", "from"):
            if subjects and kind == "loose":
                self.scene.note(f'not understood: "{self._peek(-1).text} {_plain(noun)}"')
                self.mode = ()
                return
            kind = "near"
        self._target(self._for_each(self._things(noun)), kind)

    def _target(self, things: list[Thing], kind: str = "") -> None:
        if self.mode[0] == "verb":
            self._relate(self.mode[1], self.subjects, things)
            self.mode, self.recent, self.settled = (), things, True
            return
        kind = kind or self.mode[1]
        subjects = self.mode[2]
        things = things + self._more_targets(kind)
        self.mode = ()
        if subjects is None:
            self.pending, self.subjects, self.settled, self.recent = ("relation", kind, things), [], True, things
            return
        subjects = [t for t in subjects if t not in things]
        if not subjects:
            self.scene.note(f'not understood: "{kind}" without anything that it could place')
        else:
            self._relate(kind, subjects, things)
        self.recent, self.settled, self.last_relation = things, True, kind

    def _more_targets(self, kind: str) -> list[Thing]:
        """ "between A and B", "next to A and B": the nouns joined to the target, if they start no clause of their own."""
        found: list[Thing] = []
        allowed = {"between"} if kind not in _FLAT | {"above", "below"} else {kind}
        while kind in allowed and self._peek().kind in ("and",) and self._peek(2).kind == "np":
            noun = self._peek(2).value
            after = self._peek(3).kind
            if not noun.head or (
                kind != "between" and after in ("relation", "position", "verb", "cop", "have", "with", "wear")
            ):
                break
            if kind == "between" and len(found) >= 1:
                break
            self.at += 2
            found += self._things(noun)
        return found

    def _for_each(self, things: list[Thing]) -> list[Thing]:
        """ "four candles, each on a plate": four plates."""
        if self.each is not None and len(things) == 1 and things[0] not in (self.each,):
            things[0].count *= self.each.count
            things[0].before = [w for w in things[0].before if w not in ("separate", "own", "different")]
        self.each = None
        return things

    def _with(self, noun: NounPhrase) -> None:
        host, following = self.host, self._kind_after()
        head = noun.head.lower()
        if self._peek().kind == "position" and self._peek().value == "background":
            self._subject(noun)
            return
        part = (
            (noun.det in lexicon.POSSESSIVES and not is_animate(head))
            or head in lexicon.PARTS
            or head in lexicon.CLOTHES
            or head in lexicon.MASS
        )
        if host is not None and part and following not in ("relation", "position"):
            host.tail = (
                f"{host.tail} and {_plain(noun)}"
                if " with " in f" {host.tail}"
                else f"{host.tail} with {_plain(noun)}".strip()
            )
            self._after_list()
            return
        things = self._for_each(self._things(noun))
        self.subjects, self.recent, self.settled = things, things, False
        if host is not None and host not in things and following not in ("relation", "position"):
            name = host.head.lower()
            wrapped = (
                noun.count is None and noun.plural and self._peek(-1).kind == "have" and name in lexicon.CONTAINERS
            )
            kind = "on" if name in lexicon.SUPPORTS else "in" if name in lexicon.CONTAINERS else "near"
            if wrapped:
                self.scene.note(f'"{noun.source}": no number given, {things[0].count} drawn')
            self._relate(kind, things, [host])
            self.subjects = things
        self._after_list()

    def _after_list(self) -> None:
        if not (
            self._peek().kind in ("comma", "and") and self._peek(1 + (self._peek(2).kind == "and")).kind is not None
        ) or self._peek().kind not in ("comma", "and"):
            self.mode = ()

    def _subject(self, noun: NounPhrase) -> None:
        head = noun.head.lower()
        scenery = (head in lexicon.PLACES or head.endswith(lexicon.PLACE_ENDINGS)) and head not in lexicon.ANIMATE
        following = self._kind_after()
        background = following == "position" and self._peek().value == "background"
        first = not self.scene.things and not self.pending
        if (
            head in lexicon.STYLE_NOUNS
            and first
            and following in ("with", "relation", "have", "rel", "stop")
            and not self.scene.style
        ):
            if following != "relation" or self._peek().value in ("in", "loose"):
                self.scene.style = words.with_article(noun.source)
                self.in_place, self.settled, self.mode = True, True, ()
                return
        if scenery and not background and noun.count is None and not self._known(noun):
            built = head in lexicon.BUILT and (following not in ("with", "have", "neg") or head in ("bridge",))
            if not built or (head in lexicon.MATTER and not noun.det):
                kind = "with " if self.scene.places or self.scene.things else ""
                if head in ("sunset", "sunrise", "dusk", "dawn", "night", "noon", "midnight") and not noun.det:
                    kind = "at "
                    first = True
                self.scene.places.append(f"{kind}{_plain(noun)}" if first else f"with {_plain(noun)}")
                self.in_place, self.subjects, self.recent, self.settled = True, [], [], True
                return
        things = self._things(noun)
        joined = self._peek(-1).kind in ("and", "comma", "or", "adverb") and self.subjects and not self.settled
        before = self.subjects if joined else []
        self.subjects = [*before, *(t for t in things if t not in before)]
        self.recent, self.settled, self.in_place = things, False, False
        if self.pending:
            if self.pending == ("position", "background"):
                self._to_background()
                self.settled = False
            elif self.pending[0] == "position":
                self._place(things, self.pending[1])
                self.settled = False
            else:
                self._relate(self.pending[1], things, self.pending[2])
            if not (
                self._peek().kind in ("and", "comma") and self._peek(2).kind == "np" and self.pending[0] == "relation"
            ):
                self.pending = ()
            if self.pending:
                self.settled = False

    def _known(self, noun: NounPhrase) -> Thing | None:
        """The thing that a definite noun refers back to."""
        if noun.det not in ("the", "this", "that", "these", "those", "its", "their", "his", "her", "both", "each"):
            return None
        same = [t for t in self.scene.things if t.head == noun.head]
        exact = [t for t in same if set(noun.before) <= set(t.before)]
        if noun.before:
            return exact[-1] if exact else None
        return same[-1] if same else None

    def _things(self, noun: NounPhrase) -> list[Thing]:
        known = self._known(noun)
        if known is not None:
            same = [t for t in self.scene.things if t.head == noun.head and set(noun.before) <= set(t.before)]
            self.mentions.append(known)
            return same if noun.plural else [known]
        pair = noun.head in words.PAIR_NOUNS
        mass = noun.head in lexicon.MASS and noun.count is None and noun.det not in ("a", "an")
        count, counted = noun.count or 1, noun.count is not None
        if noun.count == 0:
            self._absent(noun)
            return []
        if noun.plural and noun.count is None and not mass and not pair:
            count = 2 if noun.det in ("both",) else 3
            self.scene.note(f'"{noun.source}": no number given, {count} drawn')
        elif noun.vague:
            self.scene.note(f'"{noun.source}": no exact number given, {count} drawn')
        if pair and noun.det == "a":
            count = 1
        if count > MOST_PER_KIND:
            self.scene.note(f'"{count} {noun.source}": more than fit, {MOST_PER_KIND} drawn')
            count = MOST_PER_KIND
        thing = Thing(
            noun.head, list(noun.before), noun.tail, count=count, det=noun.det, name=noun.name, mass=mass or pair
        )
        thing.counted = counted
        self.in_place = False
        self.scene.things.append(thing)
        self.mentions.append(thing)
        return [thing]

    def _relate(self, kind: str, subjects: list[Thing], targets: list[Thing]) -> None:
        subjects = [t for t in subjects if t not in targets]
        if not subjects or not targets:
            return
        if kind == "amid":
            single = len(targets) == 1 and targets[0].count == 1
            kind = "on" if single and targets[0].head in lexicon.SUPPORTS else "in" if single else "between"
        if kind in ("bigger", "smaller"):
            for thing in subjects:
                thing.scale *= 1.35 if kind == "bigger" else 0.7
            for thing in targets:
                thing.scale *= 0.7 if kind == "bigger" else 1.35
            kind = "near"
        if kind == "about":
            if sum(t.count for t in subjects) > 1:
                subjects, targets, kind = targets, subjects, "between"
            else:
                kind = "near"
        if kind in ("flanked", "around"):
            subjects, targets, kind = (
                (targets, subjects, "between") if kind == "around" else (subjects, targets, "between")
            )
        if kind == "surrounded":
            kind = "between"
        if kind == "along":
            kind = "on"
        if kind == "inside":
            kind = "in"
        if kind == "in" and targets[0].head in lexicon.SUPPORTS - lexicon.CONTAINERS:
            kind = "on"
        self.scene.relations.append(Relation(kind, tuple(subjects), tuple(targets)))

    def _to_background(self) -> None:
        """The noun in front of "in the background": scenery becomes text, a thing moves up and back."""
        for thing in self.recent or self.subjects[-1:]:
            related = any(thing in r.subjects or thing in r.targets for r in self.scene.relations)
            scenery = thing.head in lexicon.PLACES or thing.head.endswith(lexicon.PLACE_ENDINGS)
            if (scenery or (not thing.counted and not thing.animate)) and not related and thing in self.scene.things:
                self.scene.things.remove(thing)
                text = " ".join(
                    [*thing.before, words.plural(thing.head) if thing.count > 1 else thing.phrase.split(" ", 1)[-1]]
                )
                noun = text if thing.count > 1 else thing.phrase
                self.scene.notes = [n for n in self.scene.notes if thing.head not in n or "drawn" not in n]
                self.scene.places.append(f"with {noun} in the background")
            else:
                thing.position, thing.scale = (thing.position[0], 0.2), 0.6
        self.subjects = [t for t in self.subjects if t in self.scene.things]
        self.recent, self.mode, self.settled = [], (), True

    def _finish(self) -> None:
        scene = self.scene
        for thing in list(scene.things):
            if thing.head in scene.absent_heads and not thing.before and not thing.counted and thing.det != "a":
                scene.note(f'"{thing.head}" is both wanted and excluded; it was drawn')
        wanted = {t.head for t in scene.things}
        scene.absent = [a for a in scene.absent if (words.singular(a) or a) not in wanted]


_VISIBLE = words.word_set(
    "burning glowing shining blooming steaming melting flying floating spinning rolling falling growing"
)


def _plain(noun: NounPhrase) -> str:
    """The phrase as written, with its determiner or number."""
    start = noun.det or (words.number_word(noun.count) if noun.count else "")
    return " ".join(w for w in (start, noun.source, noun.tail) if w)


def _clothing(piece: Piece) -> bool:
    return piece.kind == "np" and piece.value.head in lexicon.CLOTHES


def read(prompt: str) -> Scene:
    """What a prompt says, as far as it was understood; `Scene.notes` holds the rest."""
    return Reader(prompt).read()
