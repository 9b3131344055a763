"""`memx doctor`: what is installed, which device and kernels work, and what is missing for which command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...output.console import examples, note, print_json, print_table, say
from ...parsing.spellings import Command
from ..options import UTILITIES, option

if TYPE_CHECKING:
    from ....experiments.doctor.check import Check

_EPILOG = examples("memx doctor", "memx doctor --all", "memx doctor --json")
Runs = Annotated[Path, option("--runs", metavar="FOLDER", help="Folder that contains the run folders.")]
All = Annotated[bool, option("--all", help="List every package that memx needs, not only those with a problem.")]
Json = Annotated[bool, option("--json", help="Print as JSON on stdout.")]


def register(app: typer.Typer) -> None:
    """Add the command to the app.

    Args:
        app: The app of memx.
    """
    app.command("doctor", cls=Command, epilog=_EPILOG, rich_help_panel=UTILITIES)(doctor)


def doctor(runs: Runs = Path("results/runs"), all: All = False, json: Json = False) -> None:
    """Check the installation: packages, devices, kernels, folders, hub, and what each command lacks.

    Exit code 1 if something fails that memx needs; optional packages may be missing.
    """
    from ....experiments.doctor.check import failures
    from ....experiments.doctor.run import examine

    checks = examine(runs, note)
    failed = failures(checks)
    if json:
        print_json({"works": not failed, "checks": [check._asdict() for check in checks]})
    else:
        for group in dict.fromkeys(check.group for check in checks):
            _print_group(group, [check for check in checks if check.group == group], whole=all)
        say(f"{len(failed)} of {len(checks)} checks failed." if failed else "memx works here.")
        _print_fixes(failed, checks)
    if failed:
        raise typer.Exit(1)


def _print_group(group: str, checks: list[Check], *, whole: bool) -> None:
    """A table of one group; packages that are as they should be are one line, unless all are asked for."""
    from ....experiments.doctor.packages import BASE

    fine = [check for check in checks[2:] if check.state == "ok"] if group == BASE and not whole else []
    lines = [[check.name, check.state, check.found, check.needed_for] for check in checks if check not in fine]
    if fine:
        main = ("torch", "triton", "transformers")
        versions = ", ".join(f"{check.name} {check.found}" for check in fine if check.name in main)
        lines.append([f"{len(fine)} packages", "ok", versions, ""])
    columns = ["name", "state", "found"]
    if any(line[3] for line in lines):
        columns.append("needed for")
    print_table(group, columns, [line[: len(columns)] for line in lines], left=len(columns), names=2)


def _print_fixes(failed: list[Check], checks: list[Check]) -> None:
    """What mends each failure, and what adds what is missing."""
    for check in failed:
        note(f"{check.name}: {check.found}; to fix it: {check.fix}")
    for check in checks:
        if check.state in ("missing", "note") and check.fix:
            purpose = f"for {check.needed_for}" if check.needed_for else f"for {check.name}"
            say(f"{purpose}: {check.fix}")
