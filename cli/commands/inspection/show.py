"""`memx show`: one run whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ....errors import MemxError
from ...output.console import examples, note, print_json, print_table, say
from ...parsing.spellings import Command
from ..options import EVALUATE, option

if TYPE_CHECKING:
    from ....experiments.inspection.show import RunView

_EPILOG = examples("memx show", "memx show results/runs/RUN", "memx show RUN --wrong 20", "memx show RUN --json")
Name = Annotated[
    str | None,
    typer.Argument(metavar="[RUN]", help="Run folder, its name, or the beginning of its name. Default: the last run."),
]
Runs = Annotated[Path, option("--runs", metavar="FOLDER", help="Folder that contains the run folders.")]
Wrong = Annotated[int, option("--wrong", min=0, metavar="N", help="Number of wrong answers to show.")]
Relations = Annotated[int, option("--relations", min=0, metavar="N", help="Number of worst relations to show.")]
Json = Annotated[bool, option("--json", help="Print as JSON on stdout.")]


def register(app: typer.Typer) -> None:
    """Add the command to the app.

    Args:
        app: The app of memx.
    """
    app.command("show", cls=Command, epilog=_EPILOG, rich_help_panel=EVALUATE)(show)


def show(
    run: Name = None,
    runs: Runs = Path("results/runs"),
    wrong: Wrong = 5,
    relations: Relations = 10,
    json: Json = False,
) -> None:
    """Show one run: status, settings, scores with intervals, worst relations, wrong answers, files, next commands."""
    from ....experiments.inspection.find import find_run
    from ....experiments.inspection.show import as_json, view_run

    found = find_run(run, runs)
    if found.status == "empty" and not found.rows():
        raise MemxError(f"{found.folder} holds no run yet", hint="`memx runs` lists the runs")
    view = view_run(found, wrong=wrong, relations=relations)
    if json:
        print_json(as_json(view))
        return
    _print(view)


def _print(view: RunView) -> None:
    from ....experiments.inspection.settings import shown_value
    from ....results.labels import INTERVALS, in_bytes

    title = f"Run {view.run.name}"
    print_table(title, ["", ""], [[name, text] for name, text in view.facts.items()], left=2)
    if view.settings:
        lines = [[key, shown_value(old), shown_value(new)] for key, old, new in view.settings]
        print_table(f"Settings that differ from the preset {view.preset}", ["key", "preset", "run"], lines, left=3)
    elif view.preset:
        say(f"All settings are those of the preset {view.preset}.")
    if view.counts:
        say("Counts: " + ", ".join(f"{count:,} {name}" for name, count in view.counts.items()) + ".")
    if view.scores:
        lines = [[score.where, score.metric, score.text, f"{score.row.n:,}"] for score in view.scores]
        print_table(f"Scores ({INTERVALS})", ["set", "score", "value", "n"], lines, left=2)
    if view.relations:
        lines = [[score.where, score.text, f"{score.row.n:,}"] for score in view.relations]
        print_table("Worst relations (exact match %)", ["relation", "value", "n"], lines)
    if view.wrong:
        lines = [[one.question, one.written, " | ".join(one.accepted[:3])] for one in view.wrong]
        print_table("Wrong answers, some of them", ["question", "written", "right"], lines, left=3)
    lines = [[file.name, in_bytes(file.size), file.about] for file in view.files]
    print_table(f"Files of {view.run.folder}", ["file", "size", "content"], lines, left=3)
    if view.resume:
        note(f"not finished; continue it with: {view.resume}")
    for command in view.next:
        note(f"next: {command}")
