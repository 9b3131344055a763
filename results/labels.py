"""Numbers and experiments in few characters, as tables and figures write them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..plain_text import printable, shortened
from .store.rows import Row
from .summary import Summary

INTERVALS = "95% CI: ± half, or [low, high]"  # what `with_interval` writes, for titles
_LONGEST_LABEL = 60  # characters of a name in a figure
_LOPSIDED = 0.1  # halves that differ by more than this share of the mean half are not written as ±


class Table(NamedTuple):
    """What a figure says in numbers: lines of text to print, and the same facts as plain data for JSON.

    left: how many columns are text and stand on the left. names: how many name a row, and are repeated where a table is
    split; None: as many as `left`.
    """

    title: str
    columns: list[str]
    lines: list[list[str]]
    facts: list[dict[str, Any]]
    left: int = 1
    names: int | None = None


def drawn(name: str) -> str:
    """A name of a user in a legend, at an axis or in a figure: shown as it is, on one line.

    Matplotlib leaves labels that begin with an underscore out of legends, so that such a name gets a space of no width.

    Args:
        name: A variant, run, policy, op or model.
    """
    text = shortened(" ".join(printable(name).split()), _LONGEST_LABEL)
    return f"\u200b{text}" if text.startswith("_") else text


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
    """A host model's name; of a folder its last part. Several are joined by " + "."""
    return " + ".join(Path(one).name if Path(one).is_absolute() else one for one in host.split(" + "))


def with_interval(
    value: float, low: float | None, high: float | None, digits: int, sign: str = "", n: int | None = None
) -> str:
    """A value and its interval: 12.3 ±0.4, or 98.0 [95.1, 99.2] where one half is clearly longer than the other.

    Args:
        value: In any unit.
        low: Lower end of the 95% interval; None: there is none, and the value stands alone.
        high: Upper end.
        digits: After the point, of all numbers.
        sign: `+` writes the sign of positive values too.
        n: How many measurements the interval is of; with one, the value stands alone.
    """
    written = f"{value:{sign}.{digits}f}"
    if low is None or high is None or n == 1:
        return written
    half, ends = (high - low) / 2, [f"{end:{sign}.{digits}f}" for end in (low, high)]
    if abs(high + low - 2 * value) > _LOPSIDED * half and ends != [written, written]:
        return f"{written} [{ends[0]}, {ends[1]}]"
    return f"{written} ±{half:.{digits}f}"


def score_of(row: Row | Summary, digits: int) -> str:
    """The value of a row or summary and its interval, as `with_interval` writes them."""
    return with_interval(row.value, row.low, row.high, digits, n=row.n)


def difference_of(row: Row, digits: int) -> str:
    """The signed value of a row and its interval, as +0.12 [-0.03, +0.27]; the value alone of one measurement."""
    signed = f"{row.value:+.{digits}f}"
    return signed if row.n == 1 else f"{signed} [{row.low:+.{digits}f}, {row.high:+.{digits}f}]"


def caption(rows: Sequence[Row], summaries: Sequence[Summary]) -> str:
    """What was run, on which device, and what the intervals are."""
    runs = max(s.runs for s in summaries)
    devices = sorted({row.device for row in rows if row.device})
    interval = f"mean of {runs} seeds, 95% CI (t)" if runs > 1 else "one seed, 95% CI over questions"
    names = list(dict.fromkeys(row.experiment for row in rows))
    title = names[0] if len(names) == 1 else f"{len(names)} experiments"
    models = ", ".join(dict.fromkeys(row.model for row in rows))
    return f"{title} · {models} · {', '.join(devices)} · {interval}"
