"""All metrics of written answers by their names, and whether a metric can score given answers. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import MemxError, nearest
from .answers import exact_match, f1
from .infinitebench import INFINITEBENCH_METRICS
from .longbench import ANSWER_METRICS, Metric
from .written import WRITTEN_METRICS
from .zeroscrolls import ZEROSCROLLS_METRICS


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


def misfit(name: str, answers: Sequence[str]) -> str | None:
    """Find an answer that a metric cannot score: some are for numbers or letters alone.

    One output is enough to try: a metric reads all answers before it looks at the output.

    Args:
        name: Its name in `METRICS`.
        answers: The accepted answers.

    Returns:
        The first such answer; None if the metric can score all of them.

    Raises:
        MemxError: It needs a package that is not installed.
    """
    try:
        METRICS[name]("0", answers, ())
    except (IndexError, ValueError):
        return next((one for one in answers if len(answers) > 1 and misfit(name, [one]) is not None), answers[0])
    return None


def check_metric(name: str, answers: Sequence[str]) -> None:
    """Check that a metric can score the accepted answers to a question.

    Args:
        name: Its name in `METRICS`.
        answers: The accepted answers.

    Raises:
        MemxError: It cannot, or it needs a package that is not installed.
    """
    if (answer := misfit(name, answers)) is not None:
        raise MemxError(
            f"the metric {name} cannot score the answer {answer[:40]!r}",
            hint="it is for answers of another form: use another --metric, or correct the answer",
        )
