"""The dual figure: accuracy and answer NLL against memory size, one line per question set, drawn from rows alone.

Slots are on a log axis below, with the dense model at its left edge; parameters are written above.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...errors import MemxError
from ..labels import caption, short, slots_label
from ..published import published_curves
from ..selection import Drawn, PlotRequest
from ..store.rows import Row
from ..style import BASE_COLOURS, COLOURS, GUESS, GUESS_LABEL, MARKERS, new_figure
from ..summary import TIER_LABELS, TIERS, Summary, summarize

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = {
    "exact_match": "exact match (%)",
    "f1": "F1 (%)",
    "nll": "answer NLL (nats per token)",
}


def draw(request: PlotRequest) -> Drawn:
    """Draw accuracy and NLL against memory size. Raises MemxError for an unknown --accuracy, and as `memory_figure`."""
    options = request.options
    if options.accuracy not in PANELS or options.accuracy == "nll":
        raise MemxError(f"--accuracy: unknown metric {options.accuracy!r}", hint="use exact_match or f1")
    wanted = {*PANELS, "chance_exact_match"}
    rows = request.rows(lambda row: row.dataset in TIERS and row.metric in wanted)
    figure = memory_figure(rows, published=options.published, accuracy=options.accuracy)
    return Drawn(request.write(figure, rows))


def memory_figure(rows: Sequence[Row], *, published: bool = False, accuracy: str = "exact_match") -> Figure:
    """Draw the figure of one experiment's rows; published adds the curves of Memory Layers at Scale.

    Raises MemxError if models of one memory size, or memories of several kinds, would share a line.
    """
    summaries = [s for s in summarize(rows) if s.dataset in TIERS and s.metric in (*PANELS, "chance_exact_match")]
    _check_one_line(summaries)
    figure, axes = new_figure(panels=2, height=5.2)
    slots = sorted({s.memory_slots for s in summaries if s.memory_slots})
    others = [p.memory_slots for c in published_curves().values() for p in c if p.memory_slots] if published else []
    for axis, metric in zip(axes, (accuracy, "nll"), strict=True):
        scale = SlotAxis(slots, others if metric == accuracy else ())
        _lines(axis, [s for s in summaries if s.metric == metric], scale)
        if metric == "exact_match":
            _guess(axis, [s for s in summaries if s.metric == "chance_exact_match"])
        if metric == accuracy and published:
            _published(axis, scale)
        scale.dress(axis, summaries)
        axis.set_ylabel(
            f"{PANELS[accuracy]}; published: see legend" if metric == accuracy and published else PANELS[metric]
        )
        axis.set_ylim(bottom=0)
        axis.set_title(f"{'Accuracy' if metric == accuracy else 'Answer loss'} by memory size", pad=34)
    handles, labels = axes[0].get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=4 if not published else 3)
    legend.set_title(caption(rows, summaries))
    legend.get_title().set_fontsize(7.5)
    return figure


def _check_one_line(summaries: Sequence[Summary]) -> None:
    models = {(s.memory_slots, s.kind, s.variant, s.model) for s in summaries}
    if len({slots for slots, *_ in models}) < len(models) or len({kind for slots, kind, *_ in models if slots}) > 1:
        names = ", ".join(dict.fromkeys(v or f"{k} {slots} {m}".strip() for slots, k, v, m in sorted(models)))
        raise MemxError(
            f"these runs differ in more than memory size: {names[:120]}",
            hint="compare kinds and bases with `memx plot baselines`, variants with `memx plot ablation`",
        )


class SlotAxis:
    """Memory sizes on a log axis, with the dense model a fixed step left of the smallest memory."""

    def __init__(self, slots: Sequence[int], extra: Sequence[int] = ()) -> None:
        from math import log2

        self._log2 = log2
        self.slots, self.extra = list(slots), sorted(set(extra))
        everything = [*self.slots, *self.extra] or [1024]
        self.dense = log2(min(everything)) - 2.0
        self.right = log2(max(everything)) + 0.6

    def place(self, slots: int | None) -> float:
        """Where a memory size stands: 0 or None is the dense model."""
        return self._log2(slots) if slots else self.dense

    def dress(self, axis: Axes, summaries: Sequence[Summary]) -> None:
        """Ticks in slots below, in parameters above, and a break after the dense model."""
        shown = self.slots + [s for s in self.extra if s not in self.slots]
        axis.set_xticks([self.dense, *(self.place(s) for s in shown)], ["dense", *(slots_label(s) for s in shown)])
        axis.tick_params(axis="x", labelsize=8.5)
        axis.set_xlim(self.dense - 0.6, self.right)
        axis.axvline(self.dense + 1.0, color="0.75", linewidth=0.8)
        axis.set_xlabel("memory slots (log scale; dense: no memory layer)")
        totals = {s.memory_slots: s.parameters_total for s in summaries if s.parameters_total}
        top = axis.secondary_xaxis("top")
        top.set_xticks([self.place(s) for s in totals], [short(total, 1000) for total in totals.values()])
        top.set_xlabel("parameters", fontsize=8.5, labelpad=5)
        top.tick_params(length=2, labelsize=8)


def _lines(axis: Axes, summaries: Sequence[Summary], scale: SlotAxis) -> None:
    for tier in TIERS:
        points = sorted((s for s in summaries if s.dataset == tier), key=lambda s: s.memory_slots)
        if not points:
            continue
        x = [scale.place(s.memory_slots) for s in points]
        y = [s.value for s in points]
        errors = [[s.value - s.low for s in points], [s.high - s.value for s in points]]
        colour = COLOURS[tier]
        axis.errorbar(
            x, y, yerr=errors, color=colour, marker=MARKERS[tier], capsize=3, linewidth=1.8, markersize=6,
            elinewidth=1.1, label=TIER_LABELS[tier], zorder=3,
        )  # fmt: skip
        for s, place in zip(points, x, strict=True):
            if s.runs > 1:
                axis.plot([place] * s.runs, s.values, ".", color=colour, alpha=0.4, markersize=4, zorder=2)


def _guess(axis: Axes, summaries: Sequence[Summary]) -> None:
    for tier in ("unseen", "seen"):
        points = [s for s in summaries if s.dataset == tier]
        if points:
            value = sum(s.value for s in points) / len(points)
            axis.axhline(
                value,
                color=GUESS,
                linewidth=1,
                linestyle=":",
                zorder=1,
                label=f"{GUESS_LABEL} ({TIER_LABELS[tier]})",
            )
            axis.annotate(
                f"guess\n{value:.0f}%", (1, value), (2, 0), va="center", fontsize=7.5, color="0.45",
                xycoords=axis.get_yaxis_transform(), textcoords="offset points", annotation_clip=False,
            )  # fmt: skip
            return


def _published(axis: Axes, scale: SlotAxis) -> None:
    for (base, title), points in published_curves().items():
        axis.plot(
            [scale.place(p.memory_slots) for p in points],
            [p.value for p in points],
            color=BASE_COLOURS.get(base, "0.5"),
            linestyle="--" if title.startswith("NQ") else "-.",
            marker="x",
            markersize=4,
            linewidth=1.1,
            label=f"published: {base} Memory+, {title}",
        )
