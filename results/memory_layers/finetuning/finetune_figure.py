"""The fine-tuning figure: facts learned against text loss gained, one marker per method, drawn from rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ....errors import MemxError
from ...labels import caption, drawn
from ...selection import Drawn, PlotRequest
from ...store.rows import Row
from ...style import CYCLE, caption_below, new_figure
from ...summary import TIER_LABELS
from .finetune import TIERS_SHOWN, Method, by_method, finetune_table, is_wanted, methods_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = "osD^vP*X"


def draw(request: PlotRequest) -> Drawn:
    """Draw facts learned against text forgotten for each method, with their table."""
    rows = request.rows(is_wanted, by_method)
    methods = methods_of(rows)
    return Drawn(request.write(finetune_figure(rows, methods), rows), finetune_table(methods))


def finetune_figure(rows: Sequence[Row], methods: Sequence[Method]) -> Figure:
    """Draw exact match after against the change in text loss. Raises MemxError if no run measured its text loss."""
    if not any(method.change for method in methods):
        raise MemxError("no run here has text loss before and after", hint="set text.source when you train")
    tiers = [tier for tier in TIERS_SHOWN if any(tier in method.after for method in methods)]
    figure, axes = new_figure(len(tiers), sharey="all")
    for axis, tier in zip(axes, tiers, strict=True):
        axis.axvline(0, color="0.5", linewidth=1, zorder=1)
        for place, method in enumerate(methods):
            _method(axis, method, tier, CYCLE[place % len(CYCLE)], _MARKERS[place % len(_MARKERS)])
        _before(axis, [method.before[tier].value for method in methods if tier in method.before])
        axis.set_title(f"Facts learned, {TIER_LABELS[tier]}", fontsize=10)
        axis.set_xlabel("change in text loss (nats per token; higher = more forgotten)")
    axes[0].set_ylabel("exact match after training (%)")
    axes[0].set_ylim(bottom=0)
    texts = ", ".join(sorted({row.dataset for row in rows if row.labels.text}))
    summaries = [s for method in methods for s in method.after.values()]
    note = (
        " (no interval for the change in text loss)" if any(m.change and m.change[1] is None for m in methods) else ""
    )
    caption_below(figure, f"{caption(rows, summaries)} · {texts}{note}", axes)
    return figure


def _method(axis: Axes, method: Method, tier: str, colour: str, marker: str) -> None:
    after = method.after.get(tier)
    if after is None or method.change is None:
        return
    change, low, high = method.change
    axis.errorbar(
        [change], [after.value],
        xerr=None if low is None or high is None else [[change - low], [high - change]],
        yerr=[[after.value - after.low], [after.high - after.value]],
        color=colour, marker=marker, markersize=7, capsize=3, elinewidth=1.2, linestyle="none", zorder=3,
        label=drawn(method.name),
    )  # fmt: skip
    if len(method.changes) == after.runs > 1:
        axis.plot(method.changes, after.values, ".", color=colour, alpha=0.4, markersize=4, zorder=2)


def _before(axis: Axes, values: Sequence[float]) -> None:
    """Exact match before, if it is about the same for all."""
    if values and max(values) - min(values) < 1:
        mean = sum(values) / len(values)
        axis.axhline(mean, color="0.5", linewidth=1, linestyle=":", zorder=1, label="exact match before training")
