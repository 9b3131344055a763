"""Rows of `memx bench offload` -> what a table in CPU memory adds to a training step, by table size."""

from __future__ import annotations

from collections.abc import Sequence

from ..labels import Table, slots_label
from ..store.rows import Row
from .ops_table import milliseconds
from .rows import where

_PARTS = ("update_ms", "unique_ms", "waited_ms", "gather_ms", "copy_ms")
_COLUMNS = ("optimizer", "unique", "waited", "gather", "copy")


def host_tables(rows: Sequence[Row]) -> list[Table]:
    """A line for each size and place of the table: the step, what it is of the step on the device, and its parts."""
    tables = []
    for dataset in dict.fromkeys(row.dataset for row in rows):
        of_dataset = [row for row in rows if row.dataset == dataset]
        title = f"Training step, {dataset}, on {where(of_dataset)}, {of_dataset[0].model}"
        on_cuda = any(row.metric == "device_gb" for row in of_dataset)
        columns = ["slots", "table", "step ms (p20–p80)", "x first row", *_COLUMNS, "rows", "MB", *["GPU GB"] * on_cuda]
        lines = [
            line for size in dict.fromkeys(row.memory_slots for row in of_dataset) for line in _lines(of_dataset, size)
        ]
        tables.append(Table(title, columns, lines, [row.model_dump() for row in of_dataset], left=2))
    return tables


def note_line(rows: Sequence[Row]) -> str:
    """What the columns are."""
    return (
        "optimizer to copy: median ms per step. unique: find the distinct rows of a lookup; a background thread "
        "gathers and copies them;\nwaited: time the step waited for them. rows, MB: distinct rows per lookup, and data "
        "copied to the GPU in a step."
    )


def _lines(rows: Sequence[Row], size: int) -> list[list[str]]:
    values = {(row.kind, row.metric): row for row in rows if row.memory_slots == size}
    first = next(row for (_, metric), row in values.items() if metric == "step_ms")
    lines = []
    for kind in dict.fromkeys(kind for kind, _ in values):
        step = values[kind, "step_ms"]
        cells = [slots_label(size), kind, _spread(step), f"{step.value / first.value:.2f}"]
        cells += [_cell(values.get((kind, part))) for part in _PARTS]
        cells += [_cell(values.get((kind, metric)), "{:,.0f}") for metric in ("rows_read", "copied_mb")]
        memory = values.get((kind, "device_gb"))
        lines.append([*cells, *([f"{memory.value:.2f}"] if memory else [])])
    return lines


def _cell(row: Row | None, form: str = "") -> str:
    if row is None:
        return ""
    return form.format(row.value) if form else milliseconds(row.value)


def _spread(row: Row) -> str:
    cell = milliseconds(row.value)
    return cell if row.n == 1 or row.low is None else f"{cell} ({milliseconds(row.low)}–{milliseconds(row.high or 0)})"
