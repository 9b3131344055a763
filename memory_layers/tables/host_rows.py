"""Value tables in host memory: the slots of a lookup -> its rows on the device, and what trains them back to the host.

T tokens, K slots each, U distinct rows that they name, of width D. The device finds the distinct rows; a thread of the
table's own gathers and copies them (`staging.py`). Meanwhile the thread that computes may run another micro-batch: see
`before_waiting`. Gradients stay factored, so T*(2*K + D) numbers go back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...errors import MemxError
from ...kernels.embedding_bag.gradient import BagGradient
from ...kernels.embedding_bag.sums import dot_products, weighted_sums
from .staging import ReadStats, Staging, distinct, to_pinned
from .table_shards import TableShard, sharded_bag

_before_wait: ContextVar[Callable[[], object] | None] = ContextVar("before_wait", default=None)


@contextmanager
def before_waiting(call: Callable[[], object]) -> Iterator[None]:
    """Have every lookup of this thread run `call` once its rows are under way, before it waits for them.

    A context variable, as the loop that interleaves micro-batches does not call the memory layers itself: a model that
    transformers wrote is between them.
    """
    token = _before_wait.set(call)
    try:
        yield
    finally:
        _before_wait.reset(token)


@dataclass
class PendingRows:
    """Rows of a lookup on their way from host memory.

    Attributes:
        coming: What the thread of the table brings: rows on the device, and an event of when they are there.
        places: The place of each slot's row among them.
        device: Where they go.
    """

    coming: Future[tuple[Tensor, Any]]
    places: Tensor
    device: torch.device


class HostRows:
    """Reads rows of a table in host memory for one device. `stats` counts what that takes. A copy starts anew."""

    def __init__(self) -> None:
        self.stats = ReadStats()
        self._thread: ThreadPoolExecutor | None = None
        self._staging: Staging | None = None
        self._leaving: list[Any] = []  # events: copies to the host that may not have ended

    def __reduce__(self) -> tuple[type[HostRows], tuple[()]]:
        return HostRows, ()

    def read(self, values: Tensor, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Read the rows that slots name.

        Args:
            values: The table [N, D] on the CPU.
            slots: [...] on any device, which may differ from one call to the next.

        Returns:
            The distinct rows [U, D] on the device of the slots, and the place of each slot's row among them, [...].

        Raises:
            IndexError: A slot that is not there.
        """
        pending = self.start(values, slots)
        if (run := _before_wait.get()) is not None:
            run()
        return self.finish(pending)

    def start(self, values: Tensor, slots: Tensor) -> PendingRows:
        """Start to read the rows that slots name; the arguments are those of `read`."""
        began = perf_counter()
        rows, places = distinct(slots)
        known = None
        if slots.is_cuda:
            rows, known = to_pinned(rows), torch.cuda.current_stream(slots.device).record_event()
        self.stats.unique += perf_counter() - began
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "memx-rows")
        coming = self._thread.submit(self._bring, values.detach(), rows, known, slots.device)
        return PendingRows(coming, places, slots.device)

    def finish(self, pending: PendingRows) -> tuple[Tensor, Tensor]:
        """Wait for rows that `start` asked for; returns what `read` does."""
        began = perf_counter()
        row_values, copied = pending.coming.result()
        self.stats.waited += perf_counter() - began
        if copied is not None:
            stream = torch.cuda.current_stream(pending.device)
            stream.wait_event(copied)
            # copied on the staging's stream, used on this one: the allocator must not give its memory away before
            row_values.record_stream(stream)
        return row_values, pending.places

    def _bring(self, values: Tensor, rows: Tensor, known: Any, device: torch.device) -> tuple[Tensor, Any]:
        if known is not None:
            known.synchronize()
        count, stats = int(rows[-1]), self.stats
        stats.count(len(rows) - 1, count, count * values.shape[1] * values.itemsize)
        if self._staging is None or not self._staging.suits(values, device):
            self._staging = Staging(values, device)
        return self._staging.bring(values, rows[:count], stats)

    def send(self, part: BagGradient) -> BagGradient:
        """Start to copy a gradient to the host."""
        if not part.dout.is_cuda:
            return part
        bags = None if part.bags is None else to_pinned(part.bags)
        sent = BagGradient(to_pinned(part.slots), to_pinned(part.weights), to_pinned(part.dout), bags)
        self._leaving.append(torch.cuda.current_stream(part.dout.device).record_event())
        return sent

    def synchronize(self) -> None:
        """Wait until all that was sent to the host is there."""
        for event in self._leaving:
            event.synchronize()
        self._leaving.clear()


@dataclass
class _OffloadBuffer:
    """A gradient buffer whose entries are where the table is, or on their way there."""

    host: HostRows
    gradients: list[BagGradient]

    def append(self, gradient: BagGradient) -> None:
        """Add a gradient, which starts on its way to the host; `HostRows.synchronize` waits for it."""
        self.gradients.append(self.host.send(gradient))


def host_bag(
    host: HostRows,
    values: Tensor,
    slots: Tensor,
    weights: Tensor,
    gradient_buffer: list[BagGradient] | None,
    shard: TableShard | None,
    pending: PendingRows | None = None,
) -> Tensor:
    """Weighted sums of rows of a table in host memory.

    Args:
        host: What reads the rows.
        values: The table [N, D] on the CPU, or this rank's part of it.
        slots: Rows of the whole table [T, K] on the device.
        weights: Their weights [T, K] on the device.
        gradient_buffer: Gets the table's gradient in the backward pass.
        shard: Which part of the table `values` is; None: all of it.
        pending: These rows, if `HostRows.start` has asked for them already; of a whole table only.

    Returns:
        The sums [T, D] on the device.

    Raises:
        MemxError: The table is trained, and there is no gradient buffer.
    """
    if gradient_buffer is None and values.requires_grad and torch.is_grad_enabled():
        raise MemxError(
            "an offloaded value table (parallel.host_values) has no dense gradient",
            hint="set training.value_optimizer=sparse, or parallel.host_values=false",
        )
    buffer = None if gradient_buffer is None else _OffloadBuffer(host, gradient_buffer)
    if shard is not None and shard.size > 1:
        return sharded_bag(values, slots, weights, shard, buffer, host.read)
    read = host.read(values, slots) if pending is None else host.finish(pending)
    return _HostBag.apply(values, *read, slots, weights, buffer)


class _HostBag(torch.autograd.Function):
    """A bag of rows [U, D] that stand for some of a table's: values only says whether those are trained."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, rows: Tensor, places: Tensor, slots: Tensor, weights: Tensor, buffer: Any
    ) -> Tensor:
        ctx.buffer = buffer
        ctx.save_for_backward(rows, places, slots, weights)
        return weighted_sums(rows, places, weights)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return once_differentiable(_HostBag._backward)(ctx, *grad_outputs)

    @staticmethod
    def _backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        rows, places, slots, weights = ctx.saved_tensors
        dweights = dot_products(dout, rows, places).to(weights.dtype) if ctx.needs_input_grad[4] else None
        if ctx.needs_input_grad[0]:
            ctx.buffer.append(BagGradient(slots, weights, dout).detached())
        return None, None, None, None, dweights, None
