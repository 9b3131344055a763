"""`memx bench`: an order of ops, of the layer's step and of whole models -> rows, and the names of what is wrong.

Every op is checked against fp64 before it is timed; the ceilings of the device are measured in the same run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from ...errors import MemxError, nearest
from ...kernels.op import Op
from ...kernels.ops import OPS
from ...results.store.rows import Row
from ..runtime.devices import pick_device
from .ceilings import Ceilings, measure_ceilings
from .environment import bench_environment, row_settings
from .eviction.prefill_decode import EVICT_OPS, EvictionBenchConfig, bench_evict, check_order
from .ops.implementations import cannot_compile
from .ops.measure import Bench, bench_op, check_edges
from .ops.shapes import shapes_of, written
from .timing import Stopwatch, Timing

__all__ = ["BenchConfig", "Found", "bench_list", "bench_names", "run_bench"]
_END_TO_END = ("step", "host", *EVICT_OPS, "evolve", "model")
_LONG = ("host", "generate", "evolve")  # measured only if named
_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
Compile = Literal["all", "last", "none"]


@dataclass(frozen=True)
class BenchConfig:
    """What to measure: names as `bench_names` has them; where, in which dtype and shapes.

    names: all but `host`, `generate` and `evolve` if there are none.
    compile: at which shapes of an op its definition also runs under torch.compile; it takes its time to compile.
    slots, steps: of step, host, model; no slots: what suits the device, of which step takes the ends if all is run.
    peers: other packages' layers, of step, and presses, of prefill, decode and generate.
    evict: the host, the policies and sizes of the latter, and of evolve.
    tune: search for launch settings of the kernels first.
    """

    names: Sequence[str] = ()
    device: str = "auto"
    dtype: str | None = None
    shapes: Sequence[str] = ()
    seconds: float = 0.2
    slots: Sequence[int] = ()
    steps: int = 7
    threads: int | None = None
    compile: Compile = "last"
    peers: bool = False
    tune: bool = False
    evict: EvictionBenchConfig = field(default_factory=EvictionBenchConfig)


@dataclass
class Found:
    """The rows of a run, what was wrong, and what it ran on."""

    rows: list[Row] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)


def bench_names() -> list[str]:
    """What can be measured."""
    return [*(op.name for op in OPS), *_END_TO_END]


def bench_list() -> dict[str, str]:
    """What can be measured, each with its shapes."""
    ops = {op.name: "; ".join(map(written, (*op.shapes, *op.large_shapes))) for op in OPS}
    return ops | {
        "step": "a memory layer's training step by table size",
        "host": "a training step with its table in host memory, micro-batches one by one or ahead; only if named",
        "prefill": "reading a prompt under each eviction policy",
        "decode": "writing with each policy's cache",
        "generate": "both, each policy in a process of its own; only if named",
        "evolve": "a generation of a NAMM's evolution, in a batch and one by one; only if named",
        "model": "a model's training step by kind",
    }


def run_bench(
    order: BenchConfig,
    tell: Callable[[str], None] = lambda text: None,
    keep: Callable[[Found], object] = lambda found: None,
) -> Found:
    """Measure what is ordered. Raises MemxError for a name, device, dtype, shape or number that cannot be.

    Training steps and models are measured only if no op is wrong. tell hears what is going on; keep gets what was found
    so far, after every op.
    """
    for name in order.names:
        if name not in bench_names():
            hint = nearest(name, bench_names()) or f"there are: {', '.join(bench_names())}"
            raise MemxError(f"no op {name!r}", hint=hint)
    if order.threads is not None:
        if order.threads > (most := 8 * (os.cpu_count() or 1)):
            raise MemxError(f"--threads {order.threads}: there are {os.cpu_count()} cores", hint=f"use at most {most}")
        torch.set_num_threads(order.threads)
    device = pick_device(order.device, "--device")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    names = order.names or [name for name in bench_names() if name not in _LONG]
    found = Found(environment=bench_environment(device))
    ops = [op for op in OPS if op.name in names]
    end_to_end = _end_to_end(order, names, device, tell)
    if ops:
        _bench_ops(order, ops, device, found, tell, keep)
    for measure in end_to_end if not found.wrong else ():
        try:
            rows = measure()
            found.rows += rows
            found.wrong += [f"{row.dataset}: {row.kind}" for row in rows if row.metric == "correct" and not row.value]
        except MemxError:
            raise
        except RuntimeError as error:  # a wrong result, or a gradient that is not finite: what was found is kept
            found.wrong.append(str(error).removeprefix("wrong results: "))
        keep(found)
    return found


def _bench_ops(
    order: BenchConfig,
    ops: Sequence[Op],
    device: torch.device,
    found: Found,
    tell: Callable[[str], None],
    keep: Callable[[Found], object],
) -> None:
    dtype = _dtype(order.dtype, device)
    shapes = [shapes_of(op, order.shapes, dtype, device) for op in ops]
    if order.tune:
        from .ops.tune import tune_ops

        tune_ops(ops, dtype, device, tell)
    stopwatch = Stopwatch(device, order.seconds)
    ceilings = measure_ceilings(stopwatch, dtype)
    common = row_settings(device, torch.get_num_threads())
    common |= {"experiment": "bench", "model": str(dtype).removeprefix("torch.")}
    found.rows += _ceiling_rows(ceilings, common)
    bench = Bench(stopwatch, ceilings, dtype, common, tell)
    compile = order.compile
    if compile != "none" and (reason := cannot_compile(device)):
        tell(reason)
        compile = "none"
    for op, own in zip(ops, shapes, strict=True):
        rows = check_edges(bench, op)
        for shape in own if not rows else ():  # an op that is wrong anywhere has no speed
            with_compiler = compile == "all" or (compile == "last" and shape is own[-1])
            rows += bench_op(bench, op, shape, compiled=with_compiler)
            if device.type == "cuda":
                torch.cuda.empty_cache()
        found.rows += rows
        found.wrong += [f"{row.dataset}: {row.kind}" for row in rows if row.metric == "correct" and not row.value]
        keep(found)


def _end_to_end(
    order: BenchConfig, names: Sequence[str], device: torch.device, tell: Callable[[str], None]
) -> list[Callable[[], list[Row]]]:
    """What is measured after the ops, with its sizes checked."""
    common: dict[str, Any] = dict(device_name=order.device, threads=order.threads, steps=order.steps, tell=tell)
    found: list[Callable[[], list[Row]]] = []
    if "step" in names:
        from .models.layer_step import STEP_SLOTS, bench_step, check_slots, step_shape

        shape, usual = step_shape(order.shapes), STEP_SLOTS[device.type]
        slots = order.slots or (usual if order.names else (usual[0], usual[-1]))
        check_slots(slots, shape)
        found.append(lambda: bench_step(slots, peers=order.peers, shape=shape, **common))
    if "host" in names:
        from .models.host_offload import HOST_SLOTS, bench_host, check_host, host_shape

        stack, sizes = host_shape(order.shapes, device), order.slots or HOST_SLOTS[device.type]
        check_host(sizes, stack)
        found.append(lambda: bench_host(sizes, shape=stack, **common))
    found += _evictions(order, names, device, tell)
    if "model" in names:
        from .models.training_step import bench_model, model_configs, model_shape

        built = model_shape(order.shapes, device)
        model_configs(order.slots, built, device)
        found.append(lambda: bench_model(order.slots, shape=built, **common))
    return found


def _evictions(
    order: BenchConfig, names: Sequence[str], device: torch.device, tell: Callable[[str], None]
) -> list[Callable[[], list[Row]]]:
    """Prefill and decode, which are measured together, generate, and evolve."""
    ops = [op for op in EVICT_OPS if op in names]
    dtype = _dtype(order.dtype, device)
    common: dict[str, Any] = dict(device=device, dtype=dtype, rounds=order.steps, tell=tell)
    if ops:
        check_order(order.evict, device, peers=order.peers)
    together = [op for op in ops if op not in _LONG]
    found: list[Callable[[], list[Row]]] = []
    if together:
        found.append(lambda: bench_evict(together, order.evict, peers=order.peers, **common))
    if "generate" in ops:
        from .eviction.generate import bench_generate

        found.append(lambda: bench_generate(order.evict, peers=order.peers, **common))
    if "evolve" in names:
        from .eviction.evolution import bench_evolve, check_evolution

        check_evolution(order.evict, device)
        found.append(lambda: bench_evolve(order.evict, **common))
    return found


def _dtype(name: str | None, device: torch.device) -> torch.dtype:
    if name is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in _DTYPES:
        raise MemxError(f"--dtype: no dtype {name!r}", hint=f"use {', '.join(_DTYPES)}")
    return _DTYPES[name]


def _ceiling_rows(ceilings: Ceilings, common: dict[str, Any]) -> list[Row]:
    """The ceilings as rates; their intervals turn over, as the longest time is the lowest rate."""

    def row(metric: str, work: float, timed: Timing, **size: Any) -> Row:
        rates: Any = dict(value=work / timed.seconds, low=work / timed.high, high=work / timed.low, n=timed.n)
        return Row(**common, kind="device", dataset="ceilings", metric=metric, **rates, **size)

    copied, side = ceilings.copied, ceilings.side
    return [
        row("copy_gbps", 2 * copied / 1e9, ceilings.copy_timing, bytes=2 * copied),
        row("matmul_tflops", 2 * side**3 / 1e12, ceilings.matmul_timing, side=side),
    ]
