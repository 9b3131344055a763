"""The cost of one training step by table size: layer and optimiser, memx's and its rivals -> times and peak memory.

On a CPU each contestant and size runs in a process of its own, so that the peak memory is its own. Every contestant
with memx's equations is first held against them in float64.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ....errors import MemxError
from ....kernels.bag_dot import OP as BAG_DOT
from ....kernels.op import Op
from ....kernels.sparse_adam import OP as SPARSE_ADAM
from ....memory_layers.layer import MemoryLayer
from ....memory_layers.slots import half_keys
from ....results.store.rows import Row
from ...runtime.devices import pick_device
from ..environment import row_settings
from ..ops.correctness import check_op
from ..ops.shapes import changes
from ..timing import PeakMemory, timing
from .layer_baselines import CONTESTANTS, PlainMemory, StepShape, baselines

STEP_SLOTS = {"cpu": (2**12, 2**16, 2**18), "cuda": (2**14, 2**20, 2**24)}
_WARM = 2
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
    shape = asdict(StepShape())
    return StepShape(**(shape | dict(changes(texts, shape, "step"))))


def check_slots(slots: Sequence[int], shape: StepShape) -> None:
    """Raise MemxError for table sizes that no product keys have, or that hold fewer slots than a head keeps."""
    for size in slots:
        if half_keys(size) < shape.top_k:
            raise MemxError(f"--slots {size}: fewer than {shape.top_k} half-keys", hint=f"use {shape.top_k**2} or more")


def bench_step(
    slots: Sequence[int] = (),
    *,
    peers: bool = False,
    device_name: str = "auto",
    threads: int | None = None,
    steps: int = 7,
    shape: StepShape | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Measure every contestant at every size, by default those that suit the device.

    Raises RuntimeError if memx's layer is wrong, before any time is told.
    """
    shape, device, threads = shape or StepShape(), pick_device(device_name), threads or torch.get_num_threads()
    slots = slots or STEP_SLOTS[device.type]
    check_slots(slots, shape)
    wrong = [op.name for op in (SPARSE_ADAM, BAG_DOT) if not _right(op, device)]
    if wrong:
        raise RuntimeError(f"wrong results: {', '.join(wrong)}")
    error = check_step(device)
    if not error <= _TOLERANCE:  # nan is wrong too
        raise RuntimeError(f"wrong results: the memory layer is off by {error:.1e} of float64")
    common = row_settings(device, threads)
    rows: list[Row] = []
    for name in baselines(peers):
        for size in slots:
            tell(f"step: {name}, {size:,} slots")
            given = (name, size, shape, device, threads, steps)
            try:
                rows += _rows(name, size, shape, common, (_here if device.type == "cuda" else _in_a_process)(*given))
            except (torch.OutOfMemoryError, BrokenProcessPool):  # the system kills a process that takes too much
                tell(f"step: {name} at {size:,} slots is left out: it does not fit in memory, or was killed")
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
        x = torch.randn(64, 32, generator=torch.Generator().manual_seed(1)).to(device)
        for own, true in zip(_outcome(tested, x), _outcome(exact, x.double()), strict=True):
            errors.append((own.double() - true).abs().max() / true.abs().max())
    return float(torch.stack(errors).max())  # nan if any is


def _outcome(layer: torch.nn.Module, x: Tensor) -> list[Tensor]:
    y = layer(x)
    weights = torch.linspace(-1, 1, y.numel(), device=y.device, dtype=y.dtype).view(y.shape)
    gradients = torch.autograd.grad((y * weights).sum(), list(layer.parameters()))
    return [y.detach(), *gradients]


def _in_a_process(name: str, slots: int, shape: StepShape, device: torch.device, threads: int, steps: int) -> StepTimes:
    """Measure in a process of its own, forked from one that has imported torch and done nothing else."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, mp_context=context) as pool:  # unlike a Pool, it notices a child that was killed
        return pool.submit(measure, name, slots, shape, str(device), threads, steps).result()


def _here(name: str, slots: int, shape: StepShape, device: torch.device, threads: int, steps: int) -> StepTimes:
    """Measure in this process, for CUDA, which counts its own memory."""
    torch.cuda.empty_cache()
    with PeakMemory(device) as memory:
        times = measure(name, slots, shape, str(device), threads, steps)
    return replace(times, peak_bytes=memory.bytes or 0)


def measure(name: str, slots: int, shape: StepShape, device: str, threads: int, steps: int) -> StepTimes:
    """Time `steps` training steps of one contestant, each on new tokens, after a few that are not counted."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    place = torch.device(device)
    with place:  # tables are drawn where they stay
        contestant = CONTESTANTS[name](shape, slots, place)
    forward, backward, whole = [], [], []
    for _ in range(_WARM + steps):
        x = torch.randn(shape.tokens, shape.width).to(place).requires_grad_()
        target = torch.randn(shape.tokens, shape.width).to(place)
        times = [_now(place)]
        y = contestant.layer(x)
        times.append(_now(place))
        y.backward(target)
        times.append(_now(place))
        contestant.update()
        times.append(_now(place))
        for kept, end in zip((forward, backward, whole), times[1:], strict=True):
            kept.append(end - times[0])
    return StepTimes(forward[_WARM:], backward[_WARM:], whole[_WARM:], _peak(place))


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _peak(device: torch.device) -> int:
    """Bytes of the whole process at their highest; on CUDA whoever calls counts those of the device."""
    if device.type == "cuda":
        return 0
    status = Path("/proc/self/status")
    own = status.read_text().partition("VmHWM:")[2].split() if status.is_file() else []
    if own:  # ru_maxrss of a new process begins at what its parent held
        return int(own[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _rows(name: str, slots: int, shape: StepShape, common: dict[str, Any], times: StepTimes) -> list[Row]:
    settings: dict[str, Any] = common | dict(
        experiment="bench-step",
        kind=name,
        model="float32",
        dataset=f"step tokens={shape.tokens} width={shape.width} heads={shape.heads} top_k={shape.top_k}",
        memory_slots=slots,
    )
    rows = []
    for metric, found in (
        ("forward_ms", times.forward),
        ("forward_backward_ms", times.backward),
        ("step_ms", times.step),
    ):
        value, low, high = (1e3 * seconds for seconds in timing(found)[:3])
        rows.append(Row(**settings, metric=metric, value=value, low=low, high=high, n=len(found)))
    rows.append(Row(**settings, metric="peak_memory_gb", value=times.peak_bytes / 1e9, n=1))
    return rows
