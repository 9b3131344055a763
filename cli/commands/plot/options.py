"""Options of the subcommands of `memx plot`: those of every picture, and those of single ones by their name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..options import option

OUTPUT = "Output"
TIERS = {"seen": "seen", "paraphrased": "rephrased", "rephrased": "rephrased"}  # what users write -> the key in rows


def _tier(value: str) -> str:
    if value not in TIERS:
        raise typer.BadParameter(f"{value!r}: use seen or paraphrased")
    return TIERS[value]


Sources = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="FOLDER|ROWS.jsonl",
        help="Run folders, folders of runs, or files of rows.",
        show_default="all runs in --runs",
    ),
]
Runs = Annotated[Path, option(metavar="FOLDER", help="Folder of runs, if no source is given.")]
Experiment = Annotated[
    str | None, option(metavar="NAME", help="Draw only the runs of this experiment.", default="the latest")
]
Out = Annotated[Path, option(metavar="FOLDER", help="Folder to write figures to.", panel=OUTPUT)]
Name = Annotated[
    str | None,
    option(metavar="NAME", help="File name of the figure, without ending.", default="the picture's name", panel=OUTPUT),
]
Formats = Annotated[
    str, option(metavar="FORMAT,...", help="File formats, comma-separated: png, svg, pdf.", panel=OUTPUT)
]
Json = Annotated[
    bool, option("--json", help="Print the written files, and the table if there is one, as JSON.", panel=OUTPUT)
]

# name -> annotation and default, in the order of help; `Sources` is the argument
COMMON: dict[str, tuple[Any, Any]] = {
    "sources": (Sources, None),
    "runs": (Runs, Path("results/runs")),
    "experiment": (Experiment, None),
}
WRITING: dict[str, tuple[Any, Any]] = {
    "out": (Out, Path("results/figures")),
    "name": (Name, None),
    "formats": (Formats, "png,svg,pdf"),
    "json": (Json, False),
}
# the fields of `PlotOptions`
OF_PICTURES: dict[str, tuple[Any, Any]] = {
    "published": (Annotated[bool, option("--published", help="Overlay the curves of Memory Layers at Scale.")], False),
    "accuracy": (Annotated[str, option(metavar="exact_match|f1", help="Metric of the left panel.")], "exact_match"),
    "tier": (
        Annotated[
            str,
            option(
                metavar="seen|paraphrased", help="Questions: phrased as in training, or in a new way.", callback=_tier
            ),
        ],
        "paraphrased",
    ),
    "baseline": (
        Annotated[
            str | None,
            option(metavar="VARIANT", help="Variant that the others are compared with.", default="the first"),
        ],
        None,
    ),
    "metrics": (
        Annotated[
            str,
            option(
                metavar="METRIC,...", help="One row of panels each: relative_log_likelihood, exact, lost_nats or score."
            ),
        ],
        "relative_log_likelihood,exact",
    ),
    "policies": (
        Annotated[
            str | None,
            option(
                metavar="POLICY,...",
                help="Policies to draw, named as in the table of memx eval-namm: 'namm global,keydiff table'.",
                default="all",
            ),
        ],
        None,
    ),
    "budget": (
        Annotated[
            float | None,
            option(
                metavar="SHARE|TOKENS",
                help="Budget to show: a share or a number of tokens.",
                default="the NAMM's own size",
            ),
        ],
        None,
    ),
}
