"""The ablation figure: variants' accuracy and loss above, their paired differences to the first below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..labels import caption, drawn
from ..selection import Drawn, PlotRequest
from ..store.rows import Row
from ..style import VERDICT_COLOURS, caption_below, new_figure
from ..summary import TIER_LABELS, TIERS
from .ablation import METRICS, Variant, ablation_table, variants_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {"exact_match": "exact match (%)", "nll": "answer NLL (nats per token)"}
_DIFFERENCES = {"exact_match": "difference in exact match (points)", "nll": "difference in answer NLL (nats per token)"}
_PLAIN = "0.35"


def draw(request: PlotRequest) -> Drawn:
    """Draw variants and their differences to the baseline, or the first, with their table; rows are of all tiers."""
    tier = request.options.tier
    rows = request.rows(lambda row: row.dataset in TIERS and row.metric in METRICS)
    drawn = [row for row in rows if row.dataset == tier]
    variants = variants_of(drawn, tier, request.options.baseline)
    return Drawn(request.write(ablation_figure(drawn, variants, tier), rows), ablation_table(variants, tier))


def ablation_figure(rows: Sequence[Row], variants: Sequence[Variant], tier: str) -> Figure:
    """Draw variants from top to bottom, the first on top; colours say what the paired differences tell."""
    figure, axes = new_figure(2, 1.3 + 0.32 * len(variants), rows=2, sharey="all")
    for column, metric in enumerate(TITLES):
        _values(axes[column], variants, metric)
        _differences(axes[2 + column], variants, metric)
        axes[column].set_xlabel(TITLES[metric])
        axes[2 + column].set_xlabel(_DIFFERENCES[metric])
        better = "higher" if metric == "exact_match" else "lower"
        title = f"Difference from {variants[0].name!r} ({better} is better)"
        axes[2 + column].set_title(title, fontsize=10)
    axes[0].set_title(f"Accuracy, {TIER_LABELS[tier]}")
    axes[1].set_title("Answer loss")
    axes[0].set_yticks(range(len(variants)), [drawn(variant.name) for variant in variants])
    axes[0].set_ylim(len(variants) - 0.4, -0.6)
    summaries = [s for variant in variants for s in variant.summaries.values()]
    note = (
        "differences are paired by seed; colours: whether their 95% CI excludes 0 (not corrected for several variants)"
    )
    caption_below(figure, f"{caption(rows, summaries)}\n{note}", axes)
    return figure


def _values(axis: Axes, variants: Sequence[Variant], metric: str) -> None:
    for place, variant in enumerate(variants):
        s = variant.summaries.get(metric)
        if s is None:
            continue
        _dot(axis, s.value, s.low, s.high, place, *_look(variant, metric))
        if s.runs > 1:
            axis.plot(s.values, [place] * s.runs, ".", color="0.6", markersize=4, zorder=4)


def _differences(axis: Axes, variants: Sequence[Variant], metric: str) -> None:
    axis.axvline(0, color="0.5", linewidth=1, zorder=1)
    for place, variant in enumerate(variants):
        d = variant.differences.get(metric)
        if d is None or d.value is None:
            continue
        _dot(axis, d.value, d.low, d.high, place, *_look(variant, metric))
        axis.plot(d.values, [place] * len(d.values), ".", color="0.6", markersize=4, zorder=4)


def _look(variant: Variant, metric: str) -> tuple[str, str]:
    """Colour and legend entry of a variant: what is told of it, or that nothing is."""
    difference = variant.differences.get(metric)
    verdict = difference.verdict if difference else "first"
    if verdict in VERDICT_COLOURS:
        return VERDICT_COLOURS[verdict], f"{verdict} than the baseline"
    if verdict == "first":
        return _PLAIN, "baseline"
    return (
        "#999999",
        "no clear difference from the baseline" if verdict == "no clear difference" else f"not compared: {verdict}",
    )


def _dot(axis: Axes, value: float, low: float | None, high: float | None, place: int, colour: str, label: str) -> None:
    errors = None if low is None or high is None else [[value - low], [high - value]]
    marker = {"better than the baseline": "o", "worse than the baseline": "s", "baseline": "D"}.get(label, "^")
    axis.errorbar(
        [value], [place], xerr=errors, color=colour, marker=marker, markersize=6, capsize=3, elinewidth=1.3,
        linestyle="none", label=label, zorder=3,
    )  # fmt: skip
