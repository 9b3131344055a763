"""Rows of models that split one budget of sparse parameters -> a curve by the share of one kind, and its table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ...errors import MemxError
from ..labels import INTERVALS, Table, with_interval
from ..store.rows import Row, extra
from ..summary import TIER_LABELS, TIERS, mean_interval

METRICS = ("exact_match", "nll")


class Point(NamedTuple):
    """What models with one share score: values by seed, their mean and 95% interval, and that less the share 0's."""

    share: float
    values: dict[int, float]
    mean: float
    low: float | None
    high: float | None
    difference: tuple[float, float | None, float | None] | None


class Curve(NamedTuple):
    """Scores of one data set by the share of the first of two or more kinds.

    kinds: all kinds that split the budget, the one whose share varies first.
    """

    kinds: tuple[str, ...]
    dataset: str
    metric: str
    points: tuple[Point, ...]

    @property
    def name(self) -> str:
        """The kinds in words, such as "engram against moe"."""
        return f"{self.kinds[0]} against {' and '.join(self.kinds[1:])}"


def shares_of(row: Row) -> dict[str, float]:
    """The shares of a row by kind; empty for a model that split no budget."""
    found: dict[str, float] = {}
    for part in str(extra(row, "shares", "")).split(", "):
        kind, _, share = part.rpartition(" ")
        try:
            found[kind] = float(share)
        except ValueError:
            continue
    return found


def is_whole(row: Row) -> bool:
    """Whether a row is of a whole tier, of names of one length, or of text."""
    return row.dataset in TIERS or row.dataset.startswith("names/") or bool(row.labels.text)


def curves_of(rows: Sequence[Row], tier: str) -> list[Curve]:
    """The curves of rows: exact match and NLL of the answers of a tier, and NLL of held-out text.

    Args:
        rows: Those of models that split a budget; others are left out.
        tier: The tier of questions.

    Returns:
        One curve for each set of kinds, data set and metric.

    Raises:
        MemxError: There are no two shares.
    """
    groups: dict[tuple[tuple[str, ...], str, str], dict[float, dict[int, float]]] = {}
    for row in rows:
        shares = shares_of(row)
        wanted = (row.dataset == tier and row.metric in METRICS) or (row.labels.text and row.metric == "nll")
        if len(shares) > 1 and wanted:
            kinds = tuple(shares)
            by_share = groups.setdefault((kinds, row.dataset, row.metric), {})
            by_share.setdefault(shares[kinds[0]], {})[row.seed] = row.value
    curves = [Curve(*key, _points(by_share)) for key, by_share in groups.items() if len(by_share) > 1]
    if not curves:
        raise MemxError(
            "these runs have no two shares of a budget of sparse parameters",
            hint="train a preset that sweeps memory.share, such as `memx train shares`",
        )
    return curves


def _points(by_share: dict[float, dict[int, float]]) -> tuple[Point, ...]:
    first = by_share.get(0.0, {})
    points = []
    for share, values in sorted(by_share.items()):
        common = [values[seed] - first[seed] for seed in values if seed in first] if share else []
        difference = mean_interval(common) if common else None
        points.append(Point(share, values, *mean_interval(list(values.values())), difference))
    return tuple(points)


def shares_table(curves: Sequence[Curve], tier: str) -> Table:
    """A line for each share: the scores, and what text loss changes from share 0 to it, paired by seed."""
    first = [curve for curve in curves if curve.kinds == curves[0].kinds]
    columns = ["memory", "share", *(_title(curve, tier) for curve in first), "text NLL less share 0"]
    lines, facts = [], []
    for kinds in dict.fromkeys(curve.kinds for curve in curves):
        own = {(curve.dataset, curve.metric): curve for curve in curves if curve.kinds == kinds}
        for share in sorted({point.share for curve in own.values() for point in curve.points}):
            at = {key: next((p for p in curve.points if p.share == share), None) for key, curve in own.items()}
            cells = [_cell(at.get((c.dataset, c.metric)), 1 if c.metric == "exact_match" else 3) for c in first]
            text = next((point for (dataset, _), point in at.items() if point and dataset != tier), None)
            change = with_interval(*text.difference, 3, "+") if text and text.difference else ""
            lines.append([next(iter(own.values())).name, f"{100 * share:g}%", *cells, change])
            facts += [_fact(own[key], point) for key, point in at.items() if point]
    return Table(f"Scores by share of the sparse parameters ({INTERVALS}, over seeds)", columns, lines, facts, left=2)


def _title(curve: Curve, tier: str) -> str:
    if curve.dataset != tier:
        return "text NLL"
    return f"EM % {TIER_LABELS[tier]}" if curve.metric == "exact_match" else f"NLL {TIER_LABELS[tier]}"


def _cell(point: Point | None, digits: int) -> str:
    return "" if point is None else with_interval(point.mean, point.low, point.high, digits)


def _fact(curve: Curve, point: Point) -> dict[str, Any]:
    found = {"kinds": curve.kinds, "share": point.share, "dataset": curve.dataset, "metric": curve.metric}
    return found | {"value": point.mean, "low": point.low, "high": point.high, "seeds": len(point.values)}
