"""Answer metrics: exact match and F1 under SQuAD normalisation, and 95% intervals. No torch here.

Source of the normalisation: Rajpurkar et al. 2016, the official SQuAD evaluation: lower case, no punctuation, no
articles, single spaces.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from math import sqrt
from statistics import fmean, stdev
from typing import NamedTuple

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
Z95 = 1.959964


class Estimate(NamedTuple):
    """A mean over n questions, its standard error and its 95% interval."""

    value: float
    n: int
    stderr: float | None
    low: float
    high: float


def normalize(text: str) -> str:
    """Lower case, without punctuation, articles and runs of blanks."""
    without = _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION))
    return " ".join(without.split())


def exact_match(answer: str, accepted: Sequence[str]) -> float:
    """1 if the normalised answer is one of the normalised accepted ones, else 0.

    An accepted answer that normalises to nothing ("The The", "!") is compared as it is.
    """
    return float(any(_same(answer, right) for right in accepted))


def f1(answer: str, accepted: Sequence[str]) -> float:
    """The best token F1 of the answer against the accepted ones, 0 to 1."""
    return max(_f1(answer, right) for right in accepted)


def share_estimate(scores: Sequence[float]) -> Estimate:
    """Mean of 0/1 scores in percent with Wilson's 95% interval, sound at 0% and 100% too."""
    n, p = len(scores), fmean(scores)
    middle = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 * sqrt(p * (1 - p) / n + Z95**2 / (4 * n * n)) / (1 + Z95**2 / n)
    return Estimate(
        100 * p, n, 100 * sqrt(p * (1 - p) / n), 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)
    )


def mean_estimate(values: Sequence[float], scale: float = 1.0) -> Estimate:
    """Mean with the normal 95% interval."""
    n, mean = len(values), scale * fmean(values)
    stderr = scale * stdev(values) / sqrt(n) if n > 1 else None
    half = Z95 * (stderr or 0.0)
    return Estimate(mean, n, stderr, mean - half, mean + half)


def ratio_estimate(totals: Sequence[float], counts: Sequence[int]) -> Estimate:
    """Sum of totals over sum of counts (nats per token), its error from the spread between questions."""
    n, tokens = len(totals), sum(counts)
    value = sum(totals) / tokens
    spread = sum((total - value * count) ** 2 for total, count in zip(totals, counts, strict=True))
    stderr = sqrt(spread * n / (n - 1)) / tokens if n > 1 else None
    half = Z95 * (stderr or 0.0)
    return Estimate(value, n, stderr, value - half, value + half)


def _same(answer: str, right: str) -> bool:
    wanted = normalize(right)
    return normalize(answer) == wanted if wanted else answer.strip() == right.strip()


def _f1(answer: str, right: str) -> float:
    got, wanted = normalize(answer).split(), normalize(right).split()
    if not got or not wanted:
        return float(_same(answer, right))
    common = sum((Counter(got) & Counter(wanted)).values())
    return 2 * common / (len(got) + len(wanted))
