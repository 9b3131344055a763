"""`memx plot`: figures from rows, and the rows that were plotted beside them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .console import examples, note, print_json

_EPILOG = examples(
    "memx plot",
    "memx plot results/reference/facts --out figures --published",
    "memx plot --what loss --formats png",
)


class What(StrEnum):
    """The figures there are."""

    memory = "memory"
    loss = "loss"


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("plot", epilog=_EPILOG)(plot)


def plot(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FOLDER|ROWS.jsonl]...", help="Run folders, folders of them, or files of rows."),
    ] = None,
    what: Annotated[
        What, typer.Option(help="memory: accuracy and NLL against memory size; loss: curves by step.")
    ] = What.memory,
    runs: Annotated[Path, typer.Option(help="Where runs are looked for if no source is given.")] = Path("results/runs"),
    out: Annotated[Path, typer.Option(help="Folder of the figures.")] = Path("results/figures"),
    name: Annotated[str | None, typer.Option(help="File name without ending.")] = None,
    experiment: Annotated[str | None, typer.Option(help="Which experiment's rows; the last one if not said.")] = None,
    formats: Annotated[str, typer.Option(help="Comma-separated: png, svg, pdf.")] = "png,svg,pdf",
    published: Annotated[
        bool, typer.Option("--published", help="Overlay the curves of Memory Layers at Scale.")
    ] = False,
    accuracy: Annotated[str, typer.Option(help="Left panel: exact_match or f1.")] = "exact_match",
    json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON on stdout.")] = False,
) -> None:
    """Draw QA accuracy and NLL against memory size, or loss curves, from the rows of finished runs."""
    from ..results.plots import plot_loss, plot_memory

    kinds = _formats(formats)
    if what is What.loss:
        written = plot_loss(sources or [runs], out, name or "loss", kinds, experiment, tell=note)
    else:
        written = plot_memory(
            sources or [runs],
            out,
            name or "memory",
            kinds,
            experiment,
            published=published,
            accuracy=accuracy,
            tell=note,
        )
    if json:
        print_json([str(path) for path in written])
    else:
        for path in written:
            print(path)
        note(f"the picture is {written[0]}")


def _formats(text: str) -> list[str]:
    from ..errors import MemxError

    kinds = [kind.strip().lower() for kind in text.split(",") if kind.strip()]
    unknown = [kind for kind in kinds if kind not in ("png", "svg", "pdf")]
    if unknown or not kinds:
        raise MemxError(f"--formats: no format {', '.join(unknown) or 'given'}", hint="use png, svg, pdf")
    return kinds
