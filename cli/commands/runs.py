"""`memx runs`: the runs in a folder, with their status and main scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..output.console import examples, note, print_json, print_table
from .options import EVALUATE, option
from .spellings import Command

_EPILOG = examples("memx runs", "memx runs --json", "memx runs --runs other/runs")
Folder = Annotated[Path, option("--runs", metavar="FOLDER", help="Folder that contains the run folders.")]
Json = Annotated[bool, option("--json", help="Print as JSON on stdout.")]


def register(app: typer.Typer) -> None:
    """Add the command to the app.

    Args:
        app: The app of memx.
    """
    app.command("runs", cls=Command, epilog=_EPILOG, rich_help_panel=EVALUATE)(runs)


def runs(folder: Folder = Path("results/runs"), json: Json = False) -> None:
    """List runs with their status, last logged step and main scores."""
    from ...results.store.resuming import resume_hint
    from ...results.store.runs import RunStore

    found, stopped = [], None
    for run in RunStore(folder).runs():
        info, metrics = run.info(), run.metrics()
        stopped = run if run.status == "interrupted" else stopped
        scores = {
            row.dataset: row.value for row in run.rows() if row.metric == "exact_match" and "/" not in row.dataset
        }
        step = max((line["step"] for line in metrics), default=0)
        found.append({"run": run.name, "status": run.status, "step": step, "started": info.get("started"), **scores})
    if json:
        print_json(found)
        return
    if not found:
        note(f"no runs in {folder}")
        return
    shown = ("seen", "rephrased", "unseen")
    lines = []
    for one in found:
        start, scores = _minute(one["started"]), [_percent(one.get(tier)) for tier in shown]
        lines.append([one["run"], one["status"], str(one["step"]), start, *scores])
    columns = ["run", "status", "step", "started", "EM % seen", "EM % paraphrased", "EM % held-out"]
    print_table(f"Runs in {folder}", columns, lines, left=2)
    if stopped is not None:
        note(f"{stopped.name} was interrupted; {resume_hint(stopped)}")
    note("next: memx plot draws finished runs")


def _minute(time: str | None) -> str:
    """2026-11-29 01:30 of an ISO time."""
    return "" if time is None else time[:16].replace("T", " ")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
