"""A group of subcommands that also works without one, as `memx bench` and `memx plot` do."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from typer.core import TyperGroup

from .spellings import PlainHelp, note_change

FALLBACK = "default"  # the name under which a group keeps its hidden command


class Group(PlainHelp, TyperGroup):
    """A group of commands."""


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
