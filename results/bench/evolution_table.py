"""Rows of `memx bench evolution` -> a table for each context, number of prompts, budget and mode."""

from __future__ import annotations

from collections.abc import Sequence

from ..labels import Table
from ..store.rows import Row
from .ops_table import milliseconds as three_digits
from .rows import extra, where

_COLUMNS = {
    "generation_ms": "s (p20–p80)", "speedup": "x one by one", "candidates_per_second": "candidates/s",
    "reading_percent": "reading %", "answers_percent": "answers %", "features_percent": "features %",
    "scorer_percent": "scorer %", "eviction_percent": "eviction %",
}  # fmt: skip


def evolve_tables(rows: Sequence[Row]) -> list[Table]:
    """A line for each scorer and way of judging, in the order of the rows; where anything is wrong, that instead."""
    tables = []
    for dataset in dict.fromkeys(row.dataset for row in rows):
        of_dataset = [row for row in rows if row.dataset == dataset]
        facts = [row.model_dump() for row in of_dataset]
        title = f"{dataset} on {where(of_dataset)}, {of_dataset[0].model}"
        wrong = [row for row in of_dataset if row.metric == "correct" and not row.value]
        if wrong:
            lines = [[row.kind, f"FAIL: {extra(row, 'wrong', '')}"] for row in wrong]
            tables.append(Table(title, ["scorer", "problem"], lines, facts))
        elif any(row.metric != "correct" for row in of_dataset):
            tables.append(Table(title, ["scorer, method", *_COLUMNS.values()], _lines(of_dataset), facts))
    return tables


def note_line(rows: Sequence[Row]) -> str:
    """What the columns are."""
    alone = [row for row in rows if extra(row, "way") == "one by one"]
    few = "".join(f" ({extra(row, 'measured')} of {extra(row, 'population')} measured)" for row in alone[:1])
    return (
        "A generation is all candidates on all prompts; medians. x one by one: speedup over candidates evaluated one "
        f"by one, each with its own prefill{few}.\nreading, answers: time in the model; features: input of the scorer; "
        "eviction: selecting and moving tokens.\nShares are from one extra round with synchronised timing. post_hoc "
        "evicts once after prefill, online evicts during prefill."
    )


def _lines(rows: Sequence[Row]) -> list[list[str]]:
    values = {(row.kind, row.metric): row for row in rows}
    kinds = dict.fromkeys(row.kind for row in rows if row.metric != "correct")
    return [[kind, *(_cell(values.get((kind, metric))) for metric in _COLUMNS)] for kind in kinds]


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    if row.metric == "generation_ms":
        cell, low, high = (three_digits((value or 0) / 1e3) for value in (row.value, row.low, row.high))
        return cell if row.n == 1 else f"{cell} ({low}–{high})"
    if row.metric == "speedup":
        return f"{row.value:.2f}"
    return f"{row.value:.0f}" if row.metric.endswith("_percent") else f"{row.value:,.3g}"
