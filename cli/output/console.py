"""What commands print with: tables on a terminal or in a pipe, machine-readable JSON, notes on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any


def print_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> None:
    """Print a table; all columns but the first `left` are right-aligned."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < left else "right", no_wrap=i < left, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table)


def note(text: str) -> None:
    """Tell the person something that is no result, on stderr."""
    print(text, file=sys.stderr)


def examples(*commands: str) -> str:
    """The end of a command's --help: three things to paste."""
    return "Examples:\n\n" + "\n\n".join(f"  {command}" for command in commands)
