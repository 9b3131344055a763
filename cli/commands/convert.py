"""`memx convert`: the saved state of a run over several processes -> a folder that `from_pretrained` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..output.console import examples, note, print_json, print_table

_EPILOG = examples(
    "memx convert results/runs/RUN",
    "memx convert results/runs/RUN --out halfway && memx eval halfway --file nq=nq_open",
    "memx convert results/runs/RUN --out halfway --force",
)


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("convert", epilog=_EPILOG)(convert)


def convert(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run that torchrun's processes train.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write; RUN-step-N beside the run if not said.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a folder that is there.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON on stdout.")] = False,
) -> None:
    """Make one model folder of the parts that the processes of a running or stopped run last saved.

    A finished run has its own in checkpoint/. One process does this, on the CPU, with one file of at most 5 GB, or one
    table, in memory at a time. The folder holds safetensors, config and tokenizer.
    """
    from ...errors import MemxError
    from ...experiments.checkpoints.convert import convert_state, newest_state

    state = newest_state(run / "state")
    target = out or run.with_name(f"{run.name}-{state.name}")
    if target.exists() and not force:
        raise MemxError(f"{target} exists", hint="--force writes over it, --out chooses another folder")
    convert_state(run / "state", target)
    found = {path.name: path.stat().st_size for path in sorted(target.iterdir())}
    if json:
        print_json({"folder": str(target), "state": state.name, "bytes": found})
        return
    print_table(f"{target}, after {state.name}", ["file", "bytes"], [[n, f"{size:,}"] for n, size in found.items()])
    note(f"next: memx eval {target}")
