"""Policies of a user's own file or package, by name: MODULE:CLASS, FILE.py:CLASS or an entry point. No torch.

An entry point of the group `memx.policies` gives a class a name of its own, as any package's pyproject.toml can.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from ..errors import MemxError

GROUP = "memx.policies"
# what `attach` needs of a policy; the rest of `Policy` is for those that observe queries
_NEEDED = ("name", "rule", "every", "hop", "context", "width", "observe", "scores")
_HINT = "import the file in Python to see where it fails"


def plugin_names() -> list[str]:
    """The names that installed packages give their policies."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def is_plugin(name: str) -> bool:
    """Whether a name is that of a policy outside memx; it may still not exist.

    Args:
        name: As `--policy` takes it.
    """
    return ":" in name or name in plugin_names()


def find_class(name: str) -> Callable[..., Any]:
    """Import the class, or function, that makes a policy.

    Args:
        name: MODULE:CLASS, with modules of the current folder found too, FILE.py:CLASS, or an entry point's name.

    Returns:
        What makes the policy.

    Raises:
        MemxError: There is none, or it cannot be imported.
    """
    return _found(name)[1]


def _found(name: str) -> tuple[Any, Callable[..., Any]]:
    """The module of a policy's class, and the class."""
    point = next((one for one in entry_points(group=GROUP) if one.name == name), None)
    place, _, attribute = (point.value if point else name).rpartition(":")
    if not place or not attribute:
        raise MemxError(f"policy {name!r} is not MODULE:CLASS or FILE.py:CLASS", hint="e.g. my_policy.py:MyPolicy")
    module = _module(name, place, point)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            others = [key for key, value in vars(module).items() if _is_own(value, module)]
            hint = f"it has {', '.join(others)}" if others else "check the name of the class"
            raise MemxError(f"policy {name}: {place} has no {attribute}", hint=hint)
        found = getattr(found, part)
    if not callable(found):
        raise MemxError(f"policy {name}: {attribute} is no class or function", hint="name the class of the policy")
    return module, found


def make_plugin(name: str, **settings: Any) -> Any:
    """Make a policy of a user's own.

    Args:
        name: As for `find_class`.
        settings: What it is made with: budget, every and rule.

    Returns:
        The policy.

    Raises:
        MemxError: It cannot be imported or made, or lacks something that a policy needs.
    """
    kind = find_class(name)
    try:
        policy = kind(**settings)
    except TypeError as error:
        raise MemxError(
            f"policy {name} cannot be made with budget, every and rule: {error}",
            hint="derive the class from memx.namm.BudgetPolicy, or let it take these arguments",
        ) from error
    if missing := [one for one in _NEEDED if not hasattr(policy, one)]:
        raise MemxError(f"policy {name} has no {', '.join(missing)}", hint="derive it from memx.namm.BudgetPolicy")
    return policy


def plugin_digest(name: str) -> str:
    """The SHA-256 of the file that a policy's class is in, so that a resumed run notices a change.

    Args:
        name: As for `find_class`.
    """
    file = getattr(_found(name)[0], "__file__", None)
    return "" if file is None else hashlib.sha256(Path(file).read_bytes()).hexdigest()


def short_name(name: str) -> str:
    """A policy's name in tables: of FILE.py:CLASS the file without its folder.

    Args:
        name: As `--policy` takes it.
    """
    place, colon, attribute = name.rpartition(":")
    return f"{Path(place).name}:{attribute}" if colon else name


def _is_own(value: Any, module: Any) -> bool:
    """Whether a value is a policy's class that a module defines."""
    return inspect.isclass(value) and hasattr(value, "scores") and value.__module__ == module.__name__


def _module(name: str, place: str, point: EntryPoint | None) -> Any:
    """Import a module by its name or file."""
    try:
        if point is None and (place.endswith(".py") or "/" in place):
            return _from_file(Path(place).expanduser())
        here = str(Path.cwd())
        if point is None and here not in sys.path:
            sys.path.append(here)  # last, so that no file here hides an installed package
        return import_module(place)
    except MemxError:
        raise
    except ModuleNotFoundError as error:
        if not f"{place}.".startswith(f"{error.name}."):
            raise MemxError(
                f"policy {name} needs the package {error.name}", hint=f"pip install {error.name}"
            ) from error
        raise MemxError(
            f"policy {name}: no module {place}", hint="run memx in the folder of the file, or give FILE.py:CLASS"
        ) from error
    except Exception as error:  # whatever the user's file raises
        raise MemxError(f"policy {name} cannot be imported: {type(error).__name__}: {error}", hint=_HINT) from error


def _from_file(path: Path) -> Any:
    """Import a Python file, once."""
    if not path.is_file():
        raise MemxError(f"no file {path}", hint="check the path before the colon")
    known = f"memx_policy_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    if known in sys.modules:
        return sys.modules[known]
    spec = importlib.util.spec_from_file_location(known, path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[known] = module  # dataclasses look their module up
    if (folder := str(path.resolve().parent)) not in sys.path:
        sys.path.append(folder)  # for what it imports from next to it
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[known]
        raise
    return module
