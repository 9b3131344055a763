"""What options of several commands take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ...errors import MemxError


class Dtype(StrEnum):
    """What ops and hosts compute in."""

    bfloat16 = "bfloat16"
    float16 = "float16"
    float32 = "float32"


# aliases for parameters of commands
Assignments = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any key of the config; may be repeated.")
]
Config = Annotated[str | None, typer.Option("--config", "-c", help="A YAML config, in place of the argument.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Force = Annotated[bool, typer.Option("--force", help="Start an existing run anew; what it held is lost.")]
Json = Annotated[bool, typer.Option("--json", help="Print rows as JSON on stdout.")]
Name = Annotated[str | None, typer.Option(help="First part of the run folder's name.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a stopped run, keep a finished one.")]
Runs = Annotated[Path, typer.Option(help="Folder of all run folders.")]


def check_resume(resume: bool, force: bool) -> None:
    """Raise MemxError if a run is both to go on and to start over."""
    if resume and force:
        raise MemxError("--resume and --force exclude each other")


def given_values(
    flags: Mapping[str, Any], assignments: Iterable[str] | None, host: str | None = None
) -> list[tuple[str, Any]]:
    """Config keys with the values of those flags that were given, then those of --set, which win.

    Args:
        flags: Config key, as `training.steps`, to the value of its flag; None or an empty list if it was not given.
        assignments: What --set was given, KEY=VALUE each.
        host: A model by name, in place of one that a preset trains.

    Raises:
        MemxError: An assignment is not KEY=VALUE.
    """
    from ...experiments.config.loading import parse_assignment

    given = [(key, value) for key, value in flags.items() if value is not None and value != []]
    if host is not None:
        given += [("host.name", host), ("host.preset", None), ("host.shape", None)]
    return [*given, *map(parse_assignment, assignments or [])]
