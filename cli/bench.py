"""`memx bench`: every op checked against fp64, then timed beside its rivals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import examples, note, print_json, print_table

if TYPE_CHECKING:
    from ..results.rows import Row

_EPILOG = examples(
    "memx bench --op embedding_bag --json",
    "memx bench --op step --slots 4096 --slots 1048576 --threads 1",
    "memx bench --peers --save results/runs/bench",
)
_STEP_SLOTS = (2**12, 2**16, 2**18)


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("bench", epilog=_EPILOG)(bench)


def bench(
    op: Annotated[
        list[str] | None,
        typer.Option(help="An op to run, or `step`, a whole training step; may be repeated; all if not said."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    seconds: Annotated[float, typer.Option(min=0.01, help="Time spent on each implementation and shape.")] = 0.5,
    slots: Annotated[
        list[int] | None, typer.Option(help="Table sizes of `step`; may be repeated. Default: 2^12, 2^16, 2^18.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of `step` that are timed.")] = 7,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores if not said.")] = None,
    peers: Annotated[bool, typer.Option("--peers", help="In `step`, also layers of other packages.")] = False,
    save: Annotated[Path | None, typer.Option(help="Folder to write rows.jsonl to.")] = None,
    list_ops: Annotated[bool, typer.Option("--list", help="List the ops and stop.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print rows as JSON on stdout.")] = False,
) -> None:
    """Check every op, forward and gradients, against fp64; then time it, its definition and its rivals.

    `step` is a memory layer's whole training step, by table size, against other ways to take it. An op that is wrong
    prints FAIL and no speed, and the command exits 1.
    """
    from ..experiments.bench import bench_ops, op_names
    from ..results.files import make_folder
    from ..results.rows import write_rows

    names = [*op_names(), "step"]
    if list_ops:
        print_json(names) if json else print("\n".join(names))
        return
    ops = [name for name in op or names if name != "step"]
    results = bench_ops(ops, device, seconds, threads) if ops else []
    wrong = [result.title for result in results if not result.correct]
    steps_taken: list[Row] = []
    if "step" in (op or names) and not wrong:
        from ..experiments.step_bench import bench_step

        steps_taken = bench_step(
            slots or _STEP_SLOTS, peers=peers, device_name=device, threads=threads, steps=steps, tell=note
        )
    rows = [*(row for result in results for row in result.rows), *steps_taken]
    if save is not None:
        make_folder(save)
        write_rows(save / "rows.jsonl", rows)
        note(f"wrote {save / 'rows.jsonl'}" + (f"; next: memx plot --what step {save}" if steps_taken else ""))
    if json:
        print_json([row.model_dump() for row in rows])
    elif results:
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
        print_table(
            f"Ops on {results[0].device}", columns, [line for result in results for line in result.lines], left=3
        )
    if steps_taken and not json:
        from ..results.step_figure import step_table

        table = step_table(steps_taken)
        print_table(f"{table.title} ({steps_taken[0].device})", table.columns, table.lines)
    if wrong:
        raise RuntimeError(f"wrong results: {', '.join(wrong)}")
