"""Every parameter of the two stages in one frozen value, so that both see the same (docs/lmd.md, 7.2)."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from .. import checks
from ..layout import Box
from .compose import centred_box
from .energy import EnergyOptions
from .guidance import REFERENCE_STEPS, GuidanceOptions

PLACEMENTS = ("floor", "centre")


@dataclass(frozen=True)
class LMDOptions:
    """Parameters of LMD beyond seed, steps, CFG and sampler; the defaults are the reference's (7.2).

    `layers`: guided layers, "auto" or a list such as "middle.0, output.3".
    `blending_ratio`: how much of an object's own noise is mixed into the shared background noise, 0..1.
    `centre`, `horizontal_only`, `placement` ("floor" or "centre"), `floor_padding`: where an object is drawn in its own
    image. `align`, `align_horizontal_only`: shift objects to their boxes before composing.
    `fast_schedule`: skip every second step of an object's run once its latents are no longer needed.
    `stop_early`: end an object's run there instead; its picture is then the model's estimate.
    `objects_at_once`: how many objects are sampled in one batch, 0 = by free memory; it changes no result.
    `object_guidance`: guidance of the objects' own runs, where it is another than the composition's.
    `gligen_share`: for which share (0..1) of a run's steps a GLIGEN adapter is on, if one is given; `needs_gligen`: the
    other parameters make sense with one only (LMD+).
    `reference_seeds`: number objects by their place in the name order, as published; otherwise by their name, so that
    adding or renaming one leaves the noise of the others alone.
    `use_background`, `use_negative`: give objects the background prompt; use the layout's negative prompt.
    """

    guidance: GuidanceOptions = field(default_factory=GuidanceOptions)
    layers: str = "auto"
    blending_ratio: float = 0.01
    centre: bool = True
    horizontal_only: bool = False
    placement: str = "floor"
    floor_padding: float = 0.2
    align: bool = True
    align_horizontal_only: bool = False
    fast_schedule: bool = False
    stop_early: bool = False
    objects_at_once: int = 0
    reference_seeds: bool = False
    use_background: bool = True
    use_negative: bool = True
    object_guidance: GuidanceOptions | None = None
    gligen_share: float = 0.4
    needs_gligen: bool = False

    def __post_init__(self) -> None:
        checks.kind(self, GuidanceOptions, "guidance")
        checks.kind(self, str, "layers")
        checks.number(self, "blending_ratio", 0, 1)
        checks.number(self, "floor_padding", 0, 1)
        checks.number(self, "gligen_share", 0, 1)
        checks.kind(self, GuidanceOptions | None, "object_guidance")
        checks.one_of(self, "placement", PLACEMENTS)
        checks.whole(self, "objects_at_once", 0)
        checks.kind(self, bool, *(f.name for f in fields(self) if f.type == "bool"))

    def exact_steps(self, steps: int) -> int:
        """How many of `steps` freezing and transfer need; fast_schedule and stop_early leave those as they are (5.5)."""
        return max(-(-self.guidance.max_index_step * steps // REFERENCE_STEPS), steps // 2)

    def object_box(self, box: Box) -> Box:
        """Where an object with this box of the layout is drawn in its own image."""
        if not self.centre:
            return box
        if self.horizontal_only:
            return centred_box(box)
        if self.placement == "centre":
            return centred_box(box, False)
        return centred_box(box, False, "floor_padding", floor_padding=self.floor_padding)


PRESETS = {
    "reference": LMDOptions(),
    "paper": LMDOptions(guidance=GuidanceOptions(max_iter=(5,) * 5 + (4,) * 5 + (3,) * 5 + (2,) * 5 + (1,) * 10)),
    "fast": LMDOptions(
        guidance=GuidanceOptions(loss_scale=10.0, max_index_step=25, max_iter=(2,) * 5 + (1,) * 20), stop_early=True
    ),
    "few steps": LMDOptions(guidance=GuidanceOptions(catch_up=True)),
    "lmd+": LMDOptions(
        blending_ratio=0.1,
        centre=False,
        align=False,
        object_guidance=GuidanceOptions(max_index_step=0, energy=EnergyOptions(bg_weight=1.0)),
        needs_gligen=True,
    ),
}
"""`reference`: the published code. `paper`: the schedule of the paper's text. `fast`: this project's own, half as many
iterations of twice the strength, and objects that stop where they are no longer frozen; what it costs in obedience is
measured on the demo model only (demo/README.md, The table). `few steps`: for runs of 6 to 8 steps, with the iterations
of the reference steps that such a run passes over (docs/lmd.md, Few steps). `lmd+`: the published LMD+, whose objects
are placed by GLIGEN's adapter where they belong, without guidance of their own (docs/lmd.md, 12)."""


BASELINES = {
    "backward guidance": LMDOptions(
        guidance=GuidanceOptions(30.0, 0.2, 10, (5,), EnergyOptions(kind="ratio", reference_weight=0.0))
    ),
    "boxdiff": LMDOptions(
        guidance=GuidanceOptions(20.0, 0.0, 25, (1,), EnergyOptions(kind="boxdiff", reference_weight=0.0))
    ),
}
"""What LMD's authors compared it with, as they ran it: guidance of one run, without objects of their own (docs/lmd.md,
8). Source: arXiv 2304.03373 and 2307.10816; LLM-groundedDiffusion@cef2a90 generation/backward_guidance.py, boxdiff.py."""


REFINEMENT = LMDOptions(guidance=GuidanceOptions(max_index_step=50, max_iter=(1,)))
"""This project's own, for going over a finished picture below full denoise, where the published schedule has ended or
soon ends: one iteration in every step, to the last (docs/lmd.md, 14)."""


@dataclass(frozen=True)
class SamplingSettings:
    """How the objects were sampled; the composed image must be sampled alike, so these travel with them."""

    seed: int
    steps: int
    cfg: float
    sampler: str
    scheduler: str
    batch: int = 1

    def __post_init__(self) -> None:
        checks.whole(self, "seed", 0, 2**64 - 1)
        checks.whole(self, "steps", 1)
        checks.whole(self, "batch", 1)
        checks.number(self, "cfg", 0)
        checks.kind(self, str, "sampler", "scheduler")

    def background_seed(self, image: int) -> int:
        """The reference's seeds: one step of 6789 per repeated image (5.3)."""
        return (self.seed + 6789 * image) % 2**64

    def first_object_seed(self, image: int) -> int:
        """The seed that image `image` of the batch counts its objects' seeds from."""
        return (self.background_seed(image) + 123456789) % 2**64
