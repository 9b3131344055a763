"""`memx compare`: runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ....errors import MemxError
from ...output.console import examples, note, print_json, print_table, say
from ...parsing.spellings import Command
from ..options import EVALUATE, option

if TYPE_CHECKING:
    from ....experiments.inspection.compare import Comparison
    from ....experiments.inspection.differences import Difference
    from ....results.store.runs import Run

_EPILOG = examples(
    "memx compare RUN_A RUN_B",
    "memx compare kinds --metric exact_match",
    "memx compare RUN_A RUN_B --figure results/figures/curves.png",
    "memx compare RUN_A RUN_B --json",
)
_FORMATS = ("png", "svg", "pdf")
Names = Annotated[
    list[str],
    typer.Argument(metavar="RUN...", help="Runs, experiments or folders of runs; the first is the baseline."),
]
Runs = Annotated[Path, option("--runs", metavar="FOLDER", help="Folder that contains the run folders.")]
Metric = Annotated[
    list[str] | None,
    option("--metric", metavar="NAME", help="Show only this metric, such as exact_match. Repeatable.", default="all"),
]
Figure = Annotated[
    Path | None,
    option("--figure", "-o", metavar="FILE", help="Also draw the training curves to this .png, .svg or .pdf file."),
]
Json = Annotated[bool, option("--json", help="Print as JSON on stdout.")]


def register(app: typer.Typer) -> None:
    """Add the command to the app.

    Args:
        app: The app of memx.
    """
    app.command("compare", cls=Command, epilog=_EPILOG, rich_help_panel=EVALUATE)(compare)


def compare(
    names: Names,
    runs: Runs = Path("results/runs"),
    metric: Metric = None,
    figure: Figure = None,
    json: Json = False,
) -> None:
    """Compare runs: settings that differ, scores side by side, differences from the first with 95% intervals.

    Runs that differ in their seed alone are one group: mean and Student's t. Differences are paired by question where
    both runs kept answers to the same questions, or by seed; otherwise the output says unpaired.
    """
    from ....experiments.inspection.compare import as_json, compare_runs
    from ....experiments.inspection.find import find_runs

    if figure is not None and figure.suffix.lstrip(".") not in _FORMATS:
        raise MemxError(f"--figure: no format {figure.suffix or 'given'}", hint=f"end it in .{', .'.join(_FORMATS)}")
    found = find_runs(names, runs)
    comparison = compare_runs(found)
    if metric:
        known = dict.fromkeys(line.metric for line in comparison.lines)
        if unknown := [name for name in metric if name not in known]:
            raise MemxError(f"--metric: these runs have no {unknown[0]!r}", hint=f"use {', '.join(known)}")
        comparison = comparison._replace(lines=[line for line in comparison.lines if line.metric in metric])
    if json:
        print_json(as_json(comparison))
    else:
        _print(comparison)
    if figure is not None:
        _draw(found, figure)
        note(f"the curves are {figure}")


def _print(comparison: Comparison) -> None:
    from ....experiments.inspection.settings import shown_value
    from ....results.labels import INTERVALS

    groups = comparison.groups
    names = [group.name for group in groups]
    for group in groups:
        if len(group.runs) > 1:
            say(f"{group.name}: {len(group.runs)} runs, seeds {', '.join(map(str, group.seeds))}; mean, 95% CI (t)")
    if comparison.settings:
        lines = [[key, *map(shown_value, values)] for key, values in comparison.settings]
        print_table("Settings that differ", ["key", *names], lines, left=len(names) + 1, names=1)
    elif len(groups) > 1:
        say("No setting differs.")
    lines = [[line.where, line.words, *line.texts] for line in comparison.lines]
    print_table(f"Scores ({INTERVALS})", ["set", "score", *names], lines, left=2)
    if len(groups) == 1:
        return
    lines = [
        [line.where, line.words, group.name, *_cells(line.metric, less)]
        for line in comparison.lines
        for group, less in zip(groups[1:], line.differences, strict=True)
        if less is not None
    ]
    columns, title, left = ["set", "score", "run", "difference [95% CI]", "interval"], f"Differences from {names[0]}", 3
    if len(groups) == 2:
        columns, title, left = [*columns[:2], *columns[3:]], f"{names[1]} minus {names[0]}", 2
        lines = [[*line[:2], *line[3:]] for line in lines]
    print_table(f"{title}; * the interval excludes 0", columns, lines, left=left)


def _cells(metric: str, less: Difference) -> list[str]:
    from ....experiments.inspection.scores import digits_of

    digits = digits_of(metric)
    text = f"{less.value:+.{digits}f}"
    if less.low is not None and less.high is not None:
        text += f" [{less.low:+.{digits}f}, {less.high:+.{digits}f}]{'*' if less.shown else ' '}"
    return [text, f"{less.how}, n {less.n:,}" if less.n else less.how]


def _draw(runs: list[Run], path: Path) -> None:
    from ....results.memory_layers.loss import loss_figure
    from ....results.selection import save_figure

    save_figure(loss_figure(runs), path.parent, path.stem, [path.suffix.lstrip(".")])
