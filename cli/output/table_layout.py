"""How a table fits the width of a terminal: whole, in parts with the names repeated, or as a block for each row.

No word and no figure is ever broken: columns of figures are as wide as their longest cell, headers and texts wrap
between words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len

_FRAME, _PADDING = 1, 3  # what the box adds to a table, and to each of its columns
_TEXT = 24  # a longer cell of a left-aligned column but the first may wrap
_MOST_PARTS = 3  # with more, a block for each row is easier to read


@dataclass(frozen=True)
class Column:
    """A column: its least width, and the width at which nothing in it wraps. text: its cells may wrap."""

    least: int
    natural: int
    text: bool


def measure(columns: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> list[Column]:
    """Measure the columns of a table, the first `left` of which are left-aligned."""
    measured = []
    for i, header in enumerate(columns):
        cells = [row[i] for row in rows]
        whole = max((_longest_line(cell) for cell in cells), default=0)
        text = 0 < i < left and whole > _TEXT
        least = max(_TEXT, *(_longest_word(cell) for cell in cells)) if text else whole
        least = max(least, _longest_word(header))
        measured.append(Column(least, max(whole, _longest_line(header), least), text))
    return measured


def width_of(widths: Sequence[int]) -> int:
    """The width of a table whose columns have these widths."""
    return sum(widths) + _PADDING * len(widths) + _FRAME


def fit(columns: Sequence[Column], width: int) -> list[int] | None:
    """Widths of the columns of a table that is at most this wide; None if it cannot be."""
    widths = [column.least for column in columns]
    spare = width - width_of(widths)
    if spare < 0:
        return None
    missing = {i: column.natural - column.least for i, column in enumerate(columns)}
    for i in sorted(missing, key=lambda i: (columns[i].text, missing[i])):  # texts take what is left
        granted = min(spare, missing[i])
        widths[i] += granted
        spare -= granted
    return widths


def split(columns: Sequence[Column], left: int, width: int) -> list[list[int]] | None:
    """The columns of each of several tables that are at most this wide, the first `left` of all in each.

    Returns:
        Numbers of columns; None if a column does not fit beside the first ones, or there would be too many tables.
    """
    first = list(range(left))
    parts: list[list[int]] = [first.copy()]
    for i in range(left, len(columns)):
        if fit([columns[k] for k in (*parts[-1], i)], width) is None and parts[-1] != first:
            parts.append(first.copy())
        parts[-1].append(i)
    fits = all(fit([columns[k] for k in part], width) is not None for part in parts)
    return parts if fits and len(parts) <= _MOST_PARTS else None


def _longest_line(text: str) -> int:
    return max(map(cell_len, text.split("\n")))


def _longest_word(text: str) -> int:
    return max(map(cell_len, text.split()), default=0)
