"""NAMMs: what their evolution gained, other policies at equal sizes of the cache, another model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from memx.results.namm.curves import Point, curves, full_cache
from memx.results.namm.looks import policy_label
from memx.results.namm.rows import is_own, prepared
from memx.results.store.rows import Row
from memx.results.summary import mean_interval

from .text import blocks, interval, plus_minus, rows_of, table

LIKELIHOOD, EXACT, BEST = "relative_log_likelihood", "exact", "log_likelihood_over_best_rival"
SIZES = ("0.75", "0.5", "0.25", "0.125")
_INTERVALS = "Intervals of a NAMM are over its three seeds, those of other policies over prompts."
SETS = {"held-out/all": "held-out tasks", "trained/all": "tasks of the evolution"}
INITIAL, CHOSEN, DIFFERENCE = "generation 0", "answer", "difference"  # variants of rows of an evolution


def evolution(page: str) -> str:
    """Three seeds of one evolution: fitness of the chosen parameters, and the gain over the initial ones."""
    found = evolved()
    columns = ["seed", "initial parameters"]
    for split in ("validation", "test"):
        columns += [f"chosen parameters, {split}", f"difference, {split}"]
    lines = []
    for seed in sorted({seed for seed, *_ in found}):
        line = [str(seed), f"{found[seed, INITIAL, 'test', 'fitness'].value:.3f}"]
        for split in ("validation", "test"):
            line.append(f"{found[seed, CHOSEN, split, 'fitness'].value:.3f}")
            gain = found[seed, DIFFERENCE, split, "fitness"]
            line.append(interval(gain.value, gain.low, gain.high, 3, "+"))
        lines.append([*line, f"{found[seed, CHOSEN, 'test', 'kept'].value:.0f}%"])
    return table([*columns, "tokens kept, test"], lines)


def policies(page: str) -> str:
    """Policies at equal shares of the cache: likelihood, exact answers, and NAMMs minus the best other policy."""
    rows = prepared(rows_of("namm/namm"))
    parts = []
    for data, name in SETS.items():
        lines = [[label, *_cells(points, SIZES, 2)] for label, points in _by_policy(rows, data, LIKELIHOOD)]
        parts += [f"**Likelihood of the right answer, {name}** (full cache: 1)", table(["policy", *_shares()], lines)]
    for data, name in SETS.items():
        lines = [[label, *_cells(points, SIZES, 0)] for label, points in _by_policy(rows, data, EXACT)]
        parts += [f"**Exact answers in percent, {name}**", table(["policy", *_shares()], lines)]
    parts += ["**NAMM minus the best other policy, nats per token**, paired by prompt", _differences()]
    return blocks(*parts, _INTERVALS)


def transfer(page: str) -> str:
    """The same NAMMs, unchanged, on another model."""
    rows = prepared(rows_of("namm/transfer"))
    sizes = ("0.25", "0.125", "own")
    parts = []
    for metric, title, digits in ((LIKELIHOOD, "Likelihood of the right answer", 2), (EXACT, "Exact answers in %", 0)):
        found = _by_policy(rows, "all/all", metric)
        lines = [[label, *_cells(points, sizes, digits)] for label, points in found]
        parts += [f"**{title}**", table(["policy", "25%", "12.5%", "the NAMM's own size"], lines)]
    return blocks(*parts, _INTERVALS)


def evolved() -> dict[tuple[int, str, str, str], Row]:
    """Rows over all tasks of the three evolutions by seed, variant, split and metric."""
    rows = [row for row in rows_of("namm/evolve") if row.labels.task == "all"]
    return {(row.seed, row.variant, row.labels.evolution_split, row.metric): row for row in rows}


def over_best(data: str, size: str) -> list[Row]:
    """The difference of each seed's NAMM to the best other policy at a size, by seed; heads may keep unlike shares."""
    rows = [row for row in rows_of("namm/namm") if (row.metric, row.dataset) == (BEST, data)]
    chosen = [row for row in rows if row.labels.size == "budget" and f"{row.labels.budget:g}" == size]
    return sorted((row for row in chosen if not row.variant.endswith("per head")), key=lambda row: row.seed)


def best_of(rows: Sequence[Row]) -> str:
    """The names of the best other policies that these differences are to."""
    return ", ".join(dict.fromkeys(policy_label(row.labels.rival, ()) for row in rows))


def _differences() -> str:
    lines = []
    for data, name in SETS.items():
        by_size = {size: over_best(data, size) for size in SIZES}
        for place, first in enumerate(by_size[SIZES[0]]):
            rows = [by_size[size][place] for size in SIZES]
            lines.append([name, str(first.seed), *(interval(row.value, row.low, row.high, 2, "+") for row in rows)])
        lines.append([name, "best other policy", *(best_of(by_size[size]) for size in SIZES)])
    return table(["tasks", "seed", *_shares()], lines, left=2)


def _by_policy(rows: Sequence[Row], data: str, metric: str) -> list[tuple[str, list[Point]]]:
    """The name and the points of each policy, the full cache first."""
    full, drawn = full_cache(rows, data, metric), curves(rows, data, metric)
    names = [curve.policy for curve in drawn]
    found = [(policy_label(curve.policy, names), _one_own(curve.everywhere)) for curve in drawn]
    order = sorted(found, key=lambda one: (not one[0].startswith("NAMM"), "per head" in one[0]))
    return [*([("full cache", [full])] if full else []), *order]


def _one_own(points: Iterable[Point]) -> list[Point]:
    """The points, with those at the own sizes of several NAMMs as one, their mean."""
    points = list(points)
    own = [point for point in points if is_own(point.size)]
    if len(own) < 2:
        return points
    mean, low, high = mean_interval([point.value for point in own])
    one = own[0]._replace(size="own", value=mean, low=low, high=high)
    return [point for point in points if not is_own(point.size)] + [one]


def _cells(points: Iterable[Point], sizes: Sequence[str], digits: int) -> list[str]:
    """A cell for each size; the full cache has the same everywhere."""
    by_size = {point.size: point for point in points}
    found = [by_size.get(size, by_size.get("full")) for size in sizes]
    return [plus_minus(p.value, p.low, p.high, digits) if p and p.low != p.high else _alone(p, digits) for p in found]


def _alone(point: Point | None, digits: int) -> str:
    return "" if point is None else f"{point.value:.{digits}f}"


def _shares() -> list[str]:
    return [f"{100 * float(size):g}% of the cache" for size in SIZES]
