"""`memx plot`: one subcommand for each picture; without one, the picture `memory`."""

from __future__ import annotations

from pathlib import Path

import typer

from ....errors import MemxError, closest
from ....results.plots import BENCH, MEMORY, NAMM, OLD_NAMES, PICTURES, Picture
from ...output.console import examples
from ...parsing.fallback import FALLBACK, FallbackGroup
from ...parsing.spellings import Command
from .pictures import command_of, default_command

_EXAMPLES = {
    "published": "memx plot {} --published",
    "tier": "memx plot {} --tier seen",
    "baseline": "memx plot {} --baseline 'one layer'",
    "metrics": "memx plot {} --metrics relative_log_likelihood,score",
    "policies": "memx plot {} --policies 'namm global,keydiff table'",
    "budget": "memx plot {} --budget 0.25",
}
_RUN = {MEMORY: "results/runs", NAMM: "results/runs", BENCH: "results/runs/bench"}


class PlotGroup(FallbackGroup):
    """The group of pictures."""

    old_names = OLD_NAMES

    def check_first(self, first: str) -> None:
        """Raise MemxError for an argument that is neither a picture nor a path.

        Args:
            first: An argument that is no picture.
        """
        if Path(first).exists() or "/" in first or first.endswith(".jsonl"):
            return
        near = closest(first, [picture.name for picture in PICTURES])
        hint = f"did you mean `memx plot {near}`?" if near else "`memx plot --help` lists the pictures"
        raise MemxError(f"memx plot: {first!r} is neither a picture nor a path", hint=hint)


def register(app: typer.Typer) -> None:
    """Add the group to the app.

    Args:
        app: The app of memx.
    """
    group = typer.Typer(
        cls=PlotGroup,
        subcommand_metavar="[PICTURE] [FOLDER|ROWS.jsonl]... [OPTIONS]",
        help=_HELP,
        epilog=examples(
            "memx plot",
            "memx plot baselines results/reference/rivals/rivals.rows.jsonl",
            "memx plot namm results/runs/EVALUATION",
            "memx plot ops results/runs/bench --formats png",
        ),
    )
    for picture in PICTURES:
        command = group.command(
            picture.name, cls=Command, rich_help_panel=picture.group, epilog=examples(*_examples(picture))
        )
        command(command_of(picture))
    group.command(FALLBACK, cls=Command, hidden=True)(default_command())
    app.add_typer(group, name="plot", rich_help_panel="Evaluate and compare")


def _examples(picture: Picture) -> list[str]:
    """Two commands that every picture takes, and one with an option of its own, if it has one."""
    own = [_EXAMPLES[option].format(picture.name) for option in picture.options if option in _EXAMPLES]
    folder = "" if picture.group != BENCH else f" {_RUN[BENCH]}"  # benchmarks are not looked for in results/runs
    general = [
        f"memx plot {picture.name}{folder}",
        f"memx plot {picture.name} {_RUN[picture.group]} --out figures",
        f"memx plot {picture.name}{folder} --formats png --json",
    ]
    return [general[0], *own[:1], *general[1:]]


_HELP = """Draw figures of finished runs, evaluations and benchmarks.

    The first argument names the picture; without one, memx plot draws memory. Rows that are drawn are written next to
    the figure, and comparisons also print a table with 95% intervals.
    """
