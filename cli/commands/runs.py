"""`memx runs`: what has been run, how it stands and where it lies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..output.console import examples, note, print_json, print_table

_EPILOG = examples("memx runs", "memx runs --runs results/runs --json", "memx train facts --resume")


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("runs", epilog=_EPILOG)(runs)


def runs(
    folder: Annotated[Path, typer.Option("--runs", help="Folder of all run folders.")] = Path("results/runs"),
    json: Annotated[bool, typer.Option("--json", help="Print as JSON on stdout.")] = False,
) -> None:
    """List runs with their status, the last step reached and their main figures."""
    from ...results.store.runs import RunStore

    found = []
    for run in RunStore(folder).runs():
        info, metrics = run.info(), run.metrics()
        scores = {
            row.dataset: row.value for row in run.rows() if row.metric == "exact_match" and "/" not in row.dataset
        }
        step = max((line["step"] for line in metrics), default=0)
        found.append({"run": run.name, "status": run.status, "step": step, "started": info.get("started"), **scores})
    if json:
        print_json(found)
        return
    shown = ("seen", "rephrased", "unseen")
    lines = [
        [one["run"], one["status"], str(one["step"]), str(one["started"]), *(_percent(one.get(tier)) for tier in shown)]
        for one in found
    ]
    print_table(f"Runs in {folder}", ["run", "status", "step", "started", *(f"{t} EM %" for t in shown)], lines, left=2)
    note("next: memx train … --resume goes on with an interrupted run, memx plot draws the finished ones")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
