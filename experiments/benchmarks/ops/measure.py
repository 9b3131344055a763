"""One op at one shape: is it right, and if so, how fast is each implementation -> rows.

Rows of dataset "<op> <shape>": correct (1 or 0, with error and limit); forward_ms and backward_ms (with p20 and p80,
the least bytes and FLOPs, and the floor_ms that the measured ceilings give them); forward_peak_mb, backward_peak_mb.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch

from ....kernels.op import Op, Shape, interpreted
from ....results.store.rows import Row
from ....torch_compat import quiet_compiler
from ..ceilings import Ceilings
from ..timing import PeakMemory, Stopwatch, Timing
from .correctness import Check, check_implementations, check_where_it_fits, first_line, inputs_of
from .implementations import (
    COMPILED,
    Implementation,
    backward_call,
    forward_call,
    implementations_of,
    training_call,
)
from .shapes import written


@dataclass(frozen=True)
class Bench:
    """What every op is measured with: the device's stopwatch and ceilings, what all rows share, whom to tell."""

    stopwatch: Stopwatch
    ceilings: Ceilings
    dtype: torch.dtype
    common: dict[str, Any]
    progress: Callable[[str], None]

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.stopwatch.device


def check_edges(bench: Bench, op: Op) -> list[Row]:
    """Check every implementation at shapes that fill no tile, in float32 and in what is timed; rows of what is wrong.

    The shapes that are timed are powers of two, at which a wrong mask or an index at an edge would not show.
    """
    rows = []
    bench.progress(f"{op.name}: checking at odd shapes")
    for dtype in dict.fromkeys((torch.float32, bench.dtype)):
        for shape in op.odd_shapes:
            checks = check_implementations(op, shape, dtype, bench.device)
            facts = _Facts(bench, op, shape)
            rows += [facts.verdict(impl, check, shape) for impl, check in checks.items() if not check.right]
    return rows


def bench_op(bench: Bench, op: Op, shape: Shape, *, compiled: bool) -> list[Row]:
    """Check every implementation; if all are right, time them and the rivals."""
    title = f"{op.name} {written(shape)}"
    bench.progress(f"{title}: checking against float64")
    if bench.device.type == "cpu" and interpreted():
        bench.progress("Triton runs in interpreter mode (TRITON_INTERPRET): kernels are checked but not timed")
    checked, checks = check_where_it_fits(op, shape, bench.dtype, bench.device)
    if checked != shape:
        bench.progress(
            f"{title}: checked at the smaller shape {written(checked)}, as the fp64 reference needs much memory"
        )
    if left_out := [impl for impl in op.available(bench.device) if impl not in checks]:
        bench.progress(f"{title}: skipped, inputs not supported: {', '.join(left_out)}")
    facts = _Facts(bench, op, shape)
    rows = [facts.verdict(impl, check, checked) for impl, check in checks.items()]
    if not all(check.right for check in checks.values()):
        return rows
    inputs = inputs_of(op, shape, bench.dtype, bench.device)
    timed = [impl for impl in checks if not (impl == "triton" and bench.device.type == "cpu")]
    for implementation in implementations_of(op, bench.device, timed, compiled=compiled):
        bench.progress(f"{title}: timing {implementation.name}")
        with quiet_compiler() if implementation.name == COMPILED else nullcontext():
            try:
                rows += _time(facts, implementation, inputs)
            except Exception as error:  # a rival may fail in any way, and the others are still worth knowing
                if not implementation.rival and not isinstance(error, torch.OutOfMemoryError):
                    raise
                bench.progress(f"{title}: {implementation.name} skipped: {type(error).__name__}: {first_line(error)}")
    return rows


def _time(facts: _Facts, implementation: Implementation, inputs: tuple) -> list[Row]:
    """The times of both passes, then their memory: what is compiled at the first call is not counted."""
    bench, op = facts.bench, facts.op
    forward = forward_call(implementation, inputs)
    rows = [facts.time(implementation, "forward", bench.stopwatch.time(forward))]
    rows += facts.peak(implementation, "forward", forward)
    if op.gradients:
        rows.append(
            facts.time(implementation, "backward", bench.stopwatch.time(backward_call(op, implementation, inputs)))
        )
        rows += facts.peak(implementation, "backward", training_call(op, implementation, inputs))
    return rows


class _Facts:
    """Makes the rows of one op at one shape."""

    def __init__(self, bench: Bench, op: Op, shape: Shape) -> None:
        self.bench, self.op = bench, op
        moved, dtype = op.bytes_moved(shape, bench.dtype), bench.dtype
        back = op.backward_bytes(shape, dtype) if op.backward_bytes else None
        self.cost = {
            "forward": (moved, op.flops(shape)),
            "backward": (back, op.backward_flops(shape) if op.backward_flops else None),
        }
        slots = shape.get("N") or shape.get("n", 0) ** 2
        self.common = bench.common | {"dataset": f"{op.name} {written(shape)}", "memory_slots": slots}

    def verdict(self, impl: str, check: Check, checked: Shape) -> Row:
        """Whether an implementation is right."""
        error = check.error if isfinite(check.error) else None
        kind = self.op.label(impl, self.bench.device)
        extra = dict(error=error, limit=check.limit, told=check.verdict, checked=written(checked), rival=False)
        return self._row(kind=kind, metric="correct", value=float(check.right), n=1, **extra)

    def time(self, implementation: Implementation, which: str, timed: Timing) -> Row:
        """A median and its spread, beside the floor."""
        moved, flops = self.cost[which]
        floor = None if moved is None else 1e3 * self.bench.ceilings.floor(moved, flops or 0)
        spread = dict(value=1e3 * timed.seconds, low=1e3 * timed.low, high=1e3 * timed.high, n=timed.n)
        extra = dict(bytes=moved, floor_ms=floor, rival=implementation.rival)
        return self._row(kind=implementation.name, metric=f"{which}_ms", flops=flops, **spread, **extra)

    def peak(self, implementation: Implementation, which: str, call: Callable[[], object]) -> list[Row]:
        """The memory that a pass takes, the backward pass with its forward pass; nothing where it cannot be known."""
        with PeakMemory(self.bench.device) as memory:
            call()
        if memory.bytes is None:
            return []
        return [
            self._row(
                kind=implementation.name,
                metric=f"{which}_peak_mb",
                value=memory.bytes / 1e6,
                n=1,
                rival=implementation.rival,
            )
        ]

    def _row(self, **facts: Any) -> Row:
        return Row(**self.common, **facts)
