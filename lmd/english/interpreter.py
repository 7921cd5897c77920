"""Clauses -> Scene: which nouns name the same thing, how many there are, and which are sure enough for a box."""

from __future__ import annotations

import re
from functools import singledispatchmethod

from . import inflection, lexicon
from .certainty import is_sure
from .clauses import Aside, Attribute, Clause, Negation, Place, Position, Reference, Relation, Style, Subject
from .genre import Genre
from .noun_phrases import NounPhrase
from .references import References
from .scene import Thing
from .vocabulary import is_part_of, kind, speech

MOST_PER_KIND = 40
_FAR = 0.28  # of its usual size
CROWD = 60  # from here on one box stands for all
MOST_ATTRIBUTES = 6
MOST_UNCOUNTED = 8  # boxes without a number word
_VISIBLE = inflection.word_set(
    "burning glowing shining blooming steaming melting flying floating spinning rolling falling growing"
)
_WORDS = (
    "text",
    "word",
    "words",
    "letters",
    "inscription",
    "slogan",
    "name",
    "message",
    "title",
    "phrase",
    "lettering",
)
_VAGUE_PLACES = frozenset(
    ("room", "area", "place", "surface", "scene", "space", "setting", "air", "light", "ground", "distance")
)
_EMPTY = re.compile(
    r"\b(?:empty|deserted) (?:[\w-]+ ){0,3}(?:street|road|alley|avenue|highway|beach|plaza|square|park|"
    r"station|platform|stadium|cafe|restaurant|diner|mall|city|town|village|playground|subway|classroom|corridor|hallway|theat(?:er|re)|"
    r"church|school|office|market|bar|street_corner|parking_lot|library|museum|sidewalk|pier|airport|hospital|ballroom)s?\b"
)
_PREDICATES = lexicon.PLAIN | inflection.word_set(
    "happy sad angry asleep wet dirty rusty wooden shiny fluffy tilted lit frozen rotten ripe"
)


class Interpreter(References):
    """Walks over the clauses once; `scene` holds the result."""

    def __init__(self, genre: Genre) -> None:
        super().__init__()
        self.genre = genre
        self.dress: list[tuple[Thing, NounPhrase]] = []  # tags of dress and bodies, with the person before them

    def read(self, clauses: list[Clause]) -> None:
        """Applies the clauses in order and completes the scene."""
        for clause in clauses:
            self.on(clause)
        self._finish()

    @singledispatchmethod
    def on(self, clause: Clause) -> None:
        """Applies one clause to the scene; one function per kind of clause."""
        raise TypeError(f"unknown clause {clause!r}")

    # things

    @on.register
    def _(self, clause: Subject) -> None:
        if clause.role == "instance":
            for who in clause.nouns:
                assert isinstance(who, Reference)
                self.pick(who)
            return
        if clause.role == "each":
            self.for_each([t for n in clause.nouns if isinstance(n, NounPhrase) for t in self.things_of(n)])
            return
        for noun in clause.nouns:
            assert isinstance(noun, NounPhrase)
            self._introduce(noun, clause.role, clause.sentence)

    def _introduce(self, noun: NounPhrase, role: str, sentence: int) -> None:
        if (known := self.known(noun)) is not None:
            self.remember(noun, known)
            if noun.count is not None and self.genre.tags:
                known[0].count = min(noun.count, MOST_PER_KIND)
            return
        if role == "tag" and self._belongs_to_person(noun):
            return
        if not is_sure(noun, role, sentence, self.genre, self.scene):
            self._leave_out(noun, role)
            return
        self.remember(noun, [self._new(noun)])

    def _belongs_to_person(self, noun: NounPhrase) -> bool:
        """Tags behind a person are that person's: hair, dress, what can be carried."""
        people = [t for t in self.scene.things if t.animate]
        owner = people[-1] if people else None
        if owner is None:
            return self._belongs_to_thing(noun)
        dressed = (
            noun.kind in ("worn", "body")
            or noun.head in lexicon.PARTS - lexicon.LARGE
            or noun.source.endswith("glasses")
        )
        if any(not speech(w.lower()) for w in noun.before):
            return False
        carried = (
            self.genre.booru
            and kind(owner.head) == "person"
            and noun.kind == "thing"
            and noun.head not in lexicon.LARGE
        )
        if not dressed and not carried:
            return False
        self.remember(noun, [owner])
        self.dress.append((owner, noun))
        return True

    def _belongs_to_thing(self, noun: NounPhrase) -> bool:
        """ "a bicycle, rusty wheels": parts of the thing named last."""
        owner = self.scene.things[-1] if self.scene.things else None
        part = owner is not None and is_part_of(noun.head, owner.head) and (noun.plural or not noun.solid)
        if owner is None or not part or noun.kind == "weather":
            return False
        self.remember(noun, [owner])
        self._give(owner, "with", noun.written)
        return True

    def _dress_people(self) -> None:
        """Tags on the people they belong to: as many of one kind as there are people are one each, others are all theirs."""
        for owner in dict.fromkeys(o for o, _ in self.dress):
            tags = [n for o, n in self.dress if o is owner]
            kinds = {n.head: [m for m in tags if m.head == n.head] for n in tags}
            wearers = [t for t in self.scene.things if t.head == owner.head or t is owner]
            apart = [same for same in kinds.values() if len(same) > 1]
            several = [t for t in self.scene.things if kind(t.head) == "person"]
            if apart and wearers == [owner] and len(several) == owner.count == len(apart[0]):
                several = wearers
            if len(wearers) == 1 and owner.count == len(apart[0] if apart else ()) > 1:
                several = wearers = self.split(owner)
            elif len(several) != len(apart[0] if apart else ()) or any(t.count > 1 for t in several):
                several = wearers
            for noun in tags:
                same = kinds[noun.head]
                each = len(same) == len(several) > 1
                for person in [several[same.index(noun)]] if each else wearers:
                    self._give(person, "with", noun.written)

    def _give(self, thing: Thing, how: str, text: str) -> None:
        """One more attribute behind the noun."""
        old = f" {thing.tail} "
        if text in old or old.count(" and ") >= MOST_ATTRIBUTES:
            return
        joined = f"{thing.tail} and {text}" if f" {how} " in old else f"{thing.tail} {how} {text}"
        thing.tail = joined.strip()

    def _leave_out(self, noun: NounPhrase, role: str) -> None:
        if role == "tag" and (noun.solid or noun.kind == "place") and all(speech(w.lower()) for w in noun.before):
            self.scene.places.append(f"with {noun.written}")
            self.scene.left_out.append(noun.source)
        elif noun.solid or noun.kind in ("", "group"):
            self.scene.left_out.append(noun.source)

    def _new(self, noun: NounPhrase) -> Thing:
        pair = noun.head in inflection.PAIR_NOUNS or noun.head == "glasses"
        mass = noun.head in lexicon.MATTER - {"star", "cloud", "wall", "light"} and not noun.det and noun.count is None
        mass = mass or noun.head in lexicon.MASS and noun.count is None and noun.det not in ("a", "an")
        count = noun.count or 1
        if noun.plural and noun.count is None and not mass and not pair:
            count = 2 if noun.det == "both" else 3
            self.scene.note(f'"{noun.source}": no number given, {count} drawn')
        elif noun.vague:
            self.scene.note(f'"{noun.source}": no exact number given, {count} drawn')
        if pair and noun.det == "a":
            count = 1
        if count > CROWD:
            many = inflection.plural(noun.head)
            self.scene.note(f'"{count} {noun.source}": far more than fit, so one box holds a crowd of them')
            crowd = Thing(
                "crowd" if noun.kind == "person" else "group", ["large"], f"of {' '.join([*noun.before, many])}"
            )
            self.scene.things.append(crowd)
            return crowd
        if count > MOST_PER_KIND:
            self.scene.note(f'"{count} {noun.source}": more than fit, {MOST_PER_KIND} drawn')
            count = MOST_PER_KIND
        name = noun.name or noun.kind == "" and noun.bare and not noun.plural
        thing = Thing(noun.head, list(noun.before), noun.tail, count=count, det=noun.det, name=name, mass=mass or pair)
        thing.counted = noun.count is not None and not noun.vague
        self.scene.things.append(thing)
        return thing

    # what is said of them

    @on.register
    def _(self, clause: Attribute) -> None:
        for thing in self.resolve(clause.nouns):
            if clause.how == "action":
                visible = thing.animate or clause.text in lexicon.ADJECTIVES or clause.text in _VISIBLE
                if clause.text not in thing.actions and visible and not thing.actions:
                    thing.actions.insert(0, clause.text)
            elif clause.how == "adjective":
                words = [w for w in clause.text.split() if w in _PREDICATES and w not in thing.before]
                thing.before = [*words, *thing.before]
            elif clause.how == "says":
                link = "" if thing.tail.endswith(_WORDS) else "that says "
                thing.tail = f"{thing.tail} {link}{clause.text}".strip()
            elif clause.how == "with":
                self._give(thing, "with", clause.text)
            elif clause.how == "as":
                thing.worn = f"{thing.worn} as {clause.text}".strip()
            else:
                thing.worn = f"{thing.worn} and {clause.text}" if thing.worn else f"{clause.how} {clause.text}"

    @on.register
    def _(self, clause: Position) -> None:
        who = list(self.scene.things) if clause.nouns[:1] == (Reference("everything"),) else self.resolve(clause.nouns)
        if clause.kind in ("left", "right", "above", "below"):
            self.in_order(clause.kind, who)
        elif clause.kind in ("row", "stack"):
            self.in_order("near" if clause.kind == "row" else "above", who)
        elif clause.kind == "background":
            self._to_background(who)
            for noun in clause.nouns:
                if isinstance(noun, NounPhrase) and not self.meant.get(noun.at):
                    self.scene.places.append(f"with {noun.written} in the background")
        elif clause.kind == "far":
            for thing in who:
                thing.scale *= _FAR
                thing.position = (thing.position[0], 0.2)
        elif clause.kind == "dwarfed":
            for thing in who:
                thing.scale *= _FAR
        elif clause.kind in ("ontop", "sides", "beside"):
            anchor = [t for t in self.scene.things if t not in who][-1:]
            if anchor and who:
                self.relate({"ontop": "on", "sides": "around", "beside": "near"}[clause.kind], who, anchor)
            elif clause.kind == "ontop" and who:
                self.place(who, (None, 0.15))
        elif who:
            self.place(who, clause.where)

    def _to_background(self, who: list[Thing]) -> None:
        """The noun in front of "in the background": scenery becomes text, a thing moves up and back."""
        for thing in who:
            related = any(thing in r.subjects or thing in r.targets for r in self.scene.relations)
            scenery = thing.head in lexicon.PLACES or thing.head.endswith(lexicon.PLACE_ENDINGS)
            if (scenery or (not thing.counted and not thing.animate)) and not related and thing in self.scene.things:
                self.scene.things.remove(thing)
                noun = " ".join([*thing.before, inflection.plural(thing.head)]) if thing.count > 1 else thing.phrase
                self.scene.notes = [n for n in self.scene.notes if thing.head not in n or "drawn" not in n]
                self.scene.places.append(f"with {noun} in the background")
            else:
                thing.position, thing.scale = (thing.position[0], 0.2), 0.6

    @on.register
    def _(self, clause: Relation) -> None:
        subjects = self.resolve(clause.nouns)
        if clause.kind == "own":
            self._on_own_body(subjects, clause)
            return
        targets = self.resolve(clause.targets, besides=subjects)
        wanted = [t.text for t in clause.targets if isinstance(t, Reference)]
        itself = subjects and wanted[:1] == ["it"]  # "a sign with STOP on it"
        if not targets and wanted and not self.scene.left_out and not itself:
            self.scene.note(f'not understood: what "{wanted[0]}" stands for')
        self.relate(clause.kind, subjects, targets)

    def _on_own_body(self, subjects: list[Thing], clause: Relation) -> None:
        """ "on its back", "in her hand": the owner stands in for its part."""
        owner = next((t.noun for t in clause.targets if isinstance(t, Reference)), None)
        owners = [t for t in self.mentions if t not in subjects and t in self.scene.things]
        owners = [t for t in owners if t.animate] or owners
        together = [{*r.subjects, *r.targets} for r in self.scene.relations]
        if not subjects or not owners or any({owners[-1], s} <= ends for ends in together for s in subjects):
            return
        part = owner.head if owner is not None else ""
        flat = (
            clause.text == "on"
            and not any(s.animate for s in subjects)
            and part not in ("back", "head", "lap", "shoulder", "hand")
        )
        if flat:
            self.add("in", subjects, owners[-1:], flat=True)
        else:
            self.relate("on" if clause.text == "on" else "near", subjects, owners[-1:])

    @on.register
    def _(self, clause: Negation) -> None:
        noun = clause.noun
        text = inflection.plural(noun.source) if noun.plural and not noun.source.endswith("s") else noun.source
        if noun.head == "person" and noun.plural:
            text = noun.source
        full = f"{text} {noun.tail}".strip()
        if full not in self.scene.absent:
            self.scene.absent.append(full)
        self.scene.absent_heads.add(noun.head)

    @on.register
    def _(self, clause: Place) -> None:
        noun = clause.noun
        said = {w for p in self.scene.places for w in p.lower().split()}
        if (
            noun is not None
            and noun.det == "the"
            and self.scene.places
            and (noun.head in said or noun.head in _VAGUE_PLACES)
        ):
            return
        if clause.text not in self.scene.places:
            self.scene.places.append(clause.text)

    @on.register
    def _(self, clause: Style) -> None:
        if clause.leading and not self.scene.style:
            article = not clause.text.startswith(("a ", "an ")) and not clause.text[:1].isupper()
            self.scene.style = inflection.with_article(clause.text) if article else clause.text
        else:
            self.scene.tags.append(clause.text)

    @on.register
    def _(self, clause: Aside) -> None:
        if clause.reason:
            self.scene.note(clause.reason)

    def _keep_few(self) -> None:
        """Without a number word, what is named last gets no box of its own once there are many."""
        loose = [t for t in self.scene.things if not t.counted]
        while sum(t.count for t in loose) > MOST_UNCOUNTED and len(loose) > 1:
            last = loose.pop()
            self.scene.things.remove(last)
            self.scene.left_out.append(" ".join([*last.before, last.head]))

    def _empty_places(self) -> None:
        """ "an empty street" holds nobody, unless the prompt names somebody."""
        scene = self.scene
        somebody = any(t.animate or t.name for t in scene.things) or self.genre.somebody
        empty = [p for p in scene.places if _EMPTY.search(p.lower())]
        if empty and not somebody and not any("people" in a or "person" in a for a in scene.absent):
            scene.absent.append("people")

    def _finish(self) -> None:
        self._dress_people()
        self._keep_few()
        scene = self.scene
        for thing in list(scene.things):
            if thing.head in scene.absent_heads and not thing.before and not thing.counted and thing.det != "a":
                scene.note(f'"{thing.head}" is both wanted and excluded; it was drawn')
        wanted = {t.head for t in scene.things}
        self._empty_places()
        scene.absent = [a for a in scene.absent if (inflection.singular(a) or a) not in wanted]
