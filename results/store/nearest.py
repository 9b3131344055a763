"""`--resume` of a run that is not there: whether another run differs in a few options, and in which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import MemxError
from .claims import content
from .run_info import is_run, read_config

_MOST = 3  # options that are named
_UNSAID = ("about", "name")
_MISSING = object()


def new_run_note(root: Path, name: str, config: Mapping[str, Any]) -> str:
    """A line for the user whose `--resume` begins a new run, as an option has changed since an earlier one.

    Args:
        root: The folder of runs.
        name: The run's name: that of its config, and a hash.
        config: Its resolved config.

    Returns:
        The line; empty if the run is there, or no run has the same name but for the hash.
    """
    if content(root / name):
        return ""
    found = sorted(_others(root, name, config), key=lambda other: (len(other[1]), other[0]))
    if not found:
        return ""
    nearest, changes = found[0]
    said = ", ".join(f"{key} is {_shown(new)}, not {_shown(old)}" for key, old, new in changes[:_MOST])
    more = f", and {len(changes) - _MOST} more" if len(changes) > _MOST else ""
    return f"--resume: a new run starts, as {nearest} has other options: {said}{more}"


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    """The keys in which two configs differ, with both values; None stands for no value.

    Args:
        old: One config.
        new: The other.
        prefix: What the keys begin with.
    """
    found: list[tuple[str, Any, Any]] = []
    for key in dict.fromkeys((*new, *old)):
        before, after = old.get(key, _MISSING), new.get(key, _MISSING)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append((f"{prefix}{key}", old.get(key), new.get(key)))
    return found


def _others(root: Path, name: str, config: Mapping[str, Any]) -> Iterator[tuple[str, list[tuple[str, Any, Any]]]]:
    base = name.rpartition("-")[0]
    for path in content(root):
        if path.name.rpartition("-")[0] != base or path.name == name or not is_run(path):
            continue
        try:
            changes = differences(read_config(path), config)
        except MemxError:  # a damaged run is not what is resumed
            continue
        if changes := [change for change in changes if change[0] not in _UNSAID]:
            yield path.name, changes


def _shown(value: Any) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= 40 else text[:40] + "…"
