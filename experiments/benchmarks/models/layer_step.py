"""The cost of one training step by table size: layer and optimiser, memx's and its rivals -> times and peak memory.

On a CPU each baseline and size runs in a process of its own, so that the peak memory is its own. Every baseline
with memx's equations is first held against them in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ....kernels.bag_dot import OP as BAG_DOT
from ....kernels.op import Op
from ....kernels.sparse_adam import OP as SPARSE_ADAM
from ....memory_layers.layer import MemoryLayer
from ....results.store.rows import Row
from ...runtime.devices import pick_device
from ..benchmark import BenchConfig, Benchmark, Progress, WrongResults
from ..environment import row_settings
from ..ops.correctness import check_op
from ..ops.shapes import changes
from ..timing import PeakMemory, in_own_process, process_peak, timing
from .layer_baselines import BASELINES, PlainMemory, StepShape, baseline_names
from .step_loop import Mark, between, check_slots, time_steps

STEP_SLOTS = {"cpu": (2**12, 2**16, 2**18), "cuda": (2**14, 2**20, 2**24)}
_TOLERANCE = 2e-4  # relative error of a float32 step against float64


@dataclass(frozen=True)
class StepTimes:
    """Seconds of the forward pass, with the backward pass, and of the whole step: each [n]; and bytes at the peak."""

    forward: list[float]
    backward: list[float]
    step: list[float]
    peak_bytes: int


def step_shape(texts: Sequence[str] = ()) -> StepShape:
    """The usual shape with the entries that `--shapes` changes. Raises MemxError for one that it has not."""
    return replace(StepShape(), **changes(texts, asdict(StepShape()), "step"))


def bench_step(
    slots: Sequence[int] = (),
    *,
    peers: bool = False,
    device_name: str = "auto",
    threads: int | None = None,
    steps: int = 7,
    shape: StepShape | None = None,
    progress: Progress = lambda text: None,
) -> list[Row]:
    """Measure every baseline at every size, by default those that suit the device.

    Raises WrongResults if memx's layer is wrong, before anything is timed.
    """
    shape, device, threads = shape or StepShape(), pick_device(device_name), threads or torch.get_num_threads()
    slots = slots or STEP_SLOTS[device.type]
    check_slots(slots, shape.top_k)
    wrong = [op.name for op in (SPARSE_ADAM, BAG_DOT) if not _right(op, device)]
    if wrong:
        raise WrongResults(*wrong)
    error = check_step(device)
    if not error <= _TOLERANCE:  # nan is wrong too
        raise WrongResults(f"the memory layer differs from float64 by {error:.1e}")
    common = row_settings(device, threads)
    rows: list[Row] = []
    for name in baseline_names(peers):
        for size in slots:
            progress(f"step: {name}, {size:,} slots")
            try:
                times = _measure(name, size, shape, device, threads, steps)
                rows += _rows(name, size, shape, common, times)
            except (torch.OutOfMemoryError, BrokenProcessPool):  # the system kills a process that takes too much
                progress(f"step: {name} at {size:,} slots skipped: does not fit in memory, or was killed")
    return rows


def _right(op: Op, device: torch.device) -> bool:
    error, limit = check_op(op, op.shapes[0], torch.float32, device)
    return error <= limit


def check_step(device: torch.device) -> float:
    """Worst relative error, against float64, of output and gradients of the layer and of its plain twin."""
    errors: list[Tensor] = []
    for kind in (MemoryLayer, PlainMemory):
        torch.manual_seed(0)
        exact = PlainMemory(32, 256, heads=2, top_k=8).double().to(device)
        tested = kind(32, 256, heads=2, top_k=8).to(device)
        tested.load_state_dict(exact.state_dict())
        exact.load_state_dict({name: value.double() for name, value in tested.state_dict().items()})
        # a draw whose scores have no near-ties, which float32 might rank otherwise
        x = torch.randn(64, 32, generator=torch.Generator().manual_seed(152)).to(device)
        for own, true in zip(_outcome(tested, x), _outcome(exact, x.double()), strict=True):
            errors.append((own.double() - true).abs().max() / true.abs().max())
    return float(torch.stack(errors).max())  # nan if any is


def _outcome(layer: torch.nn.Module, x: Tensor) -> list[Tensor]:
    y = layer(x)
    weights = torch.linspace(-1, 1, y.numel(), device=y.device, dtype=y.dtype).view(y.shape)
    gradients = torch.autograd.grad((y * weights).sum(), list(layer.parameters()))
    return [y.detach(), *gradients]


def _measure(name: str, slots: int, shape: StepShape, device: torch.device, threads: int, steps: int) -> StepTimes:
    """In this process on CUDA, which counts its own memory; else in one of its own."""
    if device.type != "cuda":
        return in_own_process(measure, name, slots, shape, str(device), threads, steps, preload=[__name__])
    torch.cuda.empty_cache()
    with PeakMemory(device) as memory:
        times = measure(name, slots, shape, str(device), threads, steps)
    return replace(times, peak_bytes=memory.bytes or 0)


def measure(name: str, slots: int, shape: StepShape, device: str, threads: int, steps: int) -> StepTimes:
    """Time `steps` training steps of one baseline, each on new tokens, after a few that are not counted."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    place = torch.device(device)
    with place:  # tables are drawn where they stay
        baseline = BASELINES[name](shape, slots, place)

    def step(number: int, mark: Mark) -> None:
        x = torch.randn(shape.tokens, shape.width).to(place).requires_grad_()
        target = torch.randn(shape.tokens, shape.width).to(place)
        mark()
        y = baseline.layer(x)
        mark()
        y.backward(target)
        mark()
        baseline.update()
        mark()

    [moments] = time_steps([step], steps, place)
    peak = 0 if place.type == "cuda" else process_peak()
    return StepTimes(between(moments, 0, 1), between(moments, 0, 2), between(moments, 0, 3), peak)


def _rows(name: str, slots: int, shape: StepShape, common: dict[str, Any], times: StepTimes) -> list[Row]:
    settings: dict[str, Any] = common | dict(
        experiment="bench-step",
        kind=name,
        model="float32",
        dataset=f"step tokens={shape.tokens} width={shape.width} heads={shape.heads} top_k={shape.top_k}",
        memory_slots=slots,
    )
    rows = []
    for metric, seconds in (
        ("forward_ms", times.forward),
        ("forward_backward_ms", times.backward),
        ("step_ms", times.step),
    ):
        rows.append(Row(**settings, metric=metric, **timing(seconds).milliseconds()))
    rows.append(Row(**settings, metric="peak_memory_gb", value=times.peak_bytes / 1e9, n=1))
    return rows


def _slots(config: BenchConfig, device: torch.device) -> Sequence[int]:
    """The table sizes: of those that suit the device the ends alone if everything is measured."""
    usual = STEP_SLOTS[device.type]
    return config.slots or (usual if config.names else (usual[0], usual[-1]))


def _check(config: BenchConfig, device: torch.device) -> None:
    check_slots(_slots(config, device), step_shape(config.shapes).top_k)


def _run(names: Sequence[str], config: BenchConfig, device: torch.device, progress: Progress) -> list[list[Row]]:
    where: Any = dict(device_name=config.device, threads=config.threads, shape=step_shape(config.shapes))
    rows = bench_step(_slots(config, device), peers=config.peers, steps=config.steps, progress=progress, **where)
    return [rows]


BENCHMARK = Benchmark("step", "a memory layer's training step by table size", _run, "bench-step", _check)
