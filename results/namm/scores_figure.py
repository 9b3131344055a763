"""The figure of NAMMs: scores by the share of the cache that is held, held-out and trained tasks side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ...errors import MemxError, nearest
from ..selection import Drawn, PlotRequest
from ..store.rows import Row
from ..style import caption_below, new_figure, spread
from .curve_lines import ASIDE, draw_baseline, draw_namm
from .curves import SEEDS, Curve, Point, by_bytes, curves, full_cache
from .looks import Look, evaluation_caption, looks_of, policy_label
from .rows import (
    DATASETS,
    FULL,
    PER_HEAD,
    SCORES,
    datasets_of,
    evaluated,
    in_order,
    is_namm,
    is_own,
    prepared,
    prompts_of,
    size_label,
    size_of,
    tokens_of,
)
from .scores_table import namm_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT = 4.0  # inches of a panel
_CAPTION = 0.45  # inches of its lines
_MOST = 108.0  # percent, where the axis of shares ends
_LETTER = 0.0145  # of a panel's width, of a letter of a name
_LABEL = 9.6  # points between the names of two lines
_LEAST_SPAN = {"exact": 10.0, "score": 10.0}  # of an axis, where nothing scores


def draw(request: PlotRequest) -> Drawn:
    """Draw scores of policies by the share of the cache held, with the table of all sizes.

    Raises MemxError for an unknown metric, one that no policy has, and evaluations that do not belong together.
    """
    metrics = request.options.metrics
    unknown = [metric for metric in metrics if metric not in SCORES]
    if unknown or not metrics:
        raise MemxError(
            f"--metrics: unknown metric {', '.join(unknown) or '(none given)'}", hint=f"use {', '.join(SCORES)}"
        )
    wanted = {*SCORES, "held", "kept", "log_likelihood_over_best_rival", "relative_log_likelihood_over"}
    rows = evaluated(request, lambda row: row.metric in wanted and row.dataset in DATASETS, "policies' scores")
    drawn = _alike(_chosen(prepared(rows), request.options.policies), request.log)
    measured = [metric for metric in SCORES if any(row.metric == metric and row.variant != FULL for row in drawn)]
    shown = [metric for metric in metrics if metric in measured]
    if not shown:
        hint = f"use --metrics {','.join(measured) or 'exact'}"
        raise MemxError(f"no policy here has {' or '.join(metrics)}", hint=hint)
    if missing := [metric for metric in metrics if metric not in measured]:
        request.log(f"not drawn: no policy here has {', '.join(missing)}")
    if not any(is_namm(row.variant) for row in drawn):
        request.log("there is no NAMM among these policies")
    return Drawn(request.write(namm_figure(drawn, shown), rows), namm_table(drawn, shown))


def _chosen(rows: list[Row], policies: Sequence[str]) -> list[Row]:
    """The rows of named policies and of the full cache; all if none is named. Raises MemxError for an unknown one."""
    known = list(dict.fromkeys(row.variant for row in rows if row.variant != FULL))
    for name in policies:
        if name not in known:
            hint = nearest(name, known) or f"use {', '.join(known)}"
            raise MemxError(f"--policies: no policy {name!r} here", hint=hint)
    return [row for row in rows if not policies or row.variant in (*policies, FULL)]


def _alike(rows: list[Row], log: Callable[[str], None]) -> list[Row]:
    """The rows of budgets in tokens and of the full cache, if there are such budgets; else all."""
    if not any(tokens_of(size_of(row)) for row in rows):
        return rows
    if others := in_order(size for row in rows if tokens_of(size := size_of(row)) is None and size != FULL):
        log(f"not drawn: {', '.join(size_label(size) for size in others)}, as other budgets are in tokens")
    return [row for row in rows if row.variant == FULL or tokens_of(size_of(row))]


def namm_figure(rows: Sequence[Row], metrics: Sequence[str]) -> Figure:
    """Draw a row of panels for each metric of prepared rows: policies by the share held, NAMMs with strong lines."""
    datasets = datasets_of(rows)
    columns = len(datasets) if len(datasets) > 1 else min(len(metrics), 2)
    lines = -(-len(metrics) * len(datasets) // columns)
    figure, axes = new_figure(columns, _HEIGHT, lines, sharey="row" if len(datasets) > 1 else "none")
    figure.set_figheight(_HEIGHT * lines + _CAPTION)
    if len(axes) == 1:
        figure.set_figwidth(8.4)
    for axis in axes[len(metrics) * len(datasets) :]:
        axis.remove()
    axes = axes[: len(metrics) * len(datasets)]
    panels = [(metric, dataset) for metric in metrics for dataset in datasets]
    drawn = {panel: curves(rows, panel[1], panel[0]) for panel in panels}
    looks = looks_of(curve for panel in drawn.values() for curve in panel)
    for axis, (metric, dataset) in zip(axes, panels, strict=True):
        _panel(axis, rows, drawn[metric, dataset], looks, dataset, metric)
    cut = False
    for row, metric in enumerate(metrics):
        row_axes = axes[row * len(datasets) : (row + 1) * len(datasets)]
        everything = [curve for dataset in datasets for curve in drawn[metric, dataset]]
        fulls = [full for dataset in datasets if (full := full_cache(rows, dataset, metric))]
        cut |= _limits(row_axes[0], everything, fulls, metric)
        row_axes[0].set_ylabel(SCORES[metric].label)
        for axis, dataset in zip(row_axes, datasets, strict=True):
            _names(axis, drawn[metric, dataset], looks)
    about = f"{_asked(rows, datasets)}{' (widest intervals clipped)' if cut else ''}"
    caption_below(figure, "\n".join(filter(None, (evaluation_caption(rows), about, _sharing(rows)))), axes)
    return figure


def _asked(rows: Sequence[Row], datasets: Sequence[str]) -> str:
    """On how many prompts, and what the intervals are."""
    prompts = [f"{prompts_of(row for row in rows if row.dataset == d)} of {DATASETS[d]}" for d in datasets]
    seeds: dict[str, set[tuple[str, int]]] = {}
    for row in rows:
        if is_namm(row.variant) and not row.variant.endswith(PER_HEAD):
            seeds.setdefault(row.variant, set()).add((row.run, row.seed))
    counts = {name: len(found) for name, found in seeds.items() if len(found) >= SEEDS}
    if len(counts) == len(seeds) > 1 and len({*counts.values()}) == 1:
        counts = {"": min(counts.values())}
    several = [
        f"{policy_label(name, seeds) if name else 'NAMMs'}: over {count} seeds (thin lines)"
        for name, count in counts.items()
    ]
    return " · ".join([*prompts, ", ".join(["95% CI over prompts", *several])])


def _sharing(rows: Sequence[Row]) -> str:
    """How policies share a size out among layers and heads, where NAMMs with a threshold do it differently."""
    namms = [row for row in rows if is_namm(row.variant)]
    alike = any(row.variant.endswith(PER_HEAD) for row in namms)
    if not alike and not any(is_own(size_of(row)) for row in namms):
        return ""
    others = "NAMM per head and other policies" if alike else "other policies"
    return f"NAMM: layers may keep different shares; {others}: the same share in every head"


def _panel(
    axis: Axes, rows: Sequence[Row], drawn: Sequence[Curve], looks: dict[str, Look], dataset: str, metric: str
) -> None:
    axis.set_title(DATASETS[dataset].capitalize())
    if full := full_cache(rows, dataset, metric):
        axis.axhline(full.value, color="0.35", linestyle=(0, (5, 3)), linewidth=1.1, zorder=1, label="full cache")
    baselines = [curve.policy for curve in drawn if not looks[curve.policy].strong]
    for curve in drawn:
        look = looks[curve.policy]
        if look.strong:
            draw_namm(axis, curve, look)
        else:
            draw_baseline(axis, curve, look, ASIDE * (baselines.index(curve.policy) - (len(baselines) - 1) / 2))
    _share_axis(axis, drawn, looks, "kept, in bytes" if by_bytes(rows) else "kept")


def _share_axis(axis: Axes, drawn: Sequence[Curve], looks: dict[str, Look], measured: str) -> None:
    """Halvings of the cache on a log axis, with room on the left for the names of lines."""
    from matplotlib.ticker import NullFormatter, NullLocator

    least = min((point.share for curve in drawn for point in curve.everywhere), default=12.5)
    tokens = sorted({point.share for curve in drawn for point in curve.points if tokens_of(point.size)})
    ticks = tokens[::-1] or [100.0, 75.0]
    while not tokens and (ticks[-1] > 1.05 * least or len(ticks) < 5):
        ticks.append(50.0 if len(ticks) == 2 else ticks[-1] / 2)
    unit, most = ("", 1.08 * tokens[-1]) if tokens else ("%", _MOST)
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, [f"{tick:g}{unit}" if tick >= 1 else f"{tick:.1g}{unit}" for tick in ticks])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())
    lengths = (len(policy_label(one.policy, looks)) * (1.2 if looks[one.policy].strong else 1) for one in drawn)
    letters = max(lengths, default=0)
    names = min(0.04 + _LETTER * letters, 0.6)  # the part of the panel that the longest name takes
    first = min(least, ticks[-1])
    axis.set_xlim(first / max(2.3, (most / first) ** (names / (1 - names))), most)
    about = "tokens that each head may hold" if tokens else f"share of the cache {measured}"
    axis.set_xlabel(f"{about} (log scale)")


def _limits(axis: Axes, drawn: Sequence[Curve], fulls: Sequence[Point], metric: str) -> bool:
    """From zero if nothing is below, to the top of what is drawn; whether a wide interval is cut off."""
    points = [point for curve in drawn for point in curve.everywhere]
    values = [point.value for point in [*points, *fulls]]
    lows = [point.value if point.low is None else point.low for point in points]
    highs = [point.value if point.high is None else point.high for point in points]
    least, most = min([*values, 0.0]), max([*values, 0.0])
    span = max(most - least, _LEAST_SPAN.get(metric, 0.1))
    top = max(most, min(max(highs, default=most), most + 0.6 * span), least + span) + 0.04 * span
    below = metric in ("lost_nats", "log_likelihood")  # what else there is has no values below zero
    bottom = min(least, max(min(lows, default=0.0), least - 0.6 * span)) - 0.04 * span if below else 0.0
    axis.set_ylim(bottom, 0.0 if metric == "log_likelihood" else top)
    return max(highs, default=0.0) > top or (below and min(lows, default=0.0) < bottom)


def _names(axis: Axes, drawn: Sequence[Curve], looks: dict[str, Look]) -> None:
    """The name of each line left of its least share, moved apart, tied to it by a hair."""
    ends = [(curve, curve.points[0]) for curve in drawn if curve.points]
    if not ends:
        return
    bottom, top = axis.get_ylim()
    gap = _LABEL * (top - bottom) / (_HEIGHT * 72 * 0.72)
    places = _within(spread([point.value for _, point in ends], gap), gap, bottom + gap / 2, top - gap / 2)
    left = min(point.share for curve in drawn for point in curve.everywhere)
    for (curve, point), place in zip(ends, places, strict=True):
        look = looks[curve.policy]
        axis.annotate(
            policy_label(curve.policy, looks), xy=(point.share, point.value), xytext=(left / 1.16, place), ha="right",
            va="center", fontsize=8.5 if look.strong else 7.8, fontweight="bold" if look.strong else "normal",
            color=look.ink, annotation_clip=False, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4},
            arrowprops={
                "arrowstyle": "-", "linewidth": 0.5, "color": look.colour, "alpha": 0.6, "shrinkA": 1, "shrinkB": 3,
                "relpos": (1, 0.5),
            },
        )  # fmt: skip


def _within(places: list[float], gap: float, low: float, high: float) -> list[float]:
    """Places that are a gap apart, pushed into the panel from below, then from above."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    for rank, i in enumerate(order):
        places[i] = max(places[i], low + rank * gap)
    for rank, i in enumerate(reversed(order)):
        places[i] = min(places[i], high - rank * gap)
    return places
