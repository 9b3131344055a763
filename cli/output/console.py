"""What commands print with: tables on a terminal or in a pipe, machine-readable JSON, notes on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

_PIPE_WIDTH = 160  # columns of a table that goes to a file or a pipe, or more if it needs them


def print_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1, names: int | None = None
) -> None:
    """Print a table; all columns but the first `left` are right-aligned.

    A table that is too wide for the terminal is split into several that repeat the columns that name a row, or
    printed as a block of lines for each row. Output that is not a terminal is as wide as the environment variable
    COLUMNS says, or else as the table needs.

    Args:
        title: Of the table.
        columns: Headings.
        rows: The cells of each row.
        left: How many columns are text and left-aligned.
        names: How many columns name a row, and are repeated in each part of a split table; None: as many as `left`.
    """
    from rich.console import Console
    from rich.text import Text

    from .table_layout import fit, measure, split, width_of

    named = left if names is None else names
    lines = [list(row) for row in rows]
    measured = measure(columns, lines, left)
    console = Console()
    if not console.is_terminal:
        console = Console(width=_pipe_width(width_of([column.least for column in measured])))
    console.print(Text(title, style="bold"))
    parts = [[*range(len(columns))]]
    if fit(measured, console.width) is None:
        parts = split(measured, named, console.width)
    if parts is None:
        _print_blocks(console, columns, lines)
        return
    for part in parts:
        widths = fit([measured[i] for i in part], console.width)
        assert widths is not None
        here = [line for line in lines if any(line[i] for i in part[named:]) or not any(line[named:])]
        console.print(_table([columns[i] for i in part], [[line[i] for i in part] for line in here], widths, left))


def _pipe_width(needed: int) -> int:
    """Columns of output that is no terminal: those of the variable COLUMNS, else as many as a table needs."""
    asked = os.environ.get("COLUMNS", "")
    return int(asked) if asked.isdecimal() and int(asked) > 0 else max(_PIPE_WIDTH, needed)


def _table(columns: Sequence[str], lines: Sequence[Sequence[str]], widths: Sequence[int], left: int) -> Any:
    """A table of rich with columns of these widths."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for i, (column, width) in enumerate(zip(columns, widths, strict=True)):
        table.add_column(Text(column), justify="left" if i < left else "right", width=width)
    for line in lines:
        table.add_row(*map(Text, line))
    return table


def _print_blocks(console: Any, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print the first cell of each row, and below it a line for each other cell."""
    from rich.padding import Padding
    from rich.text import Text

    for line in lines:
        console.print(Text(f"\n{line[0]}"))
        for column, cell in zip(columns[1:], line[1:], strict=True):
            if cell:
                console.print(Padding(Text(f"{column}: {cell}".replace("\n", " ")), (0, 0, 0, 2)))
    console.print()


def note(text: str) -> None:
    """Tell the person something that is no result, on stderr."""
    print(text, file=sys.stderr)


def examples(*commands: str) -> str:
    """The end of a command's --help: three things to paste."""
    return "Examples:\n\n" + "\n\n".join(f"  {command}" for command in commands)
