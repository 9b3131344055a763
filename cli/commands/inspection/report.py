"""`memx report`: one page of runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ....errors import MemxError
from ...output.console import examples, note, print_json, say
from ...parsing.spellings import Command
from ..options import EVALUATE, option

if TYPE_CHECKING:
    from ....results.store.runs import Run

_EPILOG = examples("memx report", "memx report kinds --out kinds.html", "memx report RUN_A RUN_B --title 'Two runs'")
Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RUN]...",
        help="Runs, experiments or folders of runs; the first is the baseline. Default: the latest experiment.",
    ),
]
Runs = Annotated[Path, option("--runs", metavar="FOLDER", help="Folder that contains the run folders.")]
Out = Annotated[Path, option("--out", "-o", metavar="FILE.html", help="File to write; an older one is replaced.")]
Title = Annotated[
    str | None, option("--title", metavar="TEXT", help="Heading of the page.", default="the experiment's name")
]
Json = Annotated[bool, option("--json", help="Print the file and its runs as JSON on stdout.")]


def register(app: typer.Typer) -> None:
    """Add the command to the app.

    Args:
        app: The app of memx.
    """
    app.command("report", cls=Command, epilog=_EPILOG, rich_help_panel=EVALUATE)(report)


def report(
    names: Names = None,
    runs: Runs = Path("results/runs"),
    out: Out = Path("results/report.html"),
    title: Title = None,
    json: Json = False,
) -> None:
    """Write one self-contained HTML page of runs: figures, scores, settings, environment, commands."""
    from ....experiments.inspection.find import find_runs, latest_experiment
    from ....experiments.inspection.report import report_page, write_report

    if out.suffix not in (".html", ".htm"):
        raise MemxError(f"--out: {out} is no .html file", hint="give a name that ends in .html")
    if out.is_dir():
        raise MemxError(f"--out: {out} is a folder", hint=f"give a file, such as {out / 'report.html'}")
    found = find_runs(names, runs) if names else latest_experiment(runs)
    write_report(out, report_page(found, title or _title(found), note))
    if json:
        print_json({"file": str(out), "runs": [str(run.folder) for run in found]})
        return
    say(str(out))
    note(f"{len(found)} run{'s' * (len(found) > 1)} in {out}; open it in a browser")


def _title(runs: list[Run]) -> str:
    from ....results.summary import without_seed

    names = list(dict.fromkeys(without_seed(run.experiment) for run in runs))
    return f"memx: {', '.join(names[:3])}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")
