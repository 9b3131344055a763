"""Options that are given twice although only one value counts: refused, so that none is left out silently."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...errors import MemxError


def refuse_repeats(command: Any, context: Any, args: Sequence[str]) -> None:
    """Raise MemxError if an option of one value is given several times; a switch may be.

    Args:
        command: The command of typer.
        context: Its context.
        args: The arguments that follow the command's name.
    """
    seen: set[str] = set()
    for param in command.make_parser(context).parse_args(args=list(args))[2]:  # each as often as it was written
        if param.param_type_name != "option" or param.multiple or param.is_flag:
            continue
        name = max(param.opts, key=len)
        if name in seen:
            raise MemxError(f"{name} is given twice, but takes one value", hint="give it once")
        seen.add(name)
