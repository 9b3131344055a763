"""What `memx bench` prints: rows of an experiment -> its tables, and a line that says what their columns are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..labels import Table
from ..store.rows import Row
from . import eviction_table, evolution_table, offload_table
from .ops_table import ceiling_line, model_table, op_tables
from .step import step_table

Printed = tuple[list[Table], str]


def _step_tables(rows: Sequence[Row]) -> Printed:
    table = step_table(rows)
    return [table._replace(title=f"{table.title} ({rows[0].device})")], ""


# by the experiment that rows are of
TABLES: Mapping[str, Callable[[Sequence[Row]], Printed]] = {
    "bench": lambda rows: (op_tables(rows), ceiling_line(rows)),
    "bench-step": _step_tables,
    "bench-host": lambda rows: (offload_table.host_tables(rows), offload_table.note_line(rows)),
    "bench-evict": lambda rows: (eviction_table.evict_tables(rows), eviction_table.note_line(rows)),
    "bench-evolve": lambda rows: (evolution_table.evolve_tables(rows), evolution_table.note_line(rows)),
    "bench-model": lambda rows: ([model_table(rows)], ""),
}
