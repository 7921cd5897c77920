"""When ELLA's tokens are recomputed and how much: plain numbers, no tensors."""

from __future__ import annotations

from dataclasses import dataclass

TRAINED_TIMESTEPS = 1000
# Where tokens stay that nobody recomputes: the middle of the schedule is the least wrong on average.
STATIC_TIMESTEP = 500
SCHEDULES = ("constant", "fade in", "fade out")


@dataclass(frozen=True)
class RecomputeOptions:
    """How far the tokens follow the timestep.

    strength: 0 keeps the tokens of the fixed timestep, 1 takes those of the current one; between them, a blend.
    start_percent, end_percent: fractions of the diffusion process (0 = pure noise) between which they follow;
        none is recomputed where both are equal.
    schedule: `constant`, or strength rising (`fade in`) or falling (`fade out`) linearly over that range.
    """

    strength: float = 1.0
    start_percent: float = 0.0
    end_percent: float = 1.0
    schedule: str = "constant"

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(
                f"Unknown schedule '{self.schedule}'; TimestepAwareConditioning knows {', '.join(SCHEDULES)}."
            )
        for name in ("strength", "start_percent", "end_percent"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise ValueError(f"RecomputeOptions: {name} must be a number from 0 to 1, got {value!r}")
        if self.start_percent > self.end_percent:
            raise ValueError(
                f"RecomputeOptions: start_percent must not be above end_percent, got {self.start_percent:g} and "
                f"{self.end_percent:g}"
            )

    @property
    def neutral(self) -> bool:
        """True if no step is touched, so that the model's output stays bit-identical."""
        return self.strength == 0.0 or self.start_percent >= self.end_percent

    def strength_at(self, timestep: float) -> float:
        """Strength at a timestep 0..999; the progress is (999 - timestep) / 999."""
        progress = 1.0 - timestep / (TRAINED_TIMESTEPS - 1)
        if self.neutral or not self.start_percent <= progress <= self.end_percent:
            return 0.0
        along = (progress - self.start_percent) / (self.end_percent - self.start_percent)
        return self.strength * {"constant": 1.0, "fade in": along, "fade out": 1.0 - along}[self.schedule]


def checked_timestep(value: float, kind: str) -> int:
    """The timestep as the connector was trained with it: one of 0..999.

    Raises:
        ValueError: the model's notion of time is another one; `kind` names it in the message.
    """
    if not (0 <= value < TRAINED_TIMESTEPS and float(value).is_integer()):
        raise ValueError(
            f"ELLA's connector knows the timesteps 0 to {TRAINED_TIMESTEPS - 1} of Stable Diffusion 1.5, but this "
            f"model's sampling ({kind}) gives {value:g}. Use an SD1.5 model with discrete timesteps, without a "
            "continuous ModelSampling node, in TimestepAwareConditioning."
        )
    return int(value)
