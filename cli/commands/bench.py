"""`memx bench`: every op checked against fp64, then timed beside its rivals and the ceilings of the device."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..output.console import examples, note, print_json, print_table

if TYPE_CHECKING:
    from ...results.store.rows import Row

_EVICT = "Eviction policies: prefill, decode, generate, evolve"
_EPILOG = examples(
    "memx bench --op embedding_bag --save results/runs/bench",
    "memx bench --op embedding_bag --shapes N=2^20,D=512 --against results/runs/bench",
    "memx bench --op step --slots 4096 --slots 1048576 --threads 1 --peers",
    "memx bench --op prefill --op decode --context 2048 --batch 1 --batch 4 --budget .5 --budget .25",
    "memx bench --op evolve --host smollm2 --context 1024 --population 16",
)


class Dtype(StrEnum):
    """What ops compute in."""

    bfloat16 = "bfloat16"
    float16 = "float16"
    float32 = "float32"


class Compile(StrEnum):
    """Where torch.compile takes part."""

    all = "all"
    last = "last"
    none = "none"


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("bench", epilog=_EPILOG)(bench)


def bench(
    op: Annotated[
        list[str] | None,
        typer.Option(
            help="An op; `step`, a layer's training step by table size; `host`, its table in host memory; `model`, a "
            "whole model's by kind; `prefill`, `decode`, `generate`, a host under eviction policies; `evolve`, a "
            "generation of evolve-namm. May be repeated; all but `host`, `generate` and `evolve` if not said."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    dtype: Annotated[
        Dtype | None, typer.Option(help="Of the ops; bfloat16 on CUDA and float32 on a CPU if not said.")
    ] = None,
    shapes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="small|large|KEY=N,...",
            help="small (a CPU's default), large (CUDA's), or entries that change the last of them, as N=2^20,D=512; "
            "may be repeated.",
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="Time spent on each pass of each way to an op.")] = 0.2,
    compile: Annotated[
        Compile, typer.Option(help="Shapes of an op at which torch.compile of its definition takes part.")
    ] = Compile.last,
    slots: Annotated[list[int] | None, typer.Option(help="Table sizes of `step`, `host`, `model`; repeatable.")] = None,
    steps: Annotated[
        int, typer.Option(min=1, help="Training steps, or rounds of `prefill` and so on, that are timed.")
    ] = 7,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores if not said.")] = None,
    peers: Annotated[
        bool, typer.Option("--peers", help="In `step`, also layers of other packages; under policies, kvpress's.")
    ] = False,
    host: Annotated[
        str,
        typer.Option(
            help="tiny-llama or llama-8b, of random weights; smollm2, a folder or a hub name.", rich_help_panel=_EVICT
        ),
    ] = "tiny-llama",
    layers: Annotated[
        int | None, typer.Option(min=1, help="Layers of a host of random weights.", rich_help_panel=_EVICT)
    ] = None,
    context: Annotated[
        list[int] | None,
        typer.Option(
            min=1, help="Tokens of a prompt; may be repeated; 2048 on a CPU, 8192 on CUDA.", rich_help_panel=_EVICT
        ),
    ] = None,
    batch: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Prompts at a time, or of a generation; may be repeated; 1.", rich_help_panel=_EVICT),
    ] = None,
    population: Annotated[
        int, typer.Option(min=2, help="Candidates of a generation of `evolve`.", rich_help_panel=_EVICT)
    ] = 32,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="Who evicts, beside the plain model, and with --peers its press; may be repeated; all there are.",
            rich_help_panel=_EVICT,
        ),
    ] = None,
    budget: Annotated[
        list[float] | None,
        typer.Option(help="The share of the tokens that stays; may be repeated; .5.", rich_help_panel=_EVICT),
    ] = None,
    every: Annotated[int, typer.Option(help="Tokens between evictions.", rich_help_panel=_EVICT)] = 512,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens written after a prompt.", rich_help_panel=_EVICT)] = 64,
    save: Annotated[
        Path | None, typer.Option(help="Folder for rows.jsonl and environment.json, written after every op.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Let --save replace what a folder holds.")] = False,
    against: Annotated[
        Path | None, typer.Option(metavar="ROWS", help="Compare with a saved run: its folder or rows.jsonl.")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(metavar="ROWS", help="A saved run to compare --against another; measures nothing.")
    ] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="First search for launch settings that suit this GPU, and keep them.")
    ] = False,
    resources: Annotated[
        bool, typer.Option("--resources", help="Only tell what the GPU kernels take of a card; needs none.")
    ] = False,
    list_ops: Annotated[
        bool, typer.Option("--list", help="List what can be measured, with its shapes, and stop.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print rows, or the comparison, as JSON on stdout.")] = False,
) -> None:
    """Check every op, forward and gradients, against fp64; then time it, its definition and its rivals.

    Beside each time stands its share of what copy bandwidth and matmul rate, measured in the same run, allow.
    An op that is wrong prints FAIL and no speed, and the command exits 1.
    """
    from ...errors import MemxError
    from ...experiments.benchmarks.eviction.prefill_decode import EvictionBenchConfig
    from ...experiments.benchmarks.run import BenchConfig, bench_list, run_bench
    from ...results.bench.compare import read_bench
    from ...results.store.bench_files import claim_bench, save_bench

    if list_ops:
        found = bench_list()
        print_json(found) if json else print("\n".join(f"{name:22} {text}".rstrip() for name, text in found.items()))
        return
    if resources:
        _print_resources(save, force=force, json=json)
        return
    if compare is not None and against is None:
        raise MemxError("--compare needs --against", hint="memx bench --compare NEW --against OLD")
    old = None if against is None else read_bench(against)
    if compare is not None and old is not None:
        _print_comparison(read_bench(compare), old, json=json)
        return
    order = BenchConfig(
        names=op or (),
        device=device,
        dtype=dtype and dtype.value,
        shapes=shapes or (),
        seconds=seconds,
        slots=slots or (),
        steps=steps,
        threads=threads,
        compile=compile.value,
        peers=peers,
        tune=tune,
        evict=EvictionBenchConfig(
            host, layers, context or (), batch or (1,), policy or (), budget or (0.5,), every, new_tokens, population
        ),
    )
    if save is not None:
        claim_bench(save, force=force)
    run = run_bench(order, note, lambda found: save_bench(save, found.rows, found.environment) if save else None)
    if save is not None:
        note(f"wrote {save / 'rows.jsonl'}; next: memx plot --what bench {save}")
    if json and old is None:
        print_json([row.model_dump() for row in run.rows])
    elif not json:
        _print_tables(run.rows)
    if old is not None:
        _print_comparison(run.rows, old, json=json)
    if run.wrong:
        raise RuntimeError(f"wrong results: {', '.join(run.wrong)}")


def _print_tables(rows: Sequence[Row]) -> None:
    from ...results.bench import eviction_table, evolution_table, offload_table
    from ...results.bench.ops_table import ceiling_line, model_table, op_tables
    from ...results.bench.step import step_table

    parts: dict[str, list[Row]] = {}
    for row in rows:
        parts.setdefault(row.experiment, []).append(row)
    if ops := parts.get("bench"):
        for table in op_tables(ops):
            print_table(table.title, table.columns, table.lines)
        print(ceiling_line(ops))
    if steps := parts.get("bench-step"):
        table = step_table(steps)
        print_table(f"{table.title} ({steps[0].device})", table.columns, table.lines)
    for name, tables, note_line in (
        (offload_table.EXPERIMENT, offload_table.host_tables, offload_table.note_line),
        (eviction_table.EXPERIMENT, eviction_table.evict_tables, eviction_table.note_line),
        (evolution_table.EXPERIMENT, evolution_table.evolve_tables, evolution_table.note_line),
    ):
        if found := parts.get(name):
            for table in tables(found):
                print_table(table.title, table.columns, table.lines)
            print(note_line(found))
    if models := parts.get("bench-model"):
        table = model_table(models)
        print_table(table.title, table.columns, table.lines, left=2)


def _print_comparison(new: Sequence[Row], old: Sequence[Row], *, json: bool) -> None:
    from ...results.bench.compare import comparison, differences

    table, other = comparison(new, old), differences(new, old)
    if json:
        facts: dict[str, Any] = {"differences": other, "comparison": table.facts}
        print_json(facts)
        return
    print_table(table.title, table.columns, table.lines, left=2)
    for difference in other:
        print(f"not the same {difference}")
    if other:
        print("so no time is called slower or faster; the ratio of ceilings allows for the devices, not for the rest")


def _print_resources(save: Path | None, *, force: bool, json: bool) -> None:
    from ...experiments.benchmarks.ops.resources import CAPABILITIES, bench_resources, resource_rows, resource_table
    from ...results.store.bench_files import claim_bench
    from ...results.store.rows import write_rows

    if save is not None:
        claim_bench(save, force=force)
    found = bench_resources(list(CAPABILITIES), note)
    rows = resource_rows(found)
    if save is not None:
        write_rows(save / "rows.jsonl", rows)
    if json:
        print_json([row.model_dump() for row in rows])
        return
    print_table("Kernels compiled ahead of time", *resource_table(found), left=2)
