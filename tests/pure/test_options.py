"""Options refuse what they do not know where they are made: nothing falls back silently."""

import dataclasses
import math
import typing

import pytest
from ella_lmd.ella.checkpoint import T5Config
from ella_lmd.ella.connector import ConnectorConfig
from ella_lmd.ella.schedule import RecomputeOptions
from ella_lmd.lmd.sampling.energy import EnergyOptions, GuidedObject
from ella_lmd.lmd.sampling.guidance import GuidanceOptions
from ella_lmd.lmd.sampling.masks import MaskOptions
from ella_lmd.lmd.sampling.options import PRESETS, LMDOptions, SamplingSettings

VALID = [
    EnergyOptions(),
    GuidanceOptions(),
    LMDOptions(),
    MaskOptions(),
    RecomputeOptions(),
    ConnectorConfig(),
    SamplingSettings(1, 20, 7.5, "ddim", "ddim_uniform"),
    T5Config(8, 8, 8, 8, 8, 8),
]
WRONG = {
    float: (math.nan, math.inf, -0.01, "0.5", None, True),
    int: (-1, 1.5, "3", None, True),
    bool: ("false", 1, None),
    str: ("center", "Ratio", None),
    tuple: ((-4,), (1.5,), 3, [1], ("2",), (101,), None),
}
FREE_TEXT = {"layers", "sampler", "scheduler"}


@pytest.mark.parametrize("valid", VALID, ids=lambda o: type(o).__name__)
def test_every_field_refuses_what_it_does_not_know_and_names_itself(valid):
    types = typing.get_type_hints(type(valid))
    for field in dataclasses.fields(valid):
        kind = typing.get_origin(types[field.name]) or types[field.name]
        optional = type(None) in typing.get_args(types[field.name])
        wrong = WRONG.get(kind, ("text",) if optional else (None, "text"))
        for value in wrong[-1:] if field.name in FREE_TEXT else wrong:
            with pytest.raises(ValueError, match=rf"{field.name}|{type(valid).__name__}|schedule"):
                dataclasses.replace(valid, **{field.name: value})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LMDOptions(placement="center"), 'LMDOptions: placement must be "floor" or "centre", got \'center\''),
        (
            lambda: EnergyOptions(kind="Ratio"),
            'EnergyOptions: kind must be "top" or "ratio" or "boxdiff", got \'Ratio\'',
        ),
        (lambda: EnergyOptions(fg_top_p=-3), "EnergyOptions: fg_top_p must be a number from 0 to 1, got -3"),
        (
            lambda: GuidanceOptions(max_iter=(-4,)),
            r"max_iter must be a tuple of whole numbers from 0 to 100, got \(-4,\)",
        ),
        (lambda: GuidanceOptions(max_index_step=51), "max_index_step must be a whole number from 0 to 50, got 51"),
        (
            lambda: RecomputeOptions(start_percent=0.7, end_percent=0.2),
            "start_percent must not be above end_percent, got 0.7 and 0.2",
        ),
        (lambda: GuidedObject("a cat", (), (), 3), 'positions must hold a column of "a cat", got none'),
        (lambda: SamplingSettings(1, 0, 7.5, "ddim", "normal"), "steps must be a whole number of at least 1, got 0"),
    ],
)
def test_the_message_says_what_was_received_and_what_is_allowed(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_all_presets_and_the_ends_of_the_ranges_are_allowed():
    assert all(isinstance(o, LMDOptions) for o in PRESETS.values())
    EnergyOptions(0, 1, 0, 0, 0)
    GuidanceOptions(0, 0, 0, ())
    GuidanceOptions(100, 0.2, 50, (0, 100))
    SamplingSettings(2**64 - 1, 1, 0, "", "", 1)


@pytest.mark.parametrize(
    "wrong", [{"positions": [1]}, {"positions": (-1,)}, {"word": -1}, {"word": 1.5}, {"numbers": (0,)}]
)
def test_a_guided_object_refuses_columns_that_are_none(wrong):
    with pytest.raises(ValueError, match=f"GuidedObject: {next(iter(wrong))} must be"):
        GuidedObject(**{"phrase": "a cat", "boxes": (), "positions": (1,), "word": 1} | wrong)


@pytest.mark.parametrize(
    ("steps", "last", "needed"),
    [(50, 30, 30), (20, 30, 12), (7, 30, 5), (6, 30, 4), (1, 30, 1), (7, 0, 3), (7, 50, 7), (3, 17, 2)],
)
def test_every_step_that_guidance_reaches_into_is_kept(steps, last, needed):
    """Steps are cut off only where neither transfer (the last guided step, rounded up) nor freezing (half) needs them."""
    assert LMDOptions(guidance=GuidanceOptions(max_index_step=last)).exact_steps(steps) == needed
