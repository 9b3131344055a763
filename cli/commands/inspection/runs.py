"""`memx runs`: the runs in a folder, with their status and main scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...output.console import examples, note, print_json, print_table
from ...parsing.spellings import Command
from ..options import EVALUATE, option

if TYPE_CHECKING:
    from ....results.store.runs import Run

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
    """List runs with their status, step and main scores: the saved step of a stopped run."""
    from ....errors import MemxError
    from ....results.store.resuming import resume_hint
    from ....results.store.run_info import is_run
    from ....results.store.runs import RunStore

    if is_run(folder):
        raise MemxError(f"{folder} is a single run", hint=f"give the folder that it is in: --runs {folder.parent}")
    found, stopped, damaged = [], None, 0
    for run in RunStore(folder).runs():
        try:
            found.append(_line(run))
        except MemxError as error:
            damaged += 1
            note(f"left out: {error.message}")
            continue
        stopped = run if found[-1]["status"] == "interrupted" else stopped
    if json:
        print_json(found)
        return
    if not found and not damaged:
        note(f"no runs in {folder}; memx train, eval, evolve-namm and eval-namm write them there")
    if not found:
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


def _line(run: Run) -> dict[str, Any]:
    """What is listed of a run. Raises MemxError if it is damaged."""
    run.check()
    rows = [row for row in run.rows() if row.metric == "exact_match" and "/" not in row.dataset]
    line = {"run": run.name, "status": run.status, "step": run.step(), "started": run.info().get("started")}
    return {**line, **{row.dataset: row.value for row in rows if row.dataset not in line}}


def _minute(time: str | None) -> str:
    """2026-11-29 01:30 of an ISO time."""
    return "" if time is None else time[:16].replace("T", " ")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
