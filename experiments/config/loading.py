"""From a preset or YAML file and `--set a.b.c=value` to a checked config; every mistake is one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel

from ...errors import MemxError, nearest, shown
from ...yaml_text import BadYaml, parse_yaml
from .base import assign, validate
from .eviction.evolution import EvolveConfig
from .eviction.policy_eval import EvalConfig
from .eviction.universal_eval import UniversalEvalConfig
from .eviction.universal_evolution import UniversalEvolveConfig
from .hosts.kinds import load_host_config, trained_kind
from .merging import dotted, given_once, sections
from .points import points
from .presets import check_command, command_of, read_tree
from .training import TrainConfig

_Config = TypeVar("_Config", bound=BaseModel)
_LONGEST_KEY = 200  # characters of a key of --set; a variant's name is a part of some


def parse_assignment(text: str) -> tuple[str, Any]:
    """Split `a.b.c=value`; the value is read as YAML (numbers, lists, null, text).

    Raises:
        MemxError: The key or `=` is missing, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key or len(key) > _LONGEST_KEY:
        raise MemxError(f"--set {shown(text)} is not KEY=VALUE", hint="for example --set training.steps=2000")
    try:
        return key, parse_yaml(value)
    except BadYaml as error:
        raise MemxError(
            f"--set {key}: the value {shown(value)} is not valid YAML: {error.reason}",
            hint="use values such as 3, 1e-3, [1, 2] or text",
        ) from None


def load_config(
    source: str, assignments: Iterable[tuple[str, Any]] = (), variants: Sequence[str] | None = None
) -> TrainConfig:
    """Resolve a preset or file of `memx train` and assignments to a config.

    Args:
        source: A preset's name or a YAML file's path.
        assignments: Dotted keys and values, which go before what the source says. An assigned key leaves the sweep
            and the variants; `sweep.KEY` and `variants.NAME.KEY` change one entry of these.
        variants: Keep those of the source alone; None: all.

    Returns:
        The config, each point of whose sweep is checked.

    Raises:
        MemxError: There is no such source or variant, or a key or value is wrong; the message has its path.
    """
    tree = read_tree(source)
    check_command(tree, source, "train")
    if (kind := trained_kind(tree)) is not None:
        raise MemxError(f"{source} trains a {kind} model, no language model", hint=f"run: memx train {source}")
    tree.pop("command", None)  # the other kinds of config keep theirs
    given = given_once(assignments, TrainConfig)
    for key in ("experiment", "variant"):
        if key in given:
            raise MemxError(f"{key} is set by memx", hint="set name, or name variants in a config")
    swept = _given_sweep(given)
    for name in ("sweep", "variants"):
        if name in given:
            tree[name] = given.pop(name)
        tree[name] = {} if tree.get(name) is None else tree[name]
    if variants:
        tree["variants"] = _chosen(tree["variants"], variants, source)
    tree = _varied(tree, given, swept)
    for key, value in given.items():
        if not key.startswith(("sweep.", "variants.")):
            tree = _without(assign(tree, key, value), key)
    memory = tree.get("memory")
    if isinstance(memory, Mapping) and isinstance(memory.get("sparse"), int):
        _refuse_sizes(given | {f"sweep.{key}": values for key, values in swept.items()}, memory["sparse"])
    return check(tree)


def _refuse_sizes(given: Mapping[str, Any], sparse: int) -> None:
    """Raise MemxError for a size that is asked for where a budget sets it."""
    for key, value in given.items():
        if value and key.endswith(("memory.slots", "memory.experts")):
            raise MemxError(
                f"{key} {shown(value)} does nothing with memory.sparse {sparse:,}",
                hint="leave it out, or add --set memory.sparse=null",
            )


def _given_sweep(given: Mapping[str, Any]) -> dict[str, Any]:
    """What `sweep.KEY` assigns. Raises MemxError for a key that is also given one value."""
    whole = given.get("sweep")
    swept = {key.partition(".")[2]: values for key, values in given.items() if key.startswith("sweep.")}
    for key in [*swept, *(dotted(whole, sections(TrainConfig)) if isinstance(whole, Mapping) else ())]:
        if key in given:
            raise MemxError(f"{key} is given a value and a sweep", hint=f"remove {key} or sweep.{key}")
    return swept


def _varied(tree: dict[str, Any], given: Mapping[str, Any], swept: Mapping[str, Any]) -> dict[str, Any]:
    """The tree with dotted keys in its sweep and its variants, and with those entries of them that are given."""
    known = sections(TrainConfig)
    sweep, variants = tree["sweep"], tree["variants"]
    if isinstance(sweep, Mapping):
        sweep = {key: values for key, values in {**dotted(sweep, known), **swept}.items() if values is not None}
    if not isinstance(variants, Mapping):
        return {**tree, "sweep": sweep}
    variants = {
        name: dotted(changes, known) if isinstance(changes, Mapping) else changes for name, changes in variants.items()
    }
    variants = _leave_out(variants, [key for key, values in swept.items() if values is not None])
    names = list(variants)
    for key, value in given.items():
        if key.startswith("variants."):
            name, setting = _variant_and_key(key.partition(".")[2], names)
            more = {setting: value} if setting else value
            both = isinstance(more, Mapping) and isinstance(variants.get(name, {}), Mapping)
            variants[name] = {**variants.get(name, {}), **dotted(more, known)} if both else value
    return {**tree, "sweep": sweep, "variants": variants}


def _variant_and_key(text: str, variants: Sequence[str]) -> tuple[str, str]:
    """`NAME.KEY` as a variant's name, which may hold dots, and the key."""
    for name in sorted(variants, key=len, reverse=True):
        if text == name or text.startswith(f"{name}."):
            return name, text[len(name) + 1 :]
    name, _, key = text.partition(".")
    if variants:  # a source without variants gets new ones
        raise MemxError(f"no variant {name!r}", hint=nearest(name, variants) or f"use one of: {_names(variants)}")
    return name, key


def _names(variants: Iterable[str]) -> str:
    return shown(", ".join(variants), 300)[1:-1]


def _chosen(known: Any, names: Sequence[str], source: str) -> Any:
    if not isinstance(known, Mapping):
        return known
    if not known:
        raise MemxError(f"{source} has no variants", hint="leave out --variant; --slots 0 trains the dense model")
    for name in names:
        if name not in known:
            raise MemxError(f"no variant {shown(name)}", hint=nearest(name, known) or f"use one of: {_names(known)}")
    return {name: known[name] for name in known if name in names}


def _without(tree: dict[str, Any], key: str) -> dict[str, Any]:
    """The tree with a key, which is set for all points, in no sweep and in no variant."""
    sweep, variants = tree["sweep"], tree["variants"]
    if isinstance(sweep, Mapping):
        sweep = {name: values for name, values in sweep.items() if name != key}
    if isinstance(variants, Mapping):
        variants = _leave_out(variants, [key])
    return {**tree, "sweep": sweep, "variants": variants}


def _leave_out(variants: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Variants without keys that are set for all. Raises MemxError if that leaves two of them the same."""
    for key in keys:
        seen: dict[str, str] = {}
        left = {}
        for name, changes in variants.items():
            left[name] = {k: v for k, v in changes.items() if k != key} if isinstance(changes, Mapping) else changes
            twin = seen.setdefault(repr(left[name]), name)
            if twin != name and isinstance(changes, Mapping) and key in changes:
                raise MemxError(
                    f"with {key} set for all, the variants {shown(twin)} and {shown(name)} are the same",
                    hint="choose one of them with --variant",
                )
        variants = left
    return dict(variants)


def check(tree: Mapping[str, Any]) -> TrainConfig:
    """Check a tree, and each point of its sweep. Raises MemxError with the path of the first mistake."""
    config = validate(tree, TrainConfig)
    points(config)
    return config


def load_evolution_config(source: str, assignments: Iterable[tuple[str, Any]] = ()) -> EvolveConfig:
    """Resolve a preset or file of `memx evolve-namm` and assignments. Raises MemxError as `load_config` does."""
    tree = read_tree(source)
    check_command(tree, source, "evolve-namm")
    return validate(_set(tree, assignments, EvolveConfig), EvolveConfig)


def load_eval_config(source: str | Mapping[str, Any], assignments: Iterable[tuple[str, Any]] = ()) -> EvalConfig:
    """Resolve a tree or a file of `memx eval-namm` and assignments. Raises MemxError as `load_config` does."""
    return _resolved(source, assignments, "eval-namm", EvalConfig)


def load_universal_eval_config(
    source: str | Mapping[str, Any], assignments: Iterable[tuple[str, Any]] = ()
) -> UniversalEvalConfig:
    """Resolve a tree or a file of `memx eval-namm --host` and assignments. Raises MemxError as `load_config` does."""
    return _resolved(source, assignments, "eval-namm", UniversalEvalConfig)


def load_universal_evolve_config(
    source: str | Mapping[str, Any], assignments: Iterable[tuple[str, Any]] = ()
) -> UniversalEvolveConfig:
    """The same of `memx evolve-namm --host`."""
    return _resolved(source, assignments, "evolve-namm", UniversalEvolveConfig)


def is_on_trained_host(tree: Mapping[str, Any]) -> bool:
    """Whether the config of an evaluation or evolution is one on a decision transformer or a video model."""
    host = tree.get("host")
    return isinstance(host, Mapping) and "kind" in host


def load_any_config(source: str, assignments: Iterable[tuple[str, Any]] = ()) -> BaseModel:
    """Resolve a preset or file of whatever command it is for."""
    tree = read_tree(source)
    if trained_kind(tree) is not None:
        return load_host_config(source, assignments)
    loads: dict[str, Any] = {"evolve-namm": load_evolution_config, "eval-namm": load_eval_config}
    if is_on_trained_host(tree):
        loads = {"evolve-namm": load_universal_evolve_config, "eval-namm": load_universal_eval_config}
    return loads.get(command_of(tree), load_config)(source, assignments)


def _resolved(
    source: str | Mapping[str, Any], assignments: Iterable[tuple[str, Any]], command: str, model: type[_Config]
) -> _Config:
    tree = read_tree(source) if isinstance(source, str) else dict(source)
    check_command(tree, source if isinstance(source, str) else "this", command)
    return validate(_set(tree, assignments, model), model)


def _set(tree: dict[str, Any], assignments: Iterable[tuple[str, Any]], model: type[BaseModel]) -> dict[str, Any]:
    for key, value in given_once(assignments, model).items():
        tree = assign(tree, key, value)
    return tree
