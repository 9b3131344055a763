"""The command line of memx as it is: every command with its parameters, and every key of every config."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from memx.cli.main import command_tree
from memx.experiments.config.eviction.evolution import EvolveConfig
from memx.experiments.config.eviction.policy_eval import EvalConfig
from memx.experiments.config.training import TrainConfig
from pydantic import BaseModel
from pydantic.fields import FieldInfo

CONFIGS: dict[str, type[BaseModel]] = {"train": TrainConfig, "evolve-namm": EvolveConfig, "eval-namm": EvalConfig}
# options that name what is written; all other paths are read
WRITTEN = ("--out", "--save", "--runs")


@dataclass(frozen=True)
class Parameter:
    """An option or argument: its longest spelling ("" for an argument), its type, its range and what help shows."""

    option: str
    kind: str  # flag, int, float, choice, path, name
    choices: tuple[str, ...] = ()
    least: float | None = None
    metavar: str = ""
    repeatable: bool = False

    @property
    def written(self) -> bool:
        """Whether it names what the command writes."""
        return self.option in WRITTEN


@dataclass(frozen=True)
class Command:
    """A command by the words that name it."""

    path: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    hidden: bool = False


@dataclass(frozen=True)
class Key:
    """A key of a config: dotted, with the kinds of values that it takes, and its range."""

    command: str
    name: str
    kinds: frozenset[str]  # int, float, bool, text, choice, list, table, none, section
    low: tuple[float, bool] | None = None  # and whether it is itself allowed
    high: tuple[float, bool] | None = None


@cache
def commands() -> tuple[Command, ...]:
    """All commands, hidden ones too."""
    return tuple(_commands(command_tree(), ()))


def _commands(command: Any, path: tuple[str, ...]) -> Iterator[Command]:
    if getattr(command, "commands", None):
        for name, below in command.commands.items():
            yield from _commands(below, (*path, name))
        return
    hints = get_type_hints(inspect.unwrap(command.callback), include_extras=True)
    found = [_parameter(one, hints.get(one.name)) for one in command.params if not getattr(one, "hidden", False)]
    yield Command(path[:-1] if command.hidden else path, tuple(found), bool(command.hidden))


def _parameter(param: Any, hint: Any) -> Parameter:
    type_, info = (get_args(hint)[:2]) if get_origin(hint) is Annotated else (hint, None)
    option = max(param.opts, key=len) if param.param_type_name == "option" else ""
    metavar = str(getattr(info, "metavar", None) or "")
    some = [one for one in _alternatives(type_) if one is not type(None)]
    type_, repeatable = some[0] if some else str, False
    if get_origin(type_) is list:
        type_, repeatable = get_args(type_)[0], True
    kind, choices = _kind(type_, metavar)
    if getattr(param, "is_flag", False):
        kind = "flag"
    return Parameter(option, kind, choices, getattr(info, "min", None), metavar, repeatable)


def _kind(type_: Any, metavar: str) -> tuple[str, tuple[str, ...]]:
    if isinstance(type_, type) and issubclass(type_, Enum):
        return "choice", tuple(str(one.value) for one in type_)
    if get_origin(type_) is Literal:
        return "choice", tuple(map(str, get_args(type_)))
    if type_ in (int, float):
        return type_.__name__, ()
    path = type_ is Path or any(word in metavar for word in ("FILE", "FOLDER", "PATH", "RUN", "MODEL", "SOURCE"))
    return "path" if path else "name", ()


@cache
def keys() -> tuple[Key, ...]:
    """All keys of all configs, sections too."""
    return tuple(key for command, model in CONFIGS.items() for key in _keys(command, model, ""))


def _keys(command: str, model: type[BaseModel], prefix: str) -> Iterator[Key]:
    for name, field in model.model_fields.items():
        some = _alternatives(field.annotation)
        kinds = frozenset(map(_value_kind, some))
        yield Key(command, prefix + name, kinds, _limit(field, "ge", "gt"), _limit(field, "le", "lt"))
        for one in some:
            if isinstance(one, type) and issubclass(one, BaseModel):
                yield from _keys(command, one, f"{prefix}{name}.")


def _alternatives(type_: Any) -> list[Any]:
    if get_origin(type_) is Annotated:
        return _alternatives(get_args(type_)[0])
    if get_origin(type_) in (Union, types.UnionType):
        return [part for one in get_args(type_) for part in _alternatives(one)]
    return [type_]


def _value_kind(type_: Any) -> str:
    origin = get_origin(type_)
    if origin is Literal:
        return "choice"
    if origin in (list, tuple):
        return "list"
    if origin is dict:
        return "table"
    if isinstance(type_, type) and issubclass(type_, BaseModel):
        return "section"
    known = {int: "int", float: "float", bool: "bool", str: "text", type(None): "none"}
    return known.get(type_, "any")


def _limit(field: FieldInfo, at: str, beyond: str) -> tuple[float, bool] | None:
    for one in field.metadata:
        for name in (at, beyond):
            if (value := getattr(one, name, None)) is not None:
                return float(value), name == at
    return None
