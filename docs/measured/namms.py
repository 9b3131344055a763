"""NAMMs: what their evolution gained, other policies at equal sizes of the cache, another model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from memx.results.namm.curves import Point, curves, full_cache
from memx.results.namm.looks import policy_label
from memx.results.namm.rows import is_ceiling, is_namm, is_own, prepared, size_of, split_allocation
from memx.results.store.rows import Row
from memx.results.summary import mean_interval, without_seed

from .text import blocks, interval, plus_minus, rows_of, table

LIKELIHOOD, EXACT, OVER = "relative_log_likelihood", "exact", "relative_log_likelihood_over"
SIZES = ("0.5", "0.25", "0.125")
CEILING = "kvzip global"
INTERVALS = "Intervals are over prompts; those of a NAMM with three seeds are over its seeds."
_WIDEST = "Paired by prompt. With several seeds the interval reaches from the lowest to the highest end of theirs."
HELD_OUT, ALL = "held-out/all", "all/all"
MAIN = "namm/namm"  # the evaluation on the model that the NAMMs were evolved on
SETS = {HELD_OUT: "held-out tasks", "trained/all": "tasks of the evolution"}
INITIAL, CHOSEN, DIFFERENCE = "generation 0", "answer", "difference"  # variants of rows of an evolution


def evolution(page: str) -> str:
    """Seeds of the universal NAMM's evolution."""
    return evolution_table("namm/evolve")


def evolution_heads(page: str) -> str:
    """The evolution of the NAMM with numbers for each head, from its fit."""
    return evolution_table("namm/evolve-heads")


def evolution_table(name: str) -> str:
    """Seeds of one evolution: fitness of the chosen parameters, and the gain over the initial ones.

    Args:
        name: The file of its rows.
    """
    found = evolved(name)
    columns = ["seed"]
    for split in ("validation", "test"):
        columns += [f"initial, {split}", f"chosen, {split}", f"difference, {split}"]
    lines = []
    for seed in sorted({seed for seed, *_ in found}):
        line = [str(seed)]
        for split in ("validation", "test"):
            line += [f"{found[seed, kind, split, 'fitness'].value:.3f}" for kind in (INITIAL, CHOSEN)]
            gain = found[seed, DIFFERENCE, split, "fitness"]
            line.append(interval(gain.value, gain.low, gain.high, 3, "+"))
        lines.append([*line, f"{found[seed, CHOSEN, 'test', 'kept'].value:.0f}%"])
    return table([*columns, "tokens kept, test"], lines)


def policies(page: str) -> str:
    """Policies at equal shares of the cache."""
    return policies_table(MAIN, SIZES)


def policies_table(name: str, sizes: Sequence[str]) -> str:
    """Policies at equal shares of the cache: likelihood and exact answers.

    Args:
        name: The file of their rows.
        sizes: The shares.
    """
    rows = prepared(rows_of(name))
    parts = []
    for metric, title, digits in (
        (LIKELIHOOD, "Likelihood of the right answer, {} (full cache: 1)", 2),
        (EXACT, "Exact answers in percent, {}", 0),
    ):
        for data in SETS:
            lines = [[label, *cells(points, sizes, digits)] for label, points in by_policy(rows, data, metric)]
            parts += [f"**{title.format(SETS[data])}**", table(["policy", *shares(sizes)], lines)]
    return blocks(*parts, INTERVALS)


def differences(page: str) -> str:
    """NAMMs minus the best other policies and KVzip, in likelihood relative to the full cache."""
    return differences_table(MAIN, SETS)


def differences_table(file: str, sets: Mapping[str, str]) -> str:
    """NAMMs minus the best other policies and KVzip, in likelihood relative to the full cache.

    Args:
        file: The file of the rows.
        sets: What the figures are about, such as all/all -> in words.
    """
    lines = []
    for data, name in sets.items():
        for namm in namms_of(data, file):
            for against in GROUPS:
                found = [over(data, namm, against, size, file) for size in SIZES]
                if any(found):
                    named = against != " global"  # KVzip's name is in the line's
                    told = [(f"{one.text} {one.rival}" if named else one.text) if one else "" for one in found]
                    lines.append([name, policy_label(namm, ("",)), GROUPS[against], *told])
    return blocks(table(["tasks", "NAMM", "minus", *shares(SIZES)], lines, left=3), _WIDEST)


def evolved(name: str) -> dict[tuple[int, str, str, str], Row]:
    """Rows over all tasks of the evolutions in a file, by seed, variant, split and metric."""
    rows = [row for row in rows_of(name) if row.labels.task == "all"]
    return {(row.seed, row.variant, row.labels.evolution_split, row.metric): row for row in rows}


# what NAMMs are compared with: the suffix of a policy's name -> in words
GROUPS = {"": "best policy with equal shares", " table": "best policy with a table of head shares", " global": "KVzip"}


class Difference(NamedTuple):
    """A NAMM minus another policy: the mean over seeds, an interval that holds those of all seeds, and the policy."""

    value: float
    low: float
    high: float
    rival: str

    @property
    def text(self) -> str:
        """The value and its interval."""
        return interval(self.value, self.low, self.high, 2, "+")


def namms_of(data: str, file: str = MAIN) -> list[str]:
    """The names of NAMMs, without seeds: those under one threshold, then those under a table of head shares."""
    found = dict.fromkeys(without_seed(row.variant) for row in _over_rows(data, file))
    return [name for suffix in (" global", " table") for name in found if split_allocation(name)[1] == suffix]


def over(data: str, namm: str, against: str, size: str, file: str = MAIN) -> Difference | None:
    """A NAMM minus the best policy of a group at a size: the one from which its mean difference is least."""
    by_rival: dict[str, list[Row]] = {}
    for row in _over_rows(data, file):
        rival = row.labels.rival
        suffix = split_allocation(rival)[1]
        in_group = rival == CEILING if against == " global" else suffix == against and not is_ceiling(rival)
        if in_group and without_seed(row.variant) == namm and size_of(row) == size:
            by_rival.setdefault(rival, []).append(row)
    if not by_rival:
        return None
    best = min(by_rival, key=lambda rival: fmean(row.value for row in by_rival[rival]))
    rows = by_rival[best]
    low, high = min(row.low or 0.0 for row in rows), max(row.high or 0.0 for row in rows)
    return Difference(fmean(row.value for row in rows), low, high, policy_label(split_allocation(best)[0], ()))


def universal(data: str) -> str:
    """The name of the NAMM that serves any model."""
    return next(name for name in namms_of(data) if "universal" in name)


def likelihood(data: str, policy: str, size: str) -> float:
    """What a policy keeps of the full cache's likelihood, a mean over seeds."""
    rows = [row for row in rows_of(MAIN) if (row.metric, row.dataset) == (LIKELIHOOD, data)]
    return fmean(row.value for row in rows if without_seed(row.variant) == policy and size_of(row) == size)


def best_equal(data: str, size: str) -> tuple[str, float]:
    """The best policy with equal shares at a size, and what it keeps of the full cache's likelihood."""
    rivals = {row.labels.rival for row in _over_rows(data)}
    policies = [rival for rival in rivals if not split_allocation(rival)[1] and not is_ceiling(rival)]
    best = max(policies, key=lambda policy: likelihood(data, policy, size))
    return policy_label(best, ()), likelihood(data, best, size)


def _over_rows(data: str, file: str = MAIN) -> list[Row]:
    return [row for row in rows_of(file) if (row.metric, row.dataset) == (OVER, data)]


def by_policy(rows: Sequence[Row], data: str, metric: str) -> list[tuple[str, list[Point]]]:
    """The name and the points of each policy: the full cache, KVzip, NAMMs, head tables, then equal shares."""
    full, drawn = full_cache(rows, data, metric), curves(rows, data, metric)
    names = [curve.policy for curve in drawn]
    order = sorted(drawn, key=lambda curve: (group(curve.policy), -_at(curve.everywhere, "0.25")))
    found = [(policy_label(curve.policy, names), _one_own(curve.everywhere)) for curve in order]
    return [*([("full cache", [full])] if full else []), *found]


def group(policy: str) -> int:
    named, suffix = split_allocation(policy)
    if named == "kvzip" or is_namm(policy):
        return 0 if named == "kvzip" else 1
    return {" global": 2, " table": 3}.get(suffix, 4)


def _at(points: Iterable[Point], size: str) -> float:
    return next((point.value for point in points if point.size == size), 0.0)


def _one_own(points: Iterable[Point]) -> list[Point]:
    """The points, with those at the own sizes of several NAMMs as one, their mean."""
    points = list(points)
    own = [point for point in points if is_own(point.size)]
    if len(own) < 2:
        return points
    mean, low, high = mean_interval([point.value for point in own])
    one = own[0]._replace(size="own", value=mean, low=low, high=high)
    return [point for point in points if not is_own(point.size)] + [one]


def cells(points: Iterable[Point], sizes: Sequence[str], digits: int) -> list[str]:
    """A cell for each size; the full cache has the same everywhere."""
    by_size = {point.size: point for point in points}
    found = [by_size.get(size, by_size.get("full")) for size in sizes]
    return [plus_minus(p.value, p.low, p.high, digits) if p and p.low != p.high else _alone(p, digits) for p in found]


def _alone(point: Point | None, digits: int) -> str:
    return "" if point is None else f"{point.value:.{digits}f}"


def shares(sizes: Sequence[str]) -> list[str]:
    """Headings of columns: sizes as percent of the cache."""
    return [f"{100 * float(size):g}% of the cache" for size in sizes]
