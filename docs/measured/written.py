"""Does eviction improve on the full cache: written answers, with the question read before eviction and after."""

from __future__ import annotations

from collections.abc import Sequence

from memx.results.namm.looks import policy_label
from memx.results.namm.rows import FULL, size_of
from memx.results.store.rows import Row

from .text import plus_minus, rows_of, table

SCORE, SIZES = "score", ("0.5", "0.25")
LENGTHS = (4096, 8192)
QUESTIONS = {"before": "before eviction", "after": "after eviction"}


def improves(page: str) -> str:
    """Scores of written answers, by length and by when the question is read: a line for each policy."""
    rows = [row for row in rows_of("namm/improves") if (row.metric, row.dataset) == (SCORE, "all/all")]
    lines = []
    for length in LENGTHS:
        for question, words in QUESTIONS.items():
            here = [row for row in rows if (row.labels.length, row.labels.question) == (length, question)]
            lines += _lines(here, f"{length:,}", words)
    columns = ["tokens", "question read", "policy", *(f"{100 * float(size):g}% of the cache" for size in SIZES)]
    return table(columns, lines, left=3)


def _lines(rows: Sequence[Row], length: str, question: str) -> list[list[str]]:
    """The full cache, then all policies."""
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        told = plus_minus(row.value, row.low, row.high, 0)
        found.setdefault(row.variant, {}).update({size: told for size in SIZES if size_of(row) in (size, FULL)})
    names = [*found]
    labels = {name: "full cache" if name == FULL else policy_label(name, names) for name in names}
    order = sorted(names, key=lambda name: (name != FULL, not name.startswith("namm"), labels[name]))
    return [[length, question, labels[name], *(found[name].get(size, "") for size in SIZES)] for name in order]
