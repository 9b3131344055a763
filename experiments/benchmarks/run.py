"""`memx bench`: a config -> rows, and the names of what is wrong.

Every op is checked against fp64 before it is timed; the ceilings of the device are measured in the same run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch

from ...errors import MemxError, nearest
from ...results.store.rows import Row
from ..runtime.devices import pick_device, pick_dtype
from .benchmark import BenchConfig, Benchmark, Progress, WrongResults
from .environment import bench_environment
from .ops.run import bench_ops
from .registry import benchmarks


@dataclass
class BenchResult:
    """The rows of a run, what was wrong, and what it ran on."""

    rows: list[Row] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)


def run_bench(
    config: BenchConfig,
    progress: Progress = lambda text: None,
    save: Callable[[BenchResult], object] = lambda result: None,
) -> BenchResult:
    """Measure what a config names. What builds on ops is measured only if no op is wrong.

    Args:
        config: What to measure.
        progress: Gets a line for each thing that takes time.
        save: Gets the result so far, after every op and every other benchmark.

    Raises:
        MemxError: For a name, device, dtype, shape or number that cannot be, before anything is measured.
    """
    chosen = _chosen(config.names)
    _set_threads(config.threads)
    device = pick_device(config.device, "--device")
    pick_dtype(config.dtype, device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    result = BenchResult(environment=bench_environment(device))
    for check in dict.fromkeys(benchmark.check for benchmark in chosen):
        check(config, device)
    for measure, group in groupby(chosen, key=lambda benchmark: benchmark.run):
        names = [benchmark.name for benchmark in group]
        try:
            _collect(measure(names, config, device, progress), result, save)
        except RuntimeError as error:  # wrong results, or a gradient that is not finite
            if measure is bench_ops:
                raise
            result.wrong += error.names if isinstance(error, WrongResults) else [str(error)]
            save(result)
        if measure is bench_ops and result.wrong:
            break  # what builds on ops would be wrong too
    return result


def _collect(measured: Iterable[list[Row]], result: BenchResult, save: Callable[[BenchResult], object]) -> None:
    for rows in measured:
        result.rows += rows
        result.wrong += [f"{row.dataset}: {row.kind}" for row in rows if row.metric == "correct" and not row.value]
        save(result)


def _chosen(names: Sequence[str]) -> list[Benchmark]:
    known = {benchmark.name: benchmark for benchmark in benchmarks()}
    for name in names:
        if name not in known:
            raise MemxError(
                f"unknown benchmark {name!r}", hint=nearest(name, known) or f"choose from: {', '.join(known)}"
            )
    return [each for each in known.values() if (each.name in names if names else each.by_default)]


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        if threads > (most := 8 * (os.cpu_count() or 1)):
            raise MemxError(
                f"--threads {threads} is too high: this machine has {os.cpu_count()} cores",
                hint=f"use at most {most}, 8 per core",
            )
        torch.set_num_threads(threads)
