"""What benchmarks measure with: a call on a device -> its median time, and the memory that it takes at its peak.

On CUDA the L2 cache is overwritten before every timed call and events take the time; on a CPU caches stay as they are.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple, TypeVar

import torch

from ..runtime.devices import peak_bytes

T = TypeVar("T")
_FEWEST, _MOST = 5, 200  # timed calls
# bytes written between calls, at least: that takes so long that the next call's launches are queued by its end
_FLUSH = 512 * 2**20


class Timing(NamedTuple):
    """Seconds of one call: median and the 20th and 80th percentile of n calls."""

    seconds: float
    low: float
    high: float
    n: int

    def milliseconds(self) -> dict[str, Any]:
        """The fields of a row whose value is the time."""
        return dict(value=1e3 * self.seconds, low=1e3 * self.low, high=1e3 * self.high, n=self.n)

    def rates(self, work: float) -> dict[str, Any]:
        """The fields of a row whose value is so much work a second; the longest time is the lowest rate."""
        return dict(value=work / self.seconds, low=work / self.high, high=work / self.low, n=self.n)


def timing(times: Sequence[float]) -> Timing:
    """The median and the spread of a list of seconds."""
    fifths = quantiles(times, n=5) if len(times) > 1 else [times[0]] * 4
    return Timing(median(times), fifths[0], fifths[-1], len(times))


def now(device: torch.device) -> float:
    """The time in seconds, once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def in_own_process(work: Callable[..., T], *arguments: Any, preload: Sequence[str]) -> T:
    """Call a function in a process of its own, so that the memory at its peak is its own.

    Args:
        work: A function of a module, with arguments and a result that can be pickled.
        arguments: What it gets.
        preload: Modules that the process has imported when it is forked; it has done nothing else.

    Raises:
        BrokenProcessPool: If the process was killed, as the system does with one that takes too much memory.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    with ProcessPoolExecutor(1, mp_context=context) as pool:  # unlike a Pool, it notices a child that was killed
        return pool.submit(work, *arguments).result()


class Stopwatch:
    """Times calls on one device for about `seconds` each, at least five of them, one warm-up first."""

    def __init__(self, device: torch.device, seconds: float) -> None:
        self.device, self.seconds = device, seconds
        self.flush: torch.Tensor | None = None
        if device.type == "cuda":
            cache = torch.cuda.get_device_properties(device).L2_cache_size
            self.flush = torch.empty(max(4 * cache, _FLUSH), dtype=torch.uint8, device=device)

    def time(self, call: Callable[[], object]) -> Timing:
        """Time a call."""
        call()
        return timing(self._on_cuda(call) if self.device.type == "cuda" else self._on_cpu(call))

    def _on_cpu(self, call: Callable[[], object]) -> list[float]:
        times: list[float] = []
        began = time.perf_counter()
        while len(times) < _FEWEST or time.perf_counter() < began + self.seconds:
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
            if len(times) >= _MOST or (len(times) > 2 and time.perf_counter() > began + 4 * self.seconds):
                break  # three calls are enough of a slow one
        return times

    def _on_cuda(self, call: Callable[[], object]) -> list[float]:
        torch.cuda.synchronize(self.device)
        start = time.perf_counter()
        self._events(call, 2)
        each = (time.perf_counter() - start) / 2
        return self._events(call, min(_MOST, max(_FEWEST, int(self.seconds / each))))

    def _events(self, call: Callable[[], object], n: int) -> list[float]:
        assert self.flush is not None
        pairs = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(n)]
        for start, end in pairs:
            self.flush.zero_()
            start.record()
            call()
            end.record()
        torch.cuda.synchronize(self.device)
        return [start.elapsed_time(end) / 1e3 for start, end in pairs]


class PeakMemory:
    """Watches the bytes that a block takes at its peak, beyond those held before; None where nobody counts them.

    On CUDA torch's allocator counts; on Linux the kernel counts the whole process, and is told to begin anew.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.bytes: int | None = None

    def __enter__(self) -> PeakMemory:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self.before: int | None = torch.cuda.memory_allocated(self.device)
        else:
            self.before = _status("VmRSS") if _begin_anew() else None
        return self

    def __exit__(self, *error: object) -> None:
        if self.before is None:
            return
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            self.bytes = torch.cuda.max_memory_allocated(self.device) - self.before
        else:
            self.bytes = max(0, _status("VmHWM") - self.before)


def process_peak() -> int:
    """Bytes that this process held at its highest."""
    if peak := _status("VmHWM"):  # ru_maxrss of a new process begins at what its parent held
        return peak
    return peak_bytes(torch.device("cpu"))


def _begin_anew() -> bool:
    """Give freed memory back and set the process's peak to what it holds now; whether that could be done."""
    if not sys.platform.startswith("linux"):
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return _status("VmRSS") > 0


def _status(name: str) -> int:
    """Bytes of an entry of /proc/self/status; 0 if it is not there."""
    status = Path("/proc/self/status")
    numbers = status.read_text().partition(f"{name}:")[2].split() if status.is_file() else []
    return int(numbers[0]) * 1024 if numbers else 0
