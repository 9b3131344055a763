"""Loss curves: the metrics of runs -> training loss by step, one line per run, light where seeds repeat a size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import MemxError
from .memory_figure import slots_label
from .store import Run
from .style import CYCLE, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def loss_figure(runs: Sequence[Run]) -> Figure:
    """Draw the loss of each run by step. Raises MemxError if none has metrics."""
    curves = {run.name: [line for line in run.metrics() if "loss" in line] for run in runs}
    curves = {name: lines for name, lines in curves.items() if lines}
    if not curves:
        raise MemxError("no run here has metrics", hint="`memx train` writes them")
    sizes = {run.name: _slots(run) for run in runs}
    order = sorted({sizes[name] for name in curves})
    figure, (axis,) = new_figure(panels=1)
    # one label a memory size, unless runs of a size differ in more than their seed
    by_size = len({run.name for run in runs}) == len({(sizes[run.name], run.info().get("seed")) for run in runs})
    labelled: set[str] = set()
    for name, lines in sorted(curves.items(), key=lambda item: sizes[item[0]]):
        slots = sizes[name]
        label = (f"{slots_label(slots)} slots" if slots else "dense") if by_size else name
        place = order.index(slots) if by_size else len(labelled)
        steps, losses = [p["step"] for p in lines], [p["loss"] for p in lines]
        axis.plot(
            steps, losses, color=CYCLE[place % len(CYCLE)], linewidth=1.3, marker="." if len(lines) < 3 else None,
            label=None if label in labelled else label,
        )  # fmt: skip
        labelled.add(label)
    axis.set_xlabel("step")
    axis.set_ylabel("training loss (nats per counted token)")
    axis.set_title("Training loss")
    axis.set_ylim(bottom=0)
    axis.legend()
    return figure


def _slots(run: Run) -> int:
    """The memory size of a run, from its config."""
    import yaml

    try:
        config = yaml.safe_load((run.folder / "config.yaml").read_text("utf-8"))
        return int(config["memory"]["slots"])
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError):
        return 0
