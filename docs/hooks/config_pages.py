"""The reference of configs: every section and key of the three commands that read one, from the pydantic models."""

from __future__ import annotations

import types
from collections.abc import Iterator
from enum import Enum
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from markdown_text import cell, code, table
from memx.experiments.config.eviction.evolution import EvolveConfig
from memx.experiments.config.eviction.policy_eval import EvalConfig
from memx.experiments.config.eviction.universal_eval import UniversalEvalConfig
from memx.experiments.config.eviction.universal_evolution import UniversalEvolveConfig
from memx.experiments.config.hosts.kinds import KINDS, config_class
from memx.experiments.config.presets import all_presets
from memx.experiments.config.training import TrainConfig
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

CONFIGS: dict[str, type[BaseModel]] = {
    "train": TrainConfig, **{f"train {kind}": config_class(kind) for kind in KINDS}, "evolve-namm": EvolveConfig,
    "eval-namm": EvalConfig, "eval-namm --host": UniversalEvalConfig, "evolve-namm --host": UniversalEvolveConfig,
}  # fmt: skip
_WORDS = {int: "integer", float: "number", str: "text", bool: "true or false", Any: "any value"}
_BOUNDS = {
    "ge": "at least {}", "gt": "above {}", "le": "at most {}", "lt": "below {}", "multiple_of": "a multiple of {}",
}  # fmt: skip
_LENGTHS = {"min_length": "at least {} {}", "max_length": "at most {} {}"}


class Section(NamedTuple):
    """One table of keys: the dotted name before each key, empty at the top, and the model."""

    prefix: str
    model: type[BaseModel]


def keys() -> str:
    """Markdown of every key of every config, a table for each section."""
    parts = []
    for command, model in CONFIGS.items():
        parts += [f"## memx {command}", cell(_first_line(model))]
        for section in sections(model):
            if section.prefix:
                parts += [f"### {section.prefix.rstrip('.')} {{: #{_anchor(command)}-{_anchor(section.prefix)} }}"]
                parts += [cell(_first_line(section.model))]
            parts.append(table(["key", "type", "default", "meaning"], _lines(section)))
    return "\n\n".join(parts)


def presets() -> str:
    """Markdown of all presets, a table for each command."""
    found = all_presets()
    parts = []
    for command in CONFIGS:
        lines = [[code(name), cell(about)] for name, (of, about) in found.items() if of == command]
        if lines:
            parts += [f"### Presets of memx {command}", table(["preset", "what it is"], lines)]
    return "\n\n".join(parts)


def sections(model: type[BaseModel], prefix: str = "") -> Iterator[Section]:
    """The sections of a config: its own keys, then those of each model in it."""
    yield Section(prefix, model)
    for name, field in model.model_fields.items():
        inner, is_list = _model_in(field.annotation)
        if inner is not None:
            yield from sections(inner, f"{prefix}{name}{'[]' if is_list else ''}.")


def _lines(section: Section) -> Iterator[list[str]]:
    for name, field in section.model.model_fields.items():
        inner, is_list = _model_in(field.annotation)
        if inner is not None and not is_list:
            continue  # it has a table of its own
        yield [code(section.prefix + name), _type(field), _default(field), cell(field.description or "")]


def _model_in(kind: Any) -> tuple[type[BaseModel] | None, bool]:
    """The model that a key holds, and whether it holds a list of them."""
    if get_origin(kind) is tuple and isinstance(get_args(kind)[0], type) and issubclass(get_args(kind)[0], BaseModel):
        return get_args(kind)[0], True
    return (kind, False) if isinstance(kind, type) and issubclass(kind, BaseModel) else (None, False)


def _type(field: FieldInfo) -> str:
    """A key's type and range in plain words."""
    kind = _words(field.annotation)
    bounds = [
        text.format(_number(value))
        for item in field.metadata
        for name, text in _BOUNDS.items()
        if (value := getattr(item, name, None)) is not None
    ]
    unit = "characters" if field.annotation is str else "entries"
    lengths = [
        text.format(value, unit if value != 1 else {"entries": "entry"}.get(unit, "character"))
        for item in field.metadata
        for name, text in _LENGTHS.items()
        if (value := getattr(item, name, None)) is not None
    ]
    kind, null, _ = kind.partition(" or null")
    return ", ".join([kind, *bounds, *lengths]) + null


def _words(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(map(code, arguments))
    if origin in (Union, types.UnionType):
        inner = [_words(part) for part in arguments if part is not type(None)]
        return " or ".join([*inner, *(["null"] if type(None) in arguments else [])])
    if origin is tuple:
        if Ellipsis in arguments:
            return f"list of {_plural(arguments[0])}"
        return f"{len(arguments)} {_plural(arguments[0])}"
    if origin is dict:
        return "table of " + ("lists" if get_origin(arguments[1]) is tuple else "tables of keys and values")
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "section"
    return _WORDS.get(kind, "text")


def _plural(kind: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "sections, see below"
    words = _words(kind)
    return {"text": "texts"}.get(words, words + ("s" if words in ("integer", "number") else ""))


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return code("[" + ", ".join(map(str, value)) + "]")
    if isinstance(value, dict):
        return code("{}") if not value else code(value)
    if value == "":
        return "empty"
    return code(value.value if isinstance(value, Enum) else _number(value) if isinstance(value, float) else value)


def _number(value: float) -> str:
    power = value.bit_length() - 1 if isinstance(value, int) and value > 2**20 else 0
    if power and value == 2**power:
        return f"2^{power}"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().splitlines()[0]


def _anchor(prefix: str) -> str:
    return prefix.replace("[]", "").strip(".").replace(".", "-").replace("_", "-").replace(" ", "-")
