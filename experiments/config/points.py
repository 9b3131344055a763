"""A training config -> the runs that it asks for, each with the name of its folder. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from .loading import config_hash, points, run_name
from .training import TrainConfig


@dataclass(frozen=True)
class Point:
    """One run of a sweep: its folder's name and its config."""

    name: str
    config: TrainConfig


def plan(config: TrainConfig) -> list[Point]:
    """The points of a config, each once, with the names of their folders, `<name>-<hash of the whole config>`."""
    planned = [Point(run_name(point), point) for point in points(config)]
    return list({config_hash(point.config): point for point in planned}.values())
