"""Bars of a benchmark: rows of `memx bench` -> the time of each implementation and rival over the op's floor.

A panel for each op and pass, a group of bars for each shape. The floor, 1x, is what the measured ceilings allow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...errors import MemxError
from ..labels import drawn
from ..store.rows import Row
from ..style import new_figure, power_axis
from .ops_table import milliseconds
from .rows import PASSES, Measured, by_op, floor_share, measured, where

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_OWN, _OTHER, _RIVAL = "#0072B2", "#56B4E9", "#E69F00"
_BAR, _GAP, _HEAD = 0.19, 1.5, 0.62  # inches of a bar; bars of space between shapes; inches of title and axis
Shapes = Mapping[str, Sequence[Measured]]


class _Bar(NamedTuple):
    """Where a bar lies, whose it is, its row, and the row of memx's fastest."""

    y: float
    line: Measured
    row: Row
    base: Row

    @property
    def length(self) -> float:
        """The time over the floor."""
        return 1 / (floor_share(self.row) or 1)


def bars_figure(rows: Sequence[Row]) -> Figure:
    """Draw every op and shape that was timed. Raises MemxError if there is none."""
    ops = by_op([line for line in measured(rows) if line.time("forward")])
    if not ops:
        raise MemxError("there are no timed ops to draw", hint="measure some with `memx bench --save FOLDER`")
    grid = _arranged(ops)
    heights = [_HEAD + _BAR * max(_rows_of(ops[op]) for op, _ in pair) for pair in grid]
    figure, axes = new_figure(panels=2, rows=len(grid), height=sum(heights) / len(heights))
    figure.set_size_inches(12.4, sum(heights) + 0.75)
    spec = axes[0].get_gridspec()
    assert spec is not None
    spec.set_height_ratios(heights)
    lengths = [bar.length for pair in grid for op, which in pair for bar in _bars(ops[op], which)]
    for place, pair in enumerate(grid):
        for axis, (op, which) in zip(axes[2 * place : 2 * place + 2], pair, strict=False):
            _panel(axis, ops[op], which, (min([1.0, *lengths]) / 1.5, max([10.0, *lengths]) * 80))
            both = any(line.time("backward") for lines in ops[op].values() for line in lines)
            axis.set_title(f"{op}, {which}" if both else op, fontsize=10, loc="left")
        if len(pair) == 1:
            axes[2 * place + 1].set_axis_off()
    _caption(figure, rows)
    return figure


def _arranged(ops: Mapping[str, Shapes]) -> list[list[tuple[str, str]]]:
    """Pairs of panels: both passes of an op side by side, then ops of one pass by twos."""
    passes_of = {op: [which for which in PASSES if _bars(shapes, which)] for op, shapes in ops.items()}
    pairs = [[(op, which) for which in passes] for op, passes in passes_of.items() if len(passes) == 2]
    alone = [(op, which) for op, passes in passes_of.items() if len(passes) == 1 for which in passes]
    return pairs + [alone[i : i + 2] for i in range(0, len(alone), 2)]


def _rows_of(shapes: Shapes) -> float:
    return sum(len(lines) + _GAP for lines in shapes.values())


def _bars(shapes: Shapes, which: str) -> list[_Bar]:
    """The bars of a panel from the top down; what has no such pass, or no floor, has none."""
    bars, y = [], 0.0
    for lines in shapes.values():
        y += _GAP
        own = [row for line in lines if not line.rival and (row := line.time(which))]
        base = min(own, key=lambda row: row.value, default=None)
        for line in lines:
            row = line.time(which)
            if row is not None and base is not None and floor_share(row):
                bars.append(_Bar(y, line, row, base))
            y += 1
    return bars


def _panel(axis: Axes, shapes: Shapes, which: str, limits: tuple[float, float]) -> None:
    bars = _bars(shapes, which)
    axis.set_xscale("log")
    power_axis(axis.xaxis)
    axis.set_xlim(*limits)
    axis.set_ylim(_rows_of(shapes) - 0.4, 0)
    for bar in bars:
        colour = _RIVAL if bar.line.rival else _OWN if bar.row is bar.base else _OTHER
        axis.barh(bar.y, bar.length - 1, left=1, height=0.76, color=colour)
        axis.annotate(
            _label_of(bar), (max(1.0, bar.length), bar.y), xytext=(4, 0), textcoords="offset points", va="center",
            fontsize=7.5,
        )  # fmt: skip
    axis.axvline(1, color="black", linewidth=1.2)
    _label(axis, shapes, bars, which)


def _label_of(bar: _Bar) -> str:
    """Milliseconds; of memx's fastest the share of the floor, of the others how they compare with it."""
    if bar.row is bar.base:
        return f"{milliseconds(bar.row.value)} ms, {100 * (floor_share(bar.row) or 0):.3g}% of peak"
    return f"{milliseconds(bar.row.value)} ms, {bar.row.value / bar.base.value:.3g}x the time of memx"


def _label(axis: Axes, shapes: Shapes, bars: Sequence[_Bar], which: str) -> None:
    """Names at the bars, shapes above their groups."""
    axis.set_yticks([bar.y for bar in bars], [drawn(bar.line.name) for bar in bars], fontsize=8)
    axis.tick_params(axis="y", length=0)
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(visible=False, axis="y")
    axis.spines["top"].set_visible(False)
    axis.xaxis.set_major_formatter(lambda value, place: f"{value:,.12g}x")
    y = 0.0
    for shape, lines in shapes.items():
        if any(line.time(which) for line in lines):
            axis.annotate(
                shape, (1, y + _GAP - 0.95), xytext=(4, 0),
                textcoords="offset points", fontsize=8, fontweight="bold", va="center", color="0.25",
            )  # fmt: skip
        y += _GAP + len(lines)


def _caption(figure: Figure, rows: Sequence[Row]) -> None:
    """What the colours are, below all panels."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        Patch(color=_OWN, label="memx, fastest"),
        Patch(color=_OTHER, label="memx, another implementation"),
        Patch(color=_RIVAL, label="baseline (PyTorch or third-party)"),
        Line2D([], [], color="black", linewidth=1.2, label="roofline time: minimum at the measured peaks"),
    ]
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=4)
    legend.set_title(
        f"Time relative to the roofline time (log scale; shorter is faster) · {where(rows)} · {rows[0].model}"
    )
    legend.get_title().set_fontsize(8.5)
