"""From a preset or YAML file and `--set a.b.c=value` to a checked `TrainConfig`; every mistake is one line.

An unknown key is answered with its full path and the nearest name that exists; nothing is silently ignored.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ...errors import MemxError, closest, nearest
from .evolution import EvolveConfig
from .matching import match_points
from .policy_eval import EvalConfig
from .presets import check_command, command_of, read_tree
from .training import TrainConfig

_Config = TypeVar("_Config", bound=BaseModel)


def parse_assignment(text: str) -> tuple[str, Any]:
    """Split `a.b.c=value`; the value is read as YAML, so numbers, lists and null are what they look like."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise MemxError(f"--set {text!r} is not key=value", hint="for example --set training.steps=2000")
    try:
        return key.strip(), _yaml_value(value)
    except yaml.YAMLError:
        raise MemxError(
            f"--set {key}: cannot read the value {value!r}", hint="values are YAML: 3, 1e-3, [1, 2], text"
        ) from None


def assign(tree: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return the tree with the dotted key set; tables on the way are copied, never changed."""
    head, _, rest = key.partition(".")
    if not rest:
        return {**tree, head: value}
    below = tree.get(head) or {}
    if not isinstance(below, Mapping):
        raise MemxError(
            f"unknown key {key!r}: {head!r} holds a value, not a section", hint="see `memx config show PRESET`"
        )
    return {**tree, head: assign(below, rest, value)}


def load_config(
    source: str, assignments: Iterable[tuple[str, Any]] = (), variants: Sequence[str] | None = None
) -> TrainConfig:
    """Resolve a preset or file and assignments to a config. An assigned key leaves the sweep and the variants.

    variants: keep those alone. Raises MemxError for one that does not exist.
    """
    tree = read_tree(source)
    check_command(tree, source, "train")
    given = list(assignments)
    for _, value in (pair for pair in given if pair[0] == "variants"):  # what there is to choose from comes first
        tree["variants"] = value
    if variants:
        tree["variants"] = _chosen(tree.get("variants") or {}, variants)
    for key, value in (pair for pair in given if pair[0] != "variants"):
        tree = assign(tree, key, value)
        if isinstance(sweep := tree.get("sweep"), dict) and key in sweep:
            tree["sweep"] = {name: values for name, values in sweep.items() if name != key}
        if isinstance(known := tree.get("variants"), dict):
            tree["variants"] = _assigned(known, key)
    return check(tree)


def _chosen(known: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    for name in names:
        if name not in known:
            raise MemxError(f"no variant {name!r}", hint=nearest(name, known) or f"there are: {', '.join(known)}")
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
                f"{key} is all that tells the variants {twin!r} and {name!r} apart",
                hint="--variant keeps the ones to set it for",
            )
    return left


def check(tree: Mapping[str, Any]) -> TrainConfig:
    """Check a tree, and each point of its sweep. Raises MemxError with the path of the first mistake."""
    config = _validate(tree, TrainConfig)
    points(config)
    return config


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
            runs.append(_validate(tree, TrainConfig))
    return match_points(runs)


def experiment_name(config: TrainConfig) -> str:
    """What the points of a sweep share: its name and a hash of all that the sweep does not vary.

    Variants do not count, so that one of them alone is the same run as among all.
    """
    tree = {key: value for key, value in to_tree(config).items() if key not in ("sweep", "about", "experiment")}
    tree["variants"] = {}
    for key in config.sweep:
        tree = assign(tree, key, None)
    return f"{config.name}-{_hash(_of_the_run(tree))}"


def load_evolution_config(source: str, assignments: Iterable[tuple[str, Any]] = ()) -> EvolveConfig:
    """Resolve a preset or file of `memx evolve-namm` and assignments. Raises MemxError as `load_config` does."""
    tree = read_tree(source)
    check_command(tree, source, "evolve-namm")
    for key, value in assignments:
        tree = assign(tree, key, value)
    return _validate(tree, EvolveConfig)


def load_eval_config(source: str | Mapping[str, Any], assignments: Iterable[tuple[str, Any]] = ()) -> EvalConfig:
    """Resolve a tree or a file of `memx eval-namm` and assignments. Raises MemxError as `load_config` does."""
    tree = read_tree(source) if isinstance(source, str) else dict(source)
    check_command(tree, source if isinstance(source, str) else "this", "eval-namm")
    for key, value in assignments:
        tree = assign(tree, key, value)
    return _validate(tree, EvalConfig)


def load_any_config(
    source: str, assignments: Iterable[tuple[str, Any]] = ()
) -> TrainConfig | EvolveConfig | EvalConfig:
    """Resolve a preset or file of whatever command it is for."""
    loads = {"evolve-namm": load_evolution_config, "eval-namm": load_eval_config}
    return loads.get(command_of(read_tree(source)), load_config)(source, assignments)


def to_tree(config: BaseModel) -> dict[str, Any]:
    """The resolved config as plain data, in the order that the docs list it."""
    return config.model_dump(mode="json")


def to_yaml(config: BaseModel) -> str:
    """The resolved config as YAML."""
    return yaml.safe_dump(to_tree(config), sort_keys=False, allow_unicode=True)


def config_hash(config: BaseModel) -> str:
    """Eight hexadecimal digits of the resolved config, less what says how processes lie and not what they compute."""
    return _hash(_of_the_run(to_tree(config)))


def run_name(config: TrainConfig | EvolveConfig | EvalConfig) -> str:
    """The name of a config's run folder, `<name>-<hash of the whole config>`."""
    return f"{config.name}-{config_hash(config)}"


def _validate(tree: Mapping[str, Any], model: type[_Config]) -> _Config:
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise _as_memx_error(error, model) from None


def _as_memx_error(error: ValidationError, model: type[BaseModel]) -> MemxError:
    first, others = error.errors()[0], error.error_count() - 1
    path = ".".join(str(part) for part in first["loc"])
    more = f" (and {others} more)" if others else ""
    if first["type"] == "extra_forbidden":
        return MemxError(f"unknown key {path!r}{more}", hint=_nearest_key(path, model))
    message = first["msg"].removeprefix("Value error, ")
    message, _, hint = message.partition("; ")
    given = "" if first["type"] == "value_error" else f", not {first['input']!r}"
    return MemxError(f"{path}: {message}{given}{more}" if path else message + more, hint=hint)


def _nearest_key(path: str, model: type[BaseModel]) -> str:
    """A hint with the key most like it: of its section, else of its last part in any section."""
    keys = list(_dotted(model))
    section, _, last = path.rpartition(".")
    name = closest(last, [key.rpartition(".")[2] for key in keys], cutoff=0.7)
    close = closest(path, [key for key in keys if key.rpartition(".")[0] == section], cutoff=0.75)
    close = close or next((key for key in keys if key.rpartition(".")[2] == name), None)
    return f"did you mean {close!r}?" if close else "`memx config show PRESET` lists every key"


def _dotted(model: type[BaseModel], prefix: str = "") -> Iterable[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _dotted(field.annotation, f"{prefix}{name}.")


def _label(key: str, value: Any) -> str:
    return f"{key.rpartition('.')[2]}{_slug(str(value))}"[:40]


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() or c in "._+" else "_" for c in text)


def _hash(tree: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:8]


def _of_the_run(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A tree without what another number of processes may need otherwise: a run goes on where these change."""
    kept = {key: value for key, value in tree.items() if key != "parallel"}
    if isinstance(training := tree.get("training"), Mapping):
        kept["training"] = {key: value for key, value in training.items() if key != "accumulate"}
    return kept


def _yaml_value(text: str) -> Any:
    value = yaml.safe_load(text)
    if isinstance(value, str):
        try:
            return float(value) if value.strip()[:1] in "+-.0123456789" else value  # YAML 1.1 reads 1e-3 as text
        except ValueError:
            return value
    return value
