"""Which nouns are surroundings or style rather than things with a box."""

from __future__ import annotations

from . import lexicon
from .chunker import NounPhrase, is_scenery
from .reader_state import Memory, plain

_PLACE_WORD = {"in": "in", "inside": "in", "amid": "in", "on": "on", "near": "by", "along": "along", "above": "over",
               "under": "under", "below": "under", "during": "during", "from": "in", "behind": "in", "loose": "in"}  # fmt: skip


class Places(Memory):
    """Adds the background to the reader."""

    def _is_tag(self, noun: NounPhrase) -> bool:
        """ "..., cinematic lighting, 4k": style words behind the scene, or a style noun alone in front of it."""
        before = self._peek(-1).kind
        if self.mode[:1] == ("relation",):
            return noun.head == "style" and self.mode[1] == "in"
        alone = self.at == 0 and noun.head in lexicon.STYLE_NOUNS | {"style"} and self._peek().kind in ("comma", "stop")
        behind = before in ("comma", "stop") and (self.scene.things or self.scene.places)
        return bool(alone or behind or (before == "and" and self.scene.tags)) and self._tagged(noun)

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
        scenery = is_scenery(noun, kind not in ("on", "under", "below", "above", "behind", "front"))
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
            return (
                head in lexicon.SKY or last in lexicon.SKY or head in ("rain", "snow", "sunlight", "shade", "ceiling")
            )
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
        self.scene.places.append(f"{written} {plain(noun)}".strip())
        self.in_place = self.settled = True
        return True

    def _written(self, kind: str) -> str:
        for n in (0, -1, -2):
            piece = self._peek(n)
            if piece.kind == "relation":
                return piece.text if piece.text in ("in", "on", "at", "by", "under", "along", "over", "above", "across",
                    "through", "against", "near", "during") else _PLACE_WORD.get(kind, "in")  # fmt: skip
        return _PLACE_WORD.get(kind, "in")
