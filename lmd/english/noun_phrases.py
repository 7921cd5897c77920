"""What a noun phrase does in its clause: subject, target of a relation, part of something, absent, background."""

from __future__ import annotations

from . import inflection, lexicon, verbs
from .chunker import NounPhrase, Piece, is_animate, is_scenery
from .reader_state import plain
from .scene import Thing
from .surroundings import Places

_FLAT = {"left", "right", "near", "between", "front", "behind"}


class Nouns(Places):
    """Adds everything that happens when the reader comes to a noun."""

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
        if self.recent and subjects and not set(self.recent) & set(subjects):  # "carrying a bag on her back"
            if kind == "on":
                self._relate(kind, self.recent, subjects[-1:])
            self.mode, self.settled = (), True
            return True
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
        part = noun.det == "the" and noun.head in lexicon.PARTS and not self._known(noun) and kind == "from"
        stared_at = self._peek(-1).text == "at" and self.verb in verbs.STARE and noun.head in lexicon.MATTER
        if part or stared_at:
            self.mode = ()
            return
        if noun.head in ("style",) and kind == "in":
            self.scene.tags.append(f"in {plain(noun)}")
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
                self.scene.note(f'not understood: "{self._peek(-1).text} {plain(noun)}"')
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
        for waiting, placed in self.deferred:
            self._relate(waiting, placed, things)
        self.deferred = []
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

    def _with(self, noun: NounPhrase) -> None:
        host, following = self.host, self._kind_after()
        if following == "verb" and self._peek(2).kind == "relation" and self._peek(3).kind == "pron":
            following = "relation"  # "a mug with a cat printed on it"
        head = noun.head.lower()
        if self._peek().kind == "position" and self._peek().value == "background":
            self._subject(noun)
            return
        part = (
            (noun.det in lexicon.POSSESSIVES and not is_animate(head))
            or head in lexicon.PARTS
            or (head in lexicon.CLOTHES and (host is None or host.animate or noun.count is None))
            or head in lexicon.MASS
            or (head in lexicon.MATTER and not noun.det and noun.count is None)
        )
        if host is not None and part and following not in ("relation", "position"):
            host.tail = (
                f"{host.tail} and {plain(noun)}"
                if " with " in f" {host.tail}"
                else f"{host.tail} with {plain(noun)}".strip()
            )
            self._after_list()
            return
        if host is None and self.in_place and noun.plural and noun.count is None and head in lexicon.GROWTH:
            self.scene.places.append(f"with {plain(noun)}")
            self._after_list()
            return
        things = self._for_each(self._things(noun))
        self.subjects, self.recent, self.settled = things, things, False
        name = host.head.lower() if host is not None else ""
        holder = name in lexicon.SUPPORTS | lexicon.CONTAINERS and self._peek().kind == "relation"
        if (
            holder
            and self._peek(2).kind == "np"
            and self._peek().value in ("on", "in", "near", "under", "behind", "front")
        ):
            self._relate("on" if name in lexicon.SUPPORTS else "in", things, [host])
            self.subjects = self.recent = [host]  # "a nest with three eggs in a tree": the nest is in the tree
            self.mode = ()
            return
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
        following = self._kind_after()
        first = not self.scene.things and not self.pending
        around = first and following in ("with", "have")
        scenery = is_scenery(noun, around) and head not in lexicon.ANIMATE | lexicon.CONTAINERS
        background = following == "position" and self._peek().value == "background"
        opens = following in ("with", "have", "rel", "stop") or self._peek().value in ("in", "loose")
        if head in lexicon.STYLE_NOUNS and first and opens and not self.scene.style:
            self.scene.style = inflection.with_article(noun.source)
            self.in_place, self.settled, self.mode = True, True, ()
            return
        if scenery and not background and noun.count is None and not self._known(noun):
            built = head in lexicon.BUILT and (following not in ("with", "have", "neg") or head in ("bridge",))
            if not built or (head in lexicon.MATTER and not noun.det):
                kind = "with " if self.scene.places or self.scene.things else ""
                if head in ("sunset", "sunrise", "dusk", "dawn", "night", "noon", "midnight") and not noun.det:
                    kind = "at "
                    first = True
                self.scene.places.append(f"{kind}{plain(noun)}" if first else f"with {plain(noun)}")
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

    def _absent(self, noun: NounPhrase) -> None:
        adjectives = [w for w in (*noun.before, noun.head) if w in lexicon.ADJECTIVES]
        if self._peek(-1).value == "copula" and adjectives and noun.before == tuple(adjectives)[: len(noun.before)]:
            self.scene.absent += [f"{' '.join(adjectives)} {t.head}" for t in self.subjects[-1:]]
            self.mode = ()
            return
        text = inflection.plural(noun.source) if noun.plural and not noun.source.endswith("s") else noun.source
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

    def _on_np(self, piece: Piece) -> None:
        noun: NounPhrase = piece.value
        mode = self.mode[0] if self.mode else ""
        if not noun.head or noun.head in ("one", "other", "ones", "others") or self._one_of(noun):
            self._instance(noun)
        elif mode == "neg" or noun.count == 0:
            self._absent(noun)
        elif mode == "is":
            self._predicate(noun)
        elif mode == "wear":
            text = f"{self.mode[1]} {plain(noun)}"
            both = self.mode[1] == "wearing" and len(self.subjects) == 2 and not any(t.worn for t in self.subjects)
            for thing in self.subjects if both else self.recent[-1:] or self.subjects[-1:]:
                thing.worn = f"{thing.worn} and {plain(noun)}" if thing.worn else text
            if not (self._peek().kind == "and" and _clothing(self._peek(2))):
                self.mode = ()
        elif self._is_tag(noun):
            self.scene.tags.append(f"{plain(noun)}")
        elif mode == "relation":
            self._relation_target(noun)
        elif mode == "verb" and noun.head in lexicon.MATTER | lexicon.TIMES and noun.det != "a" and noun.count is None:
            self.scene.places.append(f"with {plain(noun)}")
            self.mode = ()
        elif mode == "verb":
            things = self._things(noun)
            self._relate(self.mode[1], self.subjects or self.recent[-1:], things)
            self.settled = self.mode[1] == "on" or not self.subjects
            self.mode, self.recent = (), things
        elif mode == "with":
            self._with(noun)
        else:
            self._subject(noun)

    def _to_background(self) -> None:
        """The noun in front of "in the background": scenery becomes text, a thing moves up and back."""
        for thing in self.recent or self.subjects[-1:]:
            related = any(thing in r.subjects or thing in r.targets for r in self.scene.relations)
            scenery = thing.head in lexicon.PLACES or thing.head.endswith(lexicon.PLACE_ENDINGS)
            if (scenery or (not thing.counted and not thing.animate)) and not related and thing in self.scene.things:
                self.scene.things.remove(thing)
                text = " ".join(
                    [
                        *thing.before,
                        inflection.plural(thing.head) if thing.count > 1 else thing.phrase.split(" ", 1)[-1],
                    ]
                )
                noun = text if thing.count > 1 else thing.phrase
                self.scene.notes = [n for n in self.scene.notes if thing.head not in n or "drawn" not in n]
                self.scene.places.append(f"with {noun} in the background")
            else:
                thing.position, thing.scale = (thing.position[0], 0.2), 0.6
        self.subjects = [t for t in self.subjects if t in self.scene.things]
        self.recent, self.mode, self.settled = [], (), True


def _clothing(piece: Piece) -> bool:
    return piece.kind == "np" and piece.value.head in lexicon.CLOTHES
