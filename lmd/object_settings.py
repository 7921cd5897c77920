"""What one object of a layout has of its own: LoRAs, words, a seed, how it is guided, conditioning.

What is plain data is saved in the layout's JSON. Tensors are not: the JSON holds their digest, by which `rejoined`
finds them again in the layout that an edit was made from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from . import checks
from .limits import MAX_PHRASE, readable, within

MOST_LORAS = 10
MOST_STRENGTH = 20.0


@dataclass(frozen=True)
class ObjectLora:
    """A file as models/loras lists it, and how strongly it acts on the denoiser and on the text encoder (-20..20)."""

    file: str
    strength: float = 1.0
    clip_strength: float = 1.0

    def __post_init__(self) -> None:
        checks.kind(self, str, "file")
        object.__setattr__(self, "file", within("the name of a LoRA", self.file, MAX_PHRASE))
        for name in ("strength", "clip_strength"):
            checks.number(self, name, -MOST_STRENGTH, MOST_STRENGTH)


@dataclass(frozen=True, eq=False)
class Attached:
    """What an object has that is no plain data: a CONDITIONING of the host's."""

    conditioning: list | None = None


@dataclass(frozen=True)
class ObjectSettings:
    """One object's own settings; the defaults change nothing.

    `words` follow its phrase in the prompts, `negative` stands in front of its negative prompt. `guidance` multiplies
    the guidance strength of its own run, which is guided from `start` to `end` (shares of the sampling range). `seed`
    is its own run's. `frozen`: the composition keeps its latents as they are for its first steps. `conditioning` is the
    digest of the one in `attached`, "" without one.
    """

    loras: tuple[ObjectLora, ...] = ()
    words: str = ""
    negative: str = ""
    guidance: float = 1.0
    start: float = 0.0
    end: float = 1.0
    seed: int | None = None
    frozen: bool = True
    conditioning: str = ""
    attached: Attached = field(default=Attached(), compare=False, repr=False)

    def __post_init__(self) -> None:
        if not all(isinstance(lora, ObjectLora) for lora in self.loras) or len(self.loras) > MOST_LORAS:
            raise ValueError(f"an object has at most {MOST_LORAS} LoRAs, got {len(self.loras)}: merge some of them")
        for name in ("words", "negative", "conditioning"):
            checks.kind(self, str, name)
            object.__setattr__(self, name, within(f"the object's {name}", getattr(self, name).strip(), MAX_PHRASE))
        checks.number(self, "guidance", 0, MOST_STRENGTH)
        checks.number(self, "start", 0, 1)
        checks.number(self, "end", 0, 1)
        if self.start > self.end:
            raise ValueError(f"an object's guidance can't end before it starts, got {self.start:g} to {self.end:g}")
        checks.kind(self, bool, "frozen")
        if self.seed is not None:
            checks.whole(self, "seed", 0, 2**64 - 1)

    @property
    def missing(self) -> bool:
        """Whether the JSON came without the tensors that it tells of."""
        return bool(self.conditioning) and self.attached.conditioning is None

    def then(self, later: ObjectSettings) -> ObjectSettings:
        """These settings with those of a later node: LoRAs and words add up, strengths multiply, the rest replaces."""
        attached = later.attached if later.conditioning else self.attached
        return replace(
            self,
            loras=self.loras + later.loras,
            words=_joined(self.words, later.words),
            negative=_joined(self.negative, later.negative),
            guidance=self.guidance * later.guidance,
            start=max(self.start, later.start),
            end=min(self.end, later.end),
            seed=self.seed if later.seed is None else later.seed,
            frozen=self.frozen and later.frozen,
            conditioning=later.conditioning or self.conditioning,
            attached=attached,
        )

    def to_json(self) -> dict[str, Any]:
        """The wire form: what differs from the defaults; empty if nothing does."""
        found = {name: getattr(self, name) for name, value in _DEFAULTS.items() if getattr(self, name) != value}
        return found | ({"loras": [asdict(lora) for lora in self.loras]} if self.loras else {})

    @classmethod
    def from_json(cls, data: object) -> ObjectSettings:
        """Read the wire form. Raises ValueError naming what is wrong; unknown keys are errors, so none is lost."""
        if not isinstance(data, dict):
            raise ValueError(f'"settings" must be an object, got {readable(repr(data)[:80])}')
        unknown = sorted(str(k) for k in set(data) - set(_DEFAULTS) - {"loras"})
        if unknown:
            raise ValueError(
                f'"settings" has no {readable(unknown[0][:40])!r}; it has {", ".join(["loras", *_DEFAULTS])}'
            )
        loras = data.get("loras", [])
        if not isinstance(loras, list):
            raise ValueError(f'"loras" must be a list, got {readable(repr(loras)[:80])}')
        try:
            return cls(**{**data, "loras": tuple(ObjectLora(**lora) for lora in loras)})
        except TypeError:
            raise ValueError(
                'each of "loras" must be {"file": name, "strength": number, "clip_strength": number}, got '
                f"{readable(repr(loras)[:120])}"
            ) from None


_DEFAULTS = {f.name: f.default for f in fields(ObjectSettings) if f.name not in ("loras", "attached")}


def rejoined(settings: ObjectSettings, known: Iterable[ObjectSettings]) -> ObjectSettings:
    """The settings with the tensors that their digests name, from others that have them."""
    if not settings.missing:
        return settings
    found = next((k.attached for k in known if k.conditioning == settings.conditioning and not k.missing), None)
    return settings if found is None else replace(settings, attached=found)


def _joined(first: str, second: str) -> str:
    return ", ".join(part for part in (first, second) if part)
