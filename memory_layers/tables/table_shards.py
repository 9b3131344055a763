"""A value table over the ranks of a group, by width or by rows: what each holds, and bags read from all of it.

G ranks, a table of N slots and width D; each rank looks up T tokens, as many as every other, of K slots.

    by width: D/G columns a rank                  by rows: N/G rows a rank
            rank 0   rank 1                               D
          +--------+--------+                     +-----------------+
        N | D/G    | D/G    |                 N/G | rank 0          |
          |        |        |                     +-----------------+
          +--------+--------+                 N/G | rank 1          |
                                                  +-----------------+
    1. gather slots and weights: [G*T, K]         1. sort lookups by owner, all-to-all: [R], R differs by rank
    2. sum own columns of all bags: [G*T, D/G]    2. sum own rows of all bags: [G*T, D]
    3. all-to-all: own bags [T, G * D/G]          3. all-to-all and sum the G parts: [T, D]

By width a sum is made where its column lies, in the order of one table, so that the output is that of one table to the
bit. By rows G times as much goes back, but any width will do. Backward runs the same way round. The gradient of a shard
is complete for the tokens of all ranks of its group, and stays factored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ...errors import MemxError
from ...kernels.embedding_bag.gradient import BagGradient
from ...kernels.embedding_bag.sums import dot_products, weighted_sums
from ...kernels.embedding_bag.sums import gather as read_rows
from .exchange import Group, gather, gather_uneven, sum_scatter, swap, swap_uneven


@dataclass(frozen=True)
class TableShard:
    """Which part of a table a rank holds.

    Args:
        by: Cut by columns ("width") or by rows ("rows").
        group: The ranks that hold the table together.
        rank: This rank's number in the group.
        size: G, the ranks of the group.
        slots: N, the rows of the whole table.
        width: D, its columns.
        copies: The ranks that hold the same part for other tokens, whose gradients are to be put together.

    Raises:
        MemxError: The width has no G equal parts, or some rank would have no rows.
    """

    by: Literal["width", "rows"]
    group: Group
    rank: int
    size: int
    slots: int
    width: int
    copies: Group = None

    def __post_init__(self) -> None:
        if self.by == "width" and self.width % self.size:
            raise MemxError(
                f"a value table of width {self.width} cannot be split evenly over parallel.table_ranks {self.size}",
                hint="set parallel.table_ranks to a divisor of the width, or parallel.table=rows",
            )
        if self.by == "rows" and self.rows_each * (self.size - 1) >= self.slots:
            raise MemxError(
                f"a value table of {self.slots} rows is too small for parallel.table_ranks {self.size}",
                hint="lower parallel.table_ranks",
            )

    @property
    def rows_each(self) -> int:
        """Rows of a rank, cut by rows; the last ranks may hold fewer."""
        return -(-self.slots // self.size)

    def part(self, table: Tensor) -> Tensor:
        """A view of this rank's part of a table [slots, width], or of what is kept for each row, [slots, ...]."""
        if self.by == "rows":
            return table[self.rank * self.rows_each : (self.rank + 1) * self.rows_each]
        columns = self.width // self.size
        return table[:, self.rank * columns : (self.rank + 1) * columns] if table.dim() > 1 else table

    def shape(self) -> tuple[int, int]:
        """Rows and columns of this rank's part."""
        part = self.part(torch.empty(self.slots, self.width, device="meta"))
        return part.shape[0], part.shape[1]


def of_all_copies(part: BagGradient, shard: TableShard) -> BagGradient:
    """Put the gradients of all ranks that hold the same part together, in the order of the ranks.

    Args:
        part: The gradient of one use of the part on this rank.
        shard: The part; ranks of `shard.copies` must all call this.

    Returns:
        One gradient of all their tokens, the same on each of them; the argument itself if nobody else holds the part.
    """
    if shard.copies is None:
        return part
    if part.bags is None:
        slots, weights, dout = (gather(x, shard.copies) for x in (part.slots, part.weights, part.dout))
        return BagGradient(slots, weights, dout)
    by_rank = gather_uneven(part.bags, shard.copies)
    bags = torch.cat([bags + rank * len(part.dout) for rank, bags in enumerate(by_rank)])
    slots, weights = (torch.cat(gather_uneven(x, shard.copies)) for x in (part.slots, part.weights))
    return BagGradient(slots, weights, gather(part.dout, shard.copies), bags)


class GradientBuffer(Protocol):
    """What the backward pass appends a table's gradient to: a list, or a list that copies to the host first."""

    def append(self, gradient: BagGradient, /) -> None:
        """Add the gradient of one use."""
        ...


Read = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def sharded_bag(
    values: Tensor,
    slots: Tensor,
    weights: Tensor,
    shard: TableShard,
    gradient_buffer: GradientBuffer | None,
    read: Read = lambda values, slots: (values, slots),
) -> Tensor:
    """Weighted sums of rows of a sharded table. Every rank of the group must call this, forward and backward.

    Args:
        values: This rank's part of the table.
        slots: Rows of the whole table [T, K], T the same on every rank.
        weights: Their weights [T, K].
        shard: Which part `values` is, and the group.
        gradient_buffer: Gets the part's gradient in the backward pass; a table that is trained must have one.
        read: Turns the part and slots of it into rows where the slots are, and the places of the slots among those
            rows. For a part that is elsewhere, as in host memory.

    Returns:
        The sums [T, D].
    """
    trained = values.requires_grad and torch.is_grad_enabled()
    assert gradient_buffer is not None or not trained, "a sharded table needs a gradient buffer"
    short = slots.int() if shard.slots < 1 << 31 else slots  # half the traffic
    function = _BagByWidth if shard.by == "width" else _BagByRows
    return function.apply(values, short, weights, shard, gradient_buffer, read)


class _BagByWidth(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, slots: Tensor, weights: Tensor, shard: TableShard, buffer: Any, read: Read
    ) -> Tensor:
        ctx.shard, ctx.buffer = shard, buffer
        slots, weights = gather(slots, shard.group), gather(weights, shard.group)  # [G*T, K]
        row_values, places = read(values, slots)
        ctx.save_for_backward(row_values, places, slots, weights)
        columns = weighted_sums(row_values, places, weights)  # [G*T, D/G]
        own = swap(columns.unflatten(0, (shard.size, -1)), shard.group)  # [G, T, D/G]
        return own.transpose(0, 1).flatten(1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return once_differentiable(_BagByWidth._backward)(ctx, *grad_outputs)

    @staticmethod
    def _backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        row_values, places, slots, weights = ctx.saved_tensors
        group, size = ctx.shard.group, ctx.shard.size
        dout = given.unflatten(1, (size, -1)).transpose(0, 1)  # [G, T, D/G]
        dout = swap(dout, group).flatten(0, 1)  # [G*T, D/G]
        dweights = None
        if ctx.needs_input_grad[2]:
            dots = dot_products(dout, row_values, places)  # [G*T, K], of this rank's columns
            dweights = sum_scatter(dots.unflatten(0, (size, -1)), group).to(weights.dtype)
        if ctx.needs_input_grad[0]:
            ctx.buffer.append(BagGradient(slots, weights, dout))
        return None, None, dweights, None, None, None


@dataclass
class _Requests:
    """Lookups on their way to the owners of their rows: order sorts [T*K] by owner; sent and received count them."""

    order: Tensor
    sent: list[int]
    received: list[int]

    @staticmethod
    def of(slots: Tensor, shard: TableShard) -> _Requests:
        owners = slots.flatten().long() // shard.rows_each
        sent = torch.bincount(owners, minlength=shard.size)
        received = swap(sent[:, None], shard.group).flatten()
        return _Requests(owners.argsort(stable=True), sent.tolist(), received.tolist())

    def send(self, x: Tensor, group: Group) -> Tensor:
        """x [T*K] to the owners: what they asked of this rank, [R]."""
        return swap_uneven(x.index_select(0, self.order), self.sent, self.received, group)

    def answer(self, x: Tensor, group: Group) -> Tensor:
        """What belongs to each request here, [R], back to who asked: [T*K]."""
        back = swap_uneven(x, self.received, self.sent, group)
        return torch.empty_like(back).index_copy_(0, self.order, back)


class _BagByRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, slots: Tensor, weights: Tensor, shard: TableShard, buffer: Any, read: Read
    ) -> Tensor:
        tokens, lookups = slots.shape
        requests = _Requests.of(slots, shard)
        # What an owner gets is ragged: R lookups, sorted by the rank that asked and by its token. Their bags, numbered
        # over all ranks, ascend, so that `starts` cuts them into G*T bags, of which many may be empty.
        token = torch.arange(tokens, dtype=slots.dtype, device=slots.device).repeat_interleave(lookups)
        rows = requests.send(slots.flatten(), shard.group) - shard.rank * shard.rows_each
        sources = torch.arange(shard.size, device=slots.device)
        source = sources.repeat_interleave(torch.tensor(requests.received, device=slots.device))
        bags = source * tokens + requests.send(token, shard.group)  # ascending, in 0..G*T-1
        row_weights = requests.send(weights.flatten(), shard.group)
        starts = torch.searchsorted(bags, torch.arange(shard.size * tokens + 1, device=bags.device)).to(rows.dtype)
        row_values, places = read(values, rows)
        sums = _ragged_sums(row_values, places, starts.to(places.dtype), row_weights)  # [G*T, D]
        ctx.shard, ctx.buffer, ctx.requests, ctx.shape = shard, buffer, requests, slots.shape
        ctx.save_for_backward(row_values, places, rows, row_weights, bags)
        return sum_scatter(sums.unflatten(0, (shard.size, -1)), shard.group)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return once_differentiable(_BagByRows._backward)(ctx, *grad_outputs)

    @staticmethod
    def _backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        row_values, places, rows, weights, bags = ctx.saved_tensors
        dout = gather(given, ctx.shard.group)  # [G*T, D]
        dweights = None
        if ctx.needs_input_grad[2]:
            dots = _ragged_dots(row_values, places, dout, bags)  # [R]
            dweights = ctx.requests.answer(dots, ctx.shard.group).view(ctx.shape).to(weights.dtype)
        if ctx.needs_input_grad[0]:
            ctx.buffer.append(BagGradient(rows[:, None], weights[:, None], dout, bags[:, None]))
        return None, None, dweights, None, None, None


def _ragged_sums(values: Tensor, rows: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    """Bag b sums weights[s] * values[rows[s]] over s in starts[b]:starts[b + 1]: [bags, D]."""
    if not len(rows):
        return values.new_zeros(len(starts) - 1, values.shape[1])
    weights = weights.to(values.dtype)
    return F.embedding_bag(
        rows, values.detach(), starts, per_sample_weights=weights, mode="sum", include_last_offset=True
    )


def _ragged_dots(values: Tensor, rows: Tensor, dout: Tensor, bags: Tensor, size: int = 1 << 16) -> Tensor:
    """<dout[bags[s]], values[rows[s]]>: [S], without holding all rows at once."""
    out = dout.new_empty(len(rows))
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        read = read_rows(values.detach(), rows[part]).to(dout.dtype)
        out[part] = (read * dout.index_select(0, bags[part])).sum(-1)
    return out
