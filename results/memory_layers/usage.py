"""Use of memory: the metrics of runs -> share of slots used and KL from uniform by step, for each memory layer."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import TYPE_CHECKING, Any

from ...errors import MemxError
from ..labels import drawn
from ..selection import Drawn, PlotRequest, with_metric
from ..store.runs import Run
from ..style import CYCLE, caption_below, new_figure
from .loss import run_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DASHES = ("-", "--", "-.", ":")


def draw(request: PlotRequest) -> Drawn:
    """Draw how runs use the slots of their memory layers."""
    return Drawn(request.write(usage_figure(request.runs(with_metric("memory_use")))))


def usage_figure(runs: Sequence[Run]) -> Figure:
    """Draw each memory layer of each run: colours are models, dashes are layers, seeds of a model look the same.

    Raises MemxError if no run has metrics of its memory.
    """
    curves: list[tuple[Run, list[dict[str, Any]]]] = []
    for run in runs:
        lines = [line for line in run.metrics() if line.get("memory_use")]
        if lines:
            curves.append((run, lines))
    if not curves:
        raise MemxError("no run here has metrics of slot usage", hint="give runs of models with memory layers")
    models = list(dict.fromkeys(run_label(run) for run, _ in curves))
    layers = sorted({layer for _, lines in curves for line in lines for layer in line["memory_use"]}, key=_number)
    figure, (used, kl) = new_figure(panels=2)
    for run, lines in curves:
        model = run_label(run)
        for layer in sorted({layer for line in lines for layer in line["memory_use"]}, key=_number):
            points = [(line["step"], line["memory_use"][layer]) for line in lines if layer in line["memory_use"]]
            steps = [step for step, _ in points]
            look: dict[str, Any] = dict(
                color=CYCLE[models.index(model) % len(CYCLE)],
                linestyle=_DASHES[layers.index(layer) % len(_DASHES)],
                linewidth=1.4,
                marker="." if len(steps) < 3 else None,
                label=drawn(model if len(layers) == 1 else f"{model}, layer {layer}"),
            )
            used.plot(steps, [100 * use.get("used", nan) for _, use in points], **look)
            kl.plot(steps, [use.get("kl", nan) for _, use in points], **look)
    for axis, title, label in (
        (used, "Slots in use", "slots used since the previous log line (%)"),
        (kl, "Evenness of use", "KL divergence of lookups from uniform (nats)"),
    ):
        axis.set_title(title)
        axis.set_xlabel("step")
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
    shown = f"layer {layers[0]}" if len(layers) == 1 else f"layers {', '.join(layers)}"
    caption_below(figure, f"{curves[-1][0].experiment} · {shown}", [used])
    return figure


def _number(layer: str) -> tuple[int, str]:
    return (int(layer), "") if layer.isdigit() else (10**9, layer)
