"""Kinds of memory against dense models: accuracy by parameters and by compute, a row of panels for each base."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

from ..labels import caption, drawn, short
from ..selection import Drawn, PlotRequest
from ..store.rows import Row
from ..style import GUESS, GUESS_LABEL, KIND_COLOURS, KIND_LABELS, KIND_MARKERS, caption_below, new_figure, spread
from ..summary import TIER_LABELS, TIERS, Summary
from .baselines import METRICS, Base, baselines_table, bases_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(request: PlotRequest) -> Drawn:
    """Draw kinds of memory against dense models, with the table of what each kind is worth in dense compute.

    The rows written beside the pictures are those of all tiers; the pictures show one.
    """
    tier = request.options.tier
    rows = request.rows(lambda row: row.dataset in TIERS and row.metric in METRICS)
    drawn = [row for row in rows if row.dataset == tier]
    bases = bases_of(drawn, tier)
    return Drawn(request.write(baselines_figure(drawn, bases, tier), rows), baselines_table(bases, tier))


def baselines_figure(rows: Sequence[Row], bases: Sequence[Base], tier: str) -> Figure:
    """Draw the bases' models at a tier: against total parameters on the left, against FLOPs per token on the right."""
    figure, axes = new_figure(2, 4.8 if len(bases) == 1 else 4.2, len(bases), sharey="all")
    everything = [s for base in bases for s in base.models]
    top = 1.08 * max([s.high for s in everything] + [v for s in everything for v in s.values])
    axes[0].set_ylim(0, min(max(top, 1.0), 105.0))
    for base, left, right in zip(bases, axes[::2], axes[1::2], strict=True):
        _by_parameters(left, base, tier)
        _by_flops(right, base, tier)
        title = "Accuracy" if len(bases) == 1 else f"{base.name}: accuracy"
        left.set_title(f"{title} by parameters", pad=32)
        right.set_title(f"{title} by compute", pad=32)
        left.set_ylabel(f"exact match (%), {TIER_LABELS[tier]}")
    caption_below(figure, f"{caption(rows, everything)}\n{_worths(bases)}".rstrip(), axes)
    return figure


def _by_parameters(axis: Axes, base: Base, tier: str) -> None:
    for kind, points in base.kinds.items():
        _points(axis, points, [s.parameters_total or 1 for s in points], kind, KIND_LABELS[kind], line="-")
    _dense_lines(axis, base)
    _guess(axis, base, tier)
    axis.set_xlabel("total parameters (log scale)")
    _log_ticks(axis, [s.parameters_total or 1 for points in base.kinds.values() for s in points])


def _by_flops(axis: Axes, base: Base, tier: str) -> None:
    if base.dense:
        _points(axis, base.dense, [s.flops or 1 for s in base.dense], "dense", "dense", line="-")
    for place, (kind, points) in enumerate(base.kinds.items()):
        aside = 6.0 * (place - (len(base.kinds) - 1) / 2)  # kinds of equal cost would hide each other
        _points(axis, points, [s.flops or 1 for s in points], kind, KIND_LABELS[kind], line="none", aside=aside)
    for kind, s in base.best().items():
        worth = base.worth(s.value, s.flops)
        if worth and worth.times and s.flops:
            end = s.flops * min(worth.times, worth.bound if worth.times == inf else inf)
            axis.plot([s.flops, end], [s.value] * 2, color=KIND_COLOURS[kind], linestyle=":", linewidth=1.2, zorder=1)
    _guess(axis, base, tier)
    axis.set_xlabel(
        f"FLOPs per token (log scale{'' if len(base.kinds) < 2 else '; models of equal FLOPs drawn side by side'})"
    )
    _log_ticks(axis, [s.flops or 1 for s in base.models])
    if reference := base.reference:
        above = axis.secondary_xaxis("top")
        flops = [s.flops or 1 for s in base.dense]
        above.set_xticks(flops, [f"{f / (reference.flops or 1):.2g}x" for f in flops])
        above.minorticks_off()
        above.tick_params(length=2, labelsize=8)
        above.set_xlabel("FLOPs relative to the dense model", fontsize=8.5, labelpad=5)


def _points(
    axis: Axes, points: Sequence[Summary], x: Sequence[int], kind: str, name: str, line: str, aside: float = 0.0
) -> None:
    """Means with intervals, and the seeds faint behind them; drawn so many typographic points aside."""
    from matplotlib.transforms import ScaledTranslation

    colour = KIND_COLOURS[kind]
    errors = [[s.value - s.low for s in points], [s.high - s.value for s in points]]
    place = axis.transData + ScaledTranslation(aside / 72, 0, axis.figure.dpi_scale_trans)
    axis.errorbar(
        x, [s.value for s in points], yerr=errors, color=colour, marker=KIND_MARKERS[kind], linestyle=line, capsize=3,
        linewidth=1.8, markersize=6, elinewidth=1.1, label=drawn(name), zorder=3, transform=place,
    )  # fmt: skip
    for s, where in zip(points, x, strict=True):
        if s.runs > 1:
            axis.plot([where] * s.runs, s.values, ".", color=colour, alpha=0.4, markersize=4, zorder=2, transform=place)


def _dense_lines(axis: Axes, base: Base) -> None:
    """A dashed line for each dense model, named on the right by its FLOPs over those of 1x."""
    reference = base.reference
    if not reference:
        return
    gap = 0.05 * axis.get_ylim()[1]
    for s, place in zip(base.dense, spread([s.value for s in base.dense], gap), strict=True):
        axis.axhline(s.value, color=KIND_COLOURS["dense"], linestyle="--", linewidth=1, zorder=1)
        axis.annotate(
            f"dense, {(s.flops or 1) / (reference.flops or 1):.2g}x FLOPs",
            xy=(1.0, s.value), xytext=(1.03, place), xycoords=axis.get_yaxis_transform(),
            textcoords=axis.get_yaxis_transform(), va="center", fontsize=8, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "linewidth": 0.6, "color": "0.5", "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip


def _guess(axis: Axes, base: Base, tier: str) -> None:
    if base.chance is not None:
        label = f"{GUESS_LABEL} ({TIER_LABELS[tier]})"
        axis.axhline(base.chance, color=GUESS, linewidth=1, linestyle=":", zorder=1, label=label)
        axis.annotate(
            f"first-letter guess {base.chance:.0f}%", (1, base.chance), (-3, -3), ha="right", va="top", fontsize=7.5,
            color="0.45", xycoords=axis.get_yaxis_transform(), textcoords="offset points", zorder=1,
        )  # fmt: skip


def _log_ticks(axis: Axes, values: Sequence[int]) -> None:
    """A log axis with round numbers in short."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_xscale("log")
    low, high = min(values), max(values)
    # a wide range has room for 1, 2 and 5 of each decade; of one value, a decade is shown
    axis.set_xlim(low / 1.3, high * 1.3) if high > 1.5 * low else axis.set_xlim(low / 2, high * 2)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: short(x, 1000)))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _worths(bases: Sequence[Base]) -> str:
    """What the best of each kind is worth, a line for each base."""
    lines = []
    for base in bases:
        worths = {kind: base.worth(s.value, s.flops) for kind, s in base.best().items()}
        text = ", ".join(f"{KIND_LABELS[kind]} {worth}" for kind, worth in worths.items() if worth)
        if text:
            prefix = "" if len(bases) == 1 else f"{base.name}: "
            lines.append(f"{prefix}dense compute that matches the best of each kind: {text}")
    beyond = any(">" in line for line in lines)
    return "\n".join(lines) + (" (>: above the largest measured)" if beyond else "")
