"""Prepared rows of `memx eval-namm` -> curves of a score by the share of the cache held, one for each policy.

NAMMs that differ in their seed alone are one policy: the mean over them, from three on with Student's t interval. Of
two it would say next to nothing, so that theirs is over prompts, the mean of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from statistics import fmean
from typing import NamedTuple

from ..store.rows import Row
from ..summary import mean_interval
from .rows import FULL, is_namm, is_own, size_of, tokens_of

SEEDS = 3  # NAMMs from which on an interval is over them
HELD, KEPT = "held", "kept"  # shares of the cache: of its bytes, of its tokens x heads


class Point(NamedTuple):
    """A policy at a size: the shares of the cache in percent as measured, and the score with its 95% interval.

    kept: of tokens x heads. held: of the full cache's bytes of keys and values, in which a layer is as long as its
    fullest head; None if rows do not tell it of all policies.

    size: the budget as text, "own" (what the NAMM kept, or a baseline at that size; with the NAMM's name if there are
    several) or "full". values: those of several NAMMs; n: prompts.
    """

    policy: str
    size: str
    kept: float
    value: float
    low: float | None
    high: float | None
    n: int
    values: tuple[float, ...] = ()
    held: float | None = None

    @property
    def share(self) -> float:
        """What policies are compared at: a budget in tokens, or the share held in bytes, else the share kept."""
        if (tokens := tokens_of(self.size)) is not None:
            return tokens
        return self.kept if self.held is None else self.held


class Curve(NamedTuple):
    """A policy at its budgets, least held first, and at NAMMs' own sizes; members are the NAMMs it is the mean of.

    package: who wrote the policy, memx or kvpress.
    """

    policy: str
    package: str
    points: list[Point]
    own: list[Point]
    members: list[list[Point]]

    @property
    def everywhere(self) -> list[Point]:
        """All points, own sizes last."""
        return [*self.points, *self.own]


def curves(rows: Iterable[Row], dataset: str, metric: str) -> list[Curve]:
    """A curve for each policy but the full cache: NAMMs, memx's own baselines, those of other packages."""
    groups: dict[tuple[str, str], list[Row]] = {}
    shares = _shares(rows := list(rows), dataset)
    for row in rows:
        if row.dataset == dataset and row.metric == metric and row.variant != FULL:
            groups.setdefault((row.variant, size_of(row)), []).append(row)
    made: list[Curve] = []
    for policy in dict.fromkeys(policy for policy, _ in groups):
        sizes = {size: group for (name, size), group in groups.items() if name == policy}
        points = [_mean(group, shares) for group in sizes.values()]
        package = next(iter(sizes.values()))[0].labels.package
        own = [point for point in points if is_own(point.size)]
        line = sorted((point for point in points if not is_own(point.size)), key=lambda point: point.share)
        made.append(Curve(policy, package, line, own, _members(sizes, shares)))
    return sorted(made, key=lambda curve: (not is_namm(curve.policy), curve.package != "memx"))


def full_cache(rows: Iterable[Row], dataset: str, metric: str) -> Point | None:
    """What the full cache scores and holds, if a row says so; sliding windows keep less than all tokens."""
    rows = list(rows)
    full = [row for row in rows if (row.variant, row.dataset, row.metric) == (FULL, dataset, metric)]
    return _mean(full[:1], _shares(rows, dataset)) if full else None


def by_bytes(rows: Iterable[Row]) -> bool:
    """Whether the rows tell the share held in bytes wherever they tell the share kept."""
    lines = {metric: {(row.dataset, _line(row)) for row in rows if row.metric == metric} for metric in (HELD, KEPT)}
    return bool(lines[HELD]) and lines[HELD] >= lines[KEPT]


def pareto_front(points: Sequence[Point], *, rises: bool = True) -> list[Point]:
    """The points, least held first, that no other beats: none holds as little and scores as well, and better in one."""
    sign = 1 if rises else -1
    in_tokens = any(tokens_of(point.size) for point in points)

    def size(point: Point) -> float:
        return inf if in_tokens and point.size == FULL else point.share

    def beats(one: Point, other: Point) -> bool:
        at_least = size(one) <= size(other) and sign * one.value >= sign * other.value
        return at_least and (size(one), one.value) != (size(other), other.value)

    unbeaten = [point for point in points if not any(beats(other, point) for other in points)]
    return sorted(unbeaten, key=lambda point: point.share)


def _shares(rows: Sequence[Row], dataset: str) -> dict[tuple[object, ...], float]:
    """Shares of the cache by metric and line of the table; those in bytes only if no line is without."""
    metrics = (HELD, KEPT) if by_bytes(rows) else (KEPT,)
    return {(row.metric, *_line(row)): row.value for row in rows if row.dataset == dataset and row.metric in metrics}


def _line(row: Row) -> tuple[object, ...]:
    return (row.run, row.variant, size_of(row), row.seed, row.labels.beside)


def _mean(group: Sequence[Row], shares: dict[tuple[object, ...], float]) -> Point:
    """One point of the rows of a policy at a size; what it kept is the budget if it was not measured."""
    first, values = group[0], tuple(row.value for row in group)
    budget = 100 * min(1.0, 1.0 if first.labels.budget is None else first.labels.budget)
    kept = fmean(shares.get((KEPT, *_line(row)), budget) for row in group)
    bytes_held = [shares[HELD, *_line(row)] for row in group if (HELD, *_line(row)) in shares]
    held = fmean(bytes_held) if len(bytes_held) == len(group) else None
    value, low, high = mean_interval(values)
    if len(group) < SEEDS or not is_namm(first.variant):  # a baseline at sizes of several NAMMs met the same prompts
        low, high = (mean_bound([getattr(row, bound) for row in group]) for bound in ("low", "high"))
    return Point(first.variant, size_of(first), kept, value, low, high, first.n, values, held)


def mean_bound(bounds: Sequence[float | None]) -> float | None:
    """The mean of ends of intervals; None if one has no end."""
    known = [bound for bound in bounds if bound is not None]
    return fmean(known) if len(known) == len(bounds) else None


def _members(sizes: dict[str, list[Row]], shares: dict[tuple[object, ...], float]) -> list[list[Point]]:
    """The line of each NAMM that a policy is the mean of; none if it is one."""
    lines: dict[tuple[str, int], list[Point]] = {}
    for size, group in sizes.items():
        for row in group if not is_own(size) else ():
            lines.setdefault((row.run, row.seed), []).append(_mean([row], shares))
    return [sorted(line, key=lambda point: point.share) for line in lines.values()] if len(lines) > 1 else []
