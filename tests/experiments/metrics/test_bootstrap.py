"""The bootstrap against the normal interval, its coverage on simulated prompts, and means by hand."""

import numpy as np
import pytest
from memx.experiments.evolution.rows import stratified
from memx.experiments.metrics.bootstrap import Bootstrap

FAMILIES = ["a"] * 40 + ["b"] * 60 + ["c"] * 30


def draws(seed, size=len(FAMILIES)):
    return np.random.default_rng(seed).normal(size=size)


def test_means_of_means_and_ratios_by_hand():
    boot = Bootstrap(["a", "b", "a"], seed=1)
    figures, base = np.array([1.0, 4.0, 3.0]), np.array([2.0, 8.0, 6.0])
    assert boot.mean(figures).value == (2 + 4) / 2 and boot.mean(figures).n == 3
    assert boot.mean(figures, ["a"]).value == 2 and boot.mean(figures, ["a"]).n == 2
    assert boot.ratio(figures, base).value == 0.5
    zero = np.array([2.0, 0.0, 6.0])
    assert boot.ratio(figures, zero).value == 0.5 and boot.ratio(figures, zero).n == 2
    assert boot.ratio(figures, zero, ["b"]) is None


@pytest.mark.parametrize("families", [["a", "b", "c"], ["b"]])
def test_intervals_of_gaussian_figures_are_the_normal_ones(families):
    figures = np.array([{"a": 0, "b": 5, "c": -9}[one] for one in FAMILIES]) + draws(0)
    found = Bootstrap(FAMILIES, resamples=20_000).mean(figures, families)
    chosen = [number for number, one in enumerate(FAMILIES) if one in families]
    normal = stratified(figures[chosen], [FAMILIES[number] for number in chosen])
    assert found.value == pytest.approx(normal.value) and found.n == normal.n
    assert found.stderr == pytest.approx(normal.stderr, rel=0.03)
    assert found.low == pytest.approx(normal.low, abs=0.04 * normal.stderr * 2)
    assert found.high == pytest.approx(normal.high, abs=0.04 * normal.stderr * 2)


def test_small_families_are_covered():
    """Families of 8 skewed figures each: the interval holds the mean of what they were drawn from."""
    random, families = np.random.default_rng(3), [name for name in "abcdef" for _ in range(8)]
    trials = [Bootstrap(families, resamples=400, seed=trial) for trial in range(400)]
    held = 0
    for boot in trials:
        found = boot.mean(random.exponential(size=len(families)))
        held += found.low <= 1 <= found.high
    assert 0.90 < held / len(trials) < 0.98


def test_a_ratio_is_paired():
    """An own that is always nine tenths of the base has no error, however much the base varies."""
    base = np.exp(draws(4))
    found = Bootstrap(FAMILIES).ratio(0.9 * base, base)
    assert found.low == pytest.approx(0.9) and found.high == pytest.approx(0.9)


def test_a_base_that_is_rare_leaves_an_interval():
    """Half of two prompts each: few resamples have no family without a base, and the ratio is not sure."""
    families = [str(number) for number in range(12) for _ in range(2)]
    base, own = np.tile([1.0, 0.0], 12), np.tile([1.0, 0.0, 0.0, 0.0], 6)
    found = Bootstrap(families, resamples=500).ratio(own, base)
    assert found.value == 0.5 and found.low < 0.4 and found.high > 0.6


def test_resamples_without_a_base_are_left_out():
    base = np.array([1.0, 0, 0, 0, 0, 0])
    found = Bootstrap(["a"] * 6, resamples=500).ratio(np.array([1.0, 1, 0, 0, 0, 0]), base)
    assert found.value == 2 and np.isfinite([found.low, found.high, found.stderr]).all()


def test_the_same_seed_the_same_resamples_and_one_prompt_has_no_interval():
    figures = draws(5)
    one, same, other = (Bootstrap(FAMILIES, seed=seed).mean(figures) for seed in (1, 1, 2))
    assert one == same and one != other
    alone = Bootstrap(["a", "b"]).mean(np.array([1.0, 3.0]))
    assert alone.value == 2 and alone.stderr is None and alone.low == alone.high == 2
