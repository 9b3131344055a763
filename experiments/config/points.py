"""A training config -> the points of its sweep: the runs, each with the name of its folder. No torch here."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from .base import assign, config_hash, run_name, to_tree, tree_hash, validate
from .matching import match_points
from .training import TrainConfig


@dataclass(frozen=True)
class Point:
    """One run of a sweep: its folder's name and its config."""

    name: str
    config: TrainConfig


def plan(config: TrainConfig) -> list[Point]:
    """The points of a config, each once, with the names of their folders, `<name>-<hash of the whole config>`.

    Raises:
        MemxError: A point is no valid config, or cannot be matched in cost.
    """
    planned = [Point(run_name(point), point) for point in points(config)]
    return list({config_hash(point.config): point for point in planned}.values())


def points(config: TrainConfig) -> list[TrainConfig]:
    """The runs of a sweep: every combination of its values, the last key fastest, and each variant there.

    Points that are to be matched in cost are; a config without sweep and variants is its only point.
    """
    if not config.sweep and not config.variants:
        return match_points([config])
    runs = []
    for values in itertools.product(*config.sweep.values()):
        swept = list(zip(config.sweep, values, strict=True))
        for variant, changes in (config.variants or {"": {}}).items():
            tree = {**to_tree(config), "sweep": {}, "variants": {}, "variant": variant}
            for key, value in [*swept, *changes.items()]:
                tree = assign(tree, key, value)
            labels = [_label(key, value) for key, value in swept] + ([_slug(variant)] if variant else [])
            tree["name"] = "-".join([config.name, *labels])[:80]
            tree["experiment"] = experiment_name(config)
            runs.append(validate(tree, TrainConfig))
    return match_points(runs)


def experiment_name(config: TrainConfig) -> str:
    """What the points of a sweep share: its name and a hash of all that the sweep does not vary.

    Variants do not count, so that one of them alone is the same run as among all.
    """
    tree = {key: value for key, value in to_tree(config).items() if key not in ("sweep", "about", "experiment")}
    tree["variants"] = {}
    for key in config.sweep:
        tree = assign(tree, key, None)
    return f"{config.name}-{tree_hash(tree)}"


def _label(key: str, value: Any) -> str:
    return f"{key.rpartition('.')[2]}{_slug(str(value))}"[:40]


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() or c in "._+" else "_" for c in text)
