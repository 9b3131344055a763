"""Tables of `memx eval`: scores of each model, and what a run would evaluate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...results.labels import INTERVALS, score_of
from ...results.store.rows import Row
from .console import print_table, say
from .dry_run import would_write

_QA = {"exact_match": "exact match %", "f1": "F1 %"}
_NLL = {"nll": "nats per token"}


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
    titles = _titles(own)
    lines, firsts = [], [next(iter(scores.values())) for scores in found.values()]
    for first, scores in zip(firsts, found.values(), strict=True):
        cells = [_who(first, trained), first.dataset, f"{first.n:,}", _shots(first)]
        lines.append([*cells, *(score_of(scores[name], 2) if name in scores else "" for name in titles)])
    if lines:
        columns = ["model", "questions", "n", "shots", *titles.values()]
        names = 2 if len({tuple(line[:2]) for line in lines}) == len(lines) else 4
        closed = "QA" if any(row.labels.context_questions for row in own) else "Closed-book QA"
        print_table(f"{closed} ({INTERVALS})", columns, lines, left=2, names=names)
    for first in firsts:
        _tell_cuts(first)
    _tell_evictions(firsts)
    harness = [row for row in rows if row.labels.harness]
    lines = [[_who(row, trained), row.dataset, row.metric, f"{row.n:,}", score_of(row, 2)] for row in harness]
    if lines:
        print_table(f"lm-eval ({INTERVALS})", ["model", "task", "score", "n", "value"], lines, left=3)
    for row in {(row.run, row.dataset): row for row in harness}.values():
        _tell_cuts(row)
    _tell_evictions(harness)


def print_plan(costs: Sequence[Mapping[str, Any]]) -> None:
    """Print what the runs would evaluate."""
    lines = []
    for cost in costs:
        asked = ", ".join(f"{name} {_count(count)}" for name, count in cost["questions"].items())
        shots = cost["set_shots"]
        if len({*shots.values()}) > 1:
            examples = ", ".join(f"{count} for {name}" for name, count in shots.items()) + " few-shot examples"
        else:
            examples = f"{next(iter(shots.values()), cost['shots'])} few-shot examples"
        chat = ", through the chat template" if cost["chat"] else ""
        own = {name: metrics for name, metrics in cost["metrics"].items() if name not in ("nq", "tqa")}
        lines += [
            ["model", f"{cost['model']}: {cost['kind']}, context of {cost['context']:,} tokens"],
            *([["questions", f"{asked}; {examples}{chat}"]] if asked else []),
            *([[f"metrics of {name}", ", ".join(metrics)] for name, metrics in own.items()]),
            *([["lm-eval", ", ".join(cost["harness"])]] if cost["harness"] else []),
            *([["policy", cost["policy"]]] if cost["policy"] else []),
            ["would write", would_write(cost["folder"])],
        ]
    print_table("Dry run: nothing was loaded or evaluated", ["what", "amount"], lines, left=2)


def _titles(rows: Sequence[Row]) -> dict[str, str]:
    """The metrics of rows as columns: those of all question sets, then those that only some have."""
    metrics = dict.fromkeys(row.metric for row in rows if row.metric not in ("nll", "answer_nll"))
    more = [name for name in metrics if name not in _QA]
    usual = {name: title for name, title in _QA.items() if name in metrics}
    return {**usual, **{name: f"{name.removesuffix('_score').replace('_', ' ')} %" for name in more}, **_NLL}


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


def _tell_evictions(rows: Sequence[Row]) -> None:
    """From how many prompts policies could evict, where it was not from all; the same once."""
    found = []
    for row in rows:
        labels, count = row.labels, row.labels.evicted_questions
        if count is None or labels.every is None or count >= row.n:
            continue
        interval = f"the interval of {labels.every:,} tokens"
        told = f"no prompt reaches {interval}, so that nothing is evicted" if not count else (
            f"{count:,} of {row.n:,} prompts reach {interval}; from the others nothing is evicted"
        )  # fmt: skip
        found.append(f"{row.dataset}: {told}. Use a smaller --interval.")
    for text in dict.fromkeys(found):
        say(text)


def _by(tokens: int) -> str:
    """The tokens that the longest prompt lost; older evaluations do not say."""
    return f", the longest by {tokens:,} tokens" if tokens else ""
