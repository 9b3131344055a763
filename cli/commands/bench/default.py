"""`memx bench` without a subcommand: the default set, and the old spelling of every subcommand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ....errors import MemxError
from ...parsing.spellings import note_change
from . import options as o
from .measure import Output, measure
from .saved import compare as compare_saved
from .saved import kernels, list_benchmarks

OLD_NAMES = {"host": "offload", "evolve": "evolution"}  # benchmarks that had other names


def _old(*names: str, **settings: Any) -> Any:
    """An option that only the old spellings use."""
    return typer.Option(*names, hidden=True, **settings)


def default(
    device: o.Device = "auto",
    dtype: o.OpDtype = None,
    threads: o.Threads = None,
    seconds: o.Seconds = 0.2,
    steps: o.Steps = 7,
    save: o.Save = None,
    force: o.Force = False,
    against: o.Against = None,
    json: o.Json = False,
    op: Annotated[list[str] | None, _old()] = None,
    shapes: Annotated[list[str] | None, _old()] = None,
    compile: Annotated[o.Compile, _old()] = o.Compile.last,
    slots: Annotated[list[int] | None, _old()] = None,
    third_party: Annotated[bool, _old("--third-party")] = False,
    model: Annotated[str, _old()] = "tiny-llama",
    layers: Annotated[int | None, _old(min=1)] = None,
    context: Annotated[list[int] | None, _old(min=1)] = None,
    batch: Annotated[list[int] | None, _old(min=1)] = None,
    population: Annotated[int, _old(min=2)] = 32,
    policy: Annotated[list[str] | None, _old()] = None,
    budget: Annotated[list[float] | None, _old()] = None,
    interval: Annotated[int, _old()] = 512,
    new_tokens: Annotated[int, _old(min=1)] = 64,
    tune: Annotated[bool, _old("--tune")] = False,
    compare: Annotated[Path | None, _old()] = None,
    resources: Annotated[bool, _old("--resources")] = False,
    list_only: Annotated[bool, _old("--list")] = False,
) -> None:
    """Measure the default set: every op, step, eviction prefill and decode, and model."""
    if list_only:
        note_change("memx bench --list", "memx bench list")
        return list_benchmarks(json)
    if resources:
        note_change("memx bench --resources", "memx bench kernels")
        return kernels(save, force, json)
    if compare is not None:
        if against is None:
            raise MemxError("--compare needs --against", hint="memx bench compare NEW OLD")
        note_change("memx bench --compare NEW --against OLD", "memx bench compare NEW OLD")
        return compare_saved(compare, against, json)
    if op:
        note_change("memx bench --op", "a subcommand, see `memx bench --help`")
    evict = dict(
        host=model, layers=layers, contexts=context, batches=batch, policies=policy, budgets=budget, every=interval,
        new_tokens=new_tokens, population=population,
    )  # fmt: skip
    measure(
        Output(save, force, against, json), [OLD_NAMES.get(name, name) for name in op or ()], eviction=evict,
        device=device, dtype=dtype and dtype.value, shapes=shapes, seconds=seconds, slots=slots, steps=steps,
        threads=threads, compile=compile.value, peers=third_party, tune=tune,
    )  # fmt: skip
