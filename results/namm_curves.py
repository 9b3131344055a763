"""Prepared rows of `memx eval-namm` -> curves of a score by the share of the cache kept, one for each policy.

NAMMs that differ in their seed alone are one policy: the mean over them with Student's t interval.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

from .bench_rows import extra
from .eval_rows import FULL, is_namm, is_own, size_of
from .rows import Row
from .summary import mean_interval


class Point(NamedTuple):
    """A policy at a size: the share kept in percent as measured, and the score with its 95% interval.

    size: the budget as text, "own" (what the NAMM kept, or a rival at that size; with the NAMM's name if there are
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


class Curve(NamedTuple):
    """A policy at its budgets, least kept first, and at NAMMs' own sizes; members are the NAMMs it is the mean of.

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
    """A curve for each policy but the full cache: NAMMs, memx's own rivals, those of other packages."""
    groups: dict[tuple[str, str], list[Row]] = {}
    kept = _kept(rows := [row for row in rows if row.dataset == dataset])
    for row in rows:
        if row.metric == metric and row.variant != FULL:
            groups.setdefault((row.variant, size_of(row)), []).append(row)
    made: list[Curve] = []
    for policy in dict.fromkeys(policy for policy, _ in groups):
        mine = {size: group for (name, size), group in groups.items() if name == policy}
        points = [_mean(group, kept) for group in mine.values()]
        package = extra(next(iter(mine.values()))[0], "package", "memx")
        own = [point for point in points if is_own(point.size)]
        line = sorted((point for point in points if not is_own(point.size)), key=lambda point: point.kept)
        made.append(Curve(policy, package, line, own, _members(mine, kept)))
    return sorted(made, key=lambda one: (not is_namm(one.policy), one.package != "memx"))


def full_cache(rows: Iterable[Row], dataset: str, metric: str) -> Point | None:
    """What the full cache scores, if a row says so."""
    for row in rows:
        if (row.variant, row.dataset, row.metric) == (FULL, dataset, metric):
            return Point(FULL, FULL, 100.0, row.value, row.low, row.high, row.n)
    return None


def front(points: Sequence[Point], *, rises: bool = True) -> list[Point]:
    """The points, least kept first, that no other beats: none keeps as little and scores as well, and better in one."""
    sign = 1 if rises else -1

    def beats(one: Point, other: Point) -> bool:
        at_least = one.kept <= other.kept and sign * one.value >= sign * other.value
        return at_least and (one.kept, one.value) != (other.kept, other.value)

    unbeaten = [point for point in points if not any(beats(other, point) for other in points)]
    return sorted(unbeaten, key=lambda point: point.kept)


def _kept(rows: Iterable[Row]) -> dict[tuple[object, ...], float]:
    return {_line(row): row.value for row in rows if row.metric == "kept"}


def _line(row: Row) -> tuple[object, ...]:
    return (row.run, row.variant, size_of(row), row.seed, extra(row, "beside"))


def _measured(row: Row, kept: dict[tuple[object, ...], float]) -> float:
    """The share kept in percent: as measured, else the budget."""
    asked = 100 * float(extra(row, "budget", 1.0))
    return kept.get(_line(row), asked)


def _mean(group: Sequence[Row], kept: dict[tuple[object, ...], float]) -> Point:
    first, values = group[0], tuple(row.value for row in group)
    share = fmean(_measured(row, kept) for row in group)
    value, low, high = mean_interval(values)
    if len(group) == 1 or not is_namm(first.variant):  # a rival at the sizes of several NAMMs met the same prompts
        low, high = (_mean_bound([getattr(row, bound) for row in group]) for bound in ("low", "high"))
    return Point(first.variant, size_of(first), share, value, low, high, first.n, values)


def _mean_bound(bounds: Sequence[float | None]) -> float | None:
    known = [bound for bound in bounds if bound is not None]
    return fmean(known) if len(known) == len(bounds) else None


def _members(sizes: dict[str, list[Row]], kept: dict[tuple[object, ...], float]) -> list[list[Point]]:
    """The line of each NAMM that a policy is the mean of; none if it is one."""
    lines: dict[tuple[str, int], list[Point]] = {}
    for size, group in sizes.items():
        for row in group if not is_own(size) else ():
            lines.setdefault((row.run, row.seed), []).append(_mean([row], kept))
    return [sorted(line, key=lambda point: point.kept) for line in lines.values()] if len(lines) > 1 else []
