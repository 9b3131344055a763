"""`memx bench`: every op checked against fp64, then timed beside its rivals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import examples, note, print_json, print_table

_EPILOG = examples("memx bench", "memx bench --op embedding_bag --json", "memx bench --save results/runs/bench")


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("bench", epilog=_EPILOG)(bench)


def bench(
    op: Annotated[list[str] | None, typer.Option(help="An op to run; may be repeated; all if not said.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    seconds: Annotated[float, typer.Option(min=0.01, help="Time spent on each implementation and shape.")] = 0.5,
    save: Annotated[Path | None, typer.Option(help="Folder to write rows.jsonl to.")] = None,
    list_ops: Annotated[bool, typer.Option("--list", help="List the ops and stop.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print rows as JSON on stdout.")] = False,
) -> None:
    """Check every op, forward and gradients, against fp64; then time it, its definition and its rivals.

    An op that is wrong prints FAIL and no speed, and the command exits 1.
    """
    from ..experiments.bench import bench_ops, op_names
    from ..results.files import make_folder
    from ..results.rows import write_rows

    if list_ops:
        print_json(op_names()) if json else print("\n".join(op_names()))
        return
    results = bench_ops(op, device, seconds)
    rows = [row for result in results for row in result.rows]
    if save is not None:
        make_folder(save)
        write_rows(save / "rows.jsonl", rows)
        note(f"wrote {save / 'rows.jsonl'}")
    if json:
        print_json([row.model_dump() for row in rows])
    else:
        where = results[0].device if results else device
        columns = [
            "op",
            "shape",
            "implementation",
            "correct",
            "forward ms",
            "± p20/p80",
            "GB/s",
            "GFLOP/s",
            "with backward ms",
        ]
        print_table(f"Ops on {where}", columns, [line for result in results for line in result.lines], left=3)
    wrong = [result.title for result in results if not result.correct]
    if wrong:
        raise RuntimeError(f"wrong results: {', '.join(wrong)}")
