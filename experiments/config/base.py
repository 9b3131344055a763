"""Shared by all configs: strict models, trees of plain data, one-line errors, and the name of a run's folder.

An unknown key is answered with its full path and the nearest name that exists; nothing is silently ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from textwrap import wrap
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, Field, ValidationError

from ...errors import MemxError, closest, plain_reason, shown
from ...strict_model import StrictModel as StrictModel
from .tree_hash import tree_hash as tree_hash


def _folder_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{shown(name)} cannot begin the name of a folder; use letters, digits and ._+- after a letter or digit"
        )
    return name


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
RunName = Annotated[str, Field(max_length=80), AfterValidator(_folder_name)]

# names of other libraries, and words that people look for
_SYNONYMS = {
    "learning_rate": "training.lr",
    "learning": "training.lr",
    "batch_size": "training.batch",
    "epochs": "training.steps",
    "max_steps": "training.steps",
    "gradient_accumulation": "training.accumulate",
    "hidden_size": "model.width",
    "max_length": "data.sequence",
    "model_name": "finetune.source",
    "lora": "finetune.train",
    "base_model": "finetune.source",
}

_SCALAR = ("bool_type", "float_type", "int_type", "literal_error", "string_type")  # pydantic's, of single values
_ITEM = re.compile(r"\.also\.\d+$")
_DEEPEST = 10  # dots of a key

_Config = TypeVar("_Config", bound=BaseModel)


def assign(tree: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return the tree with the dotted key set; tables on the way are copied, never changed."""
    head, _, rest = key.partition(".")
    if not rest:
        return {**tree, head: value}
    below = tree.get(head) or {}
    if not isinstance(below, Mapping) or rest.count(".") > _DEEPEST:
        raise MemxError(
            f"unknown key {shown(key)}: {shown(head)} is a value, not a section",
            hint="`memx config show PRESET` lists every key",
        )
    return {**tree, head: assign(below, rest, value)}


def to_tree(config: BaseModel) -> dict[str, Any]:
    """The resolved config as plain data, in the order of the documentation."""
    return config.model_dump(mode="json")


def to_yaml(config: BaseModel, *, comments: bool = False) -> str:
    """The resolved config as YAML.

    Args:
        config: The config.
        comments: Whether to write the description of each key above it.
    """
    if comments:
        return "\n".join(_commented(config, to_tree(config))) + "\n"
    return _dump(to_tree(config))


def _dump(tree: Any) -> str:
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def _commented(config: BaseModel, tree: Mapping[str, Any]) -> Iterator[str]:
    """The lines of a section: each key below its description, or below the first line of its own docstring."""
    for name, value in tree.items():
        field, section = type(config).model_fields.get(name), getattr(config, name, None)
        if not isinstance(section, BaseModel) or not isinstance(value, dict):
            yield from _comment(field and field.description)
            yield from _dump({name: value}).splitlines()
            continue
        yield ""
        yield from _comment((field and field.description) or (section.__doc__ or "").partition("\n")[0])
        yield f"{name}:"
        yield from (f"  {line}" if line else line for line in _commented(section, value))


def _comment(text: str | None) -> list[str]:
    return wrap(text or "", 100, initial_indent="# ", subsequent_indent="# ")


def config_hash(config: BaseModel) -> str:
    """Eight hexadecimal digits of the resolved config, less what says how processes lie and not what they compute."""
    return tree_hash(to_tree(config))


def run_name(config: BaseModel) -> str:
    """The name of a config's run folder, `<name>-<hash of the whole config>`."""
    tree = to_tree(config)
    return f"{tree['name']}-{tree_hash(tree)}"


def validate(tree: Mapping[str, Any], model: type[_Config]) -> _Config:
    """Check a tree against a model of configs.

    Args:
        tree: Keys and values from presets, files and assignments, without defaults.
        model: The kind of config.

    Returns:
        The config, with defaults filled in.

    Raises:
        MemxError: A key is unknown or a value wrong; the message has the path of the first mistake.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise _as_memx_error(error, model) from None


def from_options(kind: type[_Config], names: Mapping[str, str] | None = None, /, **values: Any) -> _Config:
    """Make a config, or a section of one, of the options of a command.

    Args:
        kind: The kind of config.
        names: How the command names a field, where that is not --field.
        values: The fields.

    Returns:
        The config.

    Raises:
        MemxError: A value is wrong; the message names the option.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else ""
        name = (names or {}).get(field, f"--{field.replace('_', '-')}")
        reason, _, hint = plain_reason(first).partition("; ")
        raise MemxError(f"{name}: {reason}", hint=hint) from None


def _as_memx_error(error: ValidationError, model: type[BaseModel]) -> MemxError:
    first, others = error.errors()[0], error.error_count() - 1
    path = shown(".".join(str(part) for part in first["loc"] if part != "[key]"))[1:-1]
    more = f" (and {others} more)" if others else ""
    if first["type"] == "extra_forbidden":
        return MemxError(f"unknown key '{path}'{more}", hint=_nearest_key(path, model))
    message, _, hint = plain_reason(first).partition("; ")
    if path.startswith("sweep.") and first["type"] == "tuple_type":
        hint = f"for example --set '{path}=[VALUE, VALUE]'"
    elif isinstance(given := first.get("input"), list) and first["type"] in _SCALAR and "sweep" in model.model_fields:
        hint = f"for a run with each: --set 'sweep.{path}={shown(given)}'"
    elif first["type"] == "literal_error" and (near := _nearest_value(first)):
        hint = f"did you mean {near!r}?"
    return MemxError(f"{path}: {message}{more}" if path else message + more, hint=hint)


def _nearest_value(error: Mapping[str, Any]) -> str | None:
    """Of the values that a key may have, the one most like what was given."""
    given, known = error.get("input"), re.findall(r"'([^']*)'", error.get("ctx", {}).get("expected", ""))
    return closest(given, known, cutoff=0.7) if isinstance(given, str) else None


def _nearest_key(path: str, model: type[BaseModel]) -> str:
    """A hint with the key most like it: of its section, else of its last part in any section."""
    keys = list(_dotted(model))
    if path in keys:
        section, _, last = path.rpartition(".")
        return f"write it in its section, as `{section}: {{{last}: VALUE}}`"
    section, _, last = path.rpartition(".")
    if (alike := _ITEM.sub("", section)) != section:  # an item of a list has keys of the section that has the list
        if f"{alike}.{last}" in keys:
            return f"the first entry has it for all: set {alike}.{last}"
        close = closest(last, [key.rpartition(".")[2] for key in keys if key.rpartition(".")[0] == alike], cutoff=0.7)
        return f"did you mean {f'{section}.{close}'!r}?" if close else "`memx config show PRESET` lists every key"
    names = {key.rpartition(".")[2]: key for key in reversed(keys)}  # of the same name, the first
    names |= {name: key for name, key in _SYNONYMS.items() if key in keys}
    near = [key for key in keys if key.rpartition(".")[0] == section]
    close = names.get(last) or closest(path, near, cutoff=0.75) or names.get(closest(last.lower(), names, 0.7) or "")
    return f"did you mean {close!r}?" if close else "`memx config show PRESET` lists every key"


def _dotted(model: type[BaseModel], prefix: str = "") -> Iterable[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _dotted(field.annotation, f"{prefix}{name}.")
