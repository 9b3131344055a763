"""`memx presets`: what can be trained and evolved out of the box."""

from __future__ import annotations

from typing import Annotated

import typer

from ..output.console import examples, note, print_json, print_table

_EPILOG = examples("memx presets", "memx presets --json", "memx config show facts")


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("presets", epilog=_EPILOG)(presets)


def presets(json: Annotated[bool, typer.Option("--json", help="Print as JSON on stdout.")] = False) -> None:
    """List the presets, one line each."""
    from ...experiments.config.presets import all_presets

    found = all_presets()
    if json:
        print_json([{"name": name, "command": of, "about": about} for name, (of, about) in found.items()])
        return
    for command in sorted({of for of, _ in found.values()}, reverse=True):
        lines = [(name, about) for name, (of, about) in found.items() if of == command]
        print_table(f"Presets of memx {command}", ["name", "what it is"], lines, left=2)
    note("next: memx train NAME --dry-run, or memx config copy NAME my.yaml")
