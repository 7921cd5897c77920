"""What SDXL's refiner is run with, against the published vectors and the numbers that the documentation gives."""

import importlib.util
import json
from pathlib import Path

import pytest
from ella_lmd.lmd.sampling import refinement
from ella_lmd.lmd.sampling.refinement import Refinement

_path = Path(__file__).resolve().parents[1] / "golden" / "refine_cases.py"
_spec = importlib.util.spec_from_file_location("golden_refine_cases", _path)
cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cases)


@pytest.fixture(scope="module")
def published(golden):
    return json.loads((golden / "lmd_plus" / "sdxl_refine.json").read_text())["cases"]


def test_the_published_vectors(published):
    assert len(published) == 5
    for case in published:
        cases.check_refinement(case["input"], case["expected"], {})


def test_a_wrong_number_and_an_unknown_field_are_named(published):
    own, expected = published[0]["input"], published[0]["expected"]
    sigmas = [*expected["sigmas"][:-2], expected["sigmas"][-2] + 2e-5, 0.0]
    wrong = [("sigmas", sigmas), ("seed", 7890), ("steps_run", 14), ("negative", refinement.NEGATIVE)]
    for name, value in wrong:
        with pytest.raises(AssertionError, match=f"^{name}"):
            cases.check_refinement(own, {**expected, name: value}, {})
    with pytest.raises(AssertionError, match="expected: unknown field 'watermark'"):
        cases.check_refinement(own, {**expected, "watermark": True}, {})
    with pytest.raises(AssertionError, match="input: unknown field 'size'"):
        cases.check_refinement({**own, "size": 512}, expected, {})
    with pytest.raises(AssertionError, match="input: 'seed' is there twice"):
        cases.check_refinement({**own, "seed": 1}, expected, {})
    with pytest.raises(AssertionError, match="input: no field 'bg_seed'"):
        cases.check_refinement({k: v for k, v in own.items() if k != "bg_seed"}, expected, {})


def test_steps_are_truncated_as_the_reference_does():
    steps = {0.0: 0, 0.01: 0, 0.1: 5, 0.29: 14, 0.3: 15, 0.35: 17, 0.5: 25, 0.58: 28, 0.99: 49, 1.0: 50}
    assert {s: Refinement(s).steps for s in steps} == steps
    assert Refinement(0.3).timesteps == tuple(range(281, 0, -20))
    assert Refinement(0.0).sigmas == (0.0,)


def test_one_ksampler_is_enough_for_every_twentieth_but_two():
    assert [i for i in range(1, 21) if not Refinement(i / 20).one_ksampler] == [1, 3]
    assert not Refinement(0.0).one_ksampler


def test_an_absent_negative_leaves_no_comma_but_in_the_published_form():
    assert refinement.refinement_negative("") == refinement.NEGATIVE
    assert refinement.refinement_negative("", exact=True) == ", " + refinement.NEGATIVE
    assert refinement.refinement_negative("people") == "people, " + refinement.NEGATIVE
    assert refinement.refinement_seed(2**64 - 1) == 7889
    with pytest.raises(ValueError, match="strength must be a number from 0 to 1, got 1.5"):
        Refinement(1.5)
