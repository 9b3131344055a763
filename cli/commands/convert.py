"""`memx convert`: the saved state of a distributed run -> a folder that `from_pretrained` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..output.console import examples, note, print_json, print_table
from ..parsing.spellings import Command
from .options import MEMORY_LAYERS, option

_EPILOG = examples(
    "memx convert results/runs/RUN",
    "memx convert results/runs/RUN --out halfway && memx eval halfway",
    "memx convert results/runs/RUN --out halfway --force",
)
Run = Annotated[
    Path, typer.Argument(metavar="RUN", help="Run folder of a training run that was started with torchrun.")
]
Out = Annotated[Path | None, option(metavar="FOLDER", help="Folder to write to.", default="RUN-step-N")]
Force = Annotated[bool, option("--force", help="Overwrite an existing folder.")]
Json = Annotated[bool, option("--json", help="Print the written files as JSON on stdout.")]


def register(app: typer.Typer) -> None:
    """Add the command to the app.

    Args:
        app: The app of memx.
    """
    app.command("convert", cls=Command, epilog=_EPILOG, rich_help_panel=MEMORY_LAYERS)(convert)


def convert(run: Run, out: Out = None, force: Force = False, json: Json = False) -> None:
    """Merge the last saved checkpoint of a running or stopped distributed run into one model folder.

    A finished run already has its model in checkpoint/. One process merges on the CPU, with at most one file (5 GB) or
    one table in memory at a time. The folder contains safetensors, config and tokenizer.
    """
    from ...errors import MemxError
    from ...experiments.checkpoints.convert import convert_state, newest_state
    from ...files import make_folder, put_back
    from ...leftovers import sweep

    state = newest_state(run / "state")
    run = run if run.name not in ("", "..") else run.resolve()  # `memx convert .`
    target = out or run.with_name(f"{run.name}-{state.name}")
    _check_target(target, run)
    make_folder(target.parent)
    sweep(target.parent)
    put_back(target)  # what a kill left without its name
    if target.exists() and not target.is_dir():
        raise MemxError(f"{target} is a file", hint="choose another folder with --out")
    if target.exists() and not force:
        raise MemxError(f"{target} exists", hint="use --force to overwrite it, or --out for another folder")
    if target.exists() and any(target.iterdir()) and not (target / "config.json").is_file():
        raise MemxError(f"{target} has files, but no model to overwrite", hint="choose a new folder with --out")
    convert_state(run / "state", target, replace=force)
    found = {path.name: path.stat().st_size for path in sorted(target.iterdir())}
    if json:
        print_json({"folder": str(target), "state": state.name, "bytes": found})
        return
    print_table(f"{target}, after {state.name}", ["file", "bytes"], [[n, f"{size:,}"] for n, size in found.items()])
    note(f"next: memx eval {target}")


def _check_target(target: Path, run: Path) -> None:
    """Raise MemxError for a folder that cannot be replaced: it holds the run, or is where the command runs."""
    from ...errors import MemxError

    whole = target.resolve()
    if run.resolve().is_relative_to(whole) or Path.cwd().is_relative_to(whole):
        what = "the run" if run.resolve().is_relative_to(whole) else "the current folder"
        raise MemxError(f"--out {target} contains {what}", hint="choose a new folder with --out")
