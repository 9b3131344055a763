"""Numbers and experiments in few characters, as tables and figures write them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .store.rows import Row
from .summary import Summary


class Table(NamedTuple):
    """What a figure says in numbers: lines of text to print, and the same facts as plain data for JSON.

    left: how many columns are text and stand on the left.
    """

    title: str
    columns: list[str]
    lines: list[list[str]]
    facts: list[dict[str, Any]]
    left: int = 1


def slots_label(slots: int) -> str:
    """Slots in full up to a million, 1M (2^20) and its multiples in short."""
    return f"{slots // 2**20}M" if slots % 2**20 == 0 else f"{slots:,}"


def short(number: float, base: int = 1024) -> str:
    """A number in few characters: 65536 -> 64Ki slots, 4.5e6 -> 4.5M parameters."""
    units = ("", "Ki", "Mi", "Gi") if base == 1024 else ("", "k", "M", "B", "T")
    unit = 0
    while number >= base and unit < len(units) - 1:
        number, unit = number / base, unit + 1
    return f"{number:.3g}{units[unit]}"


def in_bytes(number: float) -> str:
    """Bytes as 17 B, 1.5 KiB, 2.0 MiB or 3.25 GiB."""
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.2f} GiB"


def host_label(host: str) -> str:
    """A host model's name; of a folder its last part."""
    return Path(host).name if Path(host).is_absolute() else host


def with_half(value: float, low: float | None, high: float | None, digits: int, sign: str = "") -> str:
    """A value and half its interval, as 12.3 ±0.4.

    Args:
        value: In any unit.
        low: Lower end of the 95% interval; None: there is none, and the value stands alone.
        high: Upper end.
        digits: After the point, of both.
        sign: `+` writes the sign of positive values too.
    """
    half = "" if low is None or high is None else f" ±{(high - low) / 2:.{digits}f}"
    return f"{value:{sign}.{digits}f}{half}"


def caption(rows: Sequence[Row], summaries: Sequence[Summary]) -> str:
    """What was run, on which device, and what the intervals are."""
    runs = max(s.runs for s in summaries)
    devices = sorted({row.device for row in rows if row.device})
    interval = f"mean of {runs} seeds, 95% CI (t)" if runs > 1 else "one seed, 95% CI over questions"
    names = list(dict.fromkeys(row.experiment for row in rows))
    title = names[0] if len(names) == 1 else f"{len(names)} experiments"
    models = ", ".join(dict.fromkeys(row.model for row in rows))
    return f"{title} · {models} · {', '.join(devices)} · {interval}"
