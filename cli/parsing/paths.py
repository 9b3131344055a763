"""Paths that users give to any command: one that cannot be meant is refused before anything is done."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer

from ...plain_text import printable

_MOST_NAME, _MOST_PATH = 255, 4095  # bytes of one name and of a whole path, on every system that memx runs on
STDIN = "-"
_ON_STDIN = {("evict", "file")}  # options that take `-` for standard input


def check_paths(context: Any, params: Iterable[Any]) -> None:
    """Check the values of the parameters that are paths, and write `~` in full.

    Args:
        context: The context of a command whose arguments are parsed; its values are replaced.
        params: The parameters of the command.

    Raises:
        BadParameter: A value is too long, has control characters, or names a home that is not there.
    """
    for param in params:
        given = context.params.get(param.name)
        values = given if isinstance(given, list | tuple) else [given]
        of_older_typer = getattr(getattr(param, "type", None), "name", "") == "path"  # which makes paths of them later
        if given is None or not (of_older_typer or any(isinstance(one, Path) for one in values)):
            continue
        checked = [_checked(one, context, param) for one in values]
        context.params[param.name] = type(given)(checked) if isinstance(given, list | tuple) else checked[0]


def check_given(context: Any, args: Sequence[str]) -> None:
    """Raise BadParameter for an empty value, of which a path would make the current folder.

    Args:
        context: The context of a command.
        args: Its arguments, before they are parsed.
    """
    for before, one in pairwise(["", *args]):
        option, equals, value = one.partition("=")
        if not one or (equals and not value and option.startswith("--")):
            name = option or (before if before.startswith("-") else "")
            raise typer.BadParameter("a value is empty", ctx=context, param_hint=name or "an argument")


def name_of(param: Any) -> str:
    """What messages call a parameter: the long spelling of an option, or what usage shows for an argument.

    Args:
        param: A parameter of a command.
    """
    if param.param_type_name != "argument":
        return max(param.opts, key=len)
    return param.metavar or getattr(param, "human_readable_name", param.name.upper())


def _checked(given: Any, context: Any, param: Any) -> Any:
    text, stdin = os.fspath(given), (context.info_name, param.name) in _ON_STDIN
    if problem := _problem(text, stdin):
        shown = repr(printable(text if len(text) <= 60 else f"{text[:50]}…"))
        raise typer.BadParameter(f"{shown} {problem}", ctx=context, param=param, param_hint=name_of(param))
    return type(given)(Path(text).expanduser()) if text.startswith("~") else given


def _problem(text: str, stdin: bool) -> str:
    """Why a text is no path that can be meant; empty if it is one."""
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        return "is not a path: it has control characters"
    if text == STDIN and not stdin:
        return "is not a path; write ./- for a file of that name"
    if len(os.fsencode(text)) > _MOST_PATH or any(len(os.fsencode(part)) > _MOST_NAME for part in Path(text).parts):
        return "is too long for a path"
    if text.startswith("~"):
        try:
            Path(text).expanduser()
        except RuntimeError:
            return "names a home folder that is not there; write ./~ for a file of that name"
    return ""
