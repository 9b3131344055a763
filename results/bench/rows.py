"""Rows of `memx bench` -> what was measured of each op, shape and implementation, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ...errors import MemxError
from ..store.rows import Row, extra

PASSES = ("forward", "backward")
METRICS = {
    "correct", "copy_gbps", "matmul_tflops", *(f"{which}_{what}" for which in PASSES for what in ("ms", "peak_mb"))
}  # fmt: skip


@dataclass
class Measured:
    """One implementation or rival of an op at a shape: its rows by metric."""

    op: str
    shape: str
    name: str
    rows: dict[str, Row] = field(default_factory=dict)

    @property
    def rival(self) -> bool:
        """Whether it is somebody else's."""
        return bool(extra(next(iter(self.rows.values())), "rival", False))

    def time(self, which: str) -> Row | None:
        """The row of a pass's time, if it was timed."""
        return self.rows.get(f"{which}_ms")


def of_ops(row: Row) -> bool:
    """Whether a row is of an op or of the ceilings, rather than of a training step or a model."""
    return row.metric in METRICS and row.experiment == "bench"


def check_times(rows: Iterable[Row], where: object) -> None:
    """Raise MemxError for a time, or a floor, that is no positive number: a damaged file."""
    for row in rows:
        if row.metric.endswith("_ms"):
            floor = extra(row, "floor_ms", 1.0)
            if not row.value > 0 or not isinstance(floor, int | float):
                raise MemxError(
                    f"{where}: {row.dataset}, {row.kind} has no {row.metric}",
                    hint="measure again: the file is incomplete",
                )


def measured(rows: Iterable[Row]) -> list[Measured]:
    """Group the rows of ops, in the order of the rows."""
    grouped: dict[tuple[str, str], Measured] = {}
    for row in rows:
        if of_ops(row) and row.dataset != "ceilings":
            op, _, shape = row.dataset.partition(" ")
            line = grouped.setdefault((row.dataset, row.kind), Measured(op, shape, row.kind))
            line.rows[row.metric] = row
    return list(grouped.values())


def by_op(lines: Sequence[Measured]) -> dict[str, dict[str, list[Measured]]]:
    """Lines of each op, by shape."""
    grouped: dict[str, dict[str, list[Measured]]] = {}
    for line in lines:
        grouped.setdefault(line.op, {}).setdefault(line.shape, []).append(line)
    return grouped


def ceiling(rows: Iterable[Row], metric: str) -> float | None:
    """A measured ceiling: copy_gbps or matmul_tflops."""
    return next((row.value for row in rows if row.dataset == "ceilings" and row.metric == metric), None)


def rate(row: Row, fact: str) -> float | None:
    """What a time achieved: bytes or flops a second; None if the op has none to count."""
    done = row.flops if fact == "flops" else extra(row, fact)
    return done / row.value * 1e3 if done else None


def floor_share(row: Row) -> float | None:
    """The floor's share of a time: 1 is as fast as the ceilings allow."""
    floor = extra(row, "floor_ms")
    return floor / row.value if floor else None


def where(rows: Sequence[Row]) -> str:
    """The device that rows were measured on, with the name of its processor."""
    processor = extra(rows[0], "processor", "")
    return f"{rows[0].device} ({processor})" if processor else rows[0].device
