"""Tables of `memx eval`: scores of each model, and what a run would evaluate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...results.labels import INTERVALS, score_of
from ...results.store.rows import Row
from .console import print_table, say
from .dry_run import would_write

_QA = {"exact_match": "exact match %", "f1": "F1 %", "nll": "nats per token"}


def print_questions(rows: Sequence[Row], trained: Mapping[str, str]) -> None:
    """Print a line for each model and set of questions, then one for each score of lm-eval.

    Args:
        rows: The rows of evaluations.
        trained: Folder of an evaluation -> name of the run of `memx train` whose model it evaluated.
    """
    own = [row for row in rows if not row.labels.harness]
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in own:
        found.setdefault((row.run, row.dataset), {})[row.metric] = row
    lines = []
    for (_, dataset), scores in found.items():
        first = scores["exact_match"]
        cells = [_who(first, trained), dataset, f"{first.n:,}", _shots(first)]
        lines.append([*cells, *(score_of(scores[metric], 2) for metric in _QA)])
    if lines:
        columns = ["model", "questions", "n", "shots", *_QA.values()]
        names = 2 if len({tuple(line[:2]) for line in lines}) == len(lines) else 4
        print_table(f"Closed-book QA ({INTERVALS})", columns, lines, left=2, names=names)
    for run, dataset in found:
        _tell_cuts(found[run, dataset]["exact_match"])
        _tell_evictions(found[run, dataset]["exact_match"])
    harness = [row for row in rows if row.labels.harness]
    lines = [[_who(row, trained), row.dataset, row.metric, f"{row.n:,}", score_of(row, 2)] for row in harness]
    if lines:
        print_table(f"lm-eval ({INTERVALS})", ["model", "task", "score", "n", "value"], lines, left=3)
    for row in {(row.run, row.dataset): row for row in harness}.values():
        _tell_cuts(row)
    for row in {(row.labels.policy, row.dataset): row for row in harness}.values():
        _tell_evictions(row)


def print_plan(costs: Sequence[Mapping[str, Any]]) -> None:
    """Print what the runs would evaluate."""
    lines = []
    for cost in costs:
        asked = ", ".join(f"{name} {_count(count)}" for name, count in cost["questions"].items())
        lines += [
            ["model", f"{cost['model']}: {cost['kind']}, context of {cost['context']:,} tokens"],
            *([["questions", f"{asked}; {cost['shots']} few-shot examples"]] if asked else []),
            *([["lm-eval", ", ".join(cost["harness"])]] if cost["harness"] else []),
            *([["policy", cost["policy"]]] if cost["policy"] else []),
            ["would write", would_write(cost["folder"])],
        ]
    print_table("Dry run: nothing was loaded or evaluated", ["what", "amount"], lines, left=2)


def _count(questions: int | None) -> str:
    return "(from the hub when it runs)" if questions is None else f"{questions:,}"


def _shots(row: Row) -> str:
    """Examples before each question; at most so many where some had no room."""
    return f"{'≤ ' if row.labels.fewer_shots else ''}{row.labels.shots}"


def _who(row: Row, trained: Mapping[str, str]) -> str:
    memory = (
        f", {row.kind} {row.memory_slots:,}" if row.memory_slots else f", {row.kind}" if row.kind != "dense" else ""
    )
    model = f"{row.model}{memory}{f', {row.variant}' if row.variant else ''}"
    return f"{trained[row.run]} ({model})" if row.run in trained else model


def _tell_cuts(row: Row) -> None:
    """What did not fit in the context."""
    labels = row.labels
    if labels.fewer_shots:
        say(
            f"{row.dataset}: {labels.fewer_shots:,} of {row.n:,} questions had fewer than {labels.shots} examples: "
            f"no more fit in the context of {row.model}."
        )
    if labels.cut_questions:
        say(
            f"{row.dataset}: {labels.cut_questions:,} of {row.n:,} prompts do not fit in the context of {row.model} "
            f"and were cut at the start{_by(labels.cut_tokens)}."
        )
    if labels.answer_tokens:
        say(
            f"{row.dataset}: answers end after {labels.answer_tokens:,} tokens, half of the context of {row.model}, "
            "which is less than the task allows."
        )


def _tell_evictions(row: Row) -> None:
    """From how many prompts a policy could evict, where it was not from all."""
    labels = row.labels
    if labels.policy and labels.every is not None and labels.evicted_questions < row.n:
        evicted = f"{labels.evicted_questions:,}" if labels.evicted_questions else "none"
        say(
            f"{row.dataset}: {evicted} of {row.n:,} prompts reach the interval of {labels.every:,} tokens; from the "
            f"others {labels.policy} evicts nothing. Use a smaller --interval."
        )


def _by(tokens: int) -> str:
    """The tokens that the longest prompt lost; older evaluations do not say."""
    return f", the longest by {tokens:,} tokens" if tokens else ""
