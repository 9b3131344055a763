"""Rows of several runs -> one point per model (kind, memory size, variant, base): mean over seeds, 95% interval."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from math import sqrt
from statistics import fmean, stdev
from typing import NamedTuple

from ..errors import MemxError
from .store.rows import Labels, Row, labels_of

TIERS = ("seen", "rephrased", "unseen")
TIER_LABELS = {
    "seen": "seen phrasings",
    "rephrased": "paraphrased",
    "unseen": "held-out entities",
}
Z95 = 1.959964  # that of the normal distribution
# two-sided 95% quantiles of Student's t for 1, 2, … degrees of freedom
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


class Summary(NamedTuple):
    """One dataset and metric of one model: the mean over runs and its 95% interval.

    A model is a kind, a memory size, a variant and a base (`model`); values and seeds are those of its runs.

    With one run the interval is that of its questions; with several it is Student's t over the runs, which
    holds what a different seed changes.
    """

    dataset: str
    metric: str
    kind: str
    memory_slots: int
    value: float
    low: float
    high: float
    runs: int
    values: tuple[float, ...]
    n: int
    parameters_total: int | None
    parameters_active: int | None
    flops: int | None
    variant: str = ""
    model: str = ""
    seeds: tuple[int, ...] = ()

    @property
    def labels(self) -> Labels:
        """What the dataset names."""
        return labels_of(self.dataset)


def summarize(rows: Iterable[Row]) -> list[Summary]:
    """Group rows by dataset, metric, kind, memory size, variant and base: seeds of one model become one summary.

    Returns:
        The summaries, sorted by these, so that the smallest memory comes first.
    """
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        point = (row.dataset, row.metric, row.kind, row.memory_slots, row.variant, row.model)
        groups.setdefault(point, []).append(row)
    return [_summary(group) for _, group in sorted(groups.items(), key=lambda item: item[0])]


def mean_interval(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """The mean of independent values and its 95% interval by Student's t.

    Returns:
        Mean, low and high in the values' unit; None and None for a single value.
    """
    mean = fmean(values)
    if len(values) == 1:
        return mean, None, None
    t = _T95[min(len(values) - 1, len(_T95)) - 1]
    half = t * stdev(values) / sqrt(len(values))
    return mean, mean - half, mean + half


def choose_experiment(rows: Sequence[Row], experiment: str | None) -> list[Row]:
    """The rows of one experiment: the named one, else the last that a row names.

    Raises MemxError if there are no rows, or none of that name.
    """
    chosen = choose_name([row.experiment for row in rows], experiment)
    return [row for row in rows if row.experiment == chosen]


def check_alike(rows: Sequence[Row]) -> None:
    """Raise MemxError if there are no rows, or runs of one seed, kind, memory, variant and base."""
    if not rows:
        raise MemxError("there are no rows to show", hint="train a model with `memx train`")
    seen: dict[tuple, str] = {}
    for row in rows:
        point = (row.dataset, row.metric, row.kind, row.memory_slots, row.variant, row.model, row.seed)
        if seen.setdefault(point, row.run) != row.run:
            raise MemxError(
                f"runs {seen[point]} and {row.run} have the same memory and seed",
                hint="give the run folders to draw, one for each memory size and seed",
            )


def choose_name(names: Sequence[str], wanted: str | None) -> str:
    """The experiment of that name, with or without its hash; the last one if none is wanted."""
    known = list(dict.fromkeys(names))
    if not known:
        raise MemxError("there are no rows to show", hint="train a model with `memx train`")
    matching = [name for name in known if wanted in (None, name, re.sub(r"-[0-9a-f]{8}$", "", name))]
    if not matching:
        raise MemxError(f"unknown experiment {wanted!r}", hint=f"choose from: {', '.join(known)}")
    return matching[-1]


def without_seed(name: str) -> str:
    """A run's or NAMM's name without its seed and the hash of its config."""
    return re.sub(r"[-_ ](seed[-_ ]?\d+|[0-9a-f]{8})(?=$|[-_ ])", "", name)


def _summary(group: Sequence[Row]) -> Summary:
    first = group[0]
    values = tuple(row.value for row in group)
    mean, low, high = mean_interval(values)
    if low is None or high is None:
        low, high = first.low if first.low is not None else mean, first.high if first.high is not None else mean
    return Summary(
        first.dataset,
        first.metric,
        first.kind,
        first.memory_slots,
        mean,
        low,
        high,
        len(values),
        values,
        sum(row.n for row in group),
        first.parameters_total,
        first.parameters_active,
        first.flops,
        first.variant,
        first.model,
        tuple(row.seed for row in group),
    )
