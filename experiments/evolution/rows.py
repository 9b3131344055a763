"""What a finished evolution says: what initial parameters and answer did on validation and test prompts -> rows.

The validation prompts have chosen the answer among the means, the test prompts have not; both are of families that it
was evolved on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from ...results.store.environment import commit
from ...results.store.rows import Row
from ...results.store.runs import Run
from ...transformers_compat import input_device
from ..config.eviction.evolution import EvolveConfig, FitnessConfig
from ..metrics.estimates import Z95, Estimate, mean_estimate
from .fitness import Array, Evaluation, cost_of_cache, worth

if TYPE_CHECKING:
    from .loop import EvolutionRun, Result

KINDS = ("generation 0", "answer")  # the columns of what is compared
ALL = "all"


def result_rows(evolution: EvolutionRun, result: Result) -> list[Row]:
    """The rows of a finished evolution.

    Of each family and of all, in each split (`dataset`: validation/all, test/quote, …): relative likelihood or score,
    the raw one, the share kept in percent, fitness. `variant` says which parameters: generation 0 (the initial), the
    answer, the full cache, or the difference of the former two, paired by prompts.
    """
    config, outcome = evolution.config, result.outcome
    common = dict(
        run=evolution.run.name,
        experiment=evolution.run.name,
        kind="namm",
        model=evolution.host,
        parameters_total=sum(parameter.numel() for base in evolution.bases for parameter in base.model.parameters()),
        device=str(input_device(evolution.bases[0].model)),
        seed=config.seed,
        commit=commit(),
        mode=config.fitness.mode,
        budget=_only_budget(config),
        target=config.fitness.target,
        price=config.fitness.price,
        parameters_namm=len(evolution.namm.parameters),
        generations=result.generations,
        answer_generation=outcome.generation,
    )
    rows = [
        row
        for split, evaluation in result.evaluations.items()
        for row in _split_rows(common, split, evaluation, config.fitness)
    ]
    if len(config.budgets) > 1:
        rows += [
            row
            for split, evaluation in result.evaluations.items()
            for row in _budget_rows(common, split, evaluation, config)
        ]
    return [*rows, *_speed_rows(dict(common, ranks=evolution.world.size), evolution.run, config.evolution.population)]


def _budget_rows(common: Mapping[str, Any], split: str, evaluation: Evaluation, config: EvolveConfig) -> list[Row]:
    """Rows of all families at each share of the cache (`dataset`: validation/25%, …)."""
    rows: list[Row] = []
    for budget in config.budgets:
        own = _split_rows(dict(common, budget=budget), split, evaluation.at(budget), config.fitness, families=False)
        rows += [row.model_copy(update={"dataset": f"{split}/{100 * (budget or 0):g}%"}) for row in own]
    return rows


def _split_rows(
    common: Mapping[str, Any], split: str, evaluation: Evaluation, config: FitnessConfig, *, families: bool = True
) -> list[Row]:
    kind, value = config.kind, worth(evaluation, config)
    sizes = len({*evaluation.budgets})  # at each of which all prompts are answered, one size after another
    tasks = evaluation.tasks[: len(evaluation.tasks) // sizes]
    rows: list[Row] = []
    for dataset in (ALL, *dict.fromkeys(tasks if families else ())):
        chosen = [number for number, task in enumerate(tasks) if dataset in (ALL, task)]

        def add(variant: str, metric: str, figures: Array, dataset=dataset, chosen=chosen) -> None:
            by_prompt = figures.reshape(sizes, -1).mean(0)  # answers to one prompt are no two samples
            estimate = stratified(by_prompt[chosen], [tasks[number] for number in chosen])
            rows.append(
                Row(**common, dataset=f"{split}/{dataset}", variant=variant, metric=metric, **estimate._asdict())
            )

        for column, variant in enumerate(KINDS):
            add(variant, f"relative_{kind}", value[:, column])
            add(variant, kind, evaluation.raw[:, column])
            add(variant, "kept", 100 * evaluation.kept[:, column])
        add("full cache", kind, evaluation.base)
        add("difference", f"relative_{kind}", value[:, 1] - value[:, 0])
        if dataset == ALL:
            fitness = fitness_by_prompt(evaluation, config)
            for column, variant in enumerate(KINDS):
                add(variant, "fitness", fitness[:, column])
            add("difference", "fitness", fitness[:, 1] - fitness[:, 0])
    return rows


def _only_budget(config: EvolveConfig) -> float | None:
    """The one share of the cache that prompts are answered at; None for a threshold or several."""
    if config.namm.rule != "budget" or len(config.budgets) > 1:
        return None
    return next(iter(config.budgets), None) or config.namm.budget


def fitness_by_prompt(evaluation: Evaluation, config: FitnessConfig) -> Array:
    """Each prompt's part in the fitness, [N, P], whose mean over families is the fitness."""
    if config.target is None:
        return worth(evaluation, config) - cost_of_cache(evaluation.kept, config)
    mean = evaluation.over_tasks(evaluation.kept)  # the target is for the mean, not for each prompt
    beyond = np.where(mean > config.target, evaluation.kept - config.target, 0.0)
    return worth(evaluation, config) - config.weight * beyond


def stratified(figures: Array, tasks: Sequence[str]) -> Estimate:
    """The mean over families of the mean over prompts, with the normal 95% interval of the spread within families."""
    groups = [figures[[name == task for name in tasks]] for task in dict.fromkeys(tasks)]
    parts = [mean_estimate(group.tolist()) for group in groups]
    value = float(np.mean([part.value for part in parts]))
    errors = [part.stderr for part in parts if part.stderr is not None]
    stderr = sqrt(sum(error**2 for error in errors)) / len(parts) if len(errors) == len(parts) else None
    half = Z95 * (stderr or 0.0)
    return Estimate(value, len(figures), stderr, value - half, value + half)


def _speed_rows(common: Mapping[str, Any], run: Run, population: int) -> list[Row]:
    """Candidates a second over all generations, with all that a generation takes, and the seconds by part."""
    lines = [line for line in run.metrics() if "best" in line and "seconds" in line]
    total = sum(line["seconds"]["total"] for line in lines)
    if not total:
        return []
    settings = dict(common, dataset=ALL, variant="speed", n=len(lines))
    rows = [
        Row(**settings, metric="candidates_per_second", value=population * len(lines) / total),
        Row(**settings, metric="seconds_a_generation", value=total / len(lines)),
    ]
    for part in sorted({part for line in lines for part in line["seconds"]} - {"total"}):
        spent = sum(line["seconds"].get(part, 0.0) for line in lines) / len(lines)
        rows.append(Row(**settings, metric=f"seconds_{part}", value=spent))
    return rows
