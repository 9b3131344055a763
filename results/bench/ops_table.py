"""Rows of `memx bench` -> the tables that it prints: one for each op, one for whole models."""

from __future__ import annotations

from collections.abc import Sequence

from ..labels import Table, slots_label
from ..store.rows import Row
from .rows import PASSES, Measured, by_op, ceiling, floor_share, measured, rate, where

_COLUMNS = [
    "implementation", "forward ms (p20–p80)", "GB/s", "{}FLOP/s", "of peak",
    "backward ms (p20–p80)", "GB/s", "{}FLOP/s", "of peak", "peak MB",
]  # fmt: skip


def op_tables(rows: Sequence[Row]) -> list[Table]:
    """Each op's implementations and rivals, under a line for each shape; a wrong one says so in place of a time."""
    tables = []
    unit, size = flop_unit(rows)
    columns = [column.format(unit) for column in _COLUMNS]
    for op, shapes in by_op(measured(rows)).items():
        lines: list[list[str]] = []
        for shape, grouped in shapes.items():
            lines.append([shape, *[""] * (len(columns) - 1)])
            wrong = any(line.rows["correct"].value == 0 for line in grouped if "correct" in line.rows)
            lines += [_verdict(line) if wrong else _times(line, size) for line in grouped]
        facts = [row.model_dump() for row in rows if row.dataset.partition(" ")[0] == op]
        tables.append(Table(f"{op} on {where(rows)}, {rows[0].model}", columns, lines, facts))
    return tables


def flop_unit(rows: Sequence[Row]) -> tuple[str, float]:
    """The unit of FLOP/s that suits a device, T or G, and its size."""
    return ("T", 1e12) if (ceiling(rows, "matmul_tflops") or 0) >= 5 else ("G", 1e9)


def ceiling_line(rows: Sequence[Row]) -> str:
    """The ceilings in a sentence; empty if none were measured."""
    copy, matmul = ceiling(rows, "copy_gbps"), ceiling(rows, "matmul_tflops")
    if copy is None or matmul is None:
        return ""
    unit, size = flop_unit(rows)
    return (
        f"Peaks measured in this run: {short_rate(copy)} GB/s for a large copy, {short_rate(1e12 * matmul / size)} "
        f"{unit}FLOP/s for a {rows[0].model} matmul.\nof peak: roofline time at these peaks divided by the measured "
        "time; above 100% if the data fit in cache. peak MB: memory of forward / forward and backward."
    )


def model_table(rows: Sequence[Row]) -> Table:
    """Each kind and size: time of a step, what its parts share, tokens a second, memory."""
    grouped: dict[tuple[str, str, int], dict[str, Row]] = {}
    several = len({row.model for row in rows}) > 1
    for row in rows:
        name = f"{row.variant or row.kind}{f' of {row.model}' if several else ''}"
        grouped.setdefault((name, row.kind, row.memory_slots), {})[row.metric] = row
    lines = []
    for (name, _, slots), values in grouped.items():
        step = values["step_ms"]
        shares = [values[f"{part}_ms"].value / step.value for part in ("forward", "backward", "optimizer")]
        peak = values.get("peak_memory_gb")
        lines.append(
            [
                name,
                slots_label(slots) if slots else "",
                f"{step.parameters_total or 0:,}",
                _spread(step),
                " / ".join(f"{100 * share:.0f}" for share in shares),
                f"{values['tokens_per_second'].value:,.0f}",
                f"{peak.value:.2f}" if peak else "",
            ]
        )
    columns = [
        "model" if any(row.variant for row in rows) else "kind",
        "slots",
        "parameters",
        "step ms (p20–p80)",
        "forward / backward / optimizer %",
        "tokens/s",
        "peak GB",
    ]
    models = ", ".join(dict.fromkeys(row.model for row in rows))
    title = f"Training step of {models}, {rows[0].dataset.removeprefix('model ')}, on {where(rows)}"
    return Table(title, columns, lines, [row.model_dump() for row in rows], left=2)


def short_rate(value: float) -> str:
    """A rate with three digits, without exponents."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def milliseconds(value: float) -> str:
    """Milliseconds with three digits or so."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.{1 if value >= 10 else 2 if value >= 1 else 3}f}"


def _verdict(line: Measured) -> list[str]:
    row = line.rows["correct"]
    return [f"  {line.name}", str((row.model_extra or {}).get("told", "")), *[""] * (len(_COLUMNS) - 2)]


def _times(line: Measured, unit: float) -> list[str]:
    cells = [f"  {line.name}"]
    for which in PASSES:
        row = line.time(which)
        if row is None:
            cells += [""] * 4
            continue
        share = floor_share(row)
        moved, flops = rate(row, "bytes"), rate(row, "flops")
        cells += [
            _spread(row),
            short_rate(moved / 1e9) if moved else "",
            short_rate(flops / unit) if flops else "",
            f"{100 * share:.2g}%" if share and share < 0.1 else f"{100 * share:.0f}%" if share else "",
        ]
    peaks = [line.rows.get(f"{which}_peak_mb") for which in PASSES]
    return [*cells, " / ".join(f"{row.value:,.0f}" for row in peaks if row)]


def _spread(row: Row) -> str:
    if row.low is None or row.high is None:
        return milliseconds(row.value)
    return f"{milliseconds(row.value)} ({milliseconds(row.low)}–{milliseconds(row.high)})"
