"""The roofline of a benchmark: rows of `memx bench` -> what each op computes a second against the ceilings.

Left the forward pass, right the backward pass. Above each FLOP/byte of an op the roof is what the device allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import MemxError
from ..labels import drawn
from ..store.rows import Row
from ..style import CYCLE, caption_below, new_figure, power_axis
from .ops_table import flop_unit, short_rate
from .rows import PASSES, Measured, ceiling, extra, measured, rate, where

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COMPILED = "torch.compile"
_ASIDE = 0.075  # inches between ops of the same FLOP per byte


class _Roof(NamedTuple):
    """Bytes a second and FLOPs a second that the device allows, and the unit of the vertical axis."""

    bandwidth: float
    matmul: float
    unit: str
    size: float

    def at(self, intensity: float) -> float:
        """The most FLOPs a second, in the unit, at so many FLOPs a byte."""
        return min(self.bandwidth * intensity, self.matmul) / self.size


def roofline_figure(rows: Sequence[Row]) -> Figure:
    """Draw every timed op that has FLOPs, memx's filled, rivals' open. Raises MemxError without ceilings or ops."""
    copy, matmul = ceiling(rows, "copy_gbps"), ceiling(rows, "matmul_tflops")
    lines = [line for line in measured(rows) if line.time("forward")]
    if copy is None or matmul is None or not lines:
        raise MemxError("there are no timed ops to draw", hint="measure some with `memx bench --save FOLDER`")
    roof = _Roof(1e9 * copy, 1e12 * matmul, *flop_unit(rows))
    passes = [which for which in PASSES if any(_counted(line.time(which)) for line in lines)]
    figure, axes = new_figure(panels=max(1, len(passes)), height=5.4)
    places = [_place(line, which, roof) for which in passes for line in lines if _counted(line.time(which))]
    ops = list(dict.fromkeys(line.op for line in lines))
    for axis, which in zip(axes, passes, strict=False):
        _draw(axis, [line for line in lines if _counted(line.time(which))], which, roof, ops)
        _dress(axis, which, places, roof)
    _explain(axes[0], lines)
    text = (
        f"{where(rows)} · {rows[0].model} · minimum bytes and FLOPs of each op divided by its time · thin lines: gap "
        "to the roof\npoints of equal FLOP/byte are drawn side by side; points above the roof have their data in cache"
    )
    without = [op for op in ops if not any(_counted(line.time("forward")) for line in lines if line.op == op)]
    if without:
        text += f"\n{', '.join(without)} has no FLOPs: see the bars"
    caption_below(figure, text, axes)
    return figure


def _counted(row: Row | None) -> bool:
    return row is not None and bool(row.flops) and bool(extra(row, "bytes"))


def _place(line: Measured, which: str, roof: _Roof) -> tuple[float, float]:
    """FLOPs a byte, and FLOPs a second in the unit."""
    row = line.time(which)
    assert row is not None
    return (row.flops or 0) / extra(row, "bytes", 1), (rate(row, "flops") or 0) / roof.size


def _draw(axis: Axes, lines: Sequence[Measured], which: str, roof: _Roof, ops: Sequence[str]) -> None:
    """Every op and shape: a thin line up to the roof, the rivals, and the fastest of memx on top."""
    from matplotlib.transforms import ScaledTranslation

    for op, shape in dict.fromkeys((line.op, line.shape) for line in lines):
        here = [line for line in lines if (line.op, line.shape) == (op, shape)]
        rates = [_place(line, which, roof)[1] for line in here]
        x, colour = _place(here[0], which, roof)[0], CYCLE[ops.index(op) % len(CYCLE)]
        aside = ScaledTranslation(_ASIDE * (ops.index(op) - (len(ops) - 1) / 2), 0, axis.figure.dpi_scale_trans)
        common: dict[str, Any] = dict(color=colour, transform=axis.transData + aside)
        axis.plot([x, x], [min(rates), roof.at(x)], linewidth=0.7, alpha=0.5, zorder=1, **common)
        for line, y in zip(here, rates, strict=True):
            if line.rival:
                marker = "x" if line.name == COMPILED else "o"
                axis.plot(x, y, marker, mfc="white", markersize=4.5, markeredgewidth=1.1, zorder=3, **common)
        own = [y for line, y in zip(here, rates, strict=True) if not line.rival]
        if own:
            axis.plot(x, max(own), "o", markersize=7.5, mec="white", label=drawn(op), zorder=4, **common)


def _dress(axis: Axes, which: str, places: Sequence[tuple[float, float]], roof: _Roof) -> None:
    """The roof, its two ceilings written along it, and room for the points of both panels."""
    ridge = roof.matmul / roof.bandwidth
    left, right = min(*(x for x, _ in places), ridge) / 8, max(*(x for x, _ in places), ridge) * 5
    top, bottom = roof.at(right) * 3, min(y for _, y in places) / 2.5
    axis.set_xscale("log")
    axis.set_yscale("log")
    power_axis(axis.xaxis, axis.yaxis)
    axis.plot([left, ridge, right], [roof.at(left), roof.at(ridge), roof.at(right)], color="black", linewidth=1.6)
    axis.set_xlim(left, right)
    axis.set_ylim(bottom, top)
    axis.set_xlabel("FLOP per byte (log scale)")
    axis.set_ylabel(f"{roof.unit}FLOP/s (log scale)")
    axis.set_title(f"{which.capitalize()} pass")
    matmul = f"matmul {short_rate(roof.matmul / roof.size)} {roof.unit}FLOP/s"
    axis.annotate(matmul, (right, roof.at(right)), xytext=(-3, 4), textcoords="offset points", ha="right", fontsize=8.5)
    axis.annotate(
        f"copy {short_rate(roof.bandwidth / 1e9)} GB/s",
        (left, roof.at(left)),
        xytext=(3, 7),
        textcoords="offset points",
        rotation=45,
        transform_rotates_text=True,
        rotation_mode="anchor",
        fontsize=8.5,
    )


def _explain(axis: Axes, lines: Sequence[Measured]) -> None:
    """Entries of the legend for the markers."""
    grey = "0.35"
    axis.plot([], [], "o", color=grey, markersize=7.5, mec="white", label="memx, fastest")
    names = {line.name for line in lines if line.rival}
    if names - {COMPILED}:
        axis.plot([], [], "o", color=grey, mfc="white", markersize=4.5, label="baselines")
    if COMPILED in names:
        axis.plot([], [], "x", color=grey, markersize=5, label="torch.compile of the definition")
