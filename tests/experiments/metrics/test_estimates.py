"""Intervals against values worked out by hand."""

import pytest
from memx.experiments.metrics.estimates import mean_estimate, overlap_estimate, ratio_estimate, share_estimate


def test_wilson_interval_of_a_known_case():
    estimate = share_estimate([1.0] * 8 + [0.0] * 2)
    assert estimate.value == 80
    assert (estimate.low, estimate.high) == (pytest.approx(49.0, abs=0.1), pytest.approx(94.3, abs=0.1))
    nothing = share_estimate([0.0] * 20)
    assert nothing.low == pytest.approx(0.0) and 10 < nothing.high < 20


def test_mean_and_ratio():
    estimate = mean_estimate([0.0, 1.0], scale=100)
    assert (estimate.value, estimate.stderr) == (50.0, pytest.approx(50.0))
    ratio = ratio_estimate([2.0, 4.0], [1, 2])
    assert (ratio.value, ratio.stderr) == (2.0, 0.0)
    assert mean_estimate([3.0]).stderr is None


def test_scores_that_are_all_0_or_all_1_have_an_interval():
    assert overlap_estimate([0.0] * 20) == share_estimate([0.0] * 20) and overlap_estimate([0.0] * 20).high > 15
    assert overlap_estimate([1.0] * 20).low < 85
    assert overlap_estimate([0.0, 0.0, 0.5]).low == 0.0  # and not below
    within = overlap_estimate([0.4, 0.5, 0.6])
    assert within == mean_estimate([0.4, 0.5, 0.6], scale=100.0)
