"""What a value table in host memory costs: training steps of a small stack, the table here or there -> times by part.

A step runs several micro-batches through feed-forwards and memory layers that read one table. The table is on the
device, or in host memory with micro-batches one after another or some ahead (`run_overlapped`). All placements begin
with the same weights and tokens and take turns, step by step, so that what else the machine does falls on all alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ....memory_layers.layer import MemoryLayer
from ....memory_layers.llama import keep_on_host
from ....memory_layers.tables.staging import ReadStats
from ....memory_layers.tables.values import MemoryValues
from ....results.store.rows import Row
from ...config.training import TrainingConfig
from ...optim.optimizer import Optimizer
from ...runtime.devices import pick_device
from ...runtime.malloc import keep_freed_memory
from ...training.micro_batches import run_overlapped
from ..benchmark import BenchConfig, Benchmark, Progress, WrongResults
from ..environment import row_settings
from ..ops.shapes import sized, written
from ..timing import PeakMemory, timing
from .step_loop import WARM_UP, Mark, between, check_slots, time_steps

HOST_SLOTS = {"cpu": (2**14, 2**18, 2**20), "cuda": (2**18, 2**20, 2**22)}
_PLACEMENTS: dict[str, int | None] = {
    "on the device": None,
    "host, one by one": 0,
    "host, 1 ahead": 1,
    "host, 2 ahead": 2,
}


@dataclass(frozen=True)
class HostShape:
    """tokens of each of the parts (micro-batches) of a step; layers, each a feed-forward of width `hidden` and a memory
    of `heads` heads that keep top_k slots; model width; key_width d_k (both halves)."""

    tokens: int = 512
    parts: int = 4
    layers: int = 2
    width: int = 256
    hidden: int = 1024
    heads: int = 4
    top_k: int = 16
    key_width: int = 128


LARGE = HostShape(tokens=8192, parts=4, layers=3, width=1024, hidden=4096, top_k=32, key_width=512)


def host_shape(texts: Sequence[str], device: torch.device) -> HostShape:
    """The shape that suits the device, or the small or large one, with the entries that `--shapes` changes."""
    return sized(HostShape(), LARGE, texts, device, "offload")


def bench_host(
    slots: Sequence[int] = (),
    *,
    device_name: str = "auto",
    threads: int | None = None,
    steps: int = 7,
    shape: HostShape | None = None,
    progress: Progress = lambda text: None,
) -> list[Row]:
    """Measure every placement at every size. Raises WrongResults if one computes other losses than the first."""
    device, threads = pick_device(device_name), threads or torch.get_num_threads()
    shape = shape or host_shape((), device)
    slots = slots or HOST_SLOTS[device.type]
    check_slots(slots, shape.top_k)
    if device.type == "cpu":
        keep_freed_memory()
    common = row_settings(device, threads) | {"experiment": "bench-host", "model": "float32"}
    rows: list[Row] = []
    for size in slots:
        runs = _runs(size, shape, device, progress)
        progress(f"offload, {size:,} slots: timing {', '.join(run.placement for run in runs)}")
        for run, moments in zip(runs, time_steps([run.step for run in runs], steps, device), strict=True):
            run.times.step, run.times.update = between(moments, 0, 2), between(moments, 1, 2)
        wrong = _wrong(runs, device)
        if wrong:
            raise WrongResults(*(f"host {size:,} slots: {placement}" for placement in wrong))
        for run in runs:
            rows += run.rows(dict(common, dataset=f"host {written(asdict(shape))}", memory_slots=size))
    return rows


def _runs(size: int, shape: HostShape, device: torch.device, progress: Progress) -> list[_Run]:
    """Every placement that fits in memory."""
    runs = []
    for placement, ahead in _PLACEMENTS.items():
        try:
            runs.append(_Run(placement, ahead, size, shape, device))
        except torch.OutOfMemoryError:
            progress(f"offload, {size:,} slots: {placement} skipped: does not fit in GPU memory")
    return runs


def _tokens(shape: HostShape, step: int) -> Tensor:
    return torch.randn(shape.parts, shape.tokens, shape.width, generator=torch.Generator().manual_seed(step))


def _wrong(runs: Sequence[_Run], device: torch.device) -> list[str]:
    """Placements whose losses are not, to the bit, those of the first: of all steps; of the first step where the
    device rounds the optimiser's otherwise than the host."""
    until = None if device.type == "cpu" else 1
    return [run.placement for run in runs[1:] if run.losses[:until] != runs[0].losses[:until]]


class _Stack(nn.Module):
    def __init__(self, shape: HostShape, slots: int) -> None:
        super().__init__()
        values = MemoryValues(slots, shape.width)
        settings: dict[str, Any] = dict(heads=shape.heads, top_k=shape.top_k, key_width=shape.key_width)
        memories = [MemoryLayer(shape.width, slots, values=values, **settings) for _ in range(shape.layers)]
        self.values, self.memories = values, nn.ModuleList(memories)
        self.feed_forwards = nn.ModuleList(
            nn.Sequential(nn.Linear(shape.width, shape.hidden), nn.SiLU(), nn.Linear(shape.hidden, shape.width))
            for _ in memories
        )

    def forward(self, x: Tensor) -> Tensor:
        for feed_forward, memory in zip(self.feed_forwards, self.memories, strict=True):
            x = x + feed_forward(x)
            x = x + memory(x)
        return x


@dataclass
class _Times:
    """Seconds of each step [n]: all of it, its optimiser, and the parts that lookups of a table in host memory have."""

    step: list[float] = field(default_factory=list)
    update: list[float] = field(default_factory=list)
    unique: list[float] = field(default_factory=list)
    gather: list[float] = field(default_factory=list)
    copy: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)


class _Run:
    """A stack and its optimiser, with its table in one place."""

    def __init__(self, placement: str, ahead: int | None, slots: int, shape: HostShape, device: torch.device) -> None:
        self.placement, self.ahead, self.shape, self.device = placement, ahead, shape, device
        self.times, self.losses, self.spent = _Times(), list[list[float]](), ReadStats()
        self.peaks: list[int] = []
        torch.manual_seed(0)
        before = _allocated(device)
        self.stack = _Stack(shape, slots)
        if ahead is not None:
            keep_on_host(self.stack)
        self.stack.to(device)
        config = TrainingConfig(lr=1e-3, value_lr=1e-3, warmup=0, value_optimizer="sparse")
        self.optimizer = Optimizer(self.stack, config)
        self.allocated = _allocated(device) - before

    def step(self, number: int, mark: Mark) -> None:
        """Train one step on its tokens, and keep what its lookups took unless it warms up."""
        losses: list[Tensor] = []

        def backward(loss: Tensor) -> None:
            loss.backward()
            losses.append(loss.detach())

        host = self.stack.values.host
        if host is not None:
            host.stats = ReadStats()
        parts = [*_tokens(self.shape, number).to(self.device)]
        # a CPU's peak is not counted: that would give freed memory back, and the next step would take it anew
        with PeakMemory(self.device) if self.device.type == "cuda" else nullcontext() as memory:
            mark()
            run_overlapped(parts, lambda x: self.stack(x).square().mean(), backward, ahead=self.ahead or 0)
            mark()
            self.optimizer.step(number)
            mark()
        self.losses.append([float(loss) for loss in losses])
        if number < WARM_UP:
            return
        if memory is not None and memory.bytes is not None:
            self.peaks.append(memory.bytes)
        if host is not None:
            self.spent = host.stats
            for part in ("unique", "gather", "copy", "waited"):
                getattr(self.times, part).append(getattr(host.stats, part))

    def rows(self, settings: dict[str, Any]) -> list[Row]:
        """Rows of every part of a step, of the rows and bytes that its lookups read, and of memory on CUDA."""
        row: Callable[..., Row] = partial(Row, **settings, kind=self.placement)
        rows = []
        for part in fields(self.times):
            if seconds := getattr(self.times, part.name):
                rows.append(row(metric=f"{part.name}_ms", **timing(seconds).milliseconds()))
        if self.ahead is not None:
            rows.append(row(metric="slots_read", value=self.spent.slots, n=1))
            rows.append(row(metric="rows_read", value=self.spent.rows, n=1))
            rows.append(row(metric="copied_mb", value=self.spent.bytes / 1e6, n=1))
        if self.peaks:
            rows.append(row(metric="device_gb", value=(self.allocated + max(self.peaks)) / 1e9, n=len(self.peaks)))
        return rows


def _allocated(device: torch.device) -> int:
    """Bytes of a GPU's memory that are in use; 0 on a CPU."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def _check(config: BenchConfig, device: torch.device) -> None:
    check_slots(config.slots or HOST_SLOTS[device.type], host_shape(config.shapes, device).top_k)


def _measure(names: Sequence[str], config: BenchConfig, device: torch.device, progress: Progress) -> list[list[Row]]:
    where: Any = dict(device_name=config.device, threads=config.threads, shape=host_shape(config.shapes, device))
    return [bench_host(config.slots, steps=config.steps, progress=progress, **where)]


BENCHMARK = Benchmark(
    "offload",
    "a training step with the table in CPU memory, micro-batches one by one or overlapped; not in the default set",
    _measure,
    "bench-host",
    _check,
    by_default=False,
)
