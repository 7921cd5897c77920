"""Pieces of English -> Scene: who is where, what is background, what must not appear."""

from __future__ import annotations

from . import inflection, lexicon, verbs
from .chunker import NounPhrase, Piece
from .noun_phrases import Nouns
from .scene import Scene

_VISIBLE = inflection.word_set(
    "burning glowing shining blooming steaming melting flying floating spinning rolling falling growing"
)


class Reader(Nouns):
    """Walks over the pieces once, keeping the current subjects and the most recent things."""

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

    def _on_style(self, piece: Piece) -> None:
        noun: NounPhrase = piece.value
        if not self.scene.style:
            article = "" if noun.name else ("a " if not noun.det or noun.det in ("a", "an", "the") else "")
            self.scene.style = inflection.with_article(noun.source) if article else noun.source

    def _on_stop(self, piece: Piece) -> None:
        self.subjects, self.mode, self.pending, self.settled = [], (), (), True
        self.in_place, self.last_relation, self.host = False, "", None

    def _on_comma(self, piece: Piece) -> None:
        if self.mode[:1] in (("relation",), ("verb",)):
            self.mode = ()
        if piece.text == ":" and self.recent and self.recent[-1].count > 1:
            self.listed, self.subjects = (self.recent[-1], len(self.scene.things)), []
        if self.mode[:1] == ("neg",) and not (
            self._peek().kind in ("np", "or", "and") and self._bare(self._peek(1 if self._peek().kind == "np" else 2))
        ):
            self.mode = ()
        if self.mode[:1] == ("with",) and self._peek().kind not in ("np", "and"):
            self.mode = ()

    def _on_and(self, piece: Piece) -> None:
        following = self._peek()
        if self.mode[:1] == ("neg",) and following.kind == "np":
            if not self._bare(following) and not (self.mode[1] and following.value.count is None):
                self.mode = ()
        elif self.mode[:1] == ("verb",):
            self.mode = ()

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
        verb = self.verb = piece.value
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
        if where == "view":
            self.scene.tags.append(piece.text)
            return
        if where == "own side":
            side = "left" if "left" in piece.text else "right"
            self._relate(side, self.subjects or self.recent, self._antecedent("it"))
            self.settled = True
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
            anchor = [self.host] if self.host in self.scene.things and self.host not in self.subjects else anchor
            if anchor and self.subjects:
                self._relate({"ontop": "on", "sides": "around", "beside": "near"}[where], self.subjects, anchor)
            elif where == "ontop" and self.subjects:
                self._place(self.subjects, (None, 0.15))
        elif self.subjects or self.recent:
            self._place(self.subjects or self.recent, where)
        self.settled = where != "row"

    def _on_order(self, piece: Piece) -> None:
        self._in_order(piece.value, self.scene.things if len(self.subjects) < 2 else self.subjects)

    def _on_relation(self, piece: Piece) -> None:
        kind, following = piece.value, self._peek()
        if self.mode[:1] == ("neg",):
            self.mode = ()
            if following.kind != "np":
                return
            self.at += 1
            placed = self._background_if_place(kind, following.value)
            if placed or not self.subjects:
                return  # "no people on the sofa": the place of an absent thing is not drawn
            self.at -= 1  # "a cat without a collar next to a dog": back to the cat
        if following.kind == "and" and self.recent:  # "a picture above and a rug below the fireplace"
            self.deferred.append((kind, list(self.subjects or self.recent)))
            self.settled = True
            return
        if following.kind == "neg" or following.kind not in ("np", "pron", "verb", "style", "adverb"):
            if kind not in ("loose", "near", "along", "from", "during"):
                self.scene.note(f'not understood: "{piece.text}" with nothing after it')
            return
        if kind == "from" and self.verb in ("hanging", "hangs", "hang", "hung", "dangling"):
            kind = "under"
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

    def _finish(self) -> None:
        scene = self.scene
        if self.listed is not None:  # "three people: a man, a woman and a boy" are three
            whole, start = self.listed
            named = scene.things[start:]
            if whole in scene.things and sum(t.count for t in named[: whole.count]) == whole.count:
                scene.things.remove(whole)
        for thing in list(scene.things):
            if thing.head in scene.absent_heads and not thing.before and not thing.counted and thing.det != "a":
                scene.note(f'"{thing.head}" is both wanted and excluded; it was drawn')
        wanted = {t.head for t in scene.things}
        scene.absent = [a for a in scene.absent if (inflection.singular(a) or a) not in wanted]


def read(prompt: str) -> Scene:
    """What a prompt says, as far as it was understood; `Scene.notes` holds the rest."""
    return Reader(prompt).read()
