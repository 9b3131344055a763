"""One look for every figure: colours that colour-blind readers tell apart, light grids, text that stays text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette
COLOURS = {"seen": "#0072B2", "rephrased": "#D55E00", "unseen": "#666666"}
MARKERS = {"seen": "o", "rephrased": "s", "unseen": "^"}
BASE_COLOURS = {"134m": "#56B4E9", "373m": "#009E73", "1.3b": "#CC79A7"}
CHANCE = "#999999"
CYCLE = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#999999"]

_SETTINGS: dict[Any, Any] = {
    "font.size": 9.5,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.92",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "memx",
    "pdf.fonttype": 42,
}


def new_figure(panels: int, height: float = 4.6) -> tuple[Figure, list[Axes]]:
    """A figure of panels side by side, drawn without a display."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    matplotlib.rcParams.update(_SETTINGS)
    figure, axes = pyplot.subplots(1, panels, figsize=(5.6 * panels, height), squeeze=False)
    figure.set_layout_engine("constrained")
    return figure, list(axes[0])
