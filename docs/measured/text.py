"""Rows of results/reference, and the numbers and tables that pages show of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from memx.results.store.rows import Row, read_rows

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "results" / "reference"


@cache
def rows_of(name: str) -> tuple[Row, ...]:
    """The rows of a file of results/reference, named as `facts/memory`."""
    return tuple(read_rows(REFERENCE / f"{name}.rows.jsonl"))


def table(columns: Sequence[str], lines: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table.

    Args:
        columns: The headings.
        lines: The cells of each row.
        left: How many columns are text, on the left; the others hold numbers.
    """
    rule = ["---"] * left + ["--:"] * (len(columns) - left)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [columns, rule, *lines])


def blocks(*parts: str) -> str:
    """Tables and sentences below each other."""
    return "\n\n".join(part for part in parts if part)


def plus_minus(value: float, low: float | None, high: float | None, digits: int, sign: str = "") -> str:
    """A value and half its 95% interval, as 12.3 ± 0.4; the value alone if there is none."""
    half = "" if low is None or high is None else f" ± {(high - low) / 2:.{digits}f}"
    return f"{value:{sign}.{digits}f}{half}"


def interval(value: float, low: float | None, high: float | None, digits: int, sign: str = "") -> str:
    """A value and its 95% interval, as 12.3 [11.9, 12.7]; the value alone if there is none."""
    ends = "" if low is None or high is None else f" [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"
    return f"{value:{sign}.{digits}f}{ends}"


def slots(number: int) -> str:
    """Slots as a power of two, where they are one."""
    power = number.bit_length() - 1
    return f"2^{power}" if number == 2**power else f"{number:,}"
