"""Pieces -> clauses: which words belong to which noun. One walk; lists are read where they begin."""

from __future__ import annotations

from . import lexicon, verbs
from .clauses import Aside, Attribute, Clause, Negation, Place, Position, Reference, Relation, Style, Subject, Who
from .noun_phrases import NounPhrase
from .pieces import Piece
from .style_words import STYLE, STYLE_HEADS, WEAK
from .surroundings import head_is_place, is_place, is_scenery, written

_STOP = Piece("stop")
_LIST = ("comma", "and", "or")
_PASSED = ("adverb", "rel", "cop", "adjective", "other")
_FLAT = {"left", "right", "near", "between", "front", "behind", "amid", "beside"}
_OWN = lexicon.PARTS | {
    "back",
    "lap",
    "shoulder",
    "side",
    "foot",
    "flank",
    "chest",
    "cheek",
    "knee",
    "forehead",
    "wrist",
    "neck",
    "belly",
}


class Parser:
    """Keeps the current subjects and the things named last; emits clauses in the order of the text."""

    def __init__(self, pieces: list[Piece]) -> None:
        self.pieces, self.at = pieces, 0
        self.clauses: list[Clause] = []
        self.subjects: tuple[Who, ...] = ()  # what a verb or relation that comes now speaks of
        self.recent: tuple[Who, ...] = ()  # the things named last
        self.settled = False  # the subjects have had their relation
        self.last_relation = ""
        self.pending: Position | Relation | None = None  # "On the left ...": waits for its subject
        self.host: NounPhrase | None = None  # what "with ..." belongs to
        self.in_place = False
        self.deferred: list[tuple[str, tuple[Who, ...]]] = []  # relations that wait for their target
        self.verb = ""
        self.sentence = 0
        self.named: list[NounPhrase] = []
        self.each = False

    def parse(self) -> list[Clause]:
        while self.at < len(self.pieces):
            piece = self.pieces[self.at]
            getattr(self, f"_on_{piece.kind}", self._skip)(piece)
            self.at += 1
        return self.clauses

    # looking around

    def peek(self, n: int = 1) -> Piece:
        i = self.at + n
        return self.pieces[i] if 0 <= i < len(self.pieces) else _STOP

    def after(self, n: int = 1) -> str:
        """The kind of the next piece that says something."""
        while self.peek(n).kind in _PASSED:
            n += 1
        return self.peek(n).kind

    def emit(self, *clauses: Clause) -> None:
        self.clauses += clauses

    def _skip(self, piece: Piece) -> None:
        pass

    # simple pieces

    def _on_other(self, piece: Piece) -> None:
        if piece.text.isalpha() and len(piece.text) > 2:
            self.emit(Aside(piece.text))

    def _on_stop(self, piece: Piece) -> None:
        self.subjects, self.settled, self.pending = (), True, None
        self.in_place, self.last_relation, self.host, self.each = False, "", None, False
        self.sentence += 1

    def _on_comma(self, piece: Piece) -> None:
        if piece.value == "says":
            return
        if self.peek().kind in ("tag", "adjective"):
            self.host = None

    def _on_tag(self, piece: Piece) -> None:
        self.emit(Style(piece.text))

    def _on_style(self, piece: Piece) -> None:
        noun = piece.noun
        assert noun is not None
        if noun.head in lexicon.PICTURES:
            self.emit(Style(noun.written if noun.det in ("a", "an") else noun.source, leading=True))

    def _on_there(self, piece: Piece) -> None:
        if self.pending is None:
            self.settled = True
            self.subjects = ()

    def _on_adjective(self, piece: Piece) -> None:
        """ "the cat is big": the first of a row; others stay in the overall prompt."""
        if self.peek(-1).kind in ("cop", "adverb") and self.subjects and self.peek(-2).kind != "neg":
            self.emit(Attribute("adjective", self.subjects, piece.text))
        elif piece.text:
            self.emit(Aside(piece.text))

    def _on_quote(self, piece: Piece) -> None:
        if self.named:
            self.emit(Attribute("says", (self.recent[-1] if self.recent else self.named[-1],), piece.text))
        else:
            self.emit(Aside(piece.text))

    def _on_rel(self, piece: Piece) -> None:
        if self.recent:
            self.subjects, self.settled = self.recent[-1:], False

    def _on_order(self, piece: Piece) -> None:
        self.emit(Position(piece.value, self.subjects if len(self.subjects) > 1 else (Reference("everything"),)))

    def _on_pron(self, piece: Piece) -> None:
        if self.after() in ("verb", "cop", "relation", "have", "wear", "neg", "position"):
            self.subjects, self.settled = (Reference(piece.text, host=self.host),), False
            self.recent = self.subjects

    def _on_one(self, piece: Piece) -> None:
        """ "one ... the other ...", "each": picks instances out of the last group."""
        noun = piece.noun
        assert noun is not None
        self._instance(noun)

    def _instance(self, noun: NounPhrase) -> None:
        picked = Reference("each" if noun.det == "each" else "instance", noun)
        self.each = noun.det == "each"
        self.emit(Subject((picked,), "instance", self.sentence))
        self.subjects = self.recent = (picked,)
        self.settled = False
        self._settle_pending(self.subjects)

    # negation

    def _on_neg(self, piece: Piece) -> None:
        following = self.peek()
        if piece.value == "copula" and following.kind in ("relation", "verb", "position"):
            self.emit(
                Aside(
                    f"not {following.text}",
                    f'not drawn: "not {following.text}"; a layout can only say where things are',
                )
            )
            self.at += 2 if following.kind in ("verb", "relation") and self.peek(2).kind in ("noun", "pron") else 1
            return
        if piece.value in ("verb", "copula", "") and following.kind in (
            "verb",
            "adverb",
            "adjective",
            "relation",
            "have",
            "wear",
        ):
            self._denied(following)
            return
        if following.kind != "noun" or following.noun is None:
            if following.kind in ("pron", "one", "verb", "tag"):
                self.at += 1
            return
        self._absent_list()

    def _denied(self, following: Piece) -> None:
        """ "can't swim", "not wooden": nothing is excluded, and what is denied is not drawn."""
        self.at += 1
        if (
            following.kind in ("verb", "have", "wear")
            and self.peek().kind in ("noun", "pron")
            or following.value == "loose"
            and self.peek().kind == "noun"
        ):
            self.at += 1
        elif self.peek().text in ("at", "to", "like", "for") and self.peek(2).kind == "noun":
            self.at += 2
        if following.kind == "wear":
            noun = self.pieces[self.at].noun
            if noun is not None:
                self.emit(Negation(noun))

    def _absent_list(self) -> None:
        self.at += 1
        first = self.pieces[self.at].noun
        assert first is not None
        self._absent(first)
        while self._list_goes_on():
            self.at += 1
            while self.pieces[self.at].kind in _LIST:
                self.at += 1
            noun = self.pieces[self.at].noun
            assert noun is not None
            self._absent(noun)
        self.in_place = False
        if self.peek().kind == "relation":  # "no people on the sofa": where, is not drawn, unless it is a place
            noun, kind = self.peek(2).noun, self.peek().value
            if noun is None:
                self.at += 1
            elif is_place(noun, kind, self.peek().text):
                self.emit(Place(written(kind, self.peek().text, noun), noun))
                self.at += 2
            elif not self.subjects or first.det not in ("a", "an", ""):
                self.at += 2
        elif self.peek().kind in ("verb", "position"):
            self.at += 1

    def _absent(self, noun: NounPhrase) -> None:
        if noun.head in lexicon.NOT_THINGS or noun.head in ("doubt", "matter", "reason", "longer", "idea"):
            return
        self.emit(Negation(noun))

    def _list_goes_on(self) -> bool:
        """ "no A, B or C" goes on; "no A, B, C" ends at its first comma."""
        joint, second = self.peek(), self.peek(2)
        if joint.kind in ("or", "and"):
            n = 2 + (second.kind in _LIST)
            follows = self.peek(n)
            if follows.kind != "noun" or follows.noun is None or not (follows.noun.bare or joint.kind == "or"):
                return False
            return joint.kind == "or" or self.peek(n + 1).kind not in ("cop", "verb", "have")
        if joint.kind != "comma":
            return False
        n = 2
        while self.peek(n).kind == "noun" and self.peek(n).noun.bare:
            n += 1
            if self.peek(n).kind == "or" or (self.peek(n).kind == "comma" and self.peek(n + 1).kind == "or"):
                return True
            if self.peek(n).kind != "comma":
                return False
            n += 1
        return self.peek(n).kind == "or" and n > 2

    # with, wearing

    def _on_with(self, piece: Piece) -> None:
        if self.peek().kind == "relation" and self.peek(2).kind == "noun":
            self.at += 1
        if self.peek().kind == "adjective" and self.peek(2).kind == "noun":
            self.at += 1
        if self.peek().kind == "noun":
            self.host = None if self.in_place else _noun_of(self.recent[-1:] or self.subjects[-1:])
            self._with_list(self.host)

    def _on_have(self, piece: Piece) -> None:
        subjects = self.subjects or self.recent
        self.host = None if self.in_place else _noun_of(subjects[-1:])
        owner = self.host if self.host is not None else (subjects[-1] if subjects and not self.in_place else None)
        if self.peek().kind == "noun":
            self._with_list(owner, have=True)

    def _with_list(self, host: Who | None, have: bool = False) -> None:
        """Nouns behind "with" or "has", as long as the list goes on."""
        while True:
            self.at += 1
            noun = self.pieces[self.at].noun
            assert noun is not None
            again = self._with_one(noun, host, have)
            skip = 1
            while self.peek(skip).kind in _LIST:
                skip += 1
            if not again or skip == 1 or self.peek(skip).kind != "noun" or self._starts_clause(skip, noun):
                return
            self.at += skip - 1

    def _starts_clause(self, n: int, before: NounPhrase) -> bool:
        noun = self.peek(n).noun
        assert noun is not None
        following = self.peek(n + 1).kind
        if following in ("cop", "verb", "have", "there", "wear") and not self.peek(n + 1).text.endswith("ing"):
            return self.peek(n - 1).kind == "and" or noun.det != ""
        return (
            self.peek(n - 1).kind == "comma"
            and noun.bare
            and self.host is not None
            and noun.kind not in ("worn", "body")
        )

    def _with_one(self, noun: NounPhrase, host: Who | None, have: bool) -> bool:
        """One noun behind "with": a part or dress of its host, surroundings, or a thing near it. May the list go on?"""
        following = self.peek()
        head = noun.head.lower()
        owner = host if isinstance(host, NounPhrase) else None
        if noun.head in STYLE_HEADS and noun.head in STYLE and not noun.solid and noun.count is None:
            self.emit(Style(f"with {noun.written}"))
            return True
        if following.kind == "position" and following.value == "background":
            self._subject(noun)
            return False
        stands = following.kind in ("relation", "position") and not (
            following.kind == "relation" and following.value == "loose"
        )
        if host is not None and self._is_part(noun, owner) and not stands:
            self.emit(Attribute("with", (host,), noun.written))
            self.named.append(noun)
            return True
        if (
            is_scenery(noun)
            and (noun.count is None or head in ("wall", "floor", "ceiling"))
            and head not in lexicon.CONTAINERS
            and (host is None or not noun.det or head in lexicon.MATTER)
            and not (head in lexicon.BUILT and noun.det)
        ):
            self.emit(Place(f"with {noun.written}", noun))
            return True
        fixture = noun.plural and noun.count is None and head in lexicon.GROWTH or noun.kind == "matter"
        if host is None and self.in_place and fixture:
            self.emit(Place(f"with {noun.written}", noun))
            return True
        self._with_thing(noun, owner, host, have)
        return following.kind not in ("relation", "position", "verb")

    def _is_part(self, noun: NounPhrase, owner: NounPhrase | None) -> bool:
        head = noun.head.lower()
        return (
            (noun.det in lexicon.POSSESSIVES and not noun.animate)
            or head in lexicon.PARTS
            or noun.kind in ("body", "idea", "time", "text")
            and not noun.solid
            and noun.count is None
            or (noun.kind == "worn" and (owner is None or owner.animate or noun.count is None))
            or head in lexicon.MASS
            or (noun.kind in ("weather", "matter") and not noun.det and noun.count is None)
        )

    def _with_thing(self, noun: NounPhrase, owner: NounPhrase | None, host: Who | None, have: bool) -> None:
        self._name((noun,), "object")
        self.subjects = self.recent = (noun,)
        self.settled = False
        following = self.after()
        if following == "verb" and self.peek(2).kind == "relation" and self.peek(3).kind == "pron":
            following = "relation"  # "a mug with a cat printed on it"
        name = owner.head.lower() if owner is not None else ""
        holder = name in lexicon.SUPPORTS | lexicon.CONTAINERS
        held = holder and self.peek().kind == "relation" and self.peek(2).kind == "noun"
        if held and self.peek().value in ("on", "in", "near", "under", "behind", "front"):
            self.emit(Relation("on" if name in lexicon.SUPPORTS else "in", (noun,), (owner,)))  # type: ignore[arg-type]
            self.subjects = self.recent = (owner,)  # type: ignore[assignment]
        elif host is not None and following not in ("relation", "position"):
            kind = (
                "on"
                if name in lexicon.SUPPORTS
                else "in"
                if name in lexicon.CONTAINERS and self._fits(noun)
                else "near"
            )
            self.emit(Relation(kind, (noun,), (host,)))

    def _fits(self, noun: NounPhrase) -> bool:
        """ "a box with three eggs" holds them; "one car with one stop sign" does not."""
        return not noun.animate and noun.count != 1 or noun.kind in ("food", "plant", "animal")

    def _on_wear(self, piece: Piece) -> None:
        wearers = self.subjects or self.recent
        if self.recent and not (len(self.subjects) == 2 and piece.text == ""):
            wearers = self.recent[-1:] if piece.value != "wearing" or len(self.subjects) != 2 else self.subjects
        wearers = self._animate(wearers) if piece.value == "" else wearers
        word = piece.text or piece.value
        while self.peek().kind in ("noun", "adjective"):
            self.at += 1
            if (noun := self.pieces[self.at].noun) is None:
                continue
            self.emit(Attribute(word, wearers, noun.written))
            skip = 1
            while self.peek(skip).kind in _LIST:
                skip += 1
            follows = self.peek(skip).noun
            if skip == 1 or self.peek(skip).kind != "noun" or follows is None or not _worn(follows, word):
                return
            self.at += skip - 1

    def _animate(self, wearers: tuple[Who, ...]) -> tuple[Who, ...]:
        return wearers

    def _on_as(self, piece: Piece) -> None:
        if self.peek().kind == "noun" and (self.recent or self.subjects) and self.peek(2).kind not in ("cop", "verb"):
            self.at += 1
            noun = self.pieces[self.at].noun
            assert noun is not None
            self.emit(Attribute("as", (self.recent or self.subjects)[-1:], noun.written))

    # verbs, positions, relations

    def _on_cop(self, piece: Piece) -> None:
        following = self.peek()
        if following.kind == "noun" and self.subjects and self.pending is None and following.noun is not None:
            noun = following.noun
            if noun.count is None and not self._names_thing(noun):
                self.at += 1
                self.emit(Aside(noun.written))

    def _names_thing(self, noun: NounPhrase) -> bool:
        return noun.solid or noun.kind in ("place", "")

    def _on_verb(self, piece: Piece) -> None:
        verb = self.verb = piece.text
        before = self.peek(-1).kind
        if self.settled and before in ("comma", "and") and self.subjects:
            self.settled = False
        actors = self.subjects or self.recent[-1:]
        action, following = verbs.ing_form(verb), self.after()
        actor = _noun_of(actors)
        inanimate = actor is not None and not actor.animate
        if following == "noun" and action in ("holding", "supporting", "carrying") and inanimate:
            self.host = actor
            while self.peek().kind in _PASSED:
                self.at += 1
            self._with_list(actor)
        elif following == "noun" and self.pending is None:
            while self.peek().kind in _PASSED:
                self.at += 1
            self._object(verb, actors)
        elif (
            (following != "pron" or self.pending is not None)
            and action
            and action not in verbs.STATIC
            and self.pending is None
            and before in ("noun", "cop", "adverb", "rel")
            and (following != "with" or before == "noun")
        ):
            self.emit(Attribute("action", actors, action))

    def _object(self, verb: str, actors: tuple[Who, ...]) -> None:
        """The noun behind a verb: close to whoever does it, or surroundings, or nothing to be seen."""
        self.at += 1
        noun = self.pieces[self.at].noun
        assert noun is not None
        if noun.head in lexicon.MATTER | lexicon.TIMES and noun.det != "a" and noun.count is None:
            self.emit(Place(f"with {noun.written}", noun))
        elif verb in verbs.SHOWING and not _noun_is_thing(actors):
            self._subject(noun)
        elif noun.det in lexicon.POSSESSIVES and (noun.head in _OWN or noun.kind in ("body", "idea", "")):
            self.emit(Aside(noun.written))
        elif verb in verbs.CROSS and is_scenery(noun) and noun.head not in lexicon.BUILT:
            self.emit(Place(f"on {noun.written}", noun))
        else:
            self._act(verb, actors, noun)

    def _act(self, verb: str, actors: tuple[Who, ...], noun: NounPhrase) -> None:
        kind = "on" if verb in verbs.RIDE | verbs.CROSS else "near"
        others = self._joined_objects()
        self._name((noun, *others), "object")
        if actors:
            self.emit(Relation(kind, actors, (noun, *others)))
        self.settled = kind == "on" or not self.subjects
        self.recent = (noun, *others)
        if self.peek().kind == "relation" and self.peek().text == "to" and self.peek(2).kind == "noun":
            self.at += 2  # "giving A to B"
            receiver = self.pieces[self.at].noun
            assert receiver is not None
            if receiver.solid or receiver.kind == "":
                self._name((receiver,), "object")
                self.emit(Relation("near", (noun,), (receiver,)))

    def _joined_objects(self) -> tuple[NounPhrase, ...]:
        """ "holding a cup and a spoon"."""
        found: list[NounPhrase] = []
        while self.peek().kind in ("and", "comma"):
            n = 2 if self.peek(2).kind == "noun" else 3
            noun = self.peek(n).noun
            if self.peek(n).kind != "noun" or noun is None or not noun.solid or noun.animate or noun.bare:
                break
            if self.peek(n + 1).kind not in ("and", "comma", "stop") or self.peek(n - 1).kind not in ("and", "comma"):
                break
            found.append(noun)
            self.at += n
        return tuple(found)

    def _on_position(self, piece: Piece) -> None:
        before, following = self.peek(-1).kind, self.after()
        if piece.value == "skip":
            return
        if piece.value == "view":
            self.emit(Style(piece.text))
            return
        if piece.value == "own side":
            side = "left" if "left" in piece.text else "right"
            if following in ("cop", "noun", "verb", "there") and before in ("stop", "comma", "and", "but"):
                while self.peek().kind in ("cop", "verb", "adverb"):
                    self.at += 1
                self.pending, self.subjects, self.settled = (
                    Relation(side, (), (Reference("it", host=self.host),)),
                    (),
                    True,
                )
                return
            self.emit(Relation(side, self.subjects or self.recent, (Reference("it", host=self.host),)))
            self.settled = True
            return
        if piece.value == "background" and not (before in ("stop", "comma", "and") and following in ("noun", "there")):
            self._to_background()
            return
        opens = before in ("stop", "comma", "and", "but") and following in ("noun", "there", "verb", "comma", "one")
        idle = piece.value in ("row", "stack", "ontop", "sides", "beside", "far")
        if opens and not idle and not (following == "comma" and self.peek(2).kind != "noun"):
            self.pending, self.subjects, self.settled, self.in_place = (
                Position(piece.value, (), piece.where),
                (),
                True,
                False,
            )
            return
        who = self.subjects or self.recent
        if piece.value in ("ontop", "sides", "beside"):
            self.emit(Position(piece.value, self.subjects, piece.where), *([] if self.host is None else []))
        elif who:
            self.emit(Position(piece.value, who, piece.where))
        self.settled = piece.value != "row"

    def _to_background(self) -> None:
        who = self.recent or self.subjects[-1:]
        if who:
            self.emit(Position("background", who))
        self.recent, self.settled = (), True

    def _on_relation(self, piece: Piece) -> None:
        kind, following = piece.value, self.peek()
        while following.kind in ("adverb", "neg") and self.peek(2).kind == "noun":
            self.at += 1
            following = self.peek()
        if (
            following.kind == "and" and self.recent and self.peek(2).kind == "noun"
        ):  # "a picture above and a rug below ..."
            self.deferred.append((kind, self.subjects or self.recent))
            self.settled = True
            return
        if following.kind == "style":
            self.at += 1
            following = self.peek()
        if following.kind not in ("noun", "pron", "one"):
            return
        if kind == "from" and self.verb in ("hanging", "hangs", "hang", "hung", "dangling"):
            kind = "under"
        before = self.peek(-1).kind
        fronted = before in ("stop", "comma", "and", "but", "there") and (not self.subjects or self._inverted())
        self.at += 1
        target = self.pieces[self.at]
        who = () if fronted else self._who(kind, before, piece)
        self._related(kind, who, target, piece, fronted)

    def _who(self, kind: str, before: str, piece: Piece) -> tuple[Who, ...]:
        """Whose relation it is."""
        if before in ("comma", "and", "but") and self.subjects:
            return self.subjects
        if piece.text in ("into", "onto") and self.recent:
            return self.recent
        after_verb = before in ("verb", "cop", "adverb", "rel")
        if self.settled and self.recent and not after_verb:
            if kind in ("on", "in", "inside") and self.last_relation in ("left", "right", "near", "between"):
                return (*self.subjects, *(t for t in self.recent if t not in self.subjects))
            return self.recent
        return self.subjects or self.recent

    def _inverted(self) -> bool:
        """Is this relation in front of its subject: relation, noun, then comma or verb, then another noun?"""
        n = 2
        while self.peek(n).kind in ("and", "noun") and self.peek(n - 1).kind in ("noun", "and"):
            n += 1
        link = self.peek(n).kind
        if link == "comma" and self.peek(-1).kind in ("stop", "comma"):
            return self.peek(n + 1).kind in ("noun", "there", "adverb") and self.peek(-1).kind == "stop"
        if link == "there":
            return True
        named = self.peek(n + 1).kind == "noun"
        return link in ("verb", "cop") and named and self.peek(-1).kind in ("stop", "and", "comma")

    def _related(self, kind: str, who: tuple[Who, ...], target: Piece, piece: Piece, fronted: bool) -> None:
        noun = target.noun
        if target.kind == "pron":
            self._target(kind, who, (Reference(target.text, host=self.host),), fronted, piece)
            return
        assert noun is not None
        if target.kind == "one":
            self._target(kind, who, (Reference("instance", noun),), fronted, piece)
            return
        if self._no_target(kind, who, noun, piece):
            return
        if kind in ("left", "right") and is_scenery(noun) and not self._known(noun) and head_is_place(noun):
            self.emit(Position("at", who, (0.15 if kind == "left" else 0.85, None)), Place(f"on {noun.written}", noun))
            self.settled = True
            return
        if is_place(noun, kind, piece.text) and not self._known(noun):
            self.emit(Place(written(kind, piece.text, noun), noun))
            self.in_place = self.settled = True
            self._more_places(kind, piece)
            if fronted:
                self.subjects = self.recent = ()
            return
        more = self._more_targets(kind)
        self._name((noun, *more), "target" if kind not in ("loose", "from", "during") else "mention")
        self._target(kind, who, (noun, *more), fronted, piece)

    def _more_places(self, kind: str, piece: Piece) -> None:
        while (
            self.peek().kind == "and"
            and (noun := self.peek(2).noun) is not None
            and noun.bare
            and is_place(noun, kind, piece.text)
        ):
            if self.peek(3).kind in ("cop", "verb", "have", "relation"):
                return
            self.at += 2
            self.emit(Place(f"with {noun.written}", noun))

    def _no_target(self, kind: str, who: tuple[Who, ...], noun: NounPhrase, piece: Piece) -> bool:
        """Targets that are no thing: a style, a part of the subject's own body, what somebody looks at."""
        if noun.head == "style" or (
            noun.head in STYLE_HEADS and noun.head in STYLE and noun.head not in WEAK and not noun.solid
        ):
            self.emit(Style(f"{piece.text} {noun.written}"))
            return True
        own = noun.det in lexicon.POSSESSIVES and (noun.head in _OWN or noun.kind == "body")
        if own and kind in (
            "on",
            "in",
            "inside",
            "near",
            "above",
            "under",
            "below",
            "front",
            "between",
            "loose",
            "from",
            "about",
        ):
            self.emit(Relation("own", who, (Reference("owner", noun),), piece.text))
            self.settled = True
            return True
        part = noun.det == "the" and noun.head in lexicon.PARTS and not self._known(noun) and kind == "from"
        stared = piece.text in ("at", "into", "towards") and self.verb in verbs.STARE and noun.head in _SEEN
        if (
            part
            or stared
            or (
                noun.kind in ("idea", "time", "body")
                and noun.count is None
                and kind in ("loose", "from", "in", "near", "amid", "bottom")
                and not is_place(noun, kind, piece.text)
            )
        ):
            self.emit(Aside(noun.written))
            return True
        vague = kind in ("during", "from") or kind == "loose" and (not noun.solid or piece.text in _VAGUE_LINKS)
        if vague and not is_place(noun, kind, piece.text):
            self.emit(Aside(f"{piece.text} {noun.written}"))
            return True
        return False

    def _target(self, kind: str, who: tuple[Who, ...], targets: tuple[Who, ...], fronted: bool, piece: Piece) -> None:
        for waiting, placed in self.deferred:
            self.emit(Relation(waiting, placed, targets))
        self.deferred = []
        if fronted:
            self.pending, self.subjects = Relation(kind, (), targets, piece.text), ()
        else:
            who = tuple(t for t in who if t not in targets)
            self.emit(Relation(kind, who, targets, piece.text))
        self.recent, self.settled, self.last_relation = targets, True, kind

    def _more_targets(self, kind: str) -> tuple[NounPhrase, ...]:
        """ "between A and B": the nouns joined to the target, if they start no clause of their own."""
        found: list[NounPhrase] = []
        joins = kind in _FLAT | {"above", "below"}
        while joins and self.peek().kind == "and" and self.peek(2).kind == "noun":
            noun, after = self.peek(2).noun, self.peek(3).kind
            assert noun is not None
            if kind not in ("between", "amid") and after in (
                "relation",
                "position",
                "verb",
                "cop",
                "have",
                "with",
                "wear",
            ):
                break
            if kind in ("between", "amid") and found:
                break
            self.at += 2
            found.append(noun)
        return tuple(found)

    # nouns

    def _known(self, noun: NounPhrase) -> bool:
        return any(
            n.head == noun.head and (noun.det in _DEFINITE or noun.bare) and set(noun.before) <= set(n.before)
            for n in self.named
        )

    def _name(self, nouns: tuple[NounPhrase, ...], role: str) -> None:
        self.named += nouns
        self.emit(Subject(nouns, role, self.sentence))
        if self.each:
            self.emit(Subject((Reference("for each"), *nouns), "each", self.sentence))
            self.each = False

    def _on_noun(self, piece: Piece) -> None:
        noun = piece.noun
        assert noun is not None
        if noun.head in ("one", "other", "ones", "others"):
            self._instance(noun)
        elif noun.count == 0:
            self.emit(Aside(noun.source))
        else:
            self._subject(noun)

    def _subject(self, noun: NounPhrase) -> None:
        following, before = self.after(), self.peek(-1).kind
        first = not self.named and self.pending is None
        if self._is_style(noun, first, before):
            return
        background = following == "position" and self.peek().value == "background"
        counted = noun.count is not None or self._known(noun)
        if (
            is_scenery(noun, first and following in ("with", "have"))
            and not background
            and not counted
            and self._surroundings(noun, following, first)
        ):
            return
        bare = (
            noun.bare
            and before in ("comma", "stop", "and")
            and following in ("comma", "stop", "and", "tag")
            and not first
        )
        self._name((noun,), "tag" if bare and before != "and" else "subject")
        joined = before in ("and", "comma", "or", "adverb", "adjective") and self.subjects and not self.settled
        self.subjects = (*(self.subjects if joined else ()), noun)
        self.recent, self.settled, self.in_place = (noun,), False, False
        self._settle_pending((noun,))

    def _settle_pending(self, nouns: tuple[Who, ...]) -> None:
        pending = self.pending
        if pending is None:
            return
        if isinstance(pending, Position) and pending.kind == "background":
            self.emit(Position("background", nouns))
            self.recent = ()
        elif isinstance(pending, Position):
            self.emit(Position(pending.kind, nouns, pending.where))
        else:
            self.emit(Relation(pending.kind, nouns, pending.targets, pending.text))
        goes_on = self.peek().kind in ("and", "comma") and (self.peek(2).kind == "noun" or self.peek(3).kind == "noun")
        if not (goes_on and isinstance(pending, Relation)):
            self.pending = None
        self.settled = False

    def _is_style(self, noun: NounPhrase, first: bool, before: str) -> bool:
        """A picture word in front of the things ("a photo, ...", "The image shows ...") or a style word behind them."""
        head = noun.head.lower()
        if noun.count is not None:
            return False
        ends = self.after() in ("comma", "stop", "with", "have", "rel", "tag") or self.peek().value in ("in", "loose")
        shows = self.peek().kind in ("verb", "have") and self.peek().text in verbs.SHOWING
        if (
            head in lexicon.PICTURES | {"scene", "composition", "atmosphere", "setting"}
            and noun.det in ("the", "this")
            and (shows or not first)
        ):
            self.emit(Aside(noun.written))
            self.subjects = self.recent = ()
            return True
        if head in lexicon.STYLE_NOUNS and first and ends and noun.det != "the":
            self.emit(Style(noun.written if noun.det else noun.source, leading=True))
            self.in_place = self.settled = True
            return True
        tag = (
            head in STYLE and (head in STYLE_HEADS or head not in WEAK) and noun.det in ("", "the") and before != "cop"
        )
        alone = noun.bare and before in ("comma", "stop") and self.peek().kind in ("comma", "stop", "tag") and not first
        if alone and head in STYLE and all(w in STYLE for w in noun.before):
            self.emit(Style(noun.written))
            return True
        if alone and (
            head in lexicon.GESTURES or set(noun.before) & {"peace", "thumbs"} or head in lexicon.COLLECTIVES
        ):
            self.emit(Aside(noun.written))
            return True
        if tag and noun.det == "the":
            self.emit(Aside(noun.written))
            return True
        if tag and not noun.plural and not first or (tag and noun.kind in ("idea", "weather", "")):
            self.emit(Style(noun.written))
            return True
        return False

    def _surroundings(self, noun: NounPhrase, following: str, first: bool) -> bool:
        head = noun.head.lower()
        alone = (
            noun.bare
            and self.peek(-1).kind in ("comma", "stop")
            and following in ("comma", "stop", "tag")
            and not (first and not self.clauses)
        )
        built = head in lexicon.BUILT and (following not in ("with", "have", "neg") or head == "bridge") and not alone
        if noun.kind in ("animal", "person") or (built and not (head in lexicon.MATTER and not noun.det)):
            return False
        if head in lexicon.CONTAINERS:
            return False
        kind = (
            "at " if head in _HOURS and not noun.det else "" if first or not (self.named or self.clauses) else "with "
        )
        self.emit(Place(f"{kind}{noun.written}", noun))
        self.in_place, self.subjects, self.recent, self.settled = True, (), (), True
        return True


_SEEN = lexicon.MATTER | {"camera", "viewer", "lens"}
_VAGUE_LINKS = frozenset(("for", "like", "about", "than", "via", "per"))
_HOURS = frozenset(("sunset", "sunrise", "dusk", "dawn", "night", "noon", "midnight"))
_DEFINITE = frozenset(("the", "this", "that", "these", "those", "its", "their", "his", "her", "both", "each"))


def _noun_of(who: tuple[Who, ...]) -> NounPhrase | None:
    return who[-1] if who and isinstance(who[-1], NounPhrase) else None


def _noun_is_thing(who: tuple[Who, ...]) -> bool:
    return bool(who)


def _worn(noun: NounPhrase, how: str) -> bool:
    return how in ("wearing", "in") and (
        noun.kind in ("worn", "body") or noun.head in lexicon.CLOTHES or noun.source.endswith("glasses")
    )


def clauses_of(pieces: list[Piece]) -> list[Clause]:
    """The clauses of a prompt's pieces, in order."""
    return Parser(pieces).parse()
