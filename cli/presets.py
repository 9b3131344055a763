"""`memx presets`: what can be trained out of the box."""

from __future__ import annotations

from typing import Annotated

import typer

from .console import examples, note, print_json, print_table

_EPILOG = examples("memx presets", "memx presets --json", "memx config show facts")


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("presets", epilog=_EPILOG)(presets)


def presets(json: Annotated[bool, typer.Option("--json", help="Print as JSON on stdout.")] = False) -> None:
    """List the presets, one line each."""
    from ..experiments.config_files import presets as all_presets

    found = all_presets()
    if json:
        print_json([{"name": name, "about": about} for name, about in found.items()])
        return
    print_table("Presets", ["name", "what it is"], found.items(), left=2)
    note("next: memx train NAME --dry-run, or memx config copy NAME my.yaml")
