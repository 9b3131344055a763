"""Rows -> the scores that are shown of a run: those of whole sets, and of relations; each with its words and digits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ...results.labels import score_of
from ...results.namm.rows import budget_text
from ...results.store.rows import Row
from .answers import NAMES

METRICS = {
    "exact_match": "exact match %",
    "exact_match_before": "exact match before %",
    "chance_exact_match": "guessing, exact match %",
    "majority_exact_match": "most common answer, exact match %",
    "f1": "F1 %",
    "nll": "nats per token",
    "nll_before": "nats per token before",
    "slots_used": "slots in use %",
    "usage_kl": "usage KL",
    "relative_log_likelihood": "likelihood relative to the full cache",
    "exact": "right answers %",
    "kept": "share of the cache kept %",
    "log_likelihood": "log-likelihood, nats per token",
}
_OF_CACHES = ("relative_log_likelihood", "score", "exact")
_PERCENT = ("exact", "f1", "slots_used", "majority", "chance", "score", "kept")
LOWER_IS_BETTER = ("nll", "nll_before", "usage_kl")


class Score(NamedTuple):
    """A score of a set: what tells it from others, and its row.

    Attributes:
        key: What is equal of the same score of another run.
        where: What was evaluated, in words.
        metric: In words.
        row: The row.
    """

    key: tuple[Any, ...]
    where: str
    metric: str
    row: Row

    @property
    def text(self) -> str:
        """The value and its interval."""
        return score_of(self.row, digits_of(self.row.metric))


def digits_of(metric: str) -> int:
    """Digits after the point of a metric."""
    return 1 if metric.startswith(_PERCENT) or metric.endswith("_ms") else 3


def main_scores(rows: Sequence[Row]) -> list[Score]:
    """The scores of whole sets, in the order of the rows.

    Args:
        rows: Of one run.
    """
    chosen = [row for row in rows if _is_main(row)]
    sets = {row.labels.task_set for row in chosen} - {"", "all"}
    if len(sets) == 1:  # all tasks are those of the only set
        chosen = [row for row in chosen if row.labels.task_set != "all"]
    return [_score(row) for row in chosen]


def worst_relations(rows: Sequence[Row], most: int = 10) -> list[Score]:
    """The relations with the lowest exact match in a phrasing that training did not show, the lowest first.

    Args:
        rows: Of one run of `memx train`.
        most: How many.
    """
    for tier in ("rephrased", "seen", "unseen"):
        found = [row for row in rows if row.metric == "exact_match" and row.labels.relation and row.labels.tier == tier]
        if found:
            return [_score(row) for row in sorted(found, key=lambda row: (row.value, row.dataset))[:most]]
    return []


def _is_main(row: Row) -> bool:
    labels = row.labels
    if row.kind == "eviction":
        return labels.task == "all" and not labels.rival and not labels.beside and row.metric in _OF_CACHES
    if row.kind == "namm":
        return labels.evolution_split == "test" and labels.task == "all"
    return not (labels.relation or labels.asked or row.dataset.startswith("names/"))


def _score(row: Row) -> Score:
    labels = row.labels
    words = [_where(row)]
    key: tuple[Any, ...] = (row.dataset, row.metric)
    if row.kind in ("eviction", "namm"):
        size = labels.size if labels.size == "own" else "" if labels.budget is None else budget_text(labels.budget)
        allocation = "" if row.variant.endswith(labels.allocation) else labels.allocation
        words = [f"{words[0]},", row.variant, allocation, f"at {size}" if size else ""]
        key += (row.variant, labels.allocation, size, labels.mode, labels.question, labels.length)
    elif row.kind == "" or labels.op or row.experiment.startswith("bench"):
        words += [row.kind, row.model, row.device]
        key += (row.kind, row.model, row.device)
    elif labels.budget is not None:
        words.append(f"at {budget_text(labels.budget)}")
        key += (labels.budget,)
    return Score(key, " ".join(word for word in words if word), METRICS.get(row.metric, row.metric), row)


def _where(row: Row) -> str:
    """The words for what a row was measured on."""
    labels = row.labels
    if labels.relation:
        return f"{labels.relation}, {NAMES.get(labels.tier, labels.tier)}"
    if labels.tier:
        return f"{NAMES.get(labels.tier, labels.tier)} facts"
    if labels.corpus:
        return "held-out documents"
    if labels.text:
        return f"text {labels.text}"
    if labels.evolution_split:
        return f"{labels.evolution_split} prompts"
    if labels.task_set:
        return f"{labels.task_set} tasks"
    if labels.memory_layer is not None:
        return f"memory in layer {labels.memory_layer}"
    return row.dataset
