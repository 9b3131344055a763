"""From a preset or YAML file and `--set a.b.c=value` to a checked config; every mistake is one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from ...errors import MemxError, nearest
from .base import assign, validate
from .evolution import EvolveConfig
from .points import points
from .policy_eval import EvalConfig
from .presets import check_command, command_of, read_tree
from .training import TrainConfig


def parse_assignment(text: str) -> tuple[str, Any]:
    """Split `a.b.c=value`; the value is read as YAML (numbers, lists, null, text).

    Raises:
        MemxError: The key or `=` is missing, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise MemxError(f"--set {text!r} is not KEY=VALUE", hint="for example --set training.steps=2000")
    try:
        return key.strip(), _yaml_value(value)
    except yaml.YAMLError:
        raise MemxError(
            f"--set {key}: the value {value!r} is not valid YAML", hint="use values such as 3, 1e-3, [1, 2] or text"
        ) from None


def load_config(
    source: str, assignments: Iterable[tuple[str, Any]] = (), variants: Sequence[str] | None = None
) -> TrainConfig:
    """Resolve a preset or file of `memx train` and assignments to a config.

    Args:
        source: A preset's name or a YAML file's path.
        assignments: Dotted keys and values, which go before what the source says. An assigned key leaves the sweep
            and the variants.
        variants: Keep those of the source alone; None: all.

    Returns:
        The config, each point of whose sweep is checked.

    Raises:
        MemxError: There is no such source or variant, or a key or value is wrong; the message has its path.
    """
    tree = read_tree(source)
    check_command(tree, source, "train")
    given = list(assignments)
    for _, value in (pair for pair in given if pair[0] == "variants"):  # what there is to choose from comes first
        tree["variants"] = value
    if variants:
        tree["variants"] = _chosen(tree.get("variants") or {}, variants, source)
    for key, value in (pair for pair in given if pair[0] != "variants"):
        tree = assign(tree, key, value)
        if isinstance(sweep := tree.get("sweep"), dict) and key in sweep:
            tree["sweep"] = {name: values for name, values in sweep.items() if name != key}
        if isinstance(known := tree.get("variants"), dict):
            tree["variants"] = _assigned(known, key)
    return check(tree)


def _chosen(known: Mapping[str, Any], names: Sequence[str], source: str) -> dict[str, Any]:
    if not known:
        raise MemxError(f"{source} has no variants", hint="leave out --variant; --slots 0 trains the dense model")
    for name in names:
        if name not in known:
            raise MemxError(f"no variant {name!r}", hint=nearest(name, known) or f"use one of: {', '.join(known)}")
    return {name: known[name] for name in known if name in names}


def _assigned(variants: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Variants without a key that is assigned for all. Raises MemxError if that leaves two of them the same."""
    seen: dict[str, str] = {}
    left = {}
    for name, changes in variants.items():
        left[name] = {k: v for k, v in changes.items() if k != key} if isinstance(changes, dict) else changes
        twin = seen.setdefault(repr(left[name]), name)
        if twin != name and isinstance(changes, dict) and key in changes:
            raise MemxError(
                f"with {key} set for all, the variants {twin!r} and {name!r} are the same",
                hint="choose one of them with --variant",
            )
    return left


def check(tree: Mapping[str, Any]) -> TrainConfig:
    """Check a tree, and each point of its sweep. Raises MemxError with the path of the first mistake."""
    config = validate(tree, TrainConfig)
    points(config)
    return config


def load_evolution_config(source: str, assignments: Iterable[tuple[str, Any]] = ()) -> EvolveConfig:
    """Resolve a preset or file of `memx evolve-namm` and assignments. Raises MemxError as `load_config` does."""
    tree = read_tree(source)
    check_command(tree, source, "evolve-namm")
    for key, value in assignments:
        tree = assign(tree, key, value)
    return validate(tree, EvolveConfig)


def load_eval_config(source: str | Mapping[str, Any], assignments: Iterable[tuple[str, Any]] = ()) -> EvalConfig:
    """Resolve a tree or a file of `memx eval-namm` and assignments. Raises MemxError as `load_config` does."""
    tree = read_tree(source) if isinstance(source, str) else dict(source)
    check_command(tree, source if isinstance(source, str) else "this", "eval-namm")
    for key, value in assignments:
        tree = assign(tree, key, value)
    return validate(tree, EvalConfig)


def load_any_config(
    source: str, assignments: Iterable[tuple[str, Any]] = ()
) -> TrainConfig | EvolveConfig | EvalConfig:
    """Resolve a preset or file of whatever command it is for."""
    loads = {"evolve-namm": load_evolution_config, "eval-namm": load_eval_config}
    return loads.get(command_of(read_tree(source)), load_config)(source, assignments)


def _yaml_value(text: str) -> Any:
    value = yaml.safe_load(text)
    if isinstance(value, str):
        try:
            return float(value) if value.strip()[:1] in "+-.0123456789" else value  # YAML 1.1 reads 1e-3 as text
        except ValueError:
            return value
    return value
