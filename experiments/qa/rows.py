"""Answers to a set of questions -> lines of answers.jsonl, and rows of scores and the NLL of gold answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...results.store.json_lines import Line
from ...results.store.rows import Row
from ..config.question_answering import QaConfig, QaTask
from ..metrics.answers import exact_match, f1
from ..metrics.estimates import Estimate, mean_estimate, overlap_estimate, ratio_estimate, share_estimate
from ..metrics.registry import METRICS

if TYPE_CHECKING:
    from .answer import Said
    from .prompt import Asked


def answer_line(task: str, prompt: Asked, answer: Said, metrics: Sequence[str], classes: Sequence[str]) -> Line:
    """Make the line of answers.jsonl for one question.

    Args:
        task: The name of the set.
        prompt: The question as it was asked.
        answer: What the model wrote.
        metrics: Further metrics of own questions, by their names in `METRICS`.
        classes: All accepted answers of the set, for classification.

    Returns:
        The line, with the scores from 0 to 1.
    """
    question = prompt.question
    line = {
        "task": task,
        "number": question.number,
        "id": question.id,
        "question": question.text,
        "answer": answer.text,
        "accepted": list(question.answers),
        "exact_match": exact_match(answer.text, question.answers),
        "f1": f1(answer.text, question.answers),
        "nll": answer.nll,
        "gold_tokens": answer.tokens,
        "shots": list(prompt.shots),
        "dropped": prompt.dropped,
        "cut": prompt.cut,
        "prompt_tokens": len(prompt.prompt),
    }
    if question.context:
        line["context"] = len(question.context)
    if metrics:
        line["scores"] = {name: _score(name, answer.text, question.answers, classes) for name in metrics}
    return line


def _score(metric: str, text: str, answers: Sequence[str], classes: Sequence[str]) -> float:
    """The score of a text. For classification, the accepted answers are names of one class: none counts as another."""
    if metric != "classification_score":
        return METRICS[metric](text, answers, classes)
    others = [name for name in classes if name not in answers]
    return max(METRICS[metric](text, [answer], [answer, *others]) for answer in answers)


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
        Rows of exact_match and f1, or of the metrics of own questions, in percent, nll in nats a token, and answer_nll
        in nats an answer (as Berges et al. 2024 report it of their ablations). Their field fewer_shots counts the
        questions whose prompt had no room for all examples, cut_questions those that were cut at the start, cut_tokens
        what the longest of these lost, evicted_questions those whose prompt reached the interval of the policy, and
        context_questions those with a text to read.
    """
    metrics = config.metrics_of(task)
    scores = {name: [line[name] if name in line else line["scores"][name] for line in lines] for name in metrics}
    estimates: dict[str, Estimate] = {
        **{name: (share_estimate if name == "exact_match" else overlap_estimate)(of) for name, of in scores.items()},
        "nll": ratio_estimate([line["nll"] for line in lines], [line["gold_tokens"] for line in lines]),
        "answer_nll": mean_estimate([line["nll"] for line in lines]),
    }
    with_context = sum(bool(line.get("context")) for line in lines)
    extra: dict[str, Any] = {
        "shots": config.shots_of(task),
        "fewer_shots": sum(line["dropped"] > 0 for line in lines),
        "cut_questions": sum(line["cut"] > 0 for line in lines),
        "cut_tokens": max((line["cut"] for line in lines), default=0),
        "asked_with_seed": config.seed,
        **({"chat": True} if config.chat else {}),
        **({"context_questions": with_context} if with_context else {}),
    }
    if (every := about.get("every")) is not None:
        extra["evicted_questions"] = sum(line["prompt_tokens"] >= every for line in lines)
    return [
        Row(**{**about, **extra}, dataset=task.name, metric=metric, **estimate._asdict())
        for metric, estimate in estimates.items()
    ]
