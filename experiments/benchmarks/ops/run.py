"""The benchmarks of ops: names -> rows of each op, after the ceilings of the device that all are held against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ....kernels.registry import OPS
from ....results.store.rows import Row
from ...runtime.devices import pick_dtype
from ..benchmark import BenchConfig, Benchmark, Progress
from ..ceilings import Ceilings, measure_ceilings
from ..environment import row_settings
from ..timing import Stopwatch, Timing
from .implementations import cannot_compile
from .measure import Bench, bench_op, check_edges
from .shapes import shapes_of, written
from .tune import tune_ops


def op_benchmarks() -> list[Benchmark]:
    """A benchmark for each op. They are run first, and check their shapes as they begin."""
    return [
        Benchmark(op.name, "; ".join(map(written, (*op.shapes, *op.large_shapes))), run=bench_ops, table="bench")
        for op in OPS
    ]


def bench_ops(
    names: Sequence[str], config: BenchConfig, device: torch.device, progress: Progress
) -> Iterator[list[Row]]:
    """Measure the named ops: the rows of each, those of the first after the ceilings.

    Raises:
        MemxError: For a dtype or shape that an op cannot have, before anything is measured.
    """
    ops = [op for op in OPS if op.name in names]
    dtype = pick_dtype(config.dtype, device)
    shapes = [shapes_of(op, config.shapes, dtype, device) for op in ops]
    if config.tune:
        tune_ops(ops, dtype, device, progress)
    stopwatch = Stopwatch(device, config.seconds)
    progress("measuring the speed of copies and of matrix products")
    ceilings = measure_ceilings(stopwatch, dtype)
    common = row_settings(device, torch.get_num_threads())
    common |= {"experiment": "bench", "model": str(dtype).removeprefix("torch.")}
    rows = _ceiling_rows(ceilings, common)
    bench = Bench(stopwatch, ceilings, dtype, common, progress)
    compile = config.compile
    if compile != "none" and (reason := cannot_compile(device)):
        progress(reason)
        compile = "none"
    for op, own in zip(ops, shapes, strict=True):
        wrong = check_edges(bench, op)
        rows += wrong
        for shape in own if not wrong else ():  # an op that is wrong anywhere has no speed
            with_compiler = compile == "all" or (compile == "last" and shape is own[-1])
            rows += bench_op(bench, op, shape, compiled=with_compiler)
            if device.type == "cuda":
                torch.cuda.empty_cache()
        yield rows
        rows = []


def _ceiling_rows(ceilings: Ceilings, common: dict[str, Any]) -> list[Row]:
    """The ceilings as rates; their intervals turn over, as the longest time is the lowest rate."""

    def row(metric: str, work: float, timed: Timing, **size: Any) -> Row:
        return Row(**common, kind="device", dataset="ceilings", metric=metric, **timed.rates(work), **size)

    copied, side = ceilings.copied, ceilings.side
    return [
        row("copy_gbps", 2 * copied / 1e9, ceilings.copy_timing, bytes=2 * copied),
        row("matmul_tflops", 2 * side**3 / 1e12, ceilings.matmul_timing, side=side),
    ]
