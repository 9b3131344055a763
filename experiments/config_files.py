"""Presets and config files as plain trees: a name or a path, and what it extends -> nested dictionaries."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ..errors import MemxError


def presets() -> dict[str, str]:
    """Names of the presets and the line that each says about itself, in the order of their names."""
    found = {}
    for entry in sorted(_preset_folder().iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".yaml"):
            found[entry.name.removesuffix(".yaml")] = yaml.safe_load(entry.read_text("utf-8")).get("about", "")
    return found


def preset_text(name: str) -> str:
    """The YAML text of a preset. Raises MemxError, with the nearest name, for one that does not exist."""
    entry = _preset_folder() / f"{name}.yaml"
    if not entry.is_file():
        raise MemxError(f"no preset or file {name!r}", hint=nearest(name, presets()) or "see `memx presets`")
    return entry.read_text("utf-8")


def read_tree(source: str, *, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read a preset's name or a YAML file's path into a plain tree. Raises MemxError if it is neither.

    `extends: PRESET` takes everything that the tree does not say itself from a preset, section by section; in a sweep
    and in variants, null takes away what the preset has.
    """
    path = Path(source)
    is_path = path.suffix in (".yaml", ".yml") or len(path.parts) > 1
    tree = _read_file(path) if is_path else yaml.safe_load(preset_text(source))
    base = tree.pop("extends", None)
    if base is None:
        return tree
    if str(base) in (source, *above):
        raise MemxError(f"{source} extends itself", hint="extends names a preset or another file")
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
        raise MemxError(f"cannot read {path}: {error.strerror}", hint="see `memx presets`") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MemxError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise MemxError(f"{path} is not a config", hint="`memx config copy PRESET my.yaml` writes one to start from")
    return tree


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint "did you mean …?" if something comes close, else an empty text."""
    match = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"did you mean {match[0]!r}?" if match else ""


def _preset_folder() -> Path:
    return Path(__file__).with_name("presets")
