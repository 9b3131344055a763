"""The reference of the command line: every command, its arguments and its options, from the Typer app."""

from __future__ import annotations

import types
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import typer
from markdown_text import cell, code, table
from memx.cli.main import app

_WORDS = {int: "integer", float: "number", str: "text", Path: "path", bool: "switch"}
_COLUMNS = ["option", "value", "default", "what it does"]


def commands() -> str:
    """Markdown of all commands that help shows, in its groups and its order."""
    program = typer.main.get_command(app)
    parts = []
    visible = [one for one in _children(program) if not one.hidden]
    for group in dict.fromkeys(map(_panel, visible)):
        parts.append(f"## {group or 'Commands'}")
        for command in visible:
            if _panel(command) == group:
                parts += _sections(command, f"memx {command.name}", 3)
    parts += ["## Options of all commands", _options(program)[1]]
    return "\n\n".join(parts)


def all_commands() -> Iterator[tuple[str, Any]]:
    """Every command and group that is not hidden, with its full name."""
    yield from _walk(typer.main.get_command(app), "memx")


def names(parameter: Any) -> list[str]:
    """The flags of an option, or the name of an argument as the usage line writes it."""
    if parameter.param_type_name == "argument":
        return [(parameter.metavar or parameter.name.upper()).strip("[]")]
    return [*parameter.opts, *parameter.secondary_opts]


def _walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, command
    for child in _children(command):
        if not child.hidden:
            yield from _walk(child, f"{path} {child.name}")


def _children(command: Any) -> list[Any]:
    return list(getattr(command, "commands", {}).values())


def _sections(command: Any, path: str, level: int) -> list[str]:
    """One command: what it does, how it is called, its tables, its examples; then its subcommands."""
    parts = [f"{'#' * level} {path}", _prose(command.help), _usage(command, path)]
    if arguments := [one for one in _shown(command) if one.param_type_name == "argument"]:
        parts.append(table(["argument", "value", "default", "what it is"], map(_line, arguments)))
    parts += _options(command)
    if command.epilog:
        parts.append(_examples(command.epilog))
    for child in _children(command):
        if not child.hidden:
            parts += _sections(child, f"{path} {child.name}", level + 1)
    return [part for part in parts if part]


def _options(command: Any) -> list[str]:
    """A table for each panel of options, those without a panel first."""
    options = [one for one in _shown(command) if one.param_type_name == "option"]
    parts = []
    for panel in dict.fromkeys(["", *(_panel(one) for one in options)]):
        lines = [_line(one) for one in options if _panel(one) == panel]
        if lines:
            parts += [f"**{panel or 'Options'}**", table(_COLUMNS, lines)]
    return parts


def _shown(command: Any) -> list[Any]:
    return [one for one in command.params if not one.hidden and one.name not in ("help", "install_completion")]


def _panel(one: Any) -> str:
    return one.rich_help_panel if isinstance(one.rich_help_panel, str) else ""


def _line(one: Any) -> list[str]:
    return [", ".join(map(code, names(one))), _value(one), _default(one), cell(one.help or "")]


def _value(one: Any) -> str:
    """What an option takes, in plain words."""
    if getattr(one, "is_flag", False):
        return "switch"
    words = code(one.metavar) if one.metavar and one.param_type_name == "option" else _type(one)
    repeated = one.multiple or one.nargs == -1
    return words + (", repeatable" if repeated else "")


def _type(one: Any) -> str:
    kind = _bare(one.type_descriptor.annotation)
    if get_origin(kind) is Literal:
        return _choices(get_args(kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _choices([member.value for member in kind])
    return _WORDS.get(kind, "text") + _range(one.min, one.max)


def _bare(kind: Any) -> Any:
    """The type of one value: without None and without a list around it."""
    if get_origin(kind) in (Union, types.UnionType):
        return _bare(next(part for part in get_args(kind) if part is not type(None)))
    return _bare(get_args(kind)[0]) if get_origin(kind) in (list, tuple) else kind


def _choices(values: Any) -> str:
    return " or ".join(map(code, values))


def _range(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return ""
    if high is None:
        return f", at least {low:g}"
    return f", at most {high:g}" if low is None else f", {low:g} to {high:g}"


def _default(one: Any) -> str:
    if one.required:
        return "required"
    value = one.default
    if isinstance(one.show_default, str):
        return cell(one.show_default)
    if value is None or value is False or value == () or callable(value):
        return ""
    return code(value.value if isinstance(value, Enum) else "on" if value is True else value)


def _usage(command: Any, path: str) -> str:
    pieces = command.collect_usage_pieces(command.context_class(command, info_name=path))
    return "```text\n" + " ".join([path, *pieces]) + "\n```"


def _prose(text: str | None) -> str:
    """The help of a command as Markdown."""
    return cell(text or "", join=False).replace("\f", "")


def _examples(epilog: str) -> str:
    """The examples below a command's help as code; other lines as text."""
    lines = epilog.replace("[bold]", "").replace("[/bold]", "").splitlines()
    code_lines = [line.strip() for line in lines if line.startswith("  ")]
    others = [line for line in lines if line.strip() and not line.startswith("  ")]
    parts = ["\n".join(others)] if others else []
    return "\n\n".join([*parts, "```sh\n" + "\n".join(code_lines) + "\n```"] if code_lines else parts)
