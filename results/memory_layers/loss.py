"""Loss curves: the metrics of runs -> training loss by step, one line per run, light where seeds repeat a size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...errors import MemxError
from ..labels import drawn, slots_label
from ..selection import Drawn, PlotRequest, with_metric
from ..store.runs import Run, run_config
from ..style import CYCLE, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(request: PlotRequest) -> Drawn:
    """Draw the loss curves of runs."""
    return Drawn(request.write(loss_figure(request.runs(with_metric("loss")))))


def loss_figure(runs: Sequence[Run]) -> Figure:
    """Draw the loss of each run by step. Raises MemxError if none has metrics."""
    curves = {run.name: [line for line in run.metrics() if "loss" in line] for run in runs}
    curves = {name: lines for name, lines in curves.items() if lines}
    if not curves:
        raise MemxError("no run here has metrics", hint="give runs of `memx train`")
    models = {run.name: (_slots(run), run_label(run)) for run in runs}
    order = sorted({models[name] for name in curves})
    figure, (axis,) = new_figure(panels=1)
    # one label a model, unless runs of a model differ in more than their seed
    by_model = len({run.name for run in runs}) == len({(models[run.name], run.info().get("seed")) for run in runs})
    labelled: set[str] = set()
    for name, lines in sorted(curves.items(), key=lambda item: models[item[0]]):
        label = models[name][1] if by_model else name
        place = order.index(models[name]) if by_model else len(labelled)
        steps, losses = [p["step"] for p in lines], [p["loss"] for p in lines]
        axis.plot(
            steps, losses, color=CYCLE[place % len(CYCLE)], linewidth=1.3, marker="." if len(lines) < 3 else None,
            linestyle=("-", "--", ":")[place // len(CYCLE) % 3], label=None if label in labelled else drawn(label),
        )  # fmt: skip
        labelled.add(label)
    axis.set_xlabel("step")
    axis.set_ylabel("training loss (nats per trained token)")
    axis.set_title("Training loss")
    axis.set_ylim(bottom=0)
    axis.legend(ncols=1 if len(labelled) <= 8 else 2, fontsize=None if len(labelled) <= 8 else 7)
    return figure


def run_label(run: Run) -> str:
    """A run's model in a legend: its variant, or its memory slots."""
    if variant := run_config(run).get("variant"):
        return str(variant)
    slots = _slots(run)
    return f"{slots_label(slots)} slots" if slots else "dense"


def _slots(run: Run) -> int:
    try:
        return int(run_config(run)["memory"]["slots"])
    except (KeyError, TypeError, ValueError):
        return 0
