"""A folder of lm-eval tasks: its YAML files may name Python and further YAML inside it, and nothing outside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ...errors import MemxError

_FUNCTION, _INCLUDE = "!function", "include"


def check_folder(folder: Path) -> None:
    """Check that no task of a folder leads out of it: lm-eval runs the Python that a task names.

    Args:
        folder: The folder, from the command line.

    Raises:
        MemxError: A file of it cannot be read as YAML, or a task names a file outside.
    """
    inside = folder.resolve()
    for path in sorted(folder.rglob("*")):
        if "__pycache__" in path.parts or path.suffix not in (".yaml", ".yml", ".py"):
            continue
        _check_inside(path, path, inside)
        if path.suffix == ".py" or not path.is_file():
            continue
        for named in _named(path):
            _check_inside(named, path, inside)


def _named(path: Path) -> Iterator[Path]:
    """The files that a YAML file names, as lm-eval finds them; nothing of it is built or run."""
    try:
        root = yaml.compose(path.read_text("utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise MemxError(f"{path} is not valid YAML: {reason[:160]}", hint="correct the task file") from None
    seen: set[int] = set()
    waiting: list[Any] = [root]
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.ScalarNode) and node.tag == _FUNCTION:
            module = str(node.value).rpartition(".")[0]
            # lm-eval takes what is no file for the name of an installed module
            if (found := path.parent / f"{module.replace('.', '/')}.py").exists():
                yield found
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                waiting.append(value)
                if key.value == _INCLUDE:
                    ones = value.value if isinstance(value, yaml.SequenceNode) else [value]
                    yield from (path.parent / str(one.value) for one in ones if isinstance(one, yaml.ScalarNode))


def _check_inside(named: Path, by: Path, inside: Path) -> None:
    if not named.resolve().is_relative_to(inside):
        what = "leads to" if named == by else "names"
        raise MemxError(
            f"--harness-tasks: {by} {what} {named.resolve()}, which is outside of {inside}",
            hint="copy that file into the folder",
        )
