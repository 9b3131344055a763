"""Old spellings of options: one table, and the command class that accepts them without showing them in its help."""

from __future__ import annotations

import ast
import inspect
import os
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand

from ..output.console import note
from .paths import check_given, check_paths
from .repeats import refuse_repeats

# the spellings of 0.1, which work until the next release
OLD_OPTIONS = {"--host": "--model", "--every": "--interval", "--peers": "--third-party", "--write": "--generate"}
_NEW_VALUES = {"--host": ("decision:", "video:")}  # how values begin of options that came back with another meaning


class PlainHelp:
    """Help whose text is wrapped by the terminal alone, and whose flags and arguments show no type."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.help = unwrapped(getattr(self, "help", None) or _docstring(getattr(self, "callback", None)))

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters of the command, --help included.

        Args:
            ctx: The context of the command.
        """
        params = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar = ""
            elif param.param_type_name == "argument":
                param.display_type_rich = lambda ctx: ""
        return params


class Command(PlainHelp, TyperCommand):
    """A command that takes old spellings of its options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse arguments after old spellings are replaced.

        Args:
            ctx: The context of the command.
            args: The arguments that follow the command's name.
        """
        options = {option for parameter in self.params for option in parameter.opts}
        args = respelt(args, options, quiet=ctx.resilient_parsing)
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        check_given(ctx, args)
        refuse_repeats(self, ctx, args)
        rest = super().parse_args(ctx, args)
        check_paths(ctx, self.params)
        return rest


def respelt(args: Sequence[str], options: set[str], *, quiet: bool = False) -> list[str]:
    """Replace old spellings of options.

    Args:
        args: Arguments of a command; those after `--` stay as they are.
        options: The options that the command has.
        quiet: Whether to leave out the note on each spelling that was replaced.

    Returns:
        The arguments with the new spellings.
    """
    end = args.index("--") if "--" in args else len(args)
    changed = list(args)
    for position, argument in enumerate(args[:end]):
        option, equals, value = argument.partition("=")
        new = OLD_OPTIONS.get(option)
        given = value if equals else "".join(changed[position + 1 : position + 2])
        is_old = option not in options or not given.startswith(_NEW_VALUES.get(option, ("",)))
        if new in options and is_old:
            changed[position] = f"{new}{equals}{value}"
            if not quiet:
                note_change(option, new)
    return changed


def note_change(old: str, new: str) -> None:
    """Print one line on a spelling that is about to go; under torchrun, the first process prints it.

    Args:
        old: What the user wrote.
        new: What to write from now on.
    """
    if os.environ.get("RANK", "0") == "0":
        note(f"note: {old} is now {new}; the old spelling works until the next release")


def _docstring(function: Any) -> str:
    """The docstring of a function whose Python was told to leave docstrings out, from its file; empty without one."""
    if function is None or sys.flags.optimize < 2:
        return ""
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    return ast.get_docstring(ast.parse(source).body[0]) or ""  # type: ignore[arg-type]


def unwrapped(text: str) -> str:
    """Join the lines of each paragraph, so that help is wrapped by the terminal alone.

    Args:
        text: Paragraphs with an empty line between them.
    """
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
