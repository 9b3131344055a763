"""What was forgotten at a glance: layers by prompt tokens, dark where every head holds a token; cache sizes beside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..labels import in_bytes
from ..style import CYCLE, new_figure
from .report import EvictionReport, kept_share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HELD, _BOOKS, _RUN, _SAFE = CYCLE[0], CYCLE[1], CYCLE[3], CYCLE[2]
_ROW = 0.13  # inches of a layer
_FINE = 800  # rows of the map at least


def evict_figure(report: EvictionReport) -> Figure:
    """Draw the share of heads that hold each token of the prompt, by layer and over all, and each layer's bytes."""
    from matplotlib.gridspec import GridSpec

    height = min(12.0, max(2.4, _ROW * len(report.layers)))
    figure, old = new_figure(panels=2, height=height + 2.2)
    for axis in old:
        axis.remove()
    grid = GridSpec(2, 2, figure, width_ratios=(4, 1), height_ratios=(0.9, height))
    whole = figure.add_subplot(grid[0, 0])
    layers = figure.add_subplot(grid[1, 0], sharex=whole)
    sizes = figure.add_subplot(grid[1, 1], sharey=layers)
    corner = figure.add_subplot(grid[0, 1])
    corner.axis("off")
    _mean(whole, report)
    _map(figure, layers, report)
    _sizes(sizes, report)
    corner.legend(*sizes.get_legend_handles_labels(), loc="upper left")
    figure.suptitle(
        f"{report.policy} ({report.rule}) on {report.host}: {100 * kept_share(report.layers):.0f}% of the cache of "
        f"{report.tokens:,} prompt tokens kept",
        fontweight="bold",
        fontsize=11,
    )
    return figure


def _mean(axis: Axes, report: EvictionReport) -> None:
    """The share over all layers, above the map."""
    shares = [100 * share for share in report.by_token]
    axis.fill_between(range(len(shares)), shares, step="mid", color=_HELD, alpha=0.75, linewidth=0)
    axis.set_ylim(0, 100)
    axis.set_yticks([0, 50, 100], ["0", "50", "100%"])
    axis.set_ylabel("all layers", fontsize=8.5)
    axis.tick_params(axis="x", labelbottom=False)
    for run in report.runs:
        axis.axvline(run - 0.5, color=_RUN, linewidth=1, linestyle=(0, (3, 2)))
    above: dict[str, Any] = dict(xycoords="axes fraction", textcoords="offset points", fontsize=8)
    if report.runs:
        last = f"every {report.every} tokens, last after token {report.runs[-1]:,}"
        axis.annotate(f"evictions: {last}", (1, 1), (0, 3), ha="right", color=_RUN, **above)
    elif report.every is not None:
        axis.annotate("no eviction: prompt shorter than the interval", (1, 1), (0, 3), ha="right", color=_RUN, **above)
    if report.protect:
        spans = ", ".join(f"{start} to {stop - 1}" for start, stop in report.protect[:4])
        axis.annotate(f"protected: {spans}", (0, 1), (0, 3), color=_SAFE, **above)


def _map(figure: Figure, axis: Axes, report: EvictionReport) -> None:
    """Layers by tokens."""
    import numpy as np
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("held", ["#ffffff", "#9ecae8", _HELD, "#00344f"])
    count = len(report.held)
    rows = np.repeat(report.held, -(-_FINE // count), axis=0)  # so that layers are not blurred into each other
    place = (-0.5, report.tokens - 0.5, count - 0.5, -0.5)
    image = axis.imshow(rows, aspect="auto", cmap=colours, vmin=0, vmax=1, extent=place)
    axis.grid(visible=False)
    axis.set_ylabel("layer")
    axis.set_xlabel("prompt token")
    for run in report.runs:
        axis.axvline(run - 0.5, color=_RUN, linewidth=1, linestyle=(0, (3, 2)))
    for start, stop in report.protect:
        axis.plot([start - 0.5, stop - 0.5], [-0.5, -0.5], color=_SAFE, linewidth=4, clip_on=False)
    bar = figure.colorbar(image, ax=axis, location="bottom", shrink=0.4, aspect=40, pad=0.01)
    bar.set_label("share of the layer's heads that keep the token", fontsize=8.5)
    bar.set_ticks([0, 0.5, 1], labels=["none", "half", "all"])


def _sizes(axis: Axes, report: EvictionReport) -> None:
    """Bytes by layer, what a full cache would hold as an outline."""
    numbers = [layer.layer for layer in report.layers]
    mebi = 2**20
    held = [layer.kv_bytes / mebi for layer in report.layers]
    axis.barh(numbers, [layer.full_bytes / mebi for layer in report.layers], color="0.9", label="full cache")
    axis.barh(numbers, held, color=_HELD, label="kept")
    books = [layer.bookkeeping_bytes / mebi for layer in report.layers]
    axis.barh(numbers, books, left=held, color=_BOOKS, label="policy state")
    axis.grid(visible=False, axis="y")
    axis.tick_params(axis="y", labelleft=False)
    axis.set_xlabel("MiB per layer")
    total = sum(layer.kv_bytes + layer.bookkeeping_bytes for layer in report.layers)
    axis.set_title(f"{in_bytes(total)} in total", fontsize=9.5)
