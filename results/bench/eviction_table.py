"""Rows of `memx bench eviction` -> a table for each operation, context and batch."""

from __future__ import annotations

from collections.abc import Sequence

from ..labels import Table
from ..store.rows import Row
from .ops_table import milliseconds
from .rows import where

_HELD = {"kept_slots": "slots", "kept_tokens": "tokens", "kv_mb": "KV MB", "beside_percent": "extra %"}
_COLUMNS = {
    "prefill": {
        "prefill_ms": "ms (p20–p80)", "prefill_ratio": "x unmodified", "prefill_ratio_pieces": "x unmodified, chunked",
        **_HELD, "kept_in_pieces": "slots, chunked", "peak_memory_mb": "peak MB",
    },
    "decode": {
        "token_ms": "ms per token", "decode_ratio": "x unmodified", "tokens_per_second": "tokens/s",
        **_HELD, "peak_memory_mb": "peak MB",
    },
    "generate": {
        "total_ms": "total ms", "prefill_ms": "prefill ms", "token_ms": "ms per token", "tokens_per_second": "tokens/s",
        **_HELD, "peak_memory_mb": "peak MB",
    },
}  # fmt: skip


def evict_tables(rows: Sequence[Row]) -> list[Table]:
    """Everyone's line, in the order of the rows; where anything is wrong, that in place of times."""
    tables = []
    for dataset in dict.fromkeys(row.dataset for row in rows):
        of_dataset = [row for row in rows if row.dataset == dataset]
        op = dataset.partition(" ")[0]
        wrong = [row for row in of_dataset if row.metric == "correct" and not row.value]
        facts = [row.model_dump() for row in of_dataset]
        title = f"{dataset} on {where(of_dataset)}, {of_dataset[0].model}"
        if wrong:
            lines = [[row.kind, f"FAIL: {(row.model_extra or {}).get('wrong', '')}"] for row in wrong]
            tables.append(Table(title, ["policy", "problem"], lines, facts))
        elif any(row.metric != "correct" for row in of_dataset):
            tables.append(Table(title, ["policy", *_COLUMNS[op].values()], _lines(of_dataset, op), facts))
    return tables


def note_line(rows: Sequence[Row]) -> str:
    """What the columns are."""
    every = (rows[0].model_extra or {}).get("every", "")
    return (
        "x unmodified: time relative to the unmodified model with the prompt in one call; chunked: in calls of "
        f"{every} tokens.\nslots: entries of a layer's fullest head after prefill; tokens: mean of the heads; "
        f"slots, chunked: after prefill in calls of {every} tokens.\n"
        "extra %: other data of the policy, relative to keys and values. "
        "peak: memory above the model's weights (decode includes its prefill)."
    )


def _lines(rows: Sequence[Row], op: str) -> list[list[str]]:
    values = {(row.kind, row.metric): row for row in rows}
    kinds = dict.fromkeys(row.kind for row in rows if row.metric != "correct")
    return [[kind, *(_cell(values.get((kind, metric))) for metric in _COLUMNS[op])] for kind in kinds]


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    if row.metric.endswith("_ms"):
        cell = milliseconds(row.value)
        if row.metric != "prefill_ms" or row.low is None or row.high is None or row.n == 1:
            return cell
        return f"{cell} ({milliseconds(row.low)}–{milliseconds(row.high)})"
    if "ratio" in row.metric:
        return f"{row.value:.2f}"
    return f"{row.value:,.0f}" if row.metric.startswith("kept") else f"{row.value:,.4g}"
