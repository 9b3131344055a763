"""`memx train --dry-run --gpus …`: flags -> a plan, and its costs -> tables of bytes and seconds on each GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .console import print_table, say

if TYPE_CHECKING:
    from ...experiments.planning.cost import PlanCost, RunCost
    from ...experiments.planning.mesh import Plan

_HELD = ("weights", "gradients", "optimizer", "gathered", "copies", "activations", "table", "table optimizer",
         "table gradient", "fetched rows", "exchange", "step's reads", "grouping", "asking", "total")  # fmt: skip


def plan_of(
    dry_run: bool, gpus: int | None, gpu: str | None, utilization: float | None, tokens: str | None
) -> Plan | None:
    """The plan that flags ask for; None if they ask for none. Raises MemxError for flags that plan nothing."""
    from ...errors import MemxError

    flags = {"--gpus": gpus, "--gpu": gpu, "--utilization": utilization, "--tokens": tokens}
    given = [flag for flag, value in flags.items() if value is not None]
    if not given:
        return None
    if not dry_run:
        raise MemxError(
            f"{given[0]} is only for dry runs",
            hint="add --dry-run; to train on several GPUs, use torchrun",
        )
    from ...experiments.planning.gpus import gpu_named
    from ...experiments.planning.mesh import Assumptions, Plan, parse_count

    assumed = Assumptions() if utilization is None else Assumptions(utilization)
    return Plan(gpus or 1, gpu_named(gpu or "h100"), assumed, parse_count(tokens) if tokens else None)


def print_plans(costs: Sequence[RunCost]) -> None:
    """Print memory of each GPU, seconds of a step, totals, problems and assumptions."""
    plans = [cost.plan for cost in costs if cost.plan is not None]
    names = [str(cost.variant or cost.run) for cost in costs]
    if len(set(names)) < len(names):  # variants at several sizes or seeds
        names = [cost.run for cost in costs]
    where = f"{plans[0].gpus} x {plans[0].gpu}"
    _print_parts(f"Memory of each GPU in GB ({where})", names, [_gigabytes(plan) for plan in plans])
    say("total: peak memory, the highest of the backward pass, the sparse update and evaluation\n")
    _print_parts(f"Seconds per step on {where}", names, [_seconds(plan) for plan in plans])
    _print_parts("The run", names, [_run(plan) for plan in plans])
    lines = [(name, line) for name, plan in zip(names, plans, strict=True) for line in plan.problems]
    lines += [(name, line) for name, plan in zip(names, plans, strict=True) for line in plan.notes]
    for name, line in lines:
        say(f"{name}: {line}")
    say("Assumptions (not measured):")
    for line in dict.fromkeys(line for plan in plans for line in plan.assumed):
        say(f"  {line}")


def _print_parts(title: str, names: Sequence[str], parts: Sequence[Mapping[str, str]]) -> None:
    from ...experiments.planning.cost import PART_NAMES

    found = list(dict.fromkeys(name for part in parts for name in part))
    order = {PART_NAMES.get(name, name): place for place, name in enumerate(_HELD)}
    columns = sorted(found, key=lambda name: len(order) if name == "step" else order.get(name, 0))
    print_table(
        title, ["", *columns], [[name, *(part.get(c, "") for c in columns)] for name, part in _zip(names, parts)]
    )


def _zip(names: Sequence[str], parts: Sequence[Mapping[str, str]]) -> list[tuple[str, Mapping[str, str]]]:
    return list(zip(names, parts, strict=True))


def _gigabytes(plan: PlanCost) -> dict[str, str]:
    from ...experiments.planning.cost import PART_NAMES

    held = plan.bytes
    cells = {PART_NAMES.get(name, name): f"{held[name] / 1e9:,.1f}" for name in _HELD if name in held}
    return cells | ({"CPU memory": f"{held['host'] / 1e9:,.1f}"} if held["host"] else {})


def _seconds(plan: PlanCost) -> dict[str, str]:
    return {name: f"{seconds:.3g}" for name, seconds in plan.seconds.items()}


def _run(plan: PlanCost) -> dict[str, str]:
    from ...results.labels import short

    ranks = f"{plan.table_ranks}" + (f" by {plan.table}" if plan.table_ranks > 1 else "")
    hours = plan.hours
    return {
        "weights sharded over": str(plan.shard),
        "table sharded over": ranks if plan.table else "",
        "micro-batches": str(plan.parts),
        "steps": f"{plan.steps:,}",
        "tokens": short(plan.tokens, 1000),
        "tokens/s": f"{plan.tokens_per_second:,.0f}" if hours else "",
        "hours": f"{hours:,.3g}" if hours and hours < 100 else f"{hours:,.0f}" if hours else "does not run",
        "GPU hours": f"{plan.gpu_hours:,.0f}" if hours else "",
        "checkpoint": f"{plan.saved / 1e9:,.1f} GB",
    }
