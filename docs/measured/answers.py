"""Written answers: RULER by size of the cache, and programs that are written out under a budget of tokens."""

from __future__ import annotations

from memx.results.namm.rows import in_order, prepared, size_label, size_of

from .namms import by_policy, cells
from .text import blocks, rows_of, table

SCORE = "score"
RULER, REGISTERS = "ruler/ruler", "ruler/registers"
_TASK = "held-out/ruler/"
# the share of the tokens that the leaderboard's ratios leave
_SIZES = ("0.75", "0.5", "0.25", "0.125")


def ruler(page: str) -> str:
    """RULER's score in percent of each policy, task by task."""
    rows = prepared(rows_of(RULER))
    parts = []
    for data in dict.fromkeys(row.dataset for row in rows if row.dataset.startswith(_TASK)):
        count = max(row.n for row in rows if (row.dataset, row.metric) == (data, SCORE))
        lines = [[label, *cells(points, _SIZES, 0)] for label, points in by_policy(rows, data, SCORE)]
        columns = ["policy", *(f"{100 * float(size):g}% kept" for size in _SIZES)]
        parts += [f"**`{data.removeprefix(_TASK)}`, {count} prompts**", table(columns, lines)]
    return blocks(*parts)


def registers(page: str) -> str:
    """The share of a program's lines that are written right, by the tokens that each head may hold."""
    rows = prepared(rows_of(REGISTERS))
    data = "held-out/registers"
    sizes = [size for size in in_order(size_of(row) for row in rows) if size != "full"]
    lines = [[label, *cells(points, sizes, 0)] for label, points in by_policy(rows, data, SCORE)]
    return table(["policy", *(size_label(size) for size in sizes)], lines)
