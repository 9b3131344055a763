"""Scores after each part of a continual-learning run -> rows `parts/…`, each with the number of its part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ....results.store.rows import Row
from .evaluation import PartScores, as_scores


def part_rows(common: Mapping[str, Any], before: Mapping[str, Any], parts: Sequence[PartScores]) -> list[Row]:
    """Rows of what was measured after each part, and as part 0 of what was known before the first.

    Args:
        common: Fields that all rows of the run share.
        before: What was measured before training: `known` by metric, and `text`.
        parts: The scores after each part, the first one first.

    Returns:
        Rows of the datasets `parts/new/seen`, `parts/new/rephrased`, `parts/earlier/…`, `parts/known` and
        `parts/text`, each with `after_part`, from 0.
    """
    start: dict[str, Any] = {"known": before["known"]} if before.get("known") else {}
    if before.get("text"):
        start["text"] = {"nll": before["text"]}
    return [
        Row(**{**common, "after_part": number}, dataset=f"parts/{name}", metric=metric, **estimate._asdict())
        for number, scores in enumerate([start, *parts])
        for name, figures in as_scores(scores).items()
        for metric, estimate in figures.items()
    ]


def known_rows(common: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Row]:
    """Rows of the questions that the model answered before training, before (100% by choice) and after.

    Args:
        common: Fields that all rows of the run share.
        before: Figures by metric before training; empty if no such questions were asked.
        after: The same after training.
    """
    scores = as_scores({"_before": before, "": after})
    return [
        Row(**common, dataset="known", metric=f"{metric}{end}", **estimate._asdict())
        for end, figures in scores.items()
        for metric, estimate in figures.items()
    ]
