"""Tables of an evolution: its cost, and the chosen NAMM against the initial parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...results.labels import INTERVALS, difference_of, score_of, short
from ...results.store.rows import Row
from .console import print_table, say
from .dry_run import print_folders

if TYPE_CHECKING:
    from ...experiments.evolution.cost import EvolutionCost

_KINDS = ("generation 0", "answer", "difference")


def print_evolution(rows: Sequence[Row]) -> None:
    """Print a table for each split, and the fitness of the initial parameters and of the chosen NAMM."""
    after = rows[0].labels.answer_generation
    splits = dict.fromkeys(row.labels.evolution_split for row in rows if row.variant in _KINDS)
    about = {"validation": f"used to select generation {after}", "test": "not used for selection"}
    for split in splits:
        _print_split([row for row in rows if row.labels.evolution_split == split], split, about[split])
    for row in rows:
        if row.metric == "candidates_per_second":
            say(f"{row.value:.2f} candidates per second, each on all prompts of its generation.")


def _print_split(rows: Sequence[Row], split: str, about: str) -> None:
    by_key = {(row.dataset, row.variant, row.metric): row for row in rows}
    kind = next(row.metric for row in rows if row.variant == "full cache")
    lines = []
    for dataset in dict.fromkeys(row.dataset for row in rows):
        found = [by_key[dataset, variant, f"relative_{kind}"] for variant in _KINDS]
        before, after = (by_key[dataset, variant, "kept"].value for variant in _KINDS[:2])
        cells = [score_of(one, 2) for one in found[:2]]
        kept = f"{before:.0f}→{after:.0f}%"
        lines.append([dataset.partition("/")[2], str(found[0].n), *cells, difference_of(found[2], 2), kept])
    what = "likelihood per token" if kind == "log_likelihood" else "score"
    title = f"{split.capitalize()} prompts ({about}): {what}, full cache = 1; {INTERVALS}"
    print_table(title, ["task", "n", "initial", "chosen", "difference [95% CI]", "cache kept"], lines)
    zero, answer, change = (by_key[f"{split}/all", variant, "fitness"] for variant in _KINDS)
    say(f"Fitness: initial {zero.value:.3f}, chosen {answer.value:.3f}, difference {difference_of(change, 3)}.\n")


def print_evolution_cost(cost: EvolutionCost) -> None:
    """The table of a dry run."""
    lines = [
        ["model", f"{cost.host}, {short(cost.host_parameters, 1000)} parameters in {cost.dtype}"],
        *([["positions", cost.rope]] if cost.rope else []),
        ["NAMM", f"{_parameters(cost)}, {cost.rule}, eviction interval {cost.every} tokens"],
        [
            "prompts",
            f"{cost.train_prompts} training, {cost.validation_prompts} validation, {cost.test_prompts} test",
        ],
        ["generations", f"{cost.generations:,}, each {cost.population} candidates on {cost.drawn} prompts"],
        ["cached contexts", f"{cost.context_bytes / 2**30:.2f} GiB, {cost.bytes_per_token:,} bytes per token"],
        ["candidates' caches", f"{cost.batch_bytes / 2**30:.2f} GiB or less"],
        ["prefills", f"{cost.prefills:,}, {cost.prefill_tokens:,} tokens each, shared by all candidates"],
        ["answers", f"{cost.answers:,}" + _online(cost)],
        ["FLOPs", ", ".join(f"{name} {value:.2g}" for name, value in cost.flops.items())],
        ["expected time", _time(cost)],
    ]
    print_table("Dry run: nothing was loaded or evolved", ["what", "amount"], lines, left=2)
    print_folders([cost.folder])


def _parameters(cost: EvolutionCost) -> str:
    """How many parameters a NAMM has, and how many numbers of it are evolved."""
    evolved = "" if cost.evolved == cost.namm_parameters else f" by {cost.evolved:,} evolved numbers"
    return f"{cost.namm_parameters:,} parameters{evolved}"


def _time(cost: EvolutionCost) -> str:
    """The hours of a cost, what of them trains the base model, and what they rest on."""
    base = f", {_duration(cost.base_model_hours)} of it to train the base model" if cost.base_model_hours else ""
    return f"about {_duration(cost.hours)}{base}; {cost.assumption}"


def _duration(hours: float) -> str:
    """Seconds, minutes, hours or days, as fits."""
    for unit, size in (("s", 1 / 60), ("min", 1), ("h", 48)):
        if hours < size:
            return f"{hours * {'s': 3600, 'min': 60, 'h': 1}[unit]:.2g} {unit}"
    return f"{hours / 24:,.0f} days"


def _online(cost: EvolutionCost) -> str:
    read = cost.read_online
    return f", each after reading {read:,} tokens with the candidate" if read else ""
