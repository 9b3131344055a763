"""Value tables in host memory: the slots of a lookup -> its rows on the device, and what trains them back to the host.

T tokens, K slots each, U rows that they name, of width D. The device tells the rows apart; a thread of the table's own
gathers and copies them (`staging.py`). What is computed meanwhile is up to whoever waits: see `giving_way`. Gradients
stay factored, so T*(2*K + D) numbers go back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ...errors import MemxError
from ...kernels.embedding_bag.gradient import BagGradient
from ...kernels.embedding_bag.sums import dot_products, weighted_sums
from .staging import Spent, Staging, distinct, to_pinned

if TYPE_CHECKING:
    from ..product_keys import MemoryValues

_give_way: ContextVar[Callable[[], object] | None] = ContextVar("give_way", default=None)


@contextmanager
def giving_way(call: Callable[[], object]) -> Iterator[None]:
    """Have every lookup of this thread call `call` once its rows are under way, before it waits for them."""
    token = _give_way.set(call)
    try:
        yield
    finally:
        _give_way.reset(token)


class HostRows:
    """Reads rows of a table in host memory for one device. `spent` counts what that took. A copy starts anew."""

    def __init__(self) -> None:
        self.spent = Spent()
        self._thread: ThreadPoolExecutor | None = None
        self._staging: Staging | None = None
        self._leaving: list[Any] = []  # events: copies to the host that may not have ended

    def __reduce__(self) -> tuple[type[HostRows], tuple[()]]:
        return HostRows, ()

    def read(self, values: Tensor, slots: Tensor) -> tuple[Tensor, Tensor]:
        """The rows [U, D] of values [N, D], on the device of slots [...], and the place of each slot's row, [...].

        Raises IndexError for a slot that is not there.
        """
        began = perf_counter()
        rows, places = distinct(slots)
        known = None
        if slots.is_cuda:
            rows, known = to_pinned(rows), torch.cuda.current_stream(slots.device).record_event()
        self.spent.unique += perf_counter() - began
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "memx-rows")
        coming = self._thread.submit(self._bring, values.detach(), rows, known, slots.device)
        if (give_way := _give_way.get()) is not None:
            give_way()
        began = perf_counter()
        found, copied = coming.result()
        self.spent.waited += perf_counter() - began
        if copied is not None:
            stream = torch.cuda.current_stream(slots.device)
            stream.wait_event(copied)
            found.record_stream(stream)
        return found, places

    def _bring(self, values: Tensor, rows: Tensor, known: Any, device: torch.device) -> tuple[Tensor, Any]:
        if known is not None:
            known.synchronize()
        count, spent = int(rows[-1]), self.spent
        spent.count(len(rows) - 1, count, count * values.shape[1] * values.itemsize)
        if self._staging is None or not self._staging.suits(values, device):
            self._staging = Staging(values, device)
        return self._staging.bring(values, rows[:count], spent)

    def sink(self, sink: list[BagGradient]) -> Any:
        """What appends to `sink` what it gets, on its way to the host; `arrive` waits for it."""
        return _Sink(self, sink)

    def send(self, part: BagGradient) -> BagGradient:
        """Start to copy a gradient to the host."""
        if not part.dout.is_cuda:
            return part
        bags = None if part.bags is None else to_pinned(part.bags)
        sent = BagGradient(to_pinned(part.slots), to_pinned(part.weights), to_pinned(part.dout), bags)
        self._leaving.append(torch.cuda.current_stream(part.dout.device).record_event())
        return sent

    def arrive(self) -> None:
        """Wait until all that was sent to the host is there."""
        for event in self._leaving:
            event.synchronize()
        self._leaving.clear()


@dataclass
class _Sink:
    """A list of gradients that are where the table is, or on their way there."""

    host: HostRows
    parts: list[BagGradient]

    def append(self, part: BagGradient) -> None:
        self.parts.append(self.host.send(part))


def host_bag(table: MemoryValues, slots: Tensor, weights: Tensor) -> Tensor:
    """`MemoryValues.bag` of a table in host memory. Raises MemxError if it is to be trained by a dense step."""
    host, values, sink, shard = table.host, table.weight, table.sink, table.shard
    assert host is not None
    if sink is None and values.requires_grad and torch.is_grad_enabled():
        raise MemxError(
            "a value table in host memory has no dense gradient",
            hint="set training.value_optimizer=sparse, or parallel.host_values=false",
        )
    kept = None if sink is None else host.sink(sink)
    if shard is not None and shard.size > 1:
        from .table_shards import sharded_bag

        return sharded_bag(values, slots, weights, shard, kept, host.read)
    return _HostBag.apply(values, *host.read(values, slots), slots, weights, kept)


class _HostBag(torch.autograd.Function):
    """A bag of rows [U, D] that stand for some of a table's: values only says whether those are trained."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, rows: Tensor, places: Tensor, slots: Tensor, weights: Tensor, sink: _Sink | None
    ) -> Tensor:
        ctx.sink = sink
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
            ctx.sink.append(BagGradient(slots, weights, dout).detached())
        return None, None, None, None, dweights, None


def keep_on_host(model: nn.Module) -> list[MemoryValues]:
    """Keep the value tables of a model in host memory, wherever the rest of it moves; returns them.

    To be called before the model moves to its device. Raises MemxError for a model without value tables, or with PEER,
    which does not read its tables by bags alone.
    """
    from ..peer import PeerLayer
    from ..product_keys import MemoryValues

    if any(isinstance(module, PeerLayer) for module in model.modules()):
        raise MemxError("PEER's tables cannot be kept in host memory", hint="set parallel.host_values=false")
    tables = [module for module in model.modules() if isinstance(module, MemoryValues)]
    if not tables:
        raise MemxError("there is no value table to keep in host memory", hint="set parallel.host_values=false")
    for table in tables:
        table.keep_on_host()
    return tables
