"""Answers to a set of questions -> rows: exact match, F1 and the NLL of the gold answer, each with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...results.store.rows import Row
from ..config.question_answering import QaConfig, QaTask
from ..metrics.estimates import Estimate, mean_estimate, overlap_estimate, ratio_estimate, share_estimate


def answer_rows(
    config: QaConfig, task: QaTask, lines: Sequence[Mapping[str, Any]], about: Mapping[str, Any]
) -> list[Row]:
    """Make the rows of a set of questions.

    Args:
        config: The evaluation.
        task: The set.
        lines: Its lines of answers.jsonl.
        about: The fields of `Row` that are about the model.

    Returns:
        Rows of exact_match and f1 in percent, nll in nats a token, and answer_nll in nats an answer (as Berges et al.
        2024 report it of their ablations). Their field fewer_shots counts the questions whose prompt had no room for
        all examples, cut_questions those that were cut at the start, cut_tokens what the longest of these lost, and
        evicted_questions those whose prompt reached the interval of the policy.
    """
    estimates: dict[str, Estimate] = {
        "exact_match": share_estimate([line["exact_match"] for line in lines]),
        "f1": overlap_estimate([line["f1"] for line in lines]),
        "nll": ratio_estimate([line["nll"] for line in lines], [line["gold_tokens"] for line in lines]),
        "answer_nll": mean_estimate([line["nll"] for line in lines]),
    }
    extra = {
        "shots": config.shots,
        "fewer_shots": sum(line["dropped"] > 0 for line in lines),
        "cut_questions": sum(line["cut"] > 0 for line in lines),
        "cut_tokens": max((line["cut"] for line in lines), default=0),
        "asked_with_seed": config.seed,
    }
    if (every := about.get("every")) is not None:
        extra["evicted_questions"] = sum(line["prompt_tokens"] >= every for line in lines)
    return [
        Row(**{**about, **extra}, dataset=task.name, metric=metric, **estimate._asdict())
        for metric, estimate in estimates.items()
    ]
