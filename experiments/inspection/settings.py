"""Which settings of a run are not those of its preset, and in which settings runs differ."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from ...errors import MemxError
from ...results.store.nearest import differences
from ...results.store.runs import Run, run_config
from ..config.loading import load_any_config
from ..config.presets import all_presets

_NAMES = ("name", "about", "experiment", "variant", "command")  # what names a run, and sets nothing
_SWEPT = ("sweep", "variants")  # what made the points of a sweep


def preset_of(run: Run) -> str | None:
    """The preset that the run's command names; None if it names none.

    Args:
        run: A run of `memx train` or `memx evolve-namm`.
    """
    try:
        words = shlex.split(str(run.info().get("command") or ""))
    except ValueError:
        return None
    known = all_presets()
    named = [(before, word) for before, word in pairwise(words[1:]) if word in known]
    plain = [word for before, word in named if not before.startswith("-")]  # rather than the value of an option
    return next(iter([*plain, *(word for _, word in named)]), None)


def changed_settings(run: Run) -> tuple[str, list[tuple[str, Any, Any]]]:
    """The keys of a run's config that are not as in its preset, with both values.

    Args:
        run: The run.

    Returns:
        The preset's name, and (key, preset's value, run's value) in the order of the config; an empty name and list if
        the run's command names no preset.
    """
    preset, config = preset_of(run), run_config(run)
    if preset is None or not config:
        return "", []
    try:
        base = load_any_config(preset).model_dump(mode="json")
    except MemxError:  # the preset is of another version
        return "", []
    changed = [(key, old, new) for key, old, new in differences(base, config) if not _is_name(key)]
    return preset, [(key, old, new) for key, old, new in changed if old != new]


def differing(configs: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Any]]]:
    """The keys in which configs differ.

    Args:
        configs: The config of each run.

    Returns:
        Each key with the value of each run, None where it has none.
    """
    flat = [dict(_flat(config)) for config in configs]
    keys = list(dict.fromkeys(key for config in flat for key in config))
    found = []
    for key in keys:
        values = [config.get(key) for config in flat]
        if not _is_name(key) and any(value != values[0] for value in values):
            found.append((key, values))
    return found


def shown_value(value: Any, limit: int = 40) -> str:
    """A setting in a table.

    Args:
        value: Any value of a config.
        limit: The most characters.
    """
    if value is None:
        return "not set"
    text = {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)
    return text if len(text) <= limit else f"{text[:limit]}…"


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found


def _is_name(key: str) -> bool:
    return key in _NAMES or key.partition(".")[0] in _SWEPT
