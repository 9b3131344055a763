"""Rows of fine-tuned models -> each method's facts learned and text forgotten, before and after, over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ....errors import MemxError
from ...labels import Table, score_of, with_interval
from ...store.rows import Row
from ...summary import Summary, mean_interval, summarize

TIERS_SHOWN = ("seen", "rephrased")
_TRAINED = {"all": "all weights", "memory": "memory layers", "slots": "top slots", "lora": "LoRA"}
_SHORT = {"seen": "seen", "rephrased": "paraphrased"}


class Method(NamedTuple):
    """One way of fine-tuning: exact match of each tier before and after, and the change in text loss of each run."""

    name: str
    before: dict[str, Summary]
    after: dict[str, Summary]
    text_before: Summary | None
    text_after: Summary | None
    change: tuple[float, float | None, float | None] | None
    changes: tuple[float, ...]


def is_wanted(row: Row) -> bool:
    """Whether a row says something about facts learned or text forgotten."""
    if row.labels.text:
        return row.metric in ("nll", "nll_before")
    return row.dataset in TIERS_SHOWN and row.metric in ("exact_match", "exact_match_before")


def by_method(rows: Sequence[Row]) -> list[Row]:
    """The rows of fine-tuning runs, each with its method as its variant.

    Raises MemxError if no run has exact match before and after, or texts differ.
    """
    tuned = {row.run for row in rows if row.metric == "exact_match_before"}
    if not tuned:
        raise MemxError("no run here started from a trained model", hint="train one with `memx train --init-from`")
    kept = [row for row in rows if row.run in tuned and is_wanted(row)]
    texts = sorted({row.dataset for row in kept if row.labels.text})
    if len(texts) > 1:
        raise MemxError(f"runs were measured on different texts: {', '.join(texts)}", hint="give runs of only one text")
    names = {row.run: row.variant or trained_name(row) for row in kept}
    sizes = {name: {(row.kind, row.memory_slots) for row in kept if names[row.run] == name} for name in names.values()}
    return [
        row.model_copy(update={"variant": names[row.run] + (_size(row) if len(sizes[names[row.run]]) > 1 else "")})
        for row in kept
    ]


def methods_of(rows: Sequence[Row]) -> list[Method]:
    """The methods of rows that `by_method` gave, in their order. Raises MemxError for one method on several bases."""
    summaries = summarize(rows)
    methods = []
    for name in dict.fromkeys(row.variant for row in rows):
        of_method = [s for s in summaries if s.variant == name]
        if len({s.model for s in of_method}) > 1:
            raise MemxError(f"method {name!r} was run on several models", hint="give the runs of only one of them")
        by_metric = {(s.dataset, s.metric): s for s in of_method}
        text = next((s.dataset for s in of_method if s.labels.text), "")
        before, after = by_metric.get((text, "nll_before")), by_metric.get((text, "nll"))
        changes = _changes([row for row in rows if row.variant == name and row.dataset == text])
        methods.append(
            Method(
                name,
                {t: by_metric[t, "exact_match_before"] for t in TIERS_SHOWN if (t, "exact_match_before") in by_metric},
                {t: by_metric[t, "exact_match"] for t in TIERS_SHOWN if (t, "exact_match") in by_metric},
                before, after, mean_interval(changes) if changes else None, changes,
            )
        )  # fmt: skip
    return methods


def finetune_table(methods: Sequence[Method]) -> Table:
    """Each method: exact match before -> after, seen and in new phrasing, and text loss before -> after."""
    tiers = [tier for tier in TIERS_SHOWN if any(tier in method.after for method in methods)]
    columns = ["method", "seeds", *(f"EM % {_SHORT[tier]}" for tier in tiers), "text NLL", "change"]
    table = Table("Facts learned and change in text loss, before → after", columns, [], [])
    for method in methods:
        runs = max(s.runs for s in method.after.values())
        line: list[str] = [method.name, str(runs)]
        fact: dict[str, Any] = {"method": method.name, "runs": runs}
        for tier in tiers:
            line.append(_arrow(method.before.get(tier), method.after.get(tier), 1))
            fact[tier] = {"before": _fact(method.before.get(tier)), "after": _fact(method.after.get(tier))}
        line += [_arrow(method.text_before, method.text_after, 3)]
        line += [with_interval(*method.change, 3, "+") if method.change else ""]
        fact["text"] = {"before": _fact(method.text_before), "after": _fact(method.text_after), "change": method.change}
        table.lines.append(line)
        table.facts.append(fact)
    return table


def trained_name(row: Row) -> str:
    """What a run trained, in words."""
    return _TRAINED.get(row.labels.trained, row.labels.trained)


def _size(row: Row) -> str:
    return f", {row.memory_slots:,} slots" if row.memory_slots else f", {row.kind}"


def _changes(rows: Sequence[Row]) -> tuple[float, ...]:
    """The change of each run that has both losses."""
    before = {row.run: row.value for row in rows if row.metric == "nll_before"}
    return tuple(row.value - before[row.run] for row in rows if row.metric == "nll" and row.run in before)


def _arrow(before: Summary | None, after: Summary | None, digits: int) -> str:
    if after is None:
        return ""
    now = score_of(after, digits)
    return f"{before.value:.{digits}f} → {now}" if before else now


def _fact(s: Summary | None) -> dict[str, float] | None:
    return None if s is None else {"value": s.value, "low": s.low, "high": s.high}
