"""`memx bench compare|kernels|list`: the subcommands that time nothing."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from ...output.console import note, print_json, print_table, say
from ..options import option
from .measure import print_comparison
from .options import OUTPUT, Force

New = Annotated[Path, typer.Argument(metavar="NEW", help="Newer results: a --save folder or its rows.jsonl.")]
Old = Annotated[Path, typer.Argument(metavar="OLD", help="Older results: a --save folder or its rows.jsonl.")]

Save = Annotated[Path | None, option(metavar="FOLDER", help="Folder to save rows.jsonl to.", panel=OUTPUT)]
RowsJson = Annotated[bool, option("--json", help="Print as JSON on stdout.", panel=OUTPUT)]


def compare(new: New, old: Old, json: RowsJson = False) -> None:
    """Compare two saved sets of results without measuring anything.

    Each time that both have is called slower, faster or the same. There is no verdict if device, processor, threads or
    data type differ.
    """
    from ....results.bench.compare import read_bench

    print_comparison(read_bench(new), read_bench(old), json=json)


def kernels(save: Save = None, force: Force = False, json: RowsJson = False) -> None:
    """Show the GPU resources of the Triton kernels: registers, spills and shared memory.

    The kernels are compiled ahead of time for A100 and H100/H200; no GPU is needed.
    """
    from ....experiments.benchmarks.ops.resources import CAPABILITIES, bench_resources, resource_rows, resource_table
    from ....results.store.bench_files import claim_bench
    from ....results.store.rows import write_rows

    with nullcontext() if save is None else claim_bench(save, force=force):
        compiled = bench_resources(list(CAPABILITIES), note)
        rows = resource_rows(compiled)
        if save is not None:
            write_rows(save / "rows.jsonl", rows)
    if json:
        print_json([row.model_dump() for row in rows])
        return
    print_table("Kernels compiled ahead of time", *resource_table(compiled), left=2)


def list_benchmarks(json: RowsJson = False) -> None:
    """List the benchmarks: the subcommand of each, and what it measures or its default shapes."""
    from ....experiments.benchmarks.registry import benchmarks

    known = benchmarks()
    if json:
        print_json({benchmark.name: benchmark.about for benchmark in known})
        return
    for benchmark in known:
        say(f"{_subcommand(benchmark.name, benchmark.table):25} {benchmark.about}".rstrip())


def _subcommand(name: str, table: str) -> str:
    """What to write after `memx bench` to run a benchmark."""
    group = {"bench": "ops ", "bench-evict": "eviction "}.get(table, "")
    return f"{group}{name}"
