"""Tables of training runs: what each point cost and what it knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..results.rows import Row
from ..results.store import RunStore
from .console import print_table

_SHORT = {"seen": "seen", "rephrased": "new phrasing", "unseen": "unseen"}


def print_training(rows: Mapping[str, Sequence[Row]], runs: Path) -> None:
    """One line per run: size, cost, exact match and NLL of each tier with half its 95% interval, training time."""
    from ..results.memory_figure import short

    tiers = [tier for tier in _SHORT if any(row.dataset == tier for found in rows.values() for row in found)]
    alike = len({(found[0].memory_slots, found[0].seed) for found in rows.values()}) < len(rows)
    lines = []
    for name, found in rows.items():
        by_key = {(row.dataset, row.metric): row for row in found}
        first = found[0]
        line = [f"{first.memory_slots:,}" if first.memory_slots else "dense", str(first.seed)]
        line += [short(first.parameters_total or 0, 1000), short(first.flops or 0, 1000)]
        line += [_with_error(by_key.get((tier, "exact_match")), 1) for tier in tiers]
        line += [_with_error(by_key.get((tier, "nll")), 2) for tier in tiers if tier != "unseen"]
        lines.append([*([name] if alike else []), *line, f"{RunStore(runs).run(name).info().get('seconds', 0):.0f} s"])
    columns = [*(["run"] if alike else []), "slots", "seed", "params", "FLOPs"]
    columns += [f"EM % {_SHORT[tier]}" for tier in tiers] + [f"NLL {_SHORT[t]}" for t in tiers if t != "unseen"]
    print_table(
        "Closed-book QA (exact match and NLL per answer token, ± half the 95% interval)", [*columns, "time"], lines
    )
    chance = {tier: row.value for found in rows.values() for tier in tiers for row in found if _is_chance(row, tier)}
    if chance:
        said = ", ".join(f"{_SHORT[tier]} {value:.1f}%" for tier, value in chance.items())
        print(f"Guessing by relation and first letter scores: {said}.")


def print_costs(costs: Sequence[Mapping[str, Any]]) -> None:
    """The table of a dry run."""

    lines = [
        [
            cost["run"],
            f"{cost['memory_slots']:,}" if cost["memory_slots"] else "dense",
            f"{cost['parameters_total']:,}",
            f"{cost['parameters_active']:,}",
            f"{cost['flops_per_token']:,}",
            f"{cost['weights_bytes'] / 2**20:.1f}",
            f"{cost['optimizer_bytes'] / 2**20:.1f}",
            f"{cost['activation_bytes'] / 2**20:.1f}",
            f"{cost['steps']:,}",
            f"{cost['training_flops']:.2g}",
        ]
        for cost in costs
    ]
    columns = ["run", "slots", "parameters", "active", "FLOPs/token", "weights MiB", "optimizer MiB"]
    print_table("Nothing was trained", [*columns, "activations MiB", "steps", "training FLOPs"], lines)
    for cost in costs:
        print(f"would write {cost['folder']}")


def _with_error(row: Row | None, digits: int) -> str:
    if row is None:
        return ""
    half = (row.high - row.low) / 2 if row.low is not None and row.high is not None else 0.0
    return f"{row.value:.{digits}f} ±{half:.{digits}f}"


def _is_chance(row: Row, tier: str) -> bool:
    return row.dataset == tier and row.metric == "chance_exact_match"
