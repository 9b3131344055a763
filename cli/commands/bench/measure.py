"""Run benchmarks; save, print and compare what they measured."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...output.console import note, print_json, print_table, say

if TYPE_CHECKING:
    from ....experiments.benchmarks.benchmark import BenchConfig
    from ....results.store.rows import Row


@dataclass(frozen=True)
class Output:
    """Where results go.

    Attributes:
        folder: Folder for rows.jsonl and environment.json; None saves nothing.
        force: Whether to overwrite results that the folder contains.
        against: Saved results to compare with.
        json: Whether to print JSON in place of tables.
    """

    folder: Path | None = None
    force: bool = False
    against: Path | None = None
    json: bool = False


def measure(output: Output, names: Sequence[str], *, eviction: dict[str, Any] | None = None, **settings: Any) -> None:
    """Run benchmarks, then save, print and compare their results.

    Args:
        output: Where results go.
        names: Names of benchmarks; the default set if empty.
        eviction: Fields of `EvictionBenchConfig`; a field that is None keeps its default.
        settings: Fields of `BenchConfig`; a field that is None keeps its default.

    Raises:
        MemxError: A name, setting or folder is wrong; nothing has been measured then.
        WrongResults: An implementation is wrong; what is right has been printed and saved.
    """
    from ....results.bench.compare import read_bench

    old = [] if output.against is None else read_bench(output.against)
    from ....experiments.benchmarks.benchmark import BenchConfig, EvictionBenchConfig

    evict = EvictionBenchConfig(**_given(eviction or {}))
    _run(BenchConfig(names=tuple(names), evict=evict, **_given(settings)), output, old)


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def _run(config: BenchConfig, output: Output, old: Sequence[Row]) -> None:
    from ....experiments.benchmarks.benchmark import WrongResults
    from ....experiments.benchmarks.run import run_bench
    from ....results.store.bench_files import claim_bench, save_bench

    folder = output.folder
    with nullcontext() if folder is None else claim_bench(folder, force=output.force):
        save = (lambda done: None) if folder is None else lambda done: save_bench(folder, done.rows, done.environment)
        result = run_bench(config, note, save)
    if folder is not None:
        note(f"wrote {folder / 'rows.jsonl'}{_picture_of(result.rows, folder)}")
    if output.json and not old:
        print_json([row.model_dump() for row in result.rows])
    elif not output.json:
        _print_tables(result.rows)
    if old:
        print_comparison(result.rows, old, json=output.json)
    if result.wrong:
        raise WrongResults(*result.wrong)


def _picture_of(rows: Sequence[Row], folder: Path) -> str:
    """The command that draws the rows; empty if no picture does."""
    experiments = {row.experiment for row in rows}
    picture = "ops" if "bench" in experiments else "step" if "bench-step" in experiments else ""
    return f"; next: memx plot {picture} {folder}" if picture else ""


def _print_tables(rows: Sequence[Row]) -> None:
    from ....experiments.benchmarks.registry import benchmarks
    from ....results.bench.tables import TABLES

    for name in dict.fromkeys(benchmark.table for benchmark in benchmarks()):
        if of_table := [row for row in rows if row.experiment == name]:
            tables, note_line = TABLES[name](of_table)
            for table in tables:
                print_table(table.title, table.columns, table.lines, left=table.left, names=table.names)
            if note_line:
                say(note_line)


def print_comparison(new: Sequence[Row], old: Sequence[Row], *, json: bool) -> None:
    """Print the times that two sets of results share, and what keeps them from being compared.

    Args:
        new: Rows of the newer results.
        old: Rows of the older results.
        json: Whether to print JSON in place of a table.
    """
    from ....results.bench.compare import comparison, differences

    table, unlike = comparison(new, old), differences(new, old)
    if json:
        print_json({"differences": unlike, "comparison": table.facts})
        return
    print_table(table.title, table.columns, table.lines, left=2)
    for difference in unlike:
        say(f"not the same {difference}")
    if unlike:
        say("The runs differ in the settings above, so no verdict is given; compare shares of peak instead.")
