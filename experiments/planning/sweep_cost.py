"""The points of a sweep -> what each costs, computed once for points that cost the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..config.points import Point
from ..config.training import TrainConfig
from .cost import RunCost
from .estimate import cost_of
from .mesh import Plan


def costs_of(points: Sequence[Point], runs: Path, plan: Plan | None = None) -> list[RunCost]:
    """What each point costs.

    Args:
        points: The points, as `config.points.plan` gives them.
        runs: The folder of all runs.
        plan: GPUs to plan the runs on; none for their cost alone.

    Returns:
        The costs in the order of the points.

    Raises:
        MemxError: A point cannot be trained, or the plan cannot be.
    """
    known: dict[str, RunCost] = {}
    costs = []
    for point in points:
        alike = _alike(point.config)
        if alike not in known:
            known[alike] = cost_of(point, runs, plan)
        costs.append(replace(known[alike], run=point.name, folder=str(runs / point.name), variant=point.config.variant))
    return costs


def _alike(config: TrainConfig) -> str:
    """What points that cost the same have in common."""
    return config.model_copy(
        update={"name": "", "seed": 0, "experiment": "", "variant": "", "about": ""}
    ).model_dump_json()
