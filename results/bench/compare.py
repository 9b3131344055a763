"""Rows of `memx bench`, new and old -> what got slower, what faster, and whether one may say so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import MemxError
from ..labels import Table
from ..store.rows import Row, read_rows
from .ops_table import milliseconds
from .rows import check_times, extra, floor_share
from .tables import TABLES

_NOISE = 0.05  # a ratio nearer to 1 than this is no change
_COLUMNS = ["implementation", "pass", "old ms", "new ms", "new/old", "new/old, of peak", "verdict"]


def read_bench(path: Path) -> list[Row]:
    """The rows of a file, or of a folder that `--save` wrote. Raises MemxError if there are none of a benchmark."""
    file = path / "rows.jsonl" if path.is_dir() else path
    if not file.is_file():
        raise MemxError(f"no rows at {path}", hint="give a folder written by `memx bench --save`, or its rows.jsonl")
    rows = [row for row in read_rows(file) if row.experiment in TABLES]
    if not rows:
        raise MemxError(f"{file} has no rows of memx bench", hint="give a file written by `memx bench --save`")
    check_times(rows, file)
    return rows


def differences(new: Sequence[Row], old: Sequence[Row]) -> list[str]:
    """What keeps two runs from being compared: another device, processor, number of threads or dtype."""
    unlike = []
    for name in ("device", "processor", "threads"):
        before, after = (sorted({str(_fact(row, name)) for row in rows}) for rows in (old, new))
        if before != after:
            unlike.append(f"{name}: {', '.join(before)} -> {', '.join(after)}")
    before, after = (sorted({row.model for row in rows if row.experiment == "bench"}) for rows in (old, new))
    if before and after and before != after:
        unlike.append(f"dtype: {', '.join(before)} -> {', '.join(after)}")
    return unlike


def comparison(new: Sequence[Row], old: Sequence[Row]) -> Table:
    """Times that both runs have: old, new, their ratio, and that ratio in units of what each device allows.

    The verdict calls a time slower or faster if the ratio is off 1 by more than 5% and the p20–p80 ranges of the two
    do not meet; it stays empty where the runs differ in device, processor, threads or dtype.
    Raises MemxError if the runs have nothing in common.
    """
    before = {_key(row): row for row in old if row.metric.endswith("_ms")}
    pairs = [(row, before[_key(row)]) for row in new if row.metric.endswith("_ms") and _key(row) in before]
    if not pairs:
        raise MemxError(
            "the two runs have no op, shape and implementation in common",
            hint="run the same subcommand with the same --shapes",
        )
    order = list(dict.fromkeys(_title(row) for row, _ in pairs))
    pairs.sort(key=lambda pair: order.index(_title(pair[0])))
    alike = not differences(new, old)
    lines: list[list[str]] = []
    facts = []
    for row, other in pairs:
        ratio, normal, verdict = row.value / other.value, _normalised(row, other), _verdict(row, other) if alike else ""
        if _title(row) in order:
            lines.append([order.pop(0), *[""] * (len(_COLUMNS) - 1)])
        metric = row.metric.removesuffix("_ms").replace("_", " + ")
        times = [milliseconds(other.value), milliseconds(row.value)]
        lines.append(
            [
                f"  {' of '.join(_names(row)) or row.kind}",
                metric,
                *times,
                f"{ratio:.2f}",
                f"{normal:.2f}" if normal else "",
                verdict,
            ]
        )
        facts.append(
            dict(
                dataset=row.dataset,
                memory_slots=row.memory_slots,
                kind=row.kind,
                variant=row.variant,
                metric=row.metric,
                old=other.value,
                new=row.value,
                ratio=ratio,
                normalised_ratio=normal,
                verdict=verdict or None,
            )
        )
    return Table("New run against old run (of peak: relative to each run's own measured peaks)", _COLUMNS, lines, facts)


def _title(row: Row) -> str:
    slots = f", {row.memory_slots:,} slots" if row.experiment != "bench" and row.memory_slots else ""
    return f"{row.dataset}{slots}"


def _key(row: Row) -> tuple[Any, ...]:
    return row.experiment, row.dataset, row.kind, row.metric, row.memory_slots, *_names(row)


def _names(row: Row) -> tuple[str, ...]:
    """The variant and base of a whole model; other benchmarks have neither."""
    return (row.variant, row.model) if row.experiment == "bench-model" and row.variant else ()


def _fact(row: Row, name: str) -> Any:
    return row.device if name == "device" else extra(row, name)


def _normalised(new: Row, old: Row) -> float | None:
    after, before = floor_share(new), floor_share(old)
    return before / after if after and before else None


def _verdict(new: Row, old: Row) -> str:
    ratio = new.value / old.value
    if ratio > 1 + _NOISE and _low(new) > _high(old):
        return "slower"
    return "faster" if ratio < 1 / (1 + _NOISE) and _high(new) < _low(old) else "same"


def _low(row: Row) -> float:
    return row.value if row.low is None else row.low


def _high(row: Row) -> float:
    return row.value if row.high is None else row.high
