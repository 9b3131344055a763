"""Op benchmarks: correctness against fp64 first, then the time of each implementation and rival in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles

import torch
from torch import Tensor

from ..errors import MemxError
from ..kernels.op import Op, Shape
from ..kernels.ops import OPS
from ..results.rows import Row
from ..results.store import commit
from .build import pick_device
from .config_files import nearest


@dataclass
class BenchResult:
    """One op at one shape: whether it is right, and its table lines and rows."""

    title: str
    device: str
    correct: bool
    lines: list[list[str]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: median and the 20th and 80th percentile of n calls."""

    seconds: float
    low: float
    high: float
    n: int


def op_names() -> list[str]:
    """The ops there are."""
    return [op.name for op in OPS]


def bench_ops(
    names: Sequence[str] | None, device_name: str, seconds: float, threads: int | None = None
) -> list[BenchResult]:
    """Run the named ops, or all, at all their shapes. Raises MemxError for an unknown op or device."""
    if threads is not None:
        torch.set_num_threads(threads)
    for name in names or ():
        if name not in op_names():
            raise MemxError(f"no op {name!r}", hint=nearest(name, op_names()) or f"there are: {', '.join(op_names())}")
    device = pick_device(device_name)
    chosen = [op for op in OPS if not names or op.name in names]
    return [_bench(op, shape, device, seconds) for op in chosen for shape in op.shapes]


def check_op(op: Op, shape: Shape, dtype: torch.dtype, device: torch.device, impl: str = "auto") -> tuple[float, float]:
    """Worst error of outputs and gradients against fp64, and the largest allowed: (error, limit), relative.

    The limit is op.tolerance times the error of the plain definition in the same dtype, and at least the rounding of
    a plain sum of op.terms products.
    """
    floor = torch.finfo(dtype).eps * op.terms(shape) ** 0.5
    inputs = op.make_inputs(shape, dtype, device, torch.Generator().manual_seed(0))
    wide = tuple(x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs)
    truth = _observed(op, op.reference, wide, wide)
    plain = _observed(op, op.reference, inputs, wide)
    tested = _observed(op, lambda *given: op.run(*given, impl=impl), inputs, wide)
    error, limit = 0.0, 0.0
    for exact, reference, got in zip(truth, plain, tested, strict=True):
        scale = exact.abs().max().clamp_min(1e-30)
        own = float((got.double() - exact).abs().max() / scale)
        allowed = max(op.tolerance * float((reference.double() - exact).abs().max() / scale), floor)
        if own != own or own / allowed > error / (limit or 1.0):
            error, limit = own, allowed
    return error, limit or floor


def _observed(op: Op, function: Callable, inputs: tuple, wide: tuple) -> list[Tensor]:
    """Outputs, as the op wants them observed, and the gradients of their weighted sum; works on copies."""
    leaves = [x.clone().requires_grad_(i in op.gradients) if isinstance(x, Tensor) else x for i, x in enumerate(inputs)]
    outputs = function(*leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    floating = [output for output in outputs if output.is_floating_point()]
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(output.shape, generator=generator).to(output) for output in floating]
    loss = torch.stack([(output * weight).sum() for output, weight in zip(floating, weights, strict=True)]).sum()
    gradients = torch.autograd.grad(loss, [leaves[i] for i in op.gradients]) if op.gradients else ()
    seen = op.observe(wide, outputs) if op.observe else floating
    return [tensor.detach() for tensor in (*seen, *gradients)]


def _bench(op: Op, shape: Shape, device: torch.device, seconds: float) -> BenchResult:
    dtype = torch.float32  # what is timed is what was checked
    written = " ".join(f"{key}={value}" for key, value in shape.items())
    checks = [check_op(op, shape, dtype, device, impl) for impl in op.available(device)]
    error, limit = max(checks, key=lambda check: (check[0] != check[0], check[0] / check[1]))
    result = BenchResult(f"{op.name} {written}", str(device), correct=error <= limit)
    if not result.correct:
        result.lines.append([op.name, written, "all", f"FAIL {error:.1e} > {limit:.1e}", "", "", "", "", ""])
        return result
    inputs = op.make_inputs(shape, dtype, device, torch.Generator().manual_seed(0))
    ways: dict[str, Callable] = {op.label(impl, device): _with(op.run, impl) for impl in op.available(device)}
    ways |= dict(op.rivals)
    for name, way in ways.items():
        forward = _time(lambda way=way: way(*inputs), device, seconds)
        both = _time(_training_call(op, way, inputs), device, seconds) if op.gradients else forward
        _record(result, op, shape, dtype, name, written, forward, both)
    return result


def _with(run: Callable, impl: str) -> Callable:
    return lambda *given: run(*given, impl=impl)


def _training_call(op: Op, way: Callable, inputs: tuple) -> Callable[[], object]:
    leaves = [x.clone().requires_grad_() if i in op.gradients else x for i, x in enumerate(inputs)]
    wanted = [leaves[i] for i in op.gradients]

    def call() -> object:
        output = way(*leaves)
        return torch.autograd.grad((output[0] if isinstance(output, tuple) else output).sum(), wanted)

    return call


def _time(call: Callable[[], object], device: torch.device, seconds: float) -> Timing:
    """Time calls, one warm-up first, for about `seconds`, at least five."""

    def synchronize() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    call()
    synchronize()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < until:
        start = time.perf_counter()
        call()
        synchronize()
        times.append(time.perf_counter() - start)
    fifths = quantiles(times, n=5)
    return Timing(median(times), fifths[0], fifths[-1], len(times))


def _record(
    result: BenchResult,
    op: Op,
    shape: Shape,
    dtype: torch.dtype,
    name: str,
    written: str,
    forward: Timing,
    both: Timing,
) -> None:
    gigabytes = op.bytes_moved(shape, dtype) / forward.seconds / 1e9
    gigaflops = op.flops(shape) / forward.seconds / 1e9
    spread = f"{1e3 * forward.low:.2f}/{1e3 * forward.high:.2f}"
    times = [
        f"{1e3 * forward.seconds:.3f}",
        spread,
        f"{gigabytes:.2f}",
        f"{gigaflops:.1f}",
        f"{1e3 * both.seconds:.3f}",
    ]
    result.lines.append([op.name, written, name, "yes", *times])
    for metric, timing in (("forward_ms", forward), ("forward_backward_ms", both)):
        result.rows.append(
            Row(
                run="bench",
                experiment="bench",
                kind=name,
                model=str(dtype).removeprefix("torch."),
                dataset=f"{op.name} {written}",
                metric=metric,
                value=1e3 * timing.seconds,
                n=timing.n,
                low=1e3 * timing.low,
                high=1e3 * timing.high,
                memory_slots=shape.get("N") or shape.get("n", 0) ** 2,
                flops=op.flops(shape),
                device=result.device,
                commit=commit(),
            )
        )
