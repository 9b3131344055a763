"""What commands print with: tables on a terminal or in a pipe, machine-readable JSON, notes on stderr."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .streams import emit, note, readable, say

__all__ = ["examples", "note", "print_json", "print_json_text", "print_table", "say", "terminal_console"]

_PIPE_WIDTH = 160  # columns of a table that goes to a file or a pipe, or more if it needs them
_LEAST_WIDTH, _MOST_WIDTH = 20, 1000  # of a table, whatever the terminal or COLUMNS says
_HIDDEN = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")  # what JSON may hold, and a terminal obeys


def print_json(value: Any) -> None:
    """Print one JSON document on stdout. Numbers that are not finite become null, for JSON has none."""
    print_json_text(json.dumps(value, indent=2, ensure_ascii=False))


def print_json_text(text: str) -> None:
    """Print a JSON document that is text already, in characters that stdout has.

    Args:
        text: JSON. Characters that stand in strings alone, and are not ASCII, may be escaped.
    """
    if "NaN" in text or "Infinity" in text:  # of Python's writer; json.loads takes both
        text = json.dumps(_finite(json.loads(text)), indent=2, ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8", "strict")
    except UnicodeError:  # which escapes lone surrogates too
        text = json.dumps(json.loads(text), indent=2, ensure_ascii=True)
    emit(_HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")


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
    from rich.text import Text

    from .table_layout import fit, measure, split, width_of

    named = left if names is None else names
    columns, lines = list(map(readable, columns)), [list(map(readable, row)) for row in rows]
    measured = measure(columns, lines, left)
    console = terminal_console(width_of([column.least for column in measured]))
    with console.capture() as shown:
        for line in wrapped(readable(title), console.width):
            console.print(Text(line, style="bold"), soft_wrap=True)
        parts = [[*range(len(columns))]]
        if fit(measured, console.width) is None:
            parts = split(measured, named, console.width)
        for part in parts or ():
            widths = fit([measured[i] for i in part], console.width)
            assert widths is not None
            here = [line for line in lines if any(line[i] for i in part[named:]) or not any(line[named:])]
            console.print(_table([columns[i] for i in part], [[line[i] for i in part] for line in here], widths, left))
    emit(shown.get())
    if parts is None:
        emit(_blocks(columns, lines, console.width))


def terminal_console(needed: int = 0, *, stderr: bool = False) -> Any:
    """A console of rich that takes all text as it is, and writes to stdout or stderr.

    Args:
        needed: Columns that are needed, for output that is no terminal.
        stderr: Whether it writes to stderr.
    """
    from rich.console import Console

    console = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    width = console.width if console.is_terminal else _pipe_width(needed)
    if console.is_terminal and console.is_dumb_terminal:  # of which rich asks no width
        width = shutil.get_terminal_size().columns
    console.width = min(max(width, _LEAST_WIDTH), max(_MOST_WIDTH, needed))
    return console


def wrapped(text: str, width: int) -> list[str]:
    """The lines of a text that breaks between words alone; a longer word has a line of its own."""
    lines = (textwrap.wrap(one, width, break_long_words=False, break_on_hyphens=False) for one in text.split("\n"))
    return [line for one in lines for line in one or [""]]


def _pipe_width(needed: int) -> int:
    """Columns of output that is no terminal: those of the variable COLUMNS, else as many as a table needs."""
    asked = os.environ.get("COLUMNS", "")
    return int(asked[:6]) if asked.isascii() and asked.isdigit() and int(asked[:6]) else max(_PIPE_WIDTH, needed)


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


def _blocks(columns: Sequence[str], lines: Sequence[Sequence[str]], width: int) -> str:
    """The first cell of each row, and below it a line for each other cell."""
    blocks = []
    for line in lines:
        blocks += ["", *wrapped(line[0], width)]
        for column, cell in zip(columns[1:], line[1:], strict=True):
            if cell:
                text = f"{column}: {cell}".replace("\n", " ")
                blocks += [f"  {part}" for part in wrapped(text, max(width - 2, 1))]
    return "\n".join([*blocks, "", ""])


def _finite(value: Any) -> Any:
    """A value for JSON, with None in place of numbers that are not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def examples(*commands: str) -> str:
    """The end of a command's --help: three things to paste."""
    return "Examples:\n\n" + "\n\n".join(f"  {command}" for command in commands)
