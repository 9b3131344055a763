"""Training for an evicted cache, and a memory in a model whose cache is evicted: what changed, by prompt."""

from __future__ import annotations

from collections.abc import Sequence

from memx.results.namm.before_after import Change, changes
from memx.results.namm.looks import policy_label
from memx.results.namm.rows import DATASETS, FULL, is_namm, size_of
from memx.results.store.rows import Row

from .namms import ALL
from .text import interval, rows_of, table

OWN = "relative_log_likelihood_over_before"
HELD_OUT = "held-out/all"


def training(page: str) -> str:
    """Likelihoods before and after, of each trained model, on held-out tasks."""
    found = [one for one in changes(rows_of("cache-aware/before-after")) if one.dataset == HELD_OUT]
    lines = []
    for one in found:
        before = one.before[0].value
        each = [f"{now.value:.2f}, {_signed(change)}" for now, change in zip(one.after, one.change, strict=True)]
        lines.append([*_named(one, found), f"{before:.2f}", *each])
    seeds = max(len(one.after) for one in found)
    return table(["policy", "cache", "before", *(f"after, seed {seed}" for seed in range(seeds))], lines, left=2)


def nats(page: str) -> str:
    """The same in nats per token and in points of exact match, on held-out tasks."""
    rows = [row for row in rows_of("cache-aware/before-after") if row.dataset == HELD_OUT]
    found = [one for one in changes(rows) if one.dataset == HELD_OUT]
    lines = []
    for one in found:
        cells = []
        for metric, digits in (("log_likelihood_over_before", 2), ("exact_over_before", 1)):
            of_metric = [
                row for row in rows if (row.variant, size_of(row), row.metric) == (one.policy, one.size, metric)
            ]
            cells.append("; ".join(interval(row.value, row.low, row.high, digits, "+") for row in of_metric))
        lines.append([*_named(one, found), *cells])
    return table(["policy", "cache", "nats per token, after minus before", "exact match, points"], lines, left=2)


def memory(page: str) -> str:
    """A model with trained memory layers minus the model without, on the same prompts."""
    rows = rows_of("cache-aware/memory")
    found = [one for one in changes(_all_tasks(rows)) if one.dataset == ALL]
    lines = []
    for one in found:
        own = [
            row
            for row in rows
            if (row.dataset, row.variant, size_of(row), row.metric) == (ALL, one.policy, one.size, OWN)
        ]
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
        "change of the share of its own full cache",
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
