"""Rows of evaluations on hosts that read no text -> means over the seeds of a host, policy by policy."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from ...errors import MemxError
from ..namm.rows import FULL, budget_text, is_namm
from ..store.rows import Row
from ..summary import Z95

if TYPE_CHECKING:
    from ..selection import PlotRequest

KINDS = ("decision", "video")  # of hosts, as rows have them
MAIN = {"decision": "normalised", "video": "correct"}  # the score that is drawn
LABELS = {
    "normalised": "return (random policy 0, best teacher 100)",
    "return": "return",
    "correct": "right answers (%)",
}


class Cell(NamedTuple):
    """A figure of a policy at a budget: the mean over the seeds of a host.

    Attributes:
        value: The mean.
        low, high: Its 95% interval over units, given these hosts.
        values: That of each seed.
        n: Units of all seeds.
    """

    value: float
    low: float
    high: float
    values: tuple[float, ...]
    n: int


Key = tuple[str, float | None]  # a policy and its budget


def evaluated(request: PlotRequest) -> list[Row]:
    """The rows of evaluations on such hosts. Raises MemxError if there are none."""
    return request.rows(
        lambda row: row.kind in KINDS and bool(row.labels.mode),
        check=list,
        missing="there are no evaluations on other hosts here",
        hint="run `memx eval-namm --host decision:RUN` first",
    )


def by_host(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each host, all of its seeds together; a seed that was evaluated twice counts once, the last time."""
    hosts: dict[str, dict[tuple[int, str], list[Row]]] = {}
    for row in rows:
        hosts.setdefault(row.model, {}).setdefault((row.seed, row.run), []).append(row)
    found = {}
    for host, runs in hosts.items():
        last = {seed: (seed, run) for seed, run in runs}
        found[host] = [row for key in last.values() for row in runs[key]]
    return found


def cells(
    rows: Sequence[Row], metric: str, rival: str = "", kind: str = "", layer: int | None = None
) -> dict[Key, Cell]:
    """A figure of every policy and budget of one host.

    Args:
        rows: Those of the host.
        metric: The figure.
        rival: Of a difference, the policy that it is to.
        kind: Of what is kept, the kind of token.
        layer: Of what is kept, the layer; None: of all.

    Returns:
        The figures, in the order of the rows.
    """
    groups: dict[Key, list[Row]] = {}
    for row in rows:
        labels = row.labels
        if row.metric == metric and (labels.rival, labels.token_kind, labels.layer) == (rival, kind, layer):
            groups.setdefault((row.variant, labels.budget), []).append(row)
    return {key: _cell(group) for key, group in groups.items()}


def _cell(rows: Sequence[Row]) -> Cell:
    """The mean over seeds; the interval is that of the mean of independent means over units."""
    values = tuple(row.value for row in rows)
    value, n = fmean(values), sum(row.n for row in rows)
    if len(rows) == 1:
        row = rows[0]
        return Cell(
            value, row.value if row.low is None else row.low, row.value if row.high is None else row.high, values, n
        )
    half = Z95 * sqrt(sum((row.stderr or 0.0) ** 2 for row in rows)) / len(rows)
    return Cell(value, value - half, value + half, values, n)


def main_metric(rows: Sequence[Row]) -> str:
    """The score of a host that is drawn. Raises MemxError if its rows have none."""
    metric = MAIN[rows[0].kind]
    if not any(row.metric == metric and row.variant == FULL for row in rows):
        raise MemxError(f"the rows of {rows[0].model} have no {metric}", hint="evaluate it again")
    return metric


def budgets_of(rows: Sequence[Row]) -> list[float]:
    """The budgets, the largest first."""
    return sorted({row.labels.budget for row in rows if row.labels.budget is not None}, reverse=True)


def policies_of(rows: Sequence[Row]) -> list[str]:
    """The policies but the full cache, NAMMs first."""
    names = list(dict.fromkeys(row.variant for row in rows if row.variant != FULL))
    return sorted(names, key=lambda name: not is_namm(name))


def size_text(budget: float | None) -> str:
    """100%, or a budget."""
    return "100%" if budget is None else budget_text(budget)
