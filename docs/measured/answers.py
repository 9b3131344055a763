"""Written answers: RULER by size of the cache, and programs that are written out under a budget of tokens."""

from __future__ import annotations

from memx.results.namm.curves import Point
from memx.results.namm.looks import policy_label
from memx.results.namm.rows import in_order, prepared, size_label, size_of

from .namms import by_policy, cells
from .text import blocks, plus_minus, rows_of, table

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


def ruler_line() -> tuple[str, str]:
    """RULER at a quarter of the cache, over all tasks: a question and its answer."""
    found = _by_label(RULER, "held-out/all", "0.25")
    told = _best_of(found)
    return "How many of RULER's needles at 4,096 tokens does SmolLM2-135M find with a quarter of the cache?", told


def registers_line() -> tuple[str, str]:
    """The long answer under the budget at which policies differ most: a question and its answer."""
    found = _by_label(REGISTERS, "held-out/registers", "64")
    question = "How much of a long answer is right if each head holds 64 tokens while it is written?"
    return question, _best_of(found)


def _by_label(file: str, data: str, size: str) -> dict[str, Point]:
    """The point of each policy at a size, by its name in tables."""
    listed = by_policy(prepared(rows_of(file)), data, SCORE)
    return {label: point for label, points in listed for point in points if point.size in (size, "full")}


def _best_of(found: dict[str, Point]) -> str:
    """The full cache, the universal NAMM, and the best other policy that reads the text once."""
    full, namm = found["full cache"], max((one for name, one in found.items() if "NAMM" in name), key=_value)
    others = {
        name: one for name, one in found.items() if name != "full cache" and not name.startswith(("NAMM", "KVzip"))
    }
    best = max(others, key=lambda name: others[name].value)
    name = policy_label(namm.policy, found)
    texts = [plus_minus(one.value, one.low, one.high, 0) for one in (namm, others[best], full)]
    return f"{texts[0]}% with {name}; {texts[1]}% with {best}, the best other; {texts[2]}% with the full cache"


def _value(point: Point) -> float:
    return point.value
