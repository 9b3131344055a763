"""A training config -> the points of its sweep: the runs, each with the name of its folder. No torch here."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import MemxError, shown
from .base import assign, config_hash, run_name, to_tree, tree_hash, validate
from .matching import match_points
from .training import TrainConfig

_NAMES = ("name", "about", "experiment", "variant", "match")  # what changes no weight


_OF_MATCHING = ("match.times", "match.resize")


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

    Raises:
        MemxError: A point is no valid config, cannot be matched in cost, or would train the model of another point.
    """
    if not config.sweep and not config.variants:
        return match_points([config])
    runs = []
    base = {**to_tree(config), "sweep": {}, "variants": {}, "experiment": experiment_name(config)}
    for values in itertools.product(*config.sweep.values()):
        swept = list(zip(config.sweep, values, strict=True))
        for variant, changes in (config.variants or {"": {}}).items():
            tree = {**base, "variant": variant}
            for key, value in [*swept, *changes.items()]:
                tree = assign(tree, key, value)
            labels = [_label(key, value) for key, value in swept] + ([_slug(variant)] if variant else [])
            tree["name"] = "-".join([config.name, *labels])[:80]
            run = _point(tree, ", ".join([*(f"{key} {shown(one)}" for key, one in swept), *_named(variant)]))
            _check_matching(run, [*config.sweep, *changes])
            runs.append(run)
    matched = match_points(runs)
    check_different(matched, config)
    return matched


def _check_matching(run: TrainConfig, varied: Sequence[str]) -> None:
    """Raise MemxError for a point whose name promises a match in cost that is not asked for."""
    without = [key for key in varied if key in _OF_MATCHING and run.match.by == "none"]
    if without:
        raise MemxError(
            f"{run.name}: {without[0]} does nothing with match.by none",
            hint="set match.by to flops, or choose other variants with --variant",
        )


def _named(variant: str) -> list[str]:
    return [f"variant {shown(variant)}"] if variant else []


def _point(tree: Mapping[str, Any], which: str) -> TrainConfig:
    try:
        return validate(tree, TrainConfig)
    except MemxError as error:
        raise MemxError(f"{error.message} (at {which})", hint=error.hint) from None


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
    return "".join(c if (c.isascii() and c.isalnum()) or c in "._+" else "_" for c in text)


def check_different(points: Sequence[TrainConfig], config: TrainConfig) -> None:
    """Raise MemxError for two points that differ in nothing that is trained.

    Args:
        points: The runs of a sweep, matched in cost.
        config: The config that they are the points of.
    """
    seen: dict[str, TrainConfig] = {}
    for point in points:
        twin = seen.setdefault(json.dumps(in_force(point), sort_keys=True), point)
        if twin is not point:
            raise MemxError(
                f"{twin.name} and {point.name} would train the same model{_why(point, config)}",
                hint=_what_to_do(twin, point, config),
            )


def in_force(config: TrainConfig) -> dict[str, Any]:
    """The settings of a run that its model depends on, as plain data.

    Args:
        config: The config of one run.
    """
    tree = {key: value for key, value in to_tree(config).items() if key not in _NAMES}
    kind = config.memory.kind
    if kind == "dense":
        tree["memory"] = {"kind": kind}
    elif kind != "moe":
        of_experts = ("experts", "experts_per_token", "expert_width", "balance")
        tree["memory"] = {key: value for key, value in tree["memory"].items() if key not in of_experts}
    if config.finetune.source is None:
        tree["finetune"] = {}
    else:  # the model and its tokenizer are there
        tree["model"], tree["data"] = {}, {**tree["data"], "vocabulary": None}
    return tree


def _why(point: TrainConfig, config: TrainConfig) -> str:
    if config.match.by != "none":
        return f": match.by {config.match.by} gives them the same size"
    if point.memory.kind == "dense" and any(key.startswith("memory.") for key in config.sweep):
        return ", a dense one without memory"
    if point.finetune.source is not None:
        return f", that of {shown(point.finetune.source)} with the same settings"
    return ""


def _what_to_do(first: TrainConfig, second: TrainConfig, config: TrainConfig) -> str:
    if config.variants and first.variant != second.variant:
        return f"choose one of the variants {shown(first.variant)} and {shown(second.variant)} with --variant"
    keys = " and ".join(config.sweep)
    return f"list only values of {keys} that train different models, or set one value for all"
