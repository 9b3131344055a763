"""Markdown of tables and cells."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

_CODE = re.compile(r"(`[^`]*`)")
_OPTION = re.compile(r"(?<![\w`-])(--[a-z][a-z-]*[a-z])")


def table(columns: Sequence[str], lines: Iterable[Sequence[str]], left: int | None = None) -> str:
    """A Markdown table.

    Args:
        columns: The headings.
        lines: The cells of each row, as Markdown without line breaks.
        left: How many columns are text, on the left; the others hold numbers. None: all are text.
    """
    numbers = 0 if left is None else len(columns) - left
    rule = ["---"] * (len(columns) - numbers) + ["--:"] * numbers
    return "\n".join(_row(line) for line in [columns, rule, *lines])


def code(value: Any) -> str:
    """A value as code in a cell of a table."""
    return f"`{value}`"


def cell(text: str, join: bool = True) -> str:
    """Plain text as Markdown: what Markdown would read as markup is escaped, `code` stays, options become code.

    Args:
        text: Any text.
        join: Whether lines are joined, as a cell of a table needs.
    """
    parts = _CODE.split(" ".join(text.split()) if join else text)
    for place in range(0, len(parts), 2):
        escaped = re.sub(r"([*_\[\]])", r"\\\1", parts[place]).replace("<", "&lt;")
        parts[place] = _OPTION.sub(r"`\1`", escaped)
    joined = "".join(parts)
    return joined.replace("|", "\\|") if join else joined


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
