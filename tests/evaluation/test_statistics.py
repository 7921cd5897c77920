"""Intervals and tests."""

import pytest
from ella_lmd.evaluation.images.graphs import shared
from ella_lmd.evaluation.statistics import bootstrap, interval, sign_test, wilson


def test_wilsons_interval():
    assert wilson(8, 10) == pytest.approx((0.490, 0.943), abs=0.001)
    assert wilson(0, 100)[0] == pytest.approx(0, abs=1e-12) and wilson(100, 100)[1] == pytest.approx(1)
    assert wilson(0, 0) == (0, 1)


def test_the_bootstrap_is_of_the_mean_and_always_the_same():
    values = [0.25, 0.5, 0.75, 1.0] * 25
    low, high = bootstrap(values)
    assert low < 0.625 < high and high - low == pytest.approx(2 * 1.96 * 0.2795 / 10, rel=0.15)
    assert bootstrap(values) == (low, high) and bootstrap([0.5] * 9) == (0.5, 0.5)


def test_the_kind_of_interval_follows_the_scores():
    assert interval([1.0, 0.0, 1.0])[1] == "Wilson" and interval([0.5, 1.0])[1] == "bootstrap"


def test_the_sign_test_is_exact_and_passes_over_ties():
    assert sign_test([(1, 0)] * 5 + [(1, 1)] * 20) == (5, 0, pytest.approx(2 / 32))
    assert sign_test([(1, 0)] * 8 + [(0, 1)] * 2) == (8, 2, pytest.approx(2 * 56 / 1024))
    assert sign_test([]) == sign_test([(1, 1)]) == (0, 0, 1.0)


def test_an_image_that_had_its_objects_from_another_row_is_told():
    graph = {"1": {"class_type": "CheckpointLoaderSimple"}, "2": {"class_type": "BoxGroundedSampler"}}
    assert shared(graph, ["1"]) == [] and shared(graph, ["1", "2", "gone"]) == ["BoxGroundedSampler"]
