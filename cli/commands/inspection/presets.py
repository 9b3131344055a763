"""`memx presets`: the configs that come with memx."""

from __future__ import annotations

from typing import Annotated

import typer

from ...output.console import examples, note, print_json, print_table
from ...parsing.spellings import Command
from ..options import UTILITIES, option

_EPILOG = examples("memx presets", "memx presets --json", "memx config show facts")
Json = Annotated[bool, option("--json", help="Print as JSON on stdout.")]


def register(app: typer.Typer) -> None:
    """Add the command to the app.

    Args:
        app: The app of memx.
    """
    app.command("presets", cls=Command, epilog=_EPILOG, rich_help_panel=UTILITIES)(presets)


def presets(json: Json = False) -> None:
    """List the presets of memx train and memx evolve-namm."""
    from ....experiments.config.presets import all_presets

    found = all_presets()
    if json:
        print_json([{"name": name, "command": of, "about": about} for name, (of, about) in found.items()])
        return
    for command in sorted({of for of, _ in found.values()}, reverse=True):
        lines = [(name, about) for name, (of, about) in found.items() if of == command]
        print_table(f"Presets of memx {command}", ["name", "what it is"], lines, left=2)
    note("next: memx train NAME --dry-run, or memx config copy NAME my.yaml")
