"""What the figure of NAMMs says in numbers: policies at each size, held-out and trained, and who is on the front."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from ..labels import INTERVALS, Table, with_interval
from ..store.rows import Row
from ..summary import mean_interval
from .curves import HELD, KEPT, SEEDS, Point, by_bytes, curves, full_cache, mean_bound, pareto_front
from .looks import policy_label
from .rows import SCORES, allocation_of, datasets_of, in_order, is_namm, size_label, size_of

_BEST = "log_likelihood_over_best_rival"
_SHORT = {"held-out/all": "held-out", "trained/all": "trained", "all/all": "all"}


def namm_table(rows: Sequence[Row], metrics: Sequence[str]) -> Table:
    """A line for each policy at each size of prepared rows; * marks the front, of points of all sizes."""
    datasets = datasets_of(rows)
    by_panel = {(dataset, metric): _points(rows, dataset, metric) for dataset in datasets for metric in metrics}
    fronts = {
        key: {(point.policy, point.size) for point in pareto_front(points, rises=SCORES[key[1]].rises)}
        for key, points in by_panel.items()
    }
    best: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if row.metric == _BEST:
            best.setdefault((row.dataset, row.variant, size_of(row)), []).append(row)
    columns = ["size", "policy", *(["cache size %"] if (bytes_told := by_bytes(rows)) else []), "tokens kept %"]
    columns += [f"{_SHORT[dataset]}\n{SCORES[metric].column}" for dataset in datasets for metric in metrics]
    columns += [f"{_SHORT[dataset]}, nats\nover best baseline" for dataset in datasets] if best else []
    title = f"Policies by cache size ({INTERVALS}); * on the Pareto front: no smaller cache scores higher"
    table = Table(title, columns, [], [], left=2)
    everything = [point for points in by_panel.values() for point in points]
    policies = list(dict.fromkeys(point.policy for point in everything))
    allocations = {(row.variant, size_of(row)): allocation_of(row, policies) for row in rows}
    for size in in_order(point.size for point in everything):
        for policy in policies:
            points_here = {key: _at(points, policy, size) for key, points in by_panel.items()}
            measured = [point for point in points_here.values() if point]
            if not measured:
                continue
            shares = _over_all_prompts(rows, measured[0])
            line = [
                size_label(size),
                policy_label(policy, policies),
                *([_percent(shares.held)] if bytes_told else []),
            ]
            line.append(_percent(shares.kept))
            line += [_cell(point, key[1], (policy, size) in fronts[key]) for key, point in points_here.items()]
            over = {dataset: _over(best.get((dataset, policy, size))) for dataset in datasets}
            line += [_said(one) for one in over.values()] if best else []
            table.lines.append(line)
            fact = _fact(shares, points_here, fronts, over)
            table.facts.append(fact | {"allocation": allocations[policy, size]})
    return table


def _points(rows: Sequence[Row], dataset: str, metric: str) -> list[Point]:
    """Every policy at every size, the full cache first."""
    full = full_cache(rows, dataset, metric)
    drawn = [point for curve in curves(rows, dataset, metric) for point in curve.everywhere]
    return [*([full] if full else []), *drawn]


def _over_all_prompts(rows: Sequence[Row], point: Point) -> Point:
    """A point with its shares of the cache over all prompts, as `memx eval-namm` prints them.

    Each set of tasks has shares of its own, at which the figure draws it.
    """
    found: dict[str, list[float]] = {HELD: [], KEPT: []}
    for row in rows:
        if row.metric in found and (row.dataset, row.variant, size_of(row)) == ("all/all", point.policy, point.size):
            found[row.metric].append(row.value)
    held = fmean(found[HELD]) if found[HELD] and point.held is not None else point.held
    return point._replace(held=held, kept=fmean(found[KEPT]) if found[KEPT] else point.kept)


def _at(points: Sequence[Point], policy: str, size: str) -> Point | None:
    return next((point for point in points if (point.policy, point.size) == (policy, size)), None)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1f}"


def _cell(point: Point | None, metric: str, best: bool) -> str:
    if point is None:
        return ""
    n = max(point.n, len(point.values))
    written = with_interval(point.value, point.low, point.high, SCORES[metric].digits, n=n)
    return written + (" *" if best else "  ")


def _over(rows: Sequence[Row] | None) -> dict[str, Any] | None:
    """The difference to the best baseline, the mean over NAMMs if there are several, with all that were best."""
    if not rows:
        return None
    value, low, high = mean_interval([row.value for row in rows])
    if len(rows) < SEEDS:
        low, high = (mean_bound([getattr(row, bound) for row in rows]) for bound in ("low", "high"))
    baselines = dict.fromkeys(row.labels.rival for row in rows)
    return {"value": value, "low": low, "high": high, "rival": ", ".join(baselines)}


def _said(over: dict[str, Any] | None) -> str:
    if over is None:
        return ""
    names = ", ".join(policy_label(name, ()) for name in over["rival"].split(", "))
    return f"{with_interval(over['value'], over['low'], over['high'], 3, '+')} {names}"


def _fact(
    of: Point,
    points: dict[tuple[str, str], Point | None],
    fronts: dict[tuple[str, str], set[tuple[str, str]]],
    over: dict[str, dict[str, Any] | None],
) -> dict[str, Any]:
    shares = {"held": of.held, "kept": of.kept}
    fact: dict[str, Any] = {"policy": of.policy, "size": of.size, **shares, "namm": is_namm(of.policy)}
    for (dataset, metric), point in points.items():
        if point:
            told = {"value": point.value, "low": point.low, "high": point.high, "n": point.n}
            on = (of.policy, of.size) in fronts[dataset, metric]
            fact.setdefault(_SHORT[dataset], {})[metric] = {
                **told, "held": point.held, "kept": point.kept, "front": on,
            }  # fmt: skip
    for dataset, difference in over.items():
        if difference:
            fact.setdefault(_SHORT[dataset], {})[_BEST] = difference
    return fact
