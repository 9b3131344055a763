"""A model's output for a long-context example -> its score, by the metric that the example names. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..metrics.registry import METRICS

if TYPE_CHECKING:
    from ..data.long_context.example import Example


LOG_LIKELIHOOD = "log_likelihood"  # the metric of examples that are scored by their answer's likelihood alone


def score(example: Example, output: str) -> float:
    """Score what a model wrote after an example's prompt, 0 to 1: the output up to the example's first stop."""
    assert example.metric != LOG_LIKELIHOOD, f"task {example.task} has no score: it is evaluated by log-likelihood"
    return METRICS[example.metric](cut_at(output, example.stop), example.answers, example.classes)


def cut_at(output: str, stops: Sequence[str]) -> str:
    """The output without leading line breaks, up to the first of the stops."""
    output = output.lstrip("\n")
    return output[: min((place for stop in stops if (place := output.find(stop)) >= 0), default=len(output))]
