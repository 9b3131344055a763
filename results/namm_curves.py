"""Rows of `memx eval-namm` -> curves of a score by the share of the cache that is kept, one for each policy.

NAMMs that differ in their seed alone are one policy: the mean over them with Student's t interval.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from math import isclose
from statistics import fmean
from typing import Any, NamedTuple

from ..errors import MemxError
from .bench_rows import extra
from .rows import Row
from .summary import mean_interval

FULL, NAMM, OWN = "full", "namm", "own"
EVICTION = "eviction"  # the kind of these rows
ALIKE = ("model", "mode", "length", "every")  # what policies on one figure have in common
DATASETS = {"held-out/all": "held-out tasks", "trained/all": "trained tasks", "all/all": "all tasks"}


class Score(NamedTuple):
    """How a metric is shown: its axis, its column, whether more is better, digits."""

    label: str
    column: str
    rises: bool
    digits: int


SCORES = {
    "relative_log_likelihood": Score("likelihood a token, full cache = 1", "likelihood", True, 2),
    "exact": Score("exact answers (%)", "exact %", True, 1),
    "lost_nats": Score("nats a token lost against the full cache", "lost nats", False, 3),
    "log_likelihood": Score("log-likelihood (nats a token)", "log-lik.", True, 3),
    "relative_exact": Score("exact answers, full cache = 1", "rel. exact", True, 2),
    "score": Score("task score (%)", "score %", True, 1),
    "relative_score": Score("task score, full cache = 1", "rel. score", True, 2),
}


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


def is_namm(policy: str) -> bool:
    """Whether a policy is a NAMM rather than a rival or the full cache."""
    return policy == NAMM or policy.startswith(f"{NAMM} ")


def size_of(row: Row) -> str:
    """The size that a row is of: a budget as text, own (of the NAMM that a prepared row names) or full."""
    if row.variant == FULL:
        return FULL
    budget = extra(row, "budget")
    if extra(row, "size") != OWN and budget is not None:
        return f"{float(budget):g}"
    return f"{OWN} {extra(row, 'own_of', '')}".strip()


def is_own(size: str) -> bool:
    """Whether a size is a NAMM's own."""
    return size.partition(" ")[0] == OWN


def size_label(size: str) -> str:
    """A size as people read it: 25%, own size, full cache."""
    if is_own(size):
        return f"own size{size.removeprefix(OWN).replace(f' {NAMM} ', ' of ')}"
    return "full cache" if size == FULL else f"{100 * float(size):g}%"


def at_size(size: str) -> str:
    """The same in a sentence: at 25% of the cache, at the NAMM's own size."""
    if is_own(size):
        return "at the NAMM's own size" if size == OWN else f"at the {size_label(size)}"
    return f"at {size_label(size)} of the cache"


def in_order(sizes: Iterable[str]) -> list[str]:
    """Each size once: the full cache, budgets from the largest, own sizes."""
    return sorted(set(sizes), key=lambda size: (size != FULL, is_own(size), size if is_own(size) else -_share(size)))


def _share(size: str) -> float:
    return 1.0 if size == FULL else float(size)


def prepared(rows: Sequence[Row]) -> list[Row]:
    """Rows that may share a figure, each point once, NAMMs that differ in their seed alone under one name.

    Raises MemxError if hosts, modes, lengths or intervals differ, or two runs say different things of one point.
    """
    for name in ALIKE:
        values = {str(getattr(row, name, None)) for row in rows}
        if len(values) > 1:
            raise MemxError(
                f"these evaluations differ in {name}: {', '.join(sorted(values))}",
                hint="name the run folders of one of them, or choose it with --experiment",
            )
    names = _policies(rows)
    found: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        known = found.setdefault(_point(row), row)
        if not isclose(known.value, row.value, rel_tol=1e-4, abs_tol=1e-9):
            raise MemxError(
                f"runs {known.run} and {row.run} differ on {row.variant} at {size_label(size_of(row))}, {row.metric}",
                hint="name one of them, or evaluate their NAMMs together: memx eval-namm RUN RUN2",
            )
    several = len({names[row.variant] for row in rows if is_namm(row.variant) and is_own(size_of(row))}) > 1
    return [_named(row, names, several) for row in found.values()]


def datasets_of(rows: Iterable[Row]) -> list[str]:
    """The means over tasks there are: held-out and trained ones, or over all if they are not told apart."""
    there = {row.dataset for row in rows}
    return [name for name in DATASETS if name in there and name != "all/all"] or [
        name for name in DATASETS if name in there
    ]


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


def without_seed(name: str) -> str:
    """A run's or NAMM's name without its seed and the hash of its config."""
    return re.sub(r"[-_ ](seed[-_ ]?\d+|[0-9a-f]{8})(?=$|[-_ ])", "", name)


def _named(row: Row, names: dict[str, str], several: bool) -> Row:
    """A row under its policy's name; of an own size, with the NAMM whose own it is if there are several."""
    changes: dict[str, Any] = {"variant": names.get(row.variant, row.variant)}
    if several and is_own(size_of(row)):
        whose = row.variant if is_namm(row.variant) else str(extra(row, "beside", ""))
        changes["own_of"] = names.get(whose, whose)
    return row.model_copy(update=changes)


def _policies(rows: Iterable[Row]) -> dict[str, str]:
    """The policy that each NAMM is of: those of one name are one if their seeds differ."""
    groups: dict[str, set[tuple[str, int]]] = {}
    for row in rows:
        if is_namm(row.variant):
            groups.setdefault(without_seed(row.variant), set()).add((row.variant, row.seed))
    return {
        variant: name if len({seed for _, seed in members}) == len(members) else variant
        for name, members in groups.items()
        for variant, _ in members
    }


def _point(row: Row) -> tuple[Any, ...]:
    """What a row is about, whichever run wrote it; a rival at the own size of a NAMM is of that NAMM's run."""
    aside = [extra(row, name) for name in ("layer", "token_kind", "rival", "beside")]
    run = row.run if is_own(size_of(row)) else ""
    return (run, row.variant, row.seed, size_of(row), row.dataset, row.metric, *aside)


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
