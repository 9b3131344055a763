"""The difference of a score between two groups of runs, with a 95% interval, paired wherever it can be. No torch here.

Paired by question: both are one run, and kept answers to the same questions. Of right and wrong answers the bootstrap
resamples questions; as a question's difference is -1, 0 or 1, a resample is a draw of three counts. It holds for these
two runs; what another seed changes is not in it. Paired by seed: both are several runs of the same seeds; Student's t
of the differences. Else unpaired: the intervals of both, their halves added as independent errors are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import fmean
from typing import NamedTuple

import numpy as np

from ...results.store.rows import Row
from ...results.summary import mean_interval
from ..metrics.estimates import ratio_estimate
from .answers import Answered

_RESAMPLES = 20_000
BY_QUESTION, BY_SEED, UNPAIRED = "paired by question", "paired by seed", "unpaired"


class Difference(NamedTuple):
    """A score of one group minus that of another.

    Attributes:
        value: In the score's unit; percentages in points.
        low: Lower end of the 95% interval; None if there is no interval.
        high: Upper end.
        how: What the interval is over.
        n: Pairs, or 0 if unpaired.
    """

    value: float
    low: float | None
    high: float | None
    how: str
    n: int

    @property
    def shown(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def difference(
    rows: Sequence[Row],
    others: Sequence[Row],
    answers: Mapping[str, Answered] | None = None,
    other_answers: Mapping[str, Answered] | None = None,
) -> Difference:
    """Subtract a score of one group from that of another.

    Args:
        rows: The score's row of each run of the first group.
        others: The same of the second, from which it is subtracted.
        answers: Of the first group's only run, by question; None if it kept none.
        other_answers: Of the second group's only run.

    Returns:
        first minus second.
    """
    if len(rows) == len(others) == 1 and answers and other_answers and answers.keys() == other_answers.keys():
        pairs = [(answers[question], other_answers[question]) for question in answers]
        if rows[0].metric == "exact_match":
            return _of_shares([one.right - other.right for one, other in pairs])
        if rows[0].metric == "nll" and all(one.tokens == other.tokens for one, other in pairs):
            found = ratio_estimate([one.nll - other.nll for one, other in pairs], [one.tokens for one, _ in pairs])
            return Difference(found.value, found.low, found.high, BY_QUESTION, found.n)
    by_seed, others_by_seed = ({row.seed: row for row in group} for group in (rows, others))
    if len(rows) > 1 and by_seed.keys() == others_by_seed.keys() and len(by_seed) == len(rows) == len(others):
        value, low, high = mean_interval([row.value - others_by_seed[seed].value for seed, row in by_seed.items()])
        return Difference(value, low, high, BY_SEED, len(rows))
    return _unpaired(rows, others)


def group_interval(rows: Sequence[Row]) -> tuple[float, float | None, float | None]:
    """The score of a group: of one run its own interval, of several the mean over seeds and Student's t.

    Args:
        rows: The score's row of each run.
    """
    if len(rows) == 1:
        return rows[0].value, rows[0].low, rows[0].high
    return mean_interval([row.value for row in rows])


def _of_shares(differences: Sequence[float]) -> Difference:
    """In points, with the percentile interval of the bootstrap."""
    n = len(differences)
    counts = [sum(value == step for value in differences) for step in (-1, 0, 1)]
    drawn = np.random.default_rng(0).multinomial(n, [count / n for count in counts], size=_RESAMPLES)
    low, high = np.quantile((drawn[:, 2] - drawn[:, 0]) * (100 / n), (0.025, 0.975))
    return Difference(100 * fmean(differences), float(low), float(high), BY_QUESTION, n)


def _unpaired(rows: Sequence[Row], others: Sequence[Row]) -> Difference:
    (value, low, high), (other, other_low, other_high) = group_interval(rows), group_interval(others)
    if low is None or high is None or other_low is None or other_high is None:
        return Difference(value - other, None, None, UNPAIRED, 0)
    below = sqrt((value - low) ** 2 + (other_high - other) ** 2)
    above = sqrt((high - value) ** 2 + (other - other_low) ** 2)
    return Difference(value - other, value - other - below, value - other + above, UNPAIRED, 0)
