"""What a value table in host memory costs: training steps of a small stack, the table here or there -> times by part.

A step runs several micro-batches through feed-forwards and memory layers that read one table. The table is on the
device, or in host memory with micro-batches one after another or some ahead (`ahead.py`). All ways begin with the same
weights and tokens and take turns, step by step, so that what else the machine does falls on all alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ....errors import MemxError
from ....memory_layers.layer import MemoryLayer
from ....memory_layers.llama import keep_on_host
from ....memory_layers.slots import half_keys
from ....memory_layers.tables.staging import ReadStats
from ....memory_layers.tables.values import MemoryValues
from ....results.store.rows import Row
from ...config.training import TrainingConfig
from ...optim.optimizer import Optimizer
from ...runtime.devices import pick_device
from ...runtime.malloc import keep_freed_memory
from ...training.micro_batches import run_overlapped
from ..environment import row_settings
from ..ops.shapes import changes, written
from ..timing import timing

HOST_SLOTS = {"cpu": (2**14, 2**18, 2**20), "cuda": (2**18, 2**20, 2**22)}
_WAYS: dict[str, int | None] = {"on the device": None, "host, one by one": 0, "host, 1 ahead": 1, "host, 2 ahead": 2}
_WARM = 2


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
    large = "large" in texts or (device.type == "cuda" and "small" not in texts)
    shape = asdict(LARGE if large else HostShape())
    return HostShape(**(shape | dict(changes(texts, shape, "host"))))


def check_host(slots: Sequence[int], shape: HostShape) -> None:
    """Raise MemxError for table sizes that no product keys have, or that hold fewer slots than a head keeps."""
    for size in slots:
        if half_keys(size) < shape.top_k:
            raise MemxError(f"--slots {size}: fewer than {shape.top_k} half-keys", hint=f"use {shape.top_k**2} or more")


def bench_host(
    slots: Sequence[int] = (),
    *,
    device_name: str = "auto",
    threads: int | None = None,
    steps: int = 7,
    shape: HostShape | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Measure every way at every size. Raises RuntimeError if a way computes other losses than the first."""
    device, threads = pick_device(device_name), threads or torch.get_num_threads()
    shape = shape or host_shape((), device)
    slots = slots or HOST_SLOTS[device.type]
    check_host(slots, shape)
    if device.type == "cpu":
        keep_freed_memory()
    common = row_settings(device, threads) | {"experiment": "bench-host", "model": "float32"}
    rows: list[Row] = []
    for size in slots:
        runs = _runs(size, shape, device, tell)
        tell(f"host: {', '.join(run.way for run in runs)}; {size:,} slots")
        for step in range(_WARM + steps):
            given = _tokens(shape, step)
            for run in runs:
                run.step(step, given)
        wrong = _wrong(runs, device)
        if wrong:
            raise RuntimeError(f"wrong results: {', '.join(f'host {size:,} slots: {way}' for way in wrong)}")
        for run in runs:
            rows += run.rows(dict(common, dataset=f"host {written(asdict(shape))}", memory_slots=size))
    return rows


def _runs(size: int, shape: HostShape, device: torch.device, tell: Callable[[str], None]) -> list[_Run]:
    """Every way that fits in memory."""
    runs = []
    for way, ahead in _WAYS.items():
        try:
            runs.append(_Run(way, ahead, size, shape, device))
        except torch.OutOfMemoryError:
            tell(f"host: {way} at {size:,} slots is left out: it does not fit in the device's memory")
    return runs


def _tokens(shape: HostShape, step: int) -> Tensor:
    return torch.randn(shape.parts, shape.tokens, shape.width, generator=torch.Generator().manual_seed(step))


def _wrong(runs: Sequence[_Run], device: torch.device) -> list[str]:
    """Ways whose losses are not, to the bit, those of the first: of all steps; of the first where the device rounds the
    optimiser's otherwise than the host."""
    until = None if device.type == "cpu" else 1
    return [run.way for run in runs[1:] if run.losses[:until] != runs[0].losses[:until]]


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
    """A stack and its optimiser, stepped in one way."""

    def __init__(self, way: str, ahead: int | None, slots: int, shape: HostShape, device: torch.device) -> None:
        self.way, self.ahead, self.device = way, ahead, device
        self.times, self.losses, self.spent = _Times(), list[list[float]](), ReadStats()
        self.peaks: list[int] = []
        torch.manual_seed(0)
        before = self._held()
        self.stack = _Stack(shape, slots)
        if ahead is not None:
            keep_on_host(self.stack)
        self.stack.to(device)
        config = TrainingConfig(lr=1e-3, value_lr=1e-3, warmup=0, value_optimizer="sparse")
        self.optimizer = Optimizer(self.stack, config)
        self.held = self._held() - before

    def step(self, number: int, given: Tensor) -> None:
        """Train one step on given [parts, T, d], and keep what it took unless it warms up."""
        losses: list[Tensor] = []

        def backward(loss: Tensor) -> None:
            loss.backward()
            losses.append(loss.detach())

        host = self.stack.values.host
        if host is not None:
            host.stats = ReadStats()
        parts = [*given.to(self.device)]
        before = self._held(anew=True)
        began = self._now()
        run_overlapped(parts, lambda x: self.stack(x).square().mean(), backward, ahead=self.ahead or 0)
        computed = self._now()
        self.optimizer.step(number)
        ended = self._now()
        self.losses.append([float(loss) for loss in losses])
        if number < _WARM:
            return
        self.peaks.append(self._peak() - before)
        self.times.step.append(ended - began)
        self.times.update.append(ended - computed)
        if host is not None:
            self.spent = host.stats
            for part in ("unique", "gather", "copy", "waited"):
                getattr(self.times, part).append(getattr(host.stats, part))

    def rows(self, settings: dict[str, Any]) -> list[Row]:
        """Rows of every part of a step, of the rows and bytes that its lookups read, and of memory on CUDA."""
        row: Callable[..., Row] = partial(Row, **settings, kind=self.way)
        found = []
        for name in (one.name for one in fields(self.times)):
            if seconds := getattr(self.times, name):
                value, low, high = (1e3 * second for second in timing(seconds)[:3])
                found.append(row(metric=f"{name}_ms", value=value, low=low, high=high, n=len(seconds)))
        if self.ahead is not None:
            found.append(row(metric="slots_read", value=self.spent.slots, n=1))
            found.append(row(metric="rows_read", value=self.spent.rows, n=1))
            found.append(row(metric="copied_mb", value=self.spent.bytes / 1e6, n=1))
        if self.device.type == "cuda":
            found.append(row(metric="device_gb", value=(self.held + max(self.peaks)) / 1e9, n=len(self.peaks)))
        return found

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _held(self, *, anew: bool = False) -> int:
        """Bytes of the device's memory that are in use; 0 on a CPU. anew: their peak starts here."""
        if self.device.type != "cuda":
            return 0
        if anew:
            torch.cuda.reset_peak_memory_stats(self.device)
        return torch.cuda.memory_allocated(self.device)

    def _peak(self) -> int:
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0
