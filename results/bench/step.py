"""The cost of a training step: rows of `memx bench step` -> time and peak memory against table size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...errors import MemxError
from ..labels import Table, drawn, slots_label
from ..selection import Drawn, PlotRequest
from ..store.rows import Row
from ..style import CYCLE, caption_below, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRICS = ("step_ms", "forward_backward_ms", "forward_ms", "peak_memory_gb")
_OWN = "memx"
_COLOURS = [*CYCLE, "#882255", "#44AA99"]  # as many as there are layers and optimizers


def draw(request: PlotRequest) -> Drawn:
    """Draw what a training step costs by table size, with the table."""
    rows = request.rows(lambda row: row.metric in METRICS and row.labels.op == "step")
    return Drawn(request.write(step_figure(rows), rows), step_table(rows))


def step_figure(rows: Sequence[Row]) -> Figure:
    """Draw each layer and optimiser: memx's with full lines, others dashed. Raises MemxError without such rows."""
    kinds = _kinds(rows)
    figure, (times, memory) = new_figure(panels=2)
    for axis, metric, label in (
        (times, "step_ms", "ms per training step (log scale)"),
        (memory, "peak_memory_gb", "peak memory (GB, log scale)"),
    ):
        for place, kind in enumerate(kinds):
            of_kind = sorted(
                (row for row in rows if (row.kind, row.metric) == (kind, metric)), key=lambda row: row.memory_slots
            )
            own = kind.startswith(_OWN)
            axis.plot(
                [row.memory_slots for row in of_kind],
                [row.value for row in of_kind],
                color=_COLOURS[place % len(_COLOURS)],
                linestyle="-" if own else "--",
                marker="os^vDPX*hd"[place % 10],
                markersize=5,
                linewidth=1.9 if own else 1.2,
                label=drawn(kind),
            )
        _dress(axis, rows, label)
    times.set_title("Time of a step (forward, backward, optimizer)")
    memory.set_title("Peak memory of the process")
    caption_below(figure, f"{rows[0].dataset} · {rows[0].model} · {rows[0].device}", [times, memory])
    return figure


def step_table(rows: Sequence[Row]) -> Table:
    """Each baseline's times and memory at every size, and how its step grows from the smallest to the largest."""
    kinds = _kinds(rows)
    sizes = sorted({row.memory_slots for row in rows})
    values = {(row.kind, row.memory_slots, row.metric): row.value for row in rows}
    lines, facts = [], []
    for kind in kinds:
        growth = values[kind, sizes[-1], "step_ms"] / values[kind, sizes[0], "step_ms"]
        parts = ["/".join(f"{values[kind, size, metric]:.0f}" for metric in METRICS[2::-1]) for size in sizes]
        lines.append([kind, *parts, f"{growth:.1f}", f"{values[kind, sizes[-1], 'peak_memory_gb']:.2f}"])
        facts += [
            {"kind": kind, "slots": size, **{metric: values[kind, size, metric] for metric in METRICS}}
            for size in sizes
        ]
    columns = ["layer + optimizer", *map(slots_label, sizes), "last/first", "peak GB"]
    return Table(
        "Training step by slots: ms of forward / forward and backward / whole step; peak memory at the largest size",
        columns,
        lines,
        facts,
    )


def _kinds(rows: Sequence[Row]) -> list[str]:
    if not rows:
        raise MemxError(
            "there are no rows of a training step", hint="measure some with `memx bench step --save FOLDER`"
        )
    return list(dict.fromkeys(row.kind for row in rows))


def _dress(axis: Axes, rows: Sequence[Row], label: str) -> None:
    sizes = sorted({row.memory_slots for row in rows})
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(sizes, [slots_label(size) for size in sizes])
    axis.minorticks_off()
    ticks = [digit * 10.0**power for power in range(-1, 5) for digit in (1, 2, 5)]
    low, high = axis.get_ylim()
    axis.set_yticks([tick for tick in ticks if low <= tick <= high], [f"{t:g}" for t in ticks if low <= t <= high])
    axis.set_xlabel("memory slots (log scale)")
    axis.set_ylabel(label)
