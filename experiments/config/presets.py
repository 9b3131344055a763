"""Presets and config files as plain trees: a name or a path, and what it extends -> nested dictionaries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import MemxError, nearest, shown
from ...yaml_text import CHARACTERS, BadYaml, parse_yaml

_COMMANDS = ("train", "evolve-namm", "eval-namm", "eval")
TRAIN = "train"  # the command that a config is for if it does not say
_EXTENDED = 20  # files that extend each other
_DATA = (".csv", ".jsonl", ".parquet")
# the order of lists: of each command from small to large
_ORDER = (
    *("tiny", "facts", "questions", "facts-3seeds", "rivals", "ultramem", "shares", "shares-keys", "kinds", "widths"),
    *("ablation", "retrofit", "continual", "continual-facts", "continual-smollm2", "cache-aware"),
    *("namm-host", "registers", "decision", "decision-hopper", "video"),
    *("134m", "373m", "720m", "1.3b", "1.3b-64m-1t", "8b", "70b", "8b-16m-1t", "8b-64m-1t", "27b"),
    *("namm-tiny", "namm-universal", "namm-smollm2", "namm-smollm2-heads", "namm-llama-3-8b"),
)


def presets(command: str = TRAIN) -> dict[str, str]:
    """Names of the presets of a command and the one-line summary of each, from small to large."""
    return {name: about for name, (of, about) in all_presets().items() if of == command}


def all_presets() -> dict[str, tuple[str, str]]:
    """Name -> the command that a preset is for, and its one-line summary; from small to large, by command."""
    known = {}
    for name in _ORDER:
        tree = parse_yaml(preset_text(name))
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
    if of not in _COMMANDS:
        raise MemxError(f"{source}: no command {shown(of)}", hint=f"set command to one of: {', '.join(_COMMANDS)}")
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
    if name not in _ORDER:
        raise MemxError(f"no preset or file {shown(name)}", hint=nearest(name, _ORDER) or "`memx presets` lists them")
    return (_preset_folder() / f"{name}.yaml").read_text("utf-8")


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
    tree = _read_file(path) if is_path else parse_yaml(preset_text(source))
    base = tree.pop("extends", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise MemxError(f"{source}: extends must be the name of a preset or file, not {shown(base)}", hint="name one")
    if base in (source, *above):
        raise MemxError(f"{source} extends itself", hint="set extends to a preset or another file")
    if len(above) > _EXTENDED:
        raise MemxError(f"{source}: more than {_EXTENDED} files extend each other", hint="merge some of them")
    from .merging import merge, sections  # here, so that a shell completes names without pydantic
    from .training import TrainConfig

    below = read_tree(base, above=(*above, source))
    if below.get("trains") != tree.get("trains", below.get("trains")):
        raise MemxError(f"{source}: trains is not that of {base}", hint="remove trains, or extend another preset")
    return merge(below, tree, sections(TrainConfig))


def _read_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(4 * CHARACTERS + 4)  # of any encoding; what is longer is refused
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no such name can be"
        raise MemxError(
            f"cannot read {shown(str(path))[1:-1]}: {reason}",
            hint="give a preset's name (see `memx presets`) or a YAML file",
        ) from None
    try:
        tree = parse_yaml(text)
    except BadYaml as error:
        raise MemxError(f"{path} is not valid YAML: {error.place_and_reason}", hint="fix the file") from None
    if not isinstance(tree, dict):
        raise MemxError(
            f"{path} is not a config: it has no keys", hint="start from a copy: memx config copy PRESET my.yaml"
        )
    return tree


def _preset_folder() -> Path:
    return Path(__file__).with_name("presets")
