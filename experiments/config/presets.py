"""Presets and config files as plain trees: a name or a path, and what it extends -> nested dictionaries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ...errors import MemxError, nearest

TRAIN = "train"  # the command that a config is for if it does not say
_DATA = (".csv", ".jsonl", ".parquet")
# the order of lists: of each command from small to large
_ORDER = (
    *("tiny", "facts", "facts-3seeds", "rivals", "widths", "ablation", "retrofit", "continual", "namm-host"),
    *("134m", "373m", "720m", "1.3b", "1.3b-64m-1t", "8b", "8b-16m-1t", "8b-64m-1t"),
    *("namm-tiny", "namm-smollm2", "namm-llama-3-8b"),
)


def presets(command: str = TRAIN) -> dict[str, str]:
    """Names of the presets of a command and the one-line summary of each, from small to large."""
    return {name: about for name, (of, about) in all_presets().items() if of == command}


def all_presets() -> dict[str, tuple[str, str]]:
    """Name -> the command that a preset is for, and its one-line summary; from small to large, by command."""
    known = {}
    for name in _ORDER:
        tree = yaml.safe_load((_preset_folder() / f"{name}.yaml").read_text("utf-8"))
        known[name] = command_of(tree), tree.get("about", "")
    return known


def command_of(tree: Mapping[str, Any]) -> str:
    """The command that a config is for."""
    return str(tree.get("command", TRAIN))


def check_command(tree: Mapping[str, Any], source: str, command: str) -> None:
    """Raise MemxError for a config that is for another command."""
    of = command_of(tree)
    if of == command:
        return
    hint = (
        f"run: memx {of} {source}"
        if of in {known for known, _ in all_presets().values()}
        else "`memx presets` lists the presets"
    )
    if of == TRAIN and source not in presets():
        hint = f"add `command: {command}` to it, or extend a preset: {', '.join(presets(command))}"
    raise MemxError(f"{source} is a config for `memx {of}`, not for `memx {command}`", hint=hint)


def preset_text(name: str) -> str:
    """The YAML text of a preset. Raises MemxError, with the nearest name, for one that does not exist."""
    entry = _preset_folder() / f"{name}.yaml"
    if not entry.is_file():
        raise MemxError(f"no preset or file {name!r}", hint=nearest(name, all_presets()) or "`memx presets` lists them")
    return entry.read_text("utf-8")


def read_tree(source: str, *, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read a preset's name or a YAML file's path into a plain tree. Raises MemxError if it is neither.

    `extends: PRESET` takes every key that the tree does not set from a preset, section by section; in a sweep and in
    variants, null removes an entry of the preset.
    """
    path = Path(source)
    if path.suffix in _DATA:
        hint = f"facts go to --facts: memx train facts --facts {source}"
        raise MemxError(f"{source} is not a config", hint=hint)
    is_path = path.suffix in (".yaml", ".yml") or len(path.parts) > 1
    tree = _read_file(path) if is_path else yaml.safe_load(preset_text(source))
    base = tree.pop("extends", None)
    if base is None:
        return tree
    if str(base) in (source, *above):
        raise MemxError(f"{source} extends itself", hint="set extends to a preset or another file")
    return _merge(read_tree(str(base), above=(*above, source)), tree)


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping) and value:
            merged[key] = _merge(below, value)
            if key in ("sweep", "variants"):  # null takes one away
                merged[key] = {name: entry for name, entry in merged[key].items() if entry is not None}
        else:  # an empty section says "nothing", as in `sweep: {}`
            merged[key] = value
    return merged


def _read_file(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise MemxError(
            f"cannot read {path}: {error.strerror}", hint="give a preset's name (see `memx presets`) or a YAML file"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MemxError(f"{path} is not valid YAML: {' '.join(str(error).split())}", hint="fix the file") from None
    if not isinstance(tree, dict):
        raise MemxError(
            f"{path} is not a config: it has no keys", hint="start from a copy: memx config copy PRESET my.yaml"
        )
    return tree


def _preset_folder() -> Path:
    return Path(__file__).with_name("presets")
