"""The figure of shares: scores of facts and text by the share of the sparse parameters that one kind of memory gets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..labels import drawn
from ..selection import Drawn, PlotRequest
from ..store.rows import Row
from ..style import CYCLE, caption_below, new_figure
from ..summary import TIER_LABELS
from .shares import METRICS, Curve, curves_of, is_whole, shares_of, shares_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HINTS: Any = {
    "missing": "there are no models that share a budget of sparse parameters",
    "hint": "train a preset that sweeps memory.share, such as `memx train shares`",
}


def draw(request: PlotRequest) -> Drawn:
    """Draw scores by share, with their table; the rows are those of all tiers and lengths of names."""
    tier = request.options.tier
    rows = request.rows(lambda row: bool(shares_of(row)) and row.metric in METRICS and is_whole(row), **_HINTS)
    curves = curves_of(rows, tier)
    return Drawn(request.write(shares_figure(rows, curves, tier), rows), shares_table(curves, tier))


def shares_figure(rows: Sequence[Row], curves: Sequence[Curve], tier: str) -> Figure:
    """Draw a panel for each data set and metric, with a line for each set of kinds, and its seeds as dots."""
    panels = list(dict.fromkeys((curve.dataset, curve.metric) for curve in curves))
    names = list(dict.fromkeys(curve.name for curve in curves))
    figure, axes = new_figure(len(panels))
    for axis, (dataset, metric) in zip(axes, panels, strict=True):
        for curve in curves:
            if (curve.dataset, curve.metric) == (dataset, metric):
                _line(axis, curve, CYCLE[names.index(curve.name) % len(CYCLE)])
        axis.set_title("Text, held out" if dataset != tier else f"Facts, {TIER_LABELS[tier]}")
        axis.set_ylabel("exact match (%)" if metric == "exact_match" else "NLL (nats per token), lower is better")
        axis.set_xlabel(f"share of {curves[0].kinds[0]} in the sparse parameters (%)")
    caption_below(figure, _caption(rows, curves), axes)
    return figure


def _line(axis: Axes, curve: Curve, colour: str) -> None:
    x = [100 * point.share for point in curve.points]
    errors = [
        [0.0 if p.low is None else p.mean - p.low for p in curve.points],
        [0.0 if p.high is None else p.high - p.mean for p in curve.points],
    ]
    axis.errorbar(
        x, [p.mean for p in curve.points], yerr=errors, color=colour, marker="o", linewidth=1.8, capsize=3,
        label=drawn(curve.name), zorder=3,
    )  # fmt: skip
    for point, where in zip(curve.points, x, strict=True):
        axis.plot([where] * len(point.values), list(point.values.values()), ".", color=colour, alpha=0.4, zorder=2)


def _caption(rows: Sequence[Row], curves: Sequence[Curve]) -> str:
    totals = sorted({row.parameters_total for row in rows if row.parameters_total})
    flops = sorted({row.flops for row in rows if row.flops})
    seeds = max(len(point.values) for curve in curves for point in curve.points)
    sizes = f"{totals[0] / 1e6:.2f} to {totals[-1] / 1e6:.2f} million parameters" if totals else ""
    cost = f"{flops[0] / 1e3:,.0f} to {flops[-1] / 1e3:,.0f} thousand FLOPs per token" if flops else ""
    parts = [part for part in (sizes, cost, f"{seeds} seeds; bars: 95% CI over seeds") if part]
    return "; ".join(parts)
