"""The published NAMM, with a threshold: its evolution, other policies at equal sizes of the cache, another model."""

from __future__ import annotations

from memx.results.namm.looks import policy_label
from memx.results.namm.rows import prepared
from memx.results.store.rows import Row

from .namms import EXACT, INTERVALS, LIKELIHOOD, SETS, by_policy, cells, evolution_table, policies_table, shares
from .text import blocks, interval, rows_of, table

BEST = "log_likelihood_over_best_rival"
SIZES = ("0.75", "0.5", "0.25", "0.125")


def evolution(page: str) -> str:
    """Three seeds of its evolution."""
    return evolution_table("namm-published/evolve")


def policies(page: str) -> str:
    """Policies at equal shares of the cache, and NAMMs minus the best other policy."""
    minus = "**NAMM minus the best other policy, nats per token**, paired by prompt"
    return blocks(policies_table("namm-published/namm", SIZES), minus, _differences())


def transfer(page: str) -> str:
    """The same NAMMs, unchanged, on another model."""
    rows = prepared(rows_of("namm-published/transfer"))
    sizes = ("0.25", "0.125", "own")
    parts = []
    for metric, title, digits in ((LIKELIHOOD, "Likelihood of the right answer", 2), (EXACT, "Exact answers in %", 0)):
        found = by_policy(rows, "all/all", metric)
        lines = [[label, *cells(points, sizes, digits)] for label, points in found]
        parts += [f"**{title}**", table(["policy", "25%", "12.5%", "the NAMM's own size"], lines)]
    return blocks(*parts, INTERVALS)


def _over_best(data: str, size: str) -> list[Row]:
    """The difference of each seed's NAMM to the best other policy at a size, by seed; heads may keep unlike shares."""
    rows = [row for row in rows_of("namm-published/namm") if (row.metric, row.dataset) == (BEST, data)]
    chosen = [row for row in rows if row.labels.size == "budget" and f"{row.labels.budget:g}" == size]
    return sorted((row for row in chosen if not row.variant.endswith("per head")), key=lambda row: row.seed)


def _differences() -> str:
    lines = []
    for data, name in SETS.items():
        by_size = {size: _over_best(data, size) for size in SIZES}
        for place, first in enumerate(by_size[SIZES[0]]):
            rows = [by_size[size][place] for size in SIZES]
            lines.append([name, str(first.seed), *(interval(row.value, row.low, row.high, 2, "+") for row in rows)])
        rivals = (dict.fromkeys(policy_label(row.labels.rival, ()) for row in by_size[size]) for size in SIZES)
        lines.append([name, "best other policy", *map(", ".join, rivals)])
    return table(["tasks", "seed", *shares(SIZES)], lines, left=2)
