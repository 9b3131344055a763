"""`memx bench`: every op checked against fp64, then timed beside its rivals and the ceilings of the device."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..output.console import examples, note, print_json, print_table
from .options import Dtype

if TYPE_CHECKING:
    from ...experiments.benchmarks.benchmark import BenchConfig
    from ...results.store.rows import Row

_EVICT = "Eviction policies: prefill, decode, generate, evolve"
_EPILOG = examples(
    "memx bench --op embedding_bag --save results/runs/bench",
    "memx bench --op embedding_bag --shapes N=2^20,D=512 --against results/runs/bench",
    "memx bench --op step --slots 4096 --slots 1048576 --threads 1 --peers",
    "memx bench --op prefill --op decode --context 2048 --batch 1 --batch 4 --budget .5 --budget .25",
    "memx bench --op evolve --host smollm2 --context 1024 --population 16",
)


class Compile(StrEnum):
    """Where torch.compile takes part."""

    all = "all"
    last = "last"
    none = "none"


def _of_eviction(help: str, **settings: Any) -> Any:
    """An option in the panel of the benchmarks of eviction."""
    return typer.Option(help=help, rich_help_panel=_EVICT, **settings)


# one alias for each option, so that the command itself fits a screen
Op = Annotated[
    list[str] | None,
    typer.Option(
        help="An op; `step`, a layer's training step by table size; `host`, its table in host memory; `model`, a "
        "whole model's by kind; `prefill`, `decode`, `generate`, a host under eviction policies; `evolve`, a "
        "generation of evolve-namm. May be repeated; all but `host`, `generate` and `evolve` if not said."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
OpDtype = Annotated[Dtype | None, typer.Option(help="Of the ops; bfloat16 on CUDA and float32 on a CPU if not said.")]
Shapes = Annotated[
    list[str] | None,
    typer.Option(
        metavar="small|large|KEY=N,...",
        help="small (a CPU's default), large (CUDA's), or entries that change the last of them, as N=2^20,D=512; "
        "may be repeated.",
    ),
]
Seconds = Annotated[float, typer.Option(min=0.01, help="Time spent on each pass of each way to an op.")]
CompileAt = Annotated[
    Compile, typer.Option(help="Shapes of an op at which torch.compile of its definition takes part.")
]
Slots = Annotated[list[int] | None, typer.Option(help="Table sizes of `step`, `host`, `model`; repeatable.")]
Steps = Annotated[int, typer.Option(min=1, help="Training steps, or rounds of `prefill` and so on, that are timed.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores if not said.")]
Peers = Annotated[
    bool, typer.Option("--peers", help="In `step`, also layers of other packages; under policies, kvpress's.")
]
Host = Annotated[str, _of_eviction("tiny-llama or llama-8b, of random weights; smollm2, a folder or a hub name.")]
Layers = Annotated[int | None, _of_eviction("Layers of a host of random weights.", min=1)]
Context = Annotated[
    list[int] | None, _of_eviction("Tokens of a prompt; may be repeated; 2048 on a CPU, 8192 on CUDA.", min=1)
]
Batch = Annotated[list[int] | None, _of_eviction("Prompts at a time, or of a generation; may be repeated; 1.", min=1)]
Population = Annotated[int, _of_eviction("Candidates of a generation of `evolve`.", min=2)]
Policy = Annotated[
    list[str] | None,
    _of_eviction("Who evicts, beside the plain model, and with --peers its press; may be repeated; all there are."),
]
Budget = Annotated[list[float] | None, _of_eviction("The share of the tokens that stays; may be repeated; .5.")]
Every = Annotated[int, _of_eviction("Tokens between evictions.")]
NewTokens = Annotated[int, _of_eviction("Tokens written after a prompt.", min=1)]
Save = Annotated[Path | None, typer.Option(help="Folder for rows.jsonl and environment.json, written after every op.")]
Force = Annotated[bool, typer.Option("--force", help="Let --save replace what a folder holds.")]
Against = Annotated[
    Path | None, typer.Option(metavar="ROWS", help="Compare with a saved run: its folder or rows.jsonl.")
]
Compare = Annotated[
    Path | None, typer.Option(metavar="ROWS", help="A saved run to compare --against another; measures nothing.")
]
Tune = Annotated[
    bool, typer.Option("--tune", help="First search for launch settings that suit this GPU, and keep them.")
]
ResourcesOnly = Annotated[
    bool, typer.Option("--resources", help="Only tell what the GPU kernels take of a card; needs none.")
]
ListOnly = Annotated[bool, typer.Option("--list", help="List what can be measured, with its shapes, and stop.")]
Json = Annotated[bool, typer.Option("--json", help="Print rows, or the comparison, as JSON on stdout.")]


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("bench", epilog=_EPILOG)(bench)


def bench(
    op: Op = None,
    device: Device = "auto",
    dtype: OpDtype = None,
    shapes: Shapes = None,
    seconds: Seconds = 0.2,
    compile: CompileAt = Compile.last,
    slots: Slots = None,
    steps: Steps = 7,
    threads: Threads = None,
    peers: Peers = False,
    host: Host = "tiny-llama",
    layers: Layers = None,
    context: Context = None,
    batch: Batch = None,
    population: Population = 32,
    policy: Policy = None,
    budget: Budget = None,
    every: Every = 512,
    new_tokens: NewTokens = 64,
    save: Save = None,
    force: Force = False,
    against: Against = None,
    compare: Compare = None,
    tune: Tune = False,
    resources: ResourcesOnly = False,
    list_ops: ListOnly = False,
    json: Json = False,
) -> None:
    """Check every op, forward and gradients, against fp64; then time it, its definition and its rivals.

    Beside each time stands its share of what copy bandwidth and matmul rate, measured in the same run, allow.
    An op that is wrong prints FAIL and no speed, and the command exits 1.
    """
    if list_ops:
        return _print_list(json=json)
    if resources:
        return _print_resources(save, force=force, json=json)
    old = _read_old(against, compare)
    if compare is not None:
        return _print_comparison(_read_old(compare), old, json=json)
    from ...experiments.benchmarks.benchmark import BenchConfig, EvictionBenchConfig

    evict = EvictionBenchConfig(
        host=host, layers=layers, contexts=context or (), batches=batch or (1,), policies=policy or (),
        budgets=budget or (0.5,), every=every, new_tokens=new_tokens, population=population,
    )  # fmt: skip
    config = BenchConfig(
        names=op or (), device=device, dtype=dtype and dtype.value, shapes=shapes or (), seconds=seconds,
        slots=slots or (), steps=steps, threads=threads, compile=compile.value, peers=peers, tune=tune, evict=evict,
    )  # fmt: skip
    _measure(config, save, old, force=force, json=json)


def _read_old(against: Path | None, compare: Path | None = None) -> list[Row]:
    """The rows to compare with; none if nothing is compared."""
    from ...errors import MemxError
    from ...results.bench.compare import read_bench

    if compare is not None and against is None:
        raise MemxError("--compare needs --against", hint="memx bench --compare NEW --against OLD")
    return [] if against is None else read_bench(against)


def _measure(config: BenchConfig, folder: Path | None, old: Sequence[Row], *, force: bool, json: bool) -> None:
    """Run the benchmarks; save, print and compare what they measured."""
    from ...experiments.benchmarks.benchmark import WrongResults
    from ...experiments.benchmarks.run import run_bench
    from ...results.store.bench_files import claim_bench, save_bench

    if folder is not None:
        claim_bench(folder, force=force)
    result = run_bench(config, note, lambda done: save_bench(folder, done.rows, done.environment) if folder else None)
    if folder is not None:
        note(f"wrote {folder / 'rows.jsonl'}; next: memx plot --what bench {folder}")
    if json and not old:
        print_json([row.model_dump() for row in result.rows])
    elif not json:
        _print_tables(result.rows)
    if old:
        _print_comparison(result.rows, old, json=json)
    if result.wrong:
        raise WrongResults(*result.wrong)


def _print_list(*, json: bool) -> None:
    from ...experiments.benchmarks.registry import benchmarks

    listed = {benchmark.name: benchmark.about for benchmark in benchmarks()}
    print_json(listed) if json else print("\n".join(f"{name:22} {text}".rstrip() for name, text in listed.items()))


def _print_tables(rows: Sequence[Row]) -> None:
    from ...experiments.benchmarks.registry import benchmarks
    from ...results.bench.tables import TABLES

    for name in dict.fromkeys(benchmark.table for benchmark in benchmarks()):
        if of_table := [row for row in rows if row.experiment == name]:
            tables, note_line = TABLES[name](of_table)
            for table in tables:
                print_table(table.title, table.columns, table.lines, left=table.left)
            if note_line:
                print(note_line)


def _print_comparison(new: Sequence[Row], old: Sequence[Row], *, json: bool) -> None:
    from ...results.bench.compare import comparison, differences

    table, unlike = comparison(new, old), differences(new, old)
    if json:
        print_json({"differences": unlike, "comparison": table.facts})
        return
    print_table(table.title, table.columns, table.lines, left=2)
    for difference in unlike:
        print(f"not the same {difference}")
    if unlike:
        print("so no time is called slower or faster; the ratio of ceilings allows for the devices, not for the rest")


def _print_resources(save: Path | None, *, force: bool, json: bool) -> None:
    from ...experiments.benchmarks.ops.resources import CAPABILITIES, bench_resources, resource_rows, resource_table
    from ...results.store.bench_files import claim_bench
    from ...results.store.rows import write_rows

    if save is not None:
        claim_bench(save, force=force)
    kernels = bench_resources(list(CAPABILITIES), note)
    rows = resource_rows(kernels)
    if save is not None:
        write_rows(save / "rows.jsonl", rows)
    if json:
        print_json([row.model_dump() for row in rows])
        return
    print_table("Kernels compiled ahead of time", *resource_table(kernels), left=2)
