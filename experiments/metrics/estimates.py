"""Means, shares and ratios of scores with their standard errors and 95% intervals. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, stdev
from typing import NamedTuple

Z95 = 1.959964


class Estimate(NamedTuple):
    """A mean over n questions, its standard error and its 95% interval."""

    value: float
    n: int
    stderr: float | None
    low: float
    high: float


def share_estimate(scores: Sequence[float]) -> Estimate:
    """Estimate a share from scores that are 0 or 1, with Wilson's interval (1927), which also holds at 0% and 100%.

    Args:
        scores: One score for each question, at least one.

    Returns:
        The mean in percent, its binomial standard error and its 95% interval.
    """
    n, p = len(scores), fmean(scores)
    low, high = wilson(p, n)
    return Estimate(100 * p, n, 100 * sqrt(p * (1 - p) / n), 100 * low, 100 * high)


def wilson(p: float, n: int) -> tuple[float, float]:
    """Wilson's 95% interval (1927) of a share p of n."""
    middle = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 * sqrt(p * (1 - p) / n + Z95**2 / (4 * n * n)) / (1 + Z95**2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def overlap_estimate(values: Sequence[float]) -> Estimate:
    """Estimate a mean of scores from 0 to 1, such as F1, within these bounds.

    Args:
        values: One score for each question, at least one.

    Returns:
        The mean in percent; where all scores are 0 or all are 1, with Wilson's interval, as for a share.
    """
    if set(values) in ({0.0}, {1.0}):
        return share_estimate(values)
    found = mean_estimate(values, scale=100.0)
    return found._replace(low=max(found.low, 0.0), high=min(found.high, 100.0))


def mean_estimate(values: Sequence[float], scale: float = 1.0) -> Estimate:
    """Estimate a mean with the 95% interval of the normal distribution.

    Args:
        values: One value for each question, at least one.
        scale: A factor of the result, such as 100 for percent.

    Returns:
        The scaled mean; of a single value without a standard error.
    """
    n, mean = len(values), scale * fmean(values)
    stderr = scale * stdev(values) / sqrt(n) if n > 1 else None
    half = Z95 * (stderr or 0.0)
    return Estimate(mean, n, stderr, mean - half, mean + half)


def ratio_estimate(totals: Sequence[float], counts: Sequence[int]) -> Estimate:
    """Estimate a ratio of sums, such as nats a token, with an error from the spread between questions.

    Args:
        totals: What is measured of each question, such as nats.
        counts: How many units each total is over, such as tokens.

    Returns:
        The sum of the totals over the sum of the counts; of a single question without a standard error.
    """
    n, tokens = len(totals), sum(counts)
    value = sum(totals) / tokens
    spread = sum((total - value * count) ** 2 for total, count in zip(totals, counts, strict=True))
    stderr = sqrt(spread * n / (n - 1)) / tokens if n > 1 else None
    half = Z95 * (stderr or 0.0)
    return Estimate(value, n, stderr, value - half, value + half)
