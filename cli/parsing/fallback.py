"""A group of subcommands that also works without one, as `memx bench` and `memx plot` do."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup

from ...errors import MemxError
from .spellings import Command, PlainHelp, note_change

_UsageError: Any = typer.BadParameter.__bases__[0]  # of the click that typer carries
FALLBACK = "default"  # the name under which a group keeps its hidden command


class Group(PlainHelp, TyperGroup):
    """A group of commands."""


class FallbackCommand(Command):
    """The hidden command of a group, which says so if a subcommand comes after options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse arguments.

        Args:
            ctx: The context of the command.
            args: The arguments that follow the group's name.
        """
        try:
            return super().parse_args(ctx, args)
        except _UsageError:
            group = ctx.parent.command
            late = next((one for one in args if one in group.commands and not group.commands[one].hidden), None)
            if late is None:
                raise
            place = args.index(late)
            rest = shlex.join([late, *args[:place], *args[place + 1 :]])
            hint = f"write {ctx.parent.command_path} {rest}"
            raise MemxError(f"the subcommand {late} must come before the options", hint=hint) from None


class FallbackGroup(Group):
    """Arguments that do not begin with a subcommand go to the hidden command `default`.

    Attributes:
        old_names: Old name of a subcommand -> the name that it has now. A file or folder of that name comes first.
    """

    old_names: ClassVar[dict[str, str]] = {}

    def check_first(self, first: str) -> None:
        """Raise MemxError for a first argument that is neither a subcommand nor anything the hidden command takes.

        Args:
            first: The argument, which is no option and no subcommand.
        """

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """What usage shows after the group's name: options follow the subcommand.

        Args:
            ctx: The context of the group.
        """
        return [self.subcommand_metavar]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the name of the hidden command before arguments that begin with no subcommand.

        Args:
            ctx: The context of the group.
            args: The arguments that follow the group's name.
        """
        first = args[0] if args else ""
        if first in self.old_names and not Path(first).exists():
            if not ctx.resilient_parsing:
                note_change(f"{ctx.command_path} {first}", f"{ctx.command_path} {self.old_names[first]}")
            args = [self.old_names[first], *args[1:]]
        elif first not in self.commands and first not in ctx.help_option_names:
            if first and not first.startswith("-") and not ctx.resilient_parsing:
                self.check_first(first)
            if first or not ctx.resilient_parsing:
                args = [FALLBACK, *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find the subcommand; the hidden one has no name of its own in messages.

        Args:
            ctx: The context of the group.
            args: The name of the subcommand and its arguments.
        """
        name, command, rest = super().resolve_command(ctx, args)
        return "" if name == FALLBACK else name, command, rest
