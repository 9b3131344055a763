"""Sections inside each other and dotted keys -> one form: dotted keys, so that one setting changes nothing else."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel

from ...errors import MemxError, shown

_VARIED = ("sweep", "variants")
_WHOLE = ("rope", "columns")  # tables that are one value: keys of another would make a third


@cache
def sections(model: type[BaseModel], prefix: str = "") -> tuple[str, ...]:
    """The dotted names of all sections of a config.

    Args:
        model: The kind of config.
        prefix: What each name begins with.
    """
    found: list[str] = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += [prefix + name, *sections(field.annotation, f"{prefix}{name}.")]
    return tuple(found)


def dotted(changes: Mapping[str, Any], known: Container[str], above: str = "") -> dict[str, Any]:
    """Changes with a dotted key for each setting: `{training: {lr: 1}}` becomes `{training.lr: 1}`.

    Args:
        changes: Keys and values, dotted or in sections.
        known: The names of sections.
        above: The section that the changes are in; empty at the top.

    Raises:
        MemxError: A key is there in both forms.
    """
    found: dict[str, Any] = {}
    for name, value in changes.items():
        key = f"{above}.{name}" if above else str(name)
        more = dotted(value, known, key) if isinstance(value, Mapping) and key in known else {key: value}
        for twice in more.keys() & found.keys():
            raise MemxError(f"the key {twice!r} is set twice, with a dot and in a section", hint="remove one of them")
        found |= more
    return found


def given_once(assignments: Iterable[tuple[str, Any]], model: type[BaseModel]) -> dict[str, Any]:
    """Settings of a command line by dotted key, those of a whole section one by one.

    Args:
        assignments: Keys and values; what belongs to one key may be given again if it is the same.
        model: The kind of config.

    Raises:
        MemxError: A key has two values, or a section none.
    """
    known = {*sections(model), *(f"sweep.{name}" for name in sections(model))}
    given: dict[str, Any] = {}
    for key, value in assignments:
        if value == {} and key in known:
            raise MemxError(
                f"{key}: a section without keys sets nothing", hint=f"set a key of it: --set {key}.KEY=VALUE"
            )
        pairs = dotted(value, known, key) if isinstance(value, Mapping) and key in known else {key: value}
        for name, one in pairs.items():
            if name in given and repr(given[name]) != repr(one):
                raise MemxError(
                    f"{shown(name)[1:-1]} is given two values, {shown(given[name])} and {shown(one)}",
                    hint="give it once; to train one model for each value: "
                    f"--set 'sweep.{shown(name)[1:-1]}=[VALUE, VALUE]'",
                )
            given[name] = one
    return given


def merge(base: Mapping[str, Any], over: Mapping[str, Any], known: Container[str]) -> dict[str, Any]:
    """A tree with the keys of another, section by section; neither is changed.

    In a sweep and in variants, null removes an entry, and an empty table all of them.

    Args:
        base: The tree that is extended.
        over: The tree whose keys come first.
        known: The names of sections.
    """
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key, {} if key in _VARIED else None)
        if key in _WHOLE or not isinstance(below, Mapping) or not isinstance(value, Mapping):
            merged[key] = value
        elif key in _VARIED:
            merged[key] = _varied(below, value, known, in_variants=key == "variants") if value else {}
        else:
            merged[key] = merge(below, value, ())
    return merged


def _varied(
    base: Mapping[str, Any], over: Mapping[str, Any], known: Container[str], *, in_variants: bool
) -> dict[str, Any]:
    if not in_variants:
        merged = {**dotted(base, known), **dotted(over, known)}
    else:
        merged = dict(base)
        for name, changes in over.items():
            below = merged.get(name)
            if isinstance(below, Mapping) and isinstance(changes, Mapping) and changes:
                merged[name] = {**dotted(below, known), **dotted(changes, known)}
            else:
                merged[name] = changes
    return {name: entry for name, entry in merged.items() if entry is not None}
