"""The figure of kinds: a row of panels for each base, one for each measure, with a line for each model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..labels import caption, drawn
from ..selection import Drawn, PlotRequest
from ..store.rows import Row
from ..style import KIND_COLOURS, KIND_LABELS, KIND_MARKERS, caption_below, new_figure
from .kinds import KindsOfBase, Measure, Model, kinds_of, kinds_table
from .shares import is_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HINTS: Any = {
    "missing": "there are no models with names to compare",
    "hint": "train a preset with variants, such as `memx train kinds` or `ablation`",
}


def draw(request: PlotRequest) -> Drawn:
    """Draw models of equal cost, with their table; the rows are those of all tiers and lengths of names."""
    tier = request.options.tier
    rows = request.rows(
        lambda row: bool(row.variant) and row.metric in ("exact_match", "nll") and is_whole(row), **_HINTS
    )
    bases = kinds_of(rows, tier, request.options.baseline)
    return Drawn(request.write(kinds_figure(rows, bases), rows), kinds_table(bases, tier))


def kinds_figure(rows: Sequence[Row], bases: Sequence[KindsOfBase]) -> Figure:
    """Draw the models of each base from top to bottom, with 95% intervals, and the baseline as a line through them."""
    measures = list(dict.fromkeys(m for base in bases for model in base.models for m in model.scores))
    most = max(len(base.models) for base in bases)
    figure, axes = new_figure(len(measures), 1.2 + 0.3 * most, rows=len(bases), sharey="row")
    for line, base in enumerate(bases):
        of_base = axes[line * len(measures) : (line + 1) * len(measures)]
        for axis, measure in zip(of_base, measures, strict=True):
            _panel(axis, base, measure)
            axis.set_title(f"{measure.title}: {base.base}", fontsize=10)
            axis.set_xlabel(measure.unit)
        of_base[0].set_yticks(range(len(base.models)), [drawn(model.name) for model in base.models])
        of_base[0].set_ylim(len(base.models) - 0.4, -0.6)
    summaries = [s for base in bases for model in base.models for s in model.scores.values()]
    note = f"dots: seeds; dotted line: {drawn(bases[0].baseline)!r}, which the others are compared with"
    caption_below(figure, f"{caption(rows, summaries)}\n{note}", axes)
    return figure


def _panel(axis: Axes, base: KindsOfBase, measure: Measure) -> None:
    for place, model in enumerate(base.models):
        if measure in model.scores:
            _dot(axis, model, measure, place)
            if model.name == base.baseline:
                axis.axvline(model.scores[measure].value, color="0.5", linewidth=1, linestyle=":", zorder=1)


def _dot(axis: Axes, model: Model, measure: Measure, place: int) -> None:
    s = model.scores[measure]
    axis.errorbar(
        [s.value], [place], xerr=[[s.value - s.low], [s.high - s.value]], color=KIND_COLOURS.get(s.kind, "#999999"),
        marker=KIND_MARKERS.get(s.kind, "o"), markersize=6, capsize=3, elinewidth=1.3, linestyle="none",
        label=KIND_LABELS.get(s.kind, s.kind), zorder=3,
    )  # fmt: skip
    if s.runs > 1:
        axis.plot(s.values, [place] * s.runs, ".", color="0.6", markersize=4, zorder=4)
