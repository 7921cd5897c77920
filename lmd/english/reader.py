"""English prompts of any kind -> Scene: markup off, pieces, clauses, scene."""

from __future__ import annotations

from .markup import plain_english
from .nouns import is_english
from .scene import Scene

_SHOWN = 6  # nouns that one note names
_MODEL = "a language model as source, or the layout editor, gives what was left out boxes of their own"


def read(prompt: str) -> Scene:
    """What a prompt says, as far as it was understood; `Scene.notes` says what was left out and why."""
    from .genre import genre_of  # the grammar is compiled when the first prompt is read, not when the host starts
    from .interpreter import Interpreter
    from .parser import clauses_of
    from .pieces import pieces_of

    text = plain_english(prompt)
    if not is_english(text):
        scene = Scene()
        scene.places.append(" ".join(text.split()))
        scene.note(
            "the prompt is not in English, so nothing was laid out: choose a language model as source, or the layout editor"
        )
        return scene
    pieces = pieces_of(text)
    words = sum(len((p.noun.source if p.noun else p.text).split()) for p in pieces)
    reading = Interpreter(genre_of(pieces, words))
    reading.read(clauses_of(pieces))
    _say_what_is_missing(reading.scene)
    return reading.scene


def _say_what_is_missing(scene: Scene) -> None:
    names = list(dict.fromkeys(scene.left_out))
    if not names:
        return
    shown = ", ".join(f'"{n}"' for n in names[:_SHOWN]) + (" and others" if len(names) > _SHOWN else "")
    scene.note(f"left to the overall prompt, for want of certainty: {shown}; {_MODEL}")
