"""The lines and error bars of a policy in the figure of scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .curves import Curve, Point
from .looks import Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ASIDE = 1.3  # points between the error bars of two policies at one size


def draw_namm(axis: Axes, curve: Curve, look: Look) -> None:
    """Draw a strong line with its band, faint ones of its seeds, and a star at its own size.

    Args:
        axis: Where to draw.
        curve: The NAMM's points.
        look: Its colour and line.
    """
    band = [(p.share, p.low, p.high) for p in curve.points if p.low is not None and p.high is not None]
    share, low, high = ([one[place] for one in band] for place in range(3))
    axis.fill_between(
        share, low, high, color=look.colour, alpha=0.16 if look.line == "-" else 0.07, linewidth=0, zorder=2
    )
    for line in curve.members:
        axis.plot(
            [p.share for p in line], [p.value for p in line], color=look.colour, alpha=0.45, linewidth=0.8, zorder=4
        )
    axis.plot(
        [p.share for p in curve.points], [p.value for p in curve.points], color=look.colour, linestyle=look.line,
        marker="o", linewidth=2.4, markersize=6, zorder=5, label=f"_{curve.policy}",
    )  # fmt: skip
    for own in curve.own:
        axis.errorbar(
            [own.share], [own.value], yerr=_errors([own]), color=look.colour, marker="*", markersize=15, capsize=3,
            markeredgecolor="white", elinewidth=1.3, linestyle="none", zorder=6, label="NAMM at its own cache size",
        )  # fmt: skip


def draw_baseline(axis: Axes, curve: Curve, look: Look, aside: float) -> None:
    """Draw a thin line with error bars, a little aside so that baselines of one size do not hide each other.

    Args:
        axis: Where to draw.
        curve: The policy's points.
        look: Its colour, marker and line.
        aside: How far to the right, in points.
    """
    from matplotlib.transforms import ScaledTranslation

    place = axis.transData + ScaledTranslation(aside / 72, 0, axis.figure.dpi_scale_trans)
    style: dict[str, Any] = dict(
        color=look.colour, marker=look.marker, markersize=4, elinewidth=0.7, zorder=3, transform=place
    )
    line: dict[str, Any] = dict(linestyle=look.line, linewidth=1.2, alpha=0.85)
    if curve.points:
        x, y = [p.share for p in curve.points], [p.value for p in curve.points]
        _, _, bars = axis.errorbar(x, y, yerr=_errors(curve.points), **style, **line, label=f"_{curve.policy}")
        for bar in bars:
            bar.set_alpha(0.35)
    for own in curve.own:
        _, _, bars = axis.errorbar(
            [own.share], [own.value], yerr=_errors([own]), **style, linestyle="none", label=f"_{curve.policy}, own size"
        )
        for bar in bars:
            bar.set_alpha(0.35)


def _errors(points: Sequence[Point]) -> list[list[float]] | None:
    """How far down and up the intervals reach; nothing if a point has none."""
    known = [(p.value, p.low, p.high) for p in points if p.low is not None and p.high is not None]
    if len(known) < len(points):
        return None
    return [[max(value - low, 0.0) for value, low, _ in known], [max(high - value, 0.0) for value, _, high in known]]
