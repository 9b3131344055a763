"""Rows of continual-learning runs -> what each method learned of each part, and what it kept, over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import fmean
from typing import Any, NamedTuple

from ....errors import MemxError
from ...labels import INTERVALS, Table, with_interval
from ...store.rows import Row
from ...summary import mean_interval
from .finetune import trained_name

_Z95 = 1.959964
LEARNED, EARLIER, KNOWN, TEXT = "new/rephrased", "earlier/rephrased", "known", "text"
_LABELS = {
    LEARNED: "new facts, EM %",
    EARLIER: "earlier parts, EM %",
    KNOWN: "known before, %",
    TEXT: "text NLL, change",
}


class Figure95(NamedTuple):
    """A mean over runs and its 95% interval: over seeds, or with one run over its questions; None without one."""

    value: float
    low: float | None
    high: float | None


class ContinualMethod(NamedTuple):
    """One method: its runs, what they learned and kept by name (see `_LABELS`), and the values of each run."""

    name: str
    seeds: tuple[int, ...]
    figures: dict[str, Figure95]
    values: dict[str, tuple[float, ...]]


def is_wanted(row: Row) -> bool:
    """Whether a row says what was learned or kept after a part."""
    return row.labels.after_part is not None and row.metric == ("nll" if row.labels.asked == TEXT else "exact_match")


def by_trained(rows: Sequence[Row]) -> list[Row]:
    """The rows, each with its method as its variant. Raises MemxError for runs on different base models."""
    if len({row.model for row in rows}) > 1:
        raise MemxError("runs started from different models", hint="give the runs of only one of them")
    return [row.model_copy(update={"variant": row.variant or trained_name(row)}) for row in rows]


def continual_methods(rows: Sequence[Row]) -> list[ContinualMethod]:
    """The methods of rows that `by_trained` gave, in their order.

    New facts: paraphrased questions on the part just learned, the mean of all parts. Earlier parts, known questions
    and text: after the last part. Raises MemxError for runs of different numbers of parts.
    """
    parts = {run: max(row.labels.after_part or 0 for row in rows if row.run == run) for run in {r.run for r in rows}}
    if len(set(parts.values())) > 1:
        raise MemxError("runs learned different numbers of parts", hint="give runs of the same finetune.parts")
    methods = []
    for name in dict.fromkeys(row.variant for row in rows):
        runs: dict[str, list[Row]] = {}
        for row in rows:
            if row.variant == name:
                runs.setdefault(row.run, []).append(row)
        found = [{key: one for key in _LABELS if (one := _of_run(of_run, key))} for of_run in runs.values()]
        shared = [key for key in _LABELS if all(key in one for one in found)]
        values = {key: tuple(one[key].value for one in found) for key in shared}
        figures = {key: found[0][key] if len(found) == 1 else Figure95(*mean_interval(values[key])) for key in shared}
        methods.append(ContinualMethod(name, tuple(of_run[0].seed for of_run in runs.values()), figures, values))
    return methods


def continual_table(methods: Sequence[ContinualMethod]) -> Table:
    """Each method: what it learned of each part, and what was left of earlier parts, known questions and text."""
    shown = [key for key in _LABELS if any(key in method.figures for method in methods)]
    title = f"Facts learned in parts, and what is kept after the last ({INTERVALS})"
    table = Table(title, ["method", "seeds", *(_LABELS[key] for key in shown)], [], [])
    for method in methods:
        line, fact = [method.name, str(len(method.seeds))], {"method": method.name, "seeds": list(method.seeds)}
        for key in shown:
            figure = method.figures.get(key)
            digits, sign = (3, "+") if key == TEXT else (1, "")
            line.append("" if figure is None else with_interval(*figure, digits, sign))
            fact[key] = None if figure is None else figure._asdict()
        table.lines.append(line)
        table.facts.append(fact)
    return table


def _of_run(rows: Sequence[Row], asked: str) -> Figure95 | None:
    """What one run learned or kept: the mean over its parts for new facts, the last part's figure for the rest."""
    found: dict[int, Any] = {row.labels.after_part or 0: row for row in rows if row.labels.asked == asked}
    if not found:
        return None
    if asked == LEARNED:
        values, errors = [row.value for row in found.values()], [row.stderr or 0.0 for row in found.values()]
        half = _Z95 * sqrt(sum(error**2 for error in errors)) / len(errors)
        return Figure95(fmean(values), fmean(values) - half, fmean(values) + half)
    last = found[max(found)]
    if asked == TEXT:
        return Figure95(last.value - found[0].value, None, None) if 0 in found else None
    return Figure95(last.value, last.low, last.high)
