"""How tables write values with intervals: ± where both halves are alike, the interval where they are not."""

import pytest
from memx.results.labels import with_interval


@pytest.mark.parametrize(
    ("value", "low", "high", "digits", "written"),
    [
        (42.8, 39.7, 45.9, 1, "42.8 ±3.1"),
        (42.8, 39.8, 45.9, 1, "42.8 ±3.1"),
        (100.0, 93.6, 100.0, 1, "100.0 [93.6, 100.0]"),
        (0.0, 0.0, 56.1, 1, "0.0 [0.0, 56.1]"),
        (13.7, 8.0, 22.0, 1, "13.7 [8.0, 22.0]"),
        (1.0, 1.0, 1.0, 2, "1.00 ±0.00"),
        (1.0, 1.0, 1.0 + 1e-12, 2, "1.00 ±0.00"),
        (1.0, None, None, 2, "1.00"),
    ],
)
def test_an_interval_is_written_as_it_is(value, low, high, digits, written):
    assert with_interval(value, low, high, digits) == written


def test_the_interval_of_one_measurement_is_left_out():
    assert with_interval(1.0, 1.0, 1.0, 2, n=1) == "1.00"


def test_signs_are_written_at_both_ends():
    assert with_interval(0.1, -0.1, 0.2, 2, "+") == "+0.10 [-0.10, +0.20]"
