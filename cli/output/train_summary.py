"""Tables of training runs: what each point cost and what it knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...results.labels import INTERVALS, score_of, short
from ...results.namm.rows import budget_text
from ...results.store.rows import Row
from ...results.store.runs import RunStore
from .console import print_table, say
from .dry_run import print_folders

if TYPE_CHECKING:
    from ...experiments.planning.cost import RunCost

_NAMES = ("model", "kind", "slots", "trained", "seed")
_CACHE = "cache"  # of validation prompts that are answered from an evicted cache
_SHORT = {"seen": "seen", "rephrased": "paraphrased", "unseen": "held-out"}


def print_training(rows: Mapping[str, Sequence[Row]], runs: Path) -> None:
    """One line per run: what it is, its cost, exact match and NLL of each tier with half its 95% interval, and time.

    Of fine-tuned models, exact match and text NLL before and after. Columns that say the same of all runs, or what
    a variant's name says, are left out.
    """
    tiers = [tier for tier in _SHORT if any(row.dataset == tier for found in rows.values() for row in found)]
    tuned = any(row.metric == "exact_match_before" for found in rows.values() for row in found)
    lines = []
    for name, found in rows.items():
        by_key = {(row.dataset, row.metric): row for row in found}
        line = {**_who(name, found[0]), **_knows(by_key, tiers)}
        line |= _text(found) if tuned or not tiers else _losses(by_key, tiers)
        line |= _cached(found)
        lines.append(line | _took(RunStore(runs).run(name).info(), found[0], speed=not tiers))
    columns = [column for column in lines[0] if column not in _needless([found[0] for found in rows.values()])]
    title = "exact match before → after, and text NLL" if tuned else "exact match and NLL per answer token"
    title = f"Closed-book QA ({title}; {INTERVALS})" if tiers else "Held-out text (nats per token)"
    if any(row.dataset == _CACHE for found in rows.values() for row in found):
        title += "; log-likelihood of answers by share of the cache, before → after"
    print_table(title, columns, [[line[column] for column in columns] for line in lines], names=_names(columns, lines))
    if asked := {tier: _asked(rows, tier) for tier in tiers}:
        say(f"Questions asked (n): {', '.join(f'{_SHORT[tier]} {count}' for tier, count in asked.items())}.")
    chance = {tier: row.value for found in rows.values() for tier in tiers for row in found if _is_chance(row, tier)}
    if chance:
        guesses = ", ".join(f"{_SHORT[tier]} {value:.1f}%" for tier, value in chance.items())
        say(f"Guessing by relation and first letter: {guesses}.")
    if low := [name for name, found in rows.items() if _below_guessing(found)]:
        few = f"{', '.join(low[:3])}{' and others' if len(low) > 3 else ''}"
        say(f"Below guessing on seen facts: {few}. The training was too short; set more --steps.")


def _asked(rows: Mapping[str, Sequence[Row]], tier: str) -> str:
    """How many questions are behind the scores of a tier; from the fewest to the most where runs differ."""
    counts = {row.n for found in rows.values() for row in found if row.dataset == tier and row.metric == "exact_match"}
    return " to ".join(f"{count:,}" for count in sorted({min(counts), max(counts)})) if counts else "0"


def plot_command(rows: Mapping[str, Sequence[Row]], runs: Path) -> str:
    """The command that draws the runs of an experiment.

    Args:
        rows: Run folder -> its rows.
        runs: The folder of runs.
    """
    name, (first, *_) = next(iter(rows.items()))
    if any(row.dataset == _CACHE for row in rows[name]):
        return f"memx eval-namm NAMM --model {runs / name / 'checkpoint'}"
    if any(row.dataset == "seen" for row in rows[name]) and all(row.dataset != "rephrased" for row in rows[name]):
        return f'memx ask {runs / name} "A QUESTION OF YOURS"'  # complete questions: the figure is of paraphrased ones
    picture = "loss" if first.labels.corpus else "memory"
    where = "" if runs == Path("results/runs") else f" --runs {runs}"
    return f"memx plot {picture} --experiment {first.experiment}{where}"


def _who(name: str, first: Row) -> dict[str, str]:
    """What a run is, and what it costs."""
    return {
        "run": name,
        "model": first.model,
        "kind": first.variant or first.kind,
        "slots": f"{first.memory_slots:,}" if first.memory_slots else "",
        "trained": first.labels.trained,
        "seed": str(first.seed),
        "params": short(first.parameters_total or 0, 1000),
        "FLOPs": short(first.flops or 0, 1000),
    }


def _took(info: Mapping[str, Any], first: Row, *, speed: bool) -> dict[str, str]:
    """What a run took; with its speed: tokens and FLOPs of both passes a second, and peak memory of one process."""
    seconds = info.get("seconds", 0)
    cells = {"time": f"{seconds:.0f} s"}
    if speed and seconds:
        rate = info.get("tokens", 0) / seconds
        cells |= {"tokens/s": f"{rate:,.0f}", "TFLOP/s": f"{3 * (first.flops or 0) * rate / 1e12:.3g}"}
        cells["peak GB"] = f"{info.get('peak_bytes', 0) / 1e9:.2f}"
    return cells


def _names(columns: Sequence[str], lines: Sequence[Mapping[str, str]]) -> int:
    """How many of the first columns tell the runs from each other."""
    if columns[0] == "run":
        return 1
    several = [i for i, column in enumerate(columns) if column in _NAMES and len({line[column] for line in lines}) > 1]
    return 1 + max(several, default=0)


def _needless(firsts: Sequence[Row]) -> set[str]:
    """Columns to leave out, given one row of each run."""
    needless = {"run", "model", "slots", "trained"}
    points = {(row.model, row.variant, row.kind, row.memory_slots, row.seed) for row in firsts}
    if len(points) < len(firsts):
        needless.remove("run")
    if len({row.model for row in firsts}) > 1:
        needless.remove("model")
    unnamed = any(row.memory_slots and not row.variant for row in firsts)
    if unnamed or len({(row.variant, row.memory_slots) for row in firsts}) > len({row.variant for row in firsts}):
        needless.remove("slots")
    if len({row.labels.trained for row in firsts}) > 1 and not all(row.variant for row in firsts):
        needless.remove("trained")
    return needless


def _knows(by_key: Mapping[tuple[str, str], Row], tiers: Sequence[str]) -> dict[str, str]:
    """Exact match of each tier; of a pretrained start, what it was before too."""
    cells = {}
    for tier in tiers:
        before, after = by_key.get((tier, "exact_match_before")), _score(by_key.get((tier, "exact_match")), 1)
        cells[f"EM % {_SHORT[tier]}"] = f"{before.value:.1f} → {after}" if before else after
    return cells


def _losses(by_key: Mapping[tuple[str, str], Row], tiers: Sequence[str]) -> dict[str, str]:
    """NLL of the answers of each tier that was trained on."""
    return {f"NLL {_SHORT[t]}": _score(by_key.get((t, "nll")), 2) for t in tiers if t != "unseen"}


def _cached(found: Sequence[Row]) -> dict[str, str]:
    """The log-likelihood of right answers at each share of the cache, before and after."""
    of_cache = [row for row in found if row.dataset == _CACHE]
    before = {row.labels.budget: row.value for row in of_cache if row.metric == "log_likelihood_before"}
    after = {row.labels.budget: row for row in of_cache if row.metric == "log_likelihood"}
    return {
        f"answers, {budget_text(budget or 1)}": f"{before[budget]:.3f} → {score_of(row, 3)}"
        for budget, row in after.items()
    }


def _text(found: Sequence[Row]) -> dict[str, str]:
    """NLL of ordinary text, or of a corpus's held-out documents, before and after."""
    before, after = (
        next((row for row in found if (row.labels.text or row.labels.corpus) and row.metric == metric), None)
        for metric in ("nll_before", "nll")
    )
    start = f"{before.value:.3f} → " if before else ""
    return {"text NLL": f"{start}{score_of(after, 3)}" if after else "not measured"}


def print_costs(costs: Sequence[RunCost]) -> None:
    """The table of a dry run; published totals and the distance from them, if there are any."""
    lines = []
    for cost in costs:
        line = {
            "run": cost.run,
            "kind": cost.variant or cost.kind,
            "slots": f"{cost.memory_slots:,}" if cost.memory_slots and not cost.memories else "",
            "memories": cost.memories,
            "parameters": _count(cost.parameters_total),
            "published": _published(cost),
            "active": short(cost.parameters_active, 1000),
            "FLOPs per token": short(cost.flops_per_token, 1000),
            "weights": _bytes(cost.weights_bytes),
            "optimizer": _bytes(cost.optimizer_bytes),
            "activations": "" if cost.plan else _bytes(cost.activation_bytes),
            "value optimizer": cost.value_optimizer,
            "steps": f"{cost.steps:,}",
            "training FLOPs": f"{cost.training_flops:.2g}",
        }
        lines.append(line)
    columns = [column for column in lines[0] if any(line[column] for line in lines)]
    title = f"Dry run: nothing was trained{f' ({len(costs)} runs)' if len(costs) > 1 else ''}"
    print_table(title, columns, [[line[column] for column in columns] for line in lines])
    counts = {(cost.facts, cost.unseen_facts) for cost in costs if cost.facts is not None}
    for trained, unseen in sorted(counts, key=str):
        say(f"facts: {trained:,} are trained on; {unseen:,} are held out, about other subjects")
    print_folders(cost.folder for cost in costs)


def _published(cost: RunCost) -> str:
    """The published total of the same model, and how far ours is from it: 984M (+0.1%)."""
    total = cost.published_total
    if not total:
        return ""
    percent = round(100 * (cost.parameters_total / total - 1), 1) + 0.0  # + 0.0: no "-0.0"
    return f"{short(total, 1000)} ({percent:+.1f}%)"


def _count(number: int) -> str:
    """A count in full, from ten million on in millions."""
    return f"{number:,}" if number < 10**7 else f"{number / 10**6:,.1f}M"


def _bytes(number: float) -> str:
    """Bytes in MiB, from 1024 of them on in GiB."""
    return f"{number / 2**20:.1f} MiB" if number < 2**30 else f"{number / 2**30:.1f} GiB"


def _score(row: Row | None, digits: int) -> str:
    return "" if row is None else score_of(row, digits)


def _below_guessing(found: Sequence[Row]) -> bool:
    """Whether a model knows less of the facts it was trained on than one finds by guessing."""
    seen = {row.metric: row for row in found if row.dataset == "seen"}
    exact, chance = seen.get("exact_match"), seen.get("chance_exact_match")
    return exact is not None and chance is not None and (exact.high or exact.value) < chance.value


def _is_chance(row: Row, tier: str) -> bool:
    return row.dataset == tier and row.metric == "chance_exact_match"
