"""Tables of hosts that read no text: what training would cost, what it gave, and policies on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...results.labels import INTERVALS, difference_of, score_of
from ...results.namm.rows import FULL, budget_text
from ...results.store.rows import Row
from .console import print_table, say
from .dry_run import print_folders

_DIGITS = {"return": 1, "normalised": 1, "correct": 1, "log_likelihood": 3}


def print_host_training(rows: Mapping[str, Sequence[Row]]) -> None:
    """Print a line for each run: every metric that it has."""
    metrics = list(dict.fromkeys(_named(row) for found in rows.values() for row in found))
    table = []
    for name, found in rows.items():
        by_name = {_named(row): row for row in found}
        table.append([name, *(_cell(by_name.get(metric)) for metric in metrics)])
    print_table(f"Trained ({INTERVALS})", ["run", *metrics], table)


def _named(row: Row) -> str:
    return row.metric if not row.dataset else f"{row.metric} ({row.dataset})"


def _cell(row: Row | None) -> str:
    return "" if row is None else score_of(row, _DIGITS.get(row.metric, 3))


def print_host_costs(costs: Mapping[str, Mapping[str, Any]], runs: Path) -> None:
    """Print what each run would be, and where it would be written."""
    names = list(dict.fromkeys(name for cost in costs.values() for name in cost))
    table = [[name, *(_amount(cost.get(name)) for cost in costs.values())] for name in names]
    print_table("Dry run: nothing was trained", ["what", *costs], table)
    print_folders(str(runs / name) for name in costs)


def _amount(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def print_host_evaluation(rows: Sequence[Row]) -> None:
    """Print the scores of each policy at each budget, and what the NAMMs have over the others."""
    metrics = [row.metric for row in rows if row.variant == FULL and not row.metric.startswith(("held", "kv_", "kept"))]
    found: dict[tuple[str, float | None], dict[str, Row]] = {}
    for row in rows:
        if row.labels.rival or row.metric.startswith("kept"):
            continue
        found.setdefault((row.variant, row.labels.budget), {})[row.metric] = row
    n, unit = rows[0].n, rows[0].dataset
    table = []
    for (variant, budget), of in found.items():
        cells = [variant, "100%" if budget is None else budget_text(budget)]
        cells += [score_of(of[metric], _DIGITS.get(metric, 3)) for metric in metrics]
        difference = of.get(f"{metrics[0]}_minus_full")
        cells.append("" if difference is None else difference_of(difference, _DIGITS.get(metrics[0], 3)))
        table.append([*cells, f"{of['held'].value:.1f}%"])
    columns = ["policy", "budget", *metrics, f"{metrics[0]}: minus full cache", "cache held"]
    print_table(f"{rows[0].model} ({n} {unit}; {INTERVALS})", columns, table, left=2)
    _print_over_best(rows, metrics[0])


def _print_over_best(rows: Sequence[Row], metric: str) -> None:
    """Print NAMM minus the best other policy at each budget, chosen on the same units."""
    table = [
        [row.variant, budget_text(row.labels.budget or 1), difference_of(row, _DIGITS.get(metric, 3)), row.labels.rival]
        for row in rows
        if row.metric == f"{metric}_over_best_rival"
    ]
    if table:
        title = "NAMM minus the best other policy (95% CI), chosen on these same units, which favours that one"
        print_table(title, ["NAMM", "budget", metric, "best other"], table, left=2)


def print_host_evaluation_plan(plan: Mapping[str, Any]) -> None:
    """Print what an evaluation would do."""
    table = [[name, _amount(value)] for name, value in plan.items() if name != "folder"]
    print_table("Dry run: nothing was loaded or evaluated", ["what", "amount"], table, left=2)
    print_folders([plan["folder"]])
    if plan.get("namms") == "":
        say("no NAMM is evaluated")


def print_host_evolution(rows: Sequence[Row]) -> None:
    """Print the fitness of the mean at each validation."""
    table = [[str(row.n), f"{row.value:+.2f}"] for row in rows]
    title = f"{rows[0].model}: the mean's score less the full cache's, on validation units"
    print_table(title, ["generation", "fitness"], table, left=0)
