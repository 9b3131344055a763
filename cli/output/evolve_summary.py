"""Tables of an evolution: what it would cost, and what its answer is worth beside generation 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...results.store.rows import Row
from .console import print_table

if TYPE_CHECKING:
    from ...experiments.evolution.cost import EvolutionCost

_KINDS = ("generation 0", "answer", "difference")


def print_evolution(rows: Sequence[Row]) -> None:
    """For each split a table of its families and of all, and the fitness of generation 0 and of the answer."""
    after = rows[0].labels.answer_generation
    splits = dict.fromkeys(row.labels.evolution_split for row in rows if row.variant in _KINDS)
    about = {"validation": f"these prompts chose the mean after generation {after}", "test": "these had no say"}
    for split in splits:
        _print_split([row for row in rows if row.labels.evolution_split == split], split, about[split])
    for row in rows:
        if row.metric == "candidates_per_second":
            print(f"{row.value:.2f} candidates a second, each on all prompts of its generation.")


def _print_split(rows: Sequence[Row], split: str, about: str) -> None:
    by_key = {(row.dataset, row.variant, row.metric): row for row in rows}
    kind = next(row.metric for row in rows if row.variant == "full cache")
    lines = []
    for dataset in dict.fromkeys(row.dataset for row in rows):
        found = [by_key[dataset, variant, f"relative_{kind}"] for variant in _KINDS]
        before, after = (by_key[dataset, variant, "kept"].value for variant in _KINDS[:2])
        cells = [f"{one.value:.2f} ±{_half(one):.2f}" for one in found[:2]]
        kept = f"{before:.0f}→{after:.0f}%"
        lines.append([dataset.partition("/")[2], str(found[0].n), *cells, _change(found[2], 2), kept])
    what = "likelihood a token" if kind == "log_likelihood" else "score"
    title = f"{split.capitalize()} prompts ({about}): {what} over the full cache's, ± half the 95% interval"
    print_table(title, ["task", "n", "gen. 0", "answer", "difference [95%]", "kept"], lines)
    zero, answer, change = (by_key[f"{split}/all", variant, "fitness"] for variant in _KINDS)
    print(f"Fitness: generation 0 {zero.value:.3f}, answer {answer.value:.3f}, difference {_change(change, 3)}.\n")


def _change(row: Row, digits: int) -> str:
    return f"{row.value:+.{digits}f} [{row.low:+.{digits}f}, {row.high:+.{digits}f}]"


def print_evolution_cost(cost: EvolutionCost) -> None:
    """The table of a dry run."""
    from ...results.labels import short

    lines = [
        ["host", f"{cost.host}, {short(cost.host_parameters, 1000)} parameters in {cost.dtype}"],
        ["NAMM", f"{cost.namm_parameters:,} parameters, {cost.rule}, every {cost.every} tokens"],
        [
            "prompts",
            f"{cost.train_prompts} to train on, {cost.validation_prompts} to validate, {cost.test_prompts} to test",
        ],
        ["generations", f"{cost.generations:,} of {cost.population} candidates on {cost.drawn} prompts"],
        ["cached contexts", f"{cost.context_bytes / 2**30:.2f} GiB, {cost.bytes_per_token:,} bytes a token"],
        ["candidates' caches", f"{cost.batch_bytes / 2**30:.2f} GiB at most"],
        ["prefills", f"{cost.prefills:,} of {cost.prefill_tokens:,} tokens, shared by all candidates"],
        ["answers", f"{cost.answers:,} of candidates" + _online(cost)],
        ["FLOPs", ", ".join(f"{name} {value:.2g}" for name, value in cost.flops.items())],
        ["expected time", f"{cost.hours:.2g} h, {cost.assumption}"],
    ]
    print_table("Nothing was loaded or evolved", ["what", "cost"], lines, left=2)
    print(f"would write {cost.folder}")


def _online(cost: EvolutionCost) -> str:
    read = cost.read_online
    return f", each after {read:,} tokens read online" if read else ""


def _half(row: Row) -> float:
    return (row.high - row.low) / 2 if row.low is not None and row.high is not None else 0.0
