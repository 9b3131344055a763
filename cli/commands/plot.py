"""`memx plot`: figures from rows, and the rows that were plotted beside them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...results.plots import PICTURES, draw, pictures_help
from ..output.console import examples, note, print_json, print_table

_EPILOG = examples(
    "memx plot",
    "memx plot results/reference/facts --out figures --published",
    "memx plot --what namm results/runs/EVALUATION --metrics relative_log_likelihood,exact",
)

if TYPE_CHECKING:
    What = str
else:  # of an enum, typer checks and lists the choices
    What = StrEnum("What", [(picture.name, picture.name) for picture in PICTURES])


class Tier(StrEnum):
    """The questions that a comparison may be about."""

    seen = "seen"
    rephrased = "rephrased"


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("plot", epilog=_EPILOG)(plot)


def plot(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FOLDER|ROWS.jsonl]...", help="Run folders, folders of them, or files of rows."),
    ] = None,
    what: Annotated[What, typer.Option(help=pictures_help())] = What("memory"),
    runs: Annotated[Path, typer.Option(help="Where runs are looked for if no source is given.")] = Path("results/runs"),
    out: Annotated[Path, typer.Option(help="Folder of the figures.")] = Path("results/figures"),
    name: Annotated[str | None, typer.Option(help="File name without ending; what is drawn if not said.")] = None,
    experiment: Annotated[str | None, typer.Option(help="Which experiment's rows; the last one if not said.")] = None,
    formats: Annotated[str, typer.Option(help="Comma-separated: png, svg, pdf.")] = "png,svg,pdf",
    published: Annotated[
        bool, typer.Option("--published", help="Overlay the curves of Memory Layers at Scale.")
    ] = False,
    accuracy: Annotated[str, typer.Option(help="Left panel of memory: exact_match or f1.")] = "exact_match",
    tier: Annotated[
        Tier, typer.Option(help="Questions of rivals and ablation: in a phrasing seen for the fact, or a new one.")
    ] = Tier.rephrased,
    baseline: Annotated[str | None, typer.Option(help="The variant an ablation compares with; the first one.")] = None,
    metrics: Annotated[
        str, typer.Option(help="Rows of panels of namm: relative_log_likelihood, exact, lost_nats, score, …")
    ] = "relative_log_likelihood,exact",
    budget: Annotated[
        float | None, typer.Option(help="Share of the cache that dropped is of; the NAMM's own size if not said.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the files, and the table of a comparison, as JSON.")
    ] = False,
) -> None:
    """Draw finished runs: memory sizes, rivals at equal cost, ablations, fine-tuning, curves by step, and NAMMs.

    Comparisons also print a table of what they say, with 95% intervals.
    """
    from ...results.selection import PlotOptions, PlotRequest

    panels = [part.strip() for part in metrics.split(",") if part.strip()]
    options = PlotOptions(published, accuracy, tier.value, baseline, panels, budget)
    request = PlotRequest(sources or [runs], out, name or what, _formats(formats), experiment, note, options)
    written, table = draw(what, request)
    files = [str(path) for path in written]
    if json:
        print_json(files if table is None else {"files": files, "table": table.facts})
        return
    if table is not None:
        print_table(table.title, table.columns, table.lines, left=table.left)
    for path in files:
        print(path)
    note(f"the picture is {files[0]}")


def _formats(text: str) -> list[str]:
    from ...errors import MemxError

    kinds = [kind.strip().lower() for kind in text.split(",") if kind.strip()]
    unknown = [kind for kind in kinds if kind not in ("png", "svg", "pdf")]
    if unknown or not kinds:
        raise MemxError(f"--formats: no format {', '.join(unknown) or 'given'}", hint="use png, svg, pdf")
    return kinds
