"""Exact match and F1 against values worked out by hand."""

import pytest
from memx.experiments.metrics.answers import exact_match, f1, normalize


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


@pytest.mark.parametrize("right", ["...", "The", "?!"])
def test_an_answer_that_normalises_to_nothing_is_right_only_as_it_is_written(right):
    for empty in ("", " ", "a", "!", "the."):
        assert exact_match(empty, [right]) == f1(empty, [right]) == 0.0
    assert exact_match(right, [right]) == f1(right, [right]) == 1.0
