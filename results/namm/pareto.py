"""Rows of finished evolutions -> what their answers keep of the cache and score, and the front of the best."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

from ...errors import MemxError
from ..labels import INTERVALS, Table, with_interval
from ..store.rows import Row, extra
from ..summary import without_seed
from .curves import Point, pareto_front

ANSWER, START = "answer", "generation 0"
LIKELIHOOD, SCORE = "relative_log_likelihood", "relative_score"
SPLITS = {"test": "test prompts", "validation": "validation prompts (used for selection)"}
_KEPT = "kept"
_PRICES = ("budget", "target", "price")  # what a run may have evolved under, the first that it says


class Answer(NamedTuple):
    """One run's answer, and generation 0 of it, if it is known; point.policy is the run.

    price: the budget, the target or the price that it evolved under; empty if rows do not log.
    """

    run: str
    seed: int
    metric: str
    point: Point
    kept_low: float | None
    kept_high: float | None
    start: Point | None
    price: str = ""

    @property
    def group(self) -> tuple[str, str]:
        """What seeds of one evolution have in common."""
        return without_seed(self.run), self.price


def is_answer(row: Row) -> bool:
    """Whether a row says what an evolution's answer, or generation 0, scores or keeps on a family or on all."""
    wanted = {LIKELIHOOD, SCORE, _KEPT}
    compared = row.metric in wanted and row.variant in (ANSWER, START)
    return row.kind == "namm" and compared and row.labels.evolution_split in SPLITS


def alike(rows: Sequence[Row]) -> dict[str, Hashable]:
    """What the runs of a front have in common, by run: host, mode, kind of fitness, and prompts by family."""
    by_run: dict[str, set[Hashable]] = {}
    for row in rows:
        facts = by_run.setdefault(row.run, {(row.model, row.labels.mode)})
        if row.variant == ANSWER and row.metric != _KEPT:
            facts |= {row.metric, (row.dataset, row.n)}
    return {run: frozenset(facts) for run, facts in by_run.items()}


def answers_of(rows: Sequence[Row], log: Callable[[str], None]) -> tuple[list[Answer], str]:
    """An answer of each run, least kept first, and the split: test if every run has it, else validation.

    Raises MemxError if hosts, modes, kinds of fitness, families of tasks or numbers of prompts differ.
    """
    runs = list(dict.fromkeys(row.run for row in rows))
    by_key = {(row.run, row.dataset, row.variant, row.metric): row for row in rows}
    tested = {row.run for row in rows if row.dataset == "test/all"}
    split = "test" if len(tested) == len(runs) else "validation"
    if 0 < len(tested) < len(runs):
        log(f"using validation prompts: no test prompts in {', '.join(run for run in runs if run not in tested)}")
    metric = _comparable(rows, split)
    answers = []
    for run in runs:
        key = (run, f"{split}/all", ANSWER)
        value, kept = by_key.get((*key, metric)), by_key.get((*key, _KEPT))
        if value is None or kept is None:
            log(f"not drawn: {run} has no rows of {SPLITS[split]}")
            continue
        start = _start(by_key, run, split, metric)
        point = Point(run, "", kept.value, value.value, value.low, value.high, value.n)
        answers.append(Answer(run, value.seed, metric, point, kept.low, kept.high, start, _price(value)))
    if not answers:
        raise MemxError("no finished evolution here", hint="give finished runs of `memx evolve-namm`")
    return sorted(answers, key=lambda answer: answer.point.kept), split


def _comparable(rows: Sequence[Row], split: str) -> str:
    """The one kind of fitness. Raises MemxError if runs differ in what makes them comparable."""
    metrics = {row.metric for row in rows} - {_KEPT}
    of_split = [row for row in rows if row.labels.evolution_split == split and row.variant == ANSWER]
    families: dict[str, set[str]] = {row.run: set() for row in of_split}
    for row in of_split:
        families[row.run].add(row.labels.task)
    common = set.intersection(*families.values()) if families else set()
    facts = {
        "model": {row.model for row in rows},
        "mode": {row.labels.mode for row in rows},
        "kind of fitness": metrics,
        f"number of {split} prompts": {str(row.n) for row in of_split if row.labels.task == "all"},
    }
    wrong = [f"{name}: {', '.join(sorted(values))}" for name, values in facts.items() if len(values) > 1]
    if some := set().union(*families.values()) - common:
        wrong.append(f"tasks: only some have {', '.join(sorted(some))}")
    if wrong:
        hint = "give only run folders that agree: memx plot pareto RUN RUN2"
        raise MemxError(f"these evolutions differ in {wrong[0]}", hint=hint)
    return next(iter(metrics), LIKELIHOOD)


def _start(by_key: dict[tuple[str, str, str, str], Row], run: str, split: str, metric: str) -> Point | None:
    """Generation 0 of a run."""
    value, kept = (by_key.get((run, f"{split}/all", START, one)) for one in (metric, _KEPT))
    return Point(run, "", kept.value, value.value, value.low, value.high, value.n) if value and kept else None


def _price(row: Row) -> str:
    """What an evolution was under: budget 0.5, target 0.4, price 0.3."""
    prices = ((name, extra(row, name)) for name in _PRICES)
    return next((f"{name} {value:g}" for name, value in prices if value is not None), "")


def best_of(answers: Sequence[Answer]) -> list[Point]:
    """The front of the answers and the full cache."""
    return pareto_front([*(answer.point for answer in answers), Point("full cache", "", 100.0, 1.0, None, None, 0)])


def group_labels(answers: Sequence[Answer]) -> dict[tuple[str, str], str]:
    """What groups of seeds are called: by what they evolved under, with their name where that is not enough."""
    groups = list(dict.fromkeys(answer.group for answer in answers))
    prices = [price for _, price in groups]
    return {
        (name, price): price if price and prices.count(price) == 1 else ", ".join(filter(None, (name, price)))
        for name, price in groups
    }


def pareto_table(answers: Sequence[Answer], split: str) -> Table:
    """What each run's answer keeps and scores, and whether it is on the front."""
    best = best_of(answers)
    score = "likelihood" if answers[0].metric == LIKELIHOOD else "score"
    columns = ["run", "seed", "evolved with", "cache kept %", f"{score}, full cache = 1", "initial", "Pareto front"]
    table = Table(f"Chosen NAMMs on {SPLITS[split]} ({INTERVALS})", columns, [], [], names=2)
    for answer in answers:
        point, start = answer.point, answer.start
        on = point in best
        kept = with_interval(point.kept, answer.kept_low, answer.kept_high, 1, n=point.n)
        before = f"{start.value:.2f} at {start.kept:.0f}%" if start else ""
        cells = [
            answer.run,
            str(answer.seed),
            answer.price,
            kept,
            with_interval(point.value, point.low, point.high, 2, n=point.n),
        ]
        table.lines.append([*cells, before, "*" if on else ""])
        table.facts.append(
            {"run": answer.run, "seed": answer.seed, "price": answer.price, "kept": point.kept,
             answer.metric: point.value, "low": point.low, "high": point.high, "n": point.n, "split": split,
             "front": on}
        )  # fmt: skip
    return table
