"""The continual-learning figure: new facts learned against what is kept, one marker per method, drawn from rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ....errors import MemxError
from ...labels import drawn
from ...selection import Drawn, PlotRequest
from ...store.rows import Row
from ...style import CYCLE, caption_below, new_figure
from .continual import (
    EARLIER,
    KNOWN,
    LEARNED,
    ContinualMethod,
    by_trained,
    continual_methods,
    continual_table,
    is_wanted,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = "osD^vP*X"
_HINT = "train one with `memx train` and finetune.parts"
_PANELS = {
    KNOWN: ("What the model knew before", "still answered after the last part (%)"),
    EARLIER: ("Facts of earlier parts", "exact match after the last part (%)"),
}


def draw(request: PlotRequest) -> Drawn:
    """Draw facts learned against what is kept for each method, with their table."""
    rows = request.rows(is_wanted, by_trained, missing="no run here learned its facts in parts", hint=_HINT)
    methods = continual_methods(rows)
    return Drawn(request.write(continual_figure(rows, methods), rows), continual_table(methods))


def continual_figure(rows: Sequence[Row], methods: Sequence[ContinualMethod]) -> Figure:
    """Draw what was learned of each part against what was kept, of known questions and of earlier parts.

    Raises MemxError if nothing that is kept was measured.
    """
    shown = [key for key in _PANELS if any(key in method.figures for method in methods)]
    if not shown:
        raise MemxError("no run here measured what it keeps", hint="set evaluation.known when you train")
    figure, axes = new_figure(len(shown), sharey="all")
    for axis, key in zip(axes, shown, strict=True):
        for place, method in enumerate(methods):
            _method(axis, method, key, CYCLE[place % len(CYCLE)], _MARKERS[place % len(_MARKERS)])
        title, label = _PANELS[key]
        axis.set_title(title, fontsize=10)
        axis.set_xlabel(label)
    axes[0].set_ylabel("new facts, paraphrased, mean of parts:\nexact match (%)")
    runs = max(len(method.seeds) for method in methods)
    fewest = min(len(method.seeds) for method in methods)
    seeds = f"{runs}" if fewest == runs else f"{fewest} to {runs}"
    interval = f"mean of {seeds} seeds, 95% CI (t)" if runs > 1 else "one seed, 95% CI over questions"
    parts = max(row.labels.after_part or 0 for row in rows)
    models = ", ".join(dict.fromkeys(row.model for row in rows))
    caption_below(figure, f"{models} · {parts} parts, learned one after another · {interval}", axes)
    return figure


def _method(axis: Axes, method: ContinualMethod, key: str, colour: str, marker: str) -> None:
    learned, kept = method.figures.get(LEARNED), method.figures.get(key)
    if learned is None or kept is None:
        return
    axis.errorbar(
        [kept.value], [learned.value], xerr=_ends(*kept), yerr=_ends(*learned), color=colour, marker=marker,
        markersize=7, capsize=3, elinewidth=1.2, linestyle="none", zorder=3, label=drawn(method.name),
    )  # fmt: skip
    if len(method.seeds) > 1:
        axis.plot(method.values[key], method.values[LEARNED], ".", color=colour, alpha=0.4, markersize=4, zorder=2)


def _ends(value: float, low: float | None, high: float | None) -> list[list[float]] | None:
    return None if low is None or high is None else [[value - low], [high - value]]
