"""Training for an evicted cache, and a memory in a model whose cache is evicted: what changed, by prompt."""

from __future__ import annotations

from collections.abc import Sequence

from memx.results.namm.before_after import Change, changes
from memx.results.namm.looks import policy_label
from memx.results.namm.rows import DATASETS, FULL, is_namm, size_of
from memx.results.store.rows import Row
from memx.results.summary import mean_interval

from .namms import ALL
from .text import interval, plus_minus, rows_of, table

OWN = "relative_log_likelihood_over_before"
HELD_OUT = "held-out/all"
_TRAINED = "cache-aware/trained"  # evaluations of three trained models


def training(page: str) -> str:
    """Likelihoods before and after, of each trained model, on held-out tasks."""
    found = [one for one in changes(rows_of(_TRAINED)) if one.dataset == HELD_OUT]
    lines = []
    for one in found:
        after = [f"{now.value:.2f}" for now in one.after]
        apart = [_signed(change) for change in one.change]
        mean = plus_minus(*mean_interval([change.value for change in one.change]), 2, "+")
        lines.append([*_named(one, found), f"{one.before[0].value:.2f}", " / ".join(after), *apart, mean])
    seeds = [f"change, seed {seed}" for seed in range(max(len(one.after) for one in found))]
    return table(["policy", "cache", "before", "after", *seeds, "mean change"], lines, left=2)


def nats(page: str) -> str:
    """The same in nats per token and in points of exact match, on held-out tasks."""
    rows = [row for row in rows_of(_TRAINED) if row.dataset == HELD_OUT]
    found = [one for one in changes(rows) if one.dataset == HELD_OUT]
    lines = []
    for one in found:
        cells = []
        for metric, digits in (("log_likelihood_over_before", 2), ("exact_over_before", 1)):
            values = [row.value for row in _rows(rows, one, metric)]
            each = " / ".join(f"{value:+.{digits}f}" for value in values)
            cells += [each, plus_minus(*mean_interval(values), digits, "+")]
        lines.append([*_named(one, found), *cells])
    columns = ["nats per token, after minus before", "mean", "exact match, points, after minus before", "mean"]
    return table(["policy", "cache", *columns], lines, left=2)


def memory(page: str) -> str:
    """A model with trained memory layers minus the model without, on the same prompts."""
    rows = rows_of("cache-aware/memory")
    found = [one for one in changes(_all_tasks(rows)) if one.dataset == ALL]
    lines = []
    for one in found:
        own = _rows(rows, one, OWN)
        share = "" if one.policy == FULL else _signed(own[0])
        lines.append(
            [
                *_named(one, found),
                f"{one.before[0].value:.2f}",
                f"{one.after[0].value:.2f}",
                _signed(one.change[0]),
                share,
            ]
        )
    columns = [
        "policy",
        "cache",
        "without memory",
        "with memory",
        "change",
        "change relative to the same model's full cache",
    ]
    return table(columns, lines, left=2)


def _all_tasks(rows: Sequence[Row]) -> list[Row]:
    """The rows over all tasks, without those that tell tasks apart."""
    return [row for row in rows if row.dataset not in DATASETS or row.dataset == ALL]


def _rows(rows: Sequence[Row], one: Change, metric: str) -> list[Row]:
    """The rows of a metric of the same policy, size and tasks."""
    about = (one.dataset, one.policy, one.size, metric)
    return [row for row in rows if (row.dataset, row.variant, size_of(row), row.metric) == about]


def _named(one: Change, among: Sequence[Change]) -> tuple[str, str]:
    names = [other.policy for other in among if is_namm(other.policy)]
    return policy_label(one.policy, names), f"{one.share:g}%"


def _signed(row: Row) -> str:
    return interval(row.value, row.low, row.high, 2, "+")
