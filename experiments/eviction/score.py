"""A model's output for a long-context example -> its score, by the metric that the example names. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...errors import MemxError, nearest
from ..metrics.answers import exact_match, f1
from ..metrics.infinitebench import INFINITEBENCH_METRICS
from ..metrics.longbench import ANSWER_METRICS, Metric
from ..metrics.written import WRITTEN_METRICS
from ..metrics.zeroscrolls import ZEROSCROLLS_METRICS

if TYPE_CHECKING:
    from ..data.long_context.example import Example


def _exact_match(output: str, answers: Sequence[str], classes: Sequence[str] = ()) -> float:
    return exact_match(output, answers)


def _f1(output: str, answers: Sequence[str], classes: Sequence[str] = ()) -> float:
    return f1(output, answers)


METRICS: dict[str, Metric] = {
    **{"exact_match": _exact_match, "f1": _f1},
    **ANSWER_METRICS,
    **INFINITEBENCH_METRICS,
    **ZEROSCROLLS_METRICS,
    **WRITTEN_METRICS,
}
LOG_LIKELIHOOD = "log_likelihood"  # the metric of examples that are scored by their answer's likelihood alone


def metric_name(given: str) -> str:
    """Find a metric by its name, which may lack the end `_score`.

    Args:
        given: What the user wrote, such as rouge for rouge_score.

    Returns:
        Its name in `METRICS`.

    Raises:
        MemxError: There is no such metric.
    """
    for name in (given, f"{given}_score"):
        if name in METRICS:
            return name
    short = [name.removesuffix("_score") for name in METRICS]
    raise MemxError(f"no metric {given!r}", hint=nearest(given, short) or f"use {', '.join(short)}")


def check_metric(name: str, answers: Sequence[str], classes: Sequence[str]) -> None:
    """Check that a metric can score answers to a question: some are for numbers or letters alone.

    Args:
        name: Its name in `METRICS`.
        answers: The accepted answers.
        classes: All labels, for classification.

    Raises:
        MemxError: It cannot, or it needs a package that is not installed.
    """
    try:
        METRICS[name]("0", answers, classes)
    except (IndexError, ValueError):
        raise MemxError(
            f"the metric {name} cannot score the answer {answers[0][:40]!r}",
            hint="it is for answers of another form: use another --metric, or correct the answer",
        ) from None


def score(example: Example, output: str) -> float:
    """Score what a model wrote after an example's prompt, 0 to 1: the output up to the example's first stop."""
    assert example.metric != LOG_LIKELIHOOD, f"task {example.task} has no score: it is evaluated by log-likelihood"
    return METRICS[example.metric](cut_at(output, example.stop), example.answers, example.classes)


def cut_at(output: str, stops: Sequence[str]) -> str:
    """The output without leading line breaks, up to the first of the stops."""
    output = output.lstrip("\n")
    return output[: min((place for stop in stops if (place := output.find(stop)) >= 0), default=len(output))]
