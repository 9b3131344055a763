"""Tables of training runs: what each point cost and what it knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..results.rows import Row
from ..results.store import RunStore
from .console import print_table

_SHORT = {"seen": "seen phrasing", "rephrased": "new phrasing", "unseen": "unseen entities"}


def print_training(rows: Mapping[str, Sequence[Row]], runs: Path) -> None:
    """One line per run: size, cost, exact match of each tier with its 95% interval, NLL of the seen tier."""
    from ..results.memory_figure import short

    tiers = [tier for tier in _SHORT if any(row.dataset == tier for found in rows.values() for row in found)]
    lines = []
    for name, found in rows.items():
        by_key = {(row.dataset, row.metric): row for row in found}
        first = found[0]
        lines.append([
            name,
            f"{first.memory_slots:,}" if first.memory_slots else "dense",
            short(first.parameters_total or 0, 1000),
            short(first.flops or 0, 1000),
            *(_percent(by_key.get((tier, "exact_match"))) for tier in tiers),
            *(_value(by_key.get((tier, "nll"))) for tier in tiers),
            f"{RunStore(runs).run(name).info().get('seconds', 0):.0f} s",
        ])  # fmt: skip
    columns = ["run", "slots", "params", "FLOPs/token"]
    columns += [f"{_SHORT[tier]} EM %" for tier in tiers] + [f"{tier} NLL" for tier in tiers] + ["time"]
    print_table("Closed-book QA", columns, lines)
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


def _percent(row: Row | None) -> str:
    if row is None:
        return ""
    return f"{row.value:.1f} [{row.low:.1f}, {row.high:.1f}]" if row.low is not None else f"{row.value:.1f}"


def _value(row: Row | None) -> str:
    return "" if row is None else f"{row.value:.3f}"


def _is_chance(row: Row, tier: str) -> bool:
    return row.dataset == tier and row.metric == "chance_exact_match"
