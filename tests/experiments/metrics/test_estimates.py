"""Answer metrics and intervals against values worked out by hand."""

import pytest
from memx.experiments.metrics.estimates import (
    exact_match,
    f1,
    mean_estimate,
    normalize,
    ratio_estimate,
    share_estimate,
)


@pytest.mark.parametrize(
    ("text", "normal"),
    [("The  Hague!", "hague"), ("a U.S.A.", "usa"), ("An apple, an ape", "apple ape"), ("Théa", "théa")],
)
def test_squad_normalisation(text, normal):
    assert normalize(text) == normal


def test_exact_match_takes_any_accepted_answer():
    assert exact_match("the New York.", ["Chicago", "New York"]) == 1
    assert exact_match("York", ["New York"]) == 0
    assert exact_match("", ["The"]) == 0
    assert exact_match("The", ["The"]) == 1


def test_f1_by_hand():
    assert f1("New York City", ["New York"]) == pytest.approx(2 * 2 / (3 + 2))
    assert f1("york york", ["new york"]) == pytest.approx(2 * 1 / 4)
    assert f1("Paris", ["Rome", "paris"]) == 1
    assert f1("", ["Rome"]) == 0


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
