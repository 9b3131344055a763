"""Written answers: RULER by size of the cache, and programs that are written out under a budget of tokens."""

from __future__ import annotations

from collections.abc import Sequence

from memx.results.namm.curves import Point
from memx.results.namm.looks import policy_label
from memx.results.namm.rows import in_order, prepared, size_label, size_of, tokens_of

from .namms import by_policy, cells
from .text import blocks, interval, rows_of, table

SCORE = "score"
RULER, REGISTERS = "ruler/ruler", "ruler/registers"
_TASK = "held-out/ruler/"
_RIVALS = ("expected_attention table", "snapkv table", "streamingllm", "kvzip global")
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
    return blocks(*parts, "**Differences in points of exact answers, paired by prompt**", _differences())


def _differences() -> str:
    """NAMMs minus the two best other policies and KVzip, over all tasks."""
    found = {
        (row.variant, row.labels.rival, size_of(row)): interval(row.value, row.low, row.high, 0, "+")
        for row in rows_of(RULER)
        if (row.metric, row.dataset) == ("exact_over", "held-out/all")
    }
    pairs = [pair for pair in dict.fromkeys((namm, rival) for namm, rival, _ in found) if pair[1] in _RIVALS]
    lines = [
        [policy_label(namm, ("",)), policy_label(rival, ("",)), *(found[namm, rival, size] for size in _SIZES)]
        for namm, rival in pairs
    ]
    return table(["NAMM", "minus", *(f"{100 * float(size):g}% kept" for size in _SIZES)], lines, left=2)


def registers(page: str) -> str:
    """The share of a program's lines that are written right, by the tokens that each head may hold."""
    rows = prepared(rows_of(REGISTERS))
    data = "held-out/registers"
    sizes = [size for size in in_order(size_of(row) for row in rows) if tokens_of(size)]
    listed = [(label, {one.size: one for one in points}) for label, points in by_policy(rows, data, SCORE)]
    listed.sort(key=lambda one: ("full" not in one[1], -sum(point.value for point in one[1].values())))
    lines = [[label, *cells(points.values(), sizes, 0)] for label, points in listed]
    return table(["policy", *(size_label(size) for size in sizes)], lines)


def ruler_line() -> tuple[str, str]:
    """RULER by size of the cache, over all tasks: a question and its answer."""
    sizes = ("0.25", "0.125")
    question = "How many of RULER's needles at 4,096 tokens does SmolLM2-135M find with 25% and 12.5% of the cache?"
    return question, _told(RULER, "held-out/all", sizes, "NAMM smollm2 global", "NAMM universal global")


def registers_line() -> tuple[str, str]:
    """The long answer by the tokens that each head may hold: a question and its answer."""
    sizes = ("96", "64", "48", "32")
    question = "How much of a long answer is right if each head holds 96, 64, 48 or 32 tokens while it is written?"
    return question, _told(REGISTERS, "held-out/registers", sizes, "NAMM global")


def _told(file: str, data: str, sizes: Sequence[str], *namms: str) -> str:
    """NAMMs, the best other policy that reads a text once, and the full cache, at each size."""
    found = {
        label: {one.size: one for one in points} for label, points in by_policy(prepared(rows_of(file)), data, SCORE)
    }
    others = [label for label in found if not label.startswith(("full cache", "NAMM", "KVzip"))]
    best = [max(others, key=lambda label: found[label][size].value) for size in sizes]
    ours = "; ".join(f"{', '.join(_percent(found[namm][size]) for size in sizes)}% with {namm}" for namm in namms)
    theirs = ", ".join(f"{_percent(found[label][size])} {label}" for label, size in zip(best, sizes, strict=True))
    full = _percent(found["full cache"]["full"])
    return f"{ours}; the best other policies at each: {theirs}; full cache {full}"


def _percent(point: Point) -> str:
    return f"{point.value:.0f}"
