"""The gradient of a table that bags read: kept factored, then grouped by row and summed chunk by chunk.

A table [N, D] that B bags of K weighted rows read has a gradient of at most B*K rows, each a sum of a few
weights[b, k] * dout[b]. Written out it is B*K*D numbers; here it stays 2*B*K + B*D of them, sorted once by row, and
whoever needs the rows (an optimiser, a norm) has them summed a chunk at a time, while they are in cache. The sort is
stable and each row is summed in its order, so the same parts give the same bits, with any number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import native
from ..op import fastest
from ..zeros import lazy_zeros
from .sorting import sort_slots, sum_in_parts


class BagGradient(NamedTuple):
    """One use of a table: row slots[b, k] receives weights[b, k] * dout[b], summed over all b, k.

    slots [B, K], integers; weights [B, K]; dout [B, D]. With bags [B, K] it is dout[bags[b, k]], of as many rows as
    there are bags: for bags of unlike sizes.
    """

    slots: Tensor
    weights: Tensor
    dout: Tensor
    bags: Tensor | None = None

    def detached(self) -> BagGradient:
        """The same, off the graph."""
        bags = None if self.bags is None else self.bags.detach()
        return BagGradient(self.slots.detach(), self.weights.detach(), self.dout.detach(), bags)


# Where the gradient of a table goes: into .grad as a dense tensor, into .grad as a coalesced sparse tensor of the
# touched rows, or, as a BagGradient, to the end of a list, leaving .grad alone.
GradientMode = Literal["dense", "rows"] | list[BagGradient]


@dataclass(frozen=True, eq=False)
class RowGradient:
    """A gradient grouped by table row; made by `row_gradient`.

    rows [U]: the touched rows, ascending. The S contributions are sorted by row: those to rows[u] lie at
    starts[u]:starts[u + 1] (starts [U + 1]); contribution s is weights[s] * dout[bags[s]], of width D.
    slots [S]: the row of every contribution, where Triton kernels make the sums; None where torch does.
    """

    rows: Tensor
    starts: Tensor
    bags: Tensor
    weights: Tensor
    dout: Tensor
    slots: Tensor | None = None

    def __len__(self) -> int:
        """Number of touched rows."""
        return len(self.rows)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the sums: float32, or float64 if a part is."""
        return torch.promote_types(self.dout.dtype, torch.float32)

    @cached_property
    def partial(self) -> Tensor:
        """Sums of whole blocks of contributions, which the kernels split hot rows into; see `segment_kernel`."""
        from .segment_kernel import partial_sums

        assert self.slots is not None
        return partial_sums(self.slots, self.bags, self.weights, self.dout, self.dtype)

    def chunks(self, rows: int | None = None) -> Iterator[tuple[int, int]]:
        """Ranges (start, stop) that cover all touched rows, `rows` at a time, or as many as suit the device."""
        size = rows or (1024 if self.rows.device.type == "cpu" else 1 << 16)
        for start in range(0, len(self), size):
            yield start, min(start + size, len(self))

    def chunk(self, start: int, stop: int) -> Tensor:
        """The summed gradient of rows[start:stop]: [stop - start, D]."""
        if start == stop:
            return self.dout.new_zeros(0, self.dout.shape[1], dtype=self.dtype)
        if self.slots is not None:
            from .segment_kernel import write_rows

            out = self.dout.new_empty(stop - start, self.dout.shape[1], dtype=self.dtype)
            write_rows(self.starts[start : stop + 1], self.bags, self.weights, self.dout, self.partial, out)
            return out
        first, last = int(self.starts[start]), int(self.starts[stop])
        return F.embedding_bag(
            self.bags[first:last],
            self.dout,
            self.starts[start : stop + 1] - first,
            per_sample_weights=self.weights[first:last],
            mode="sum",
            include_last_offset=True,
        )

    def squared_norm(self) -> Tensor:
        """The squared L2 norm of the whole gradient, a float64 scalar.

        A row with one contribution has the norm of its weight times that of its bag, which needs no sum; the others
        are summed one chunk at a time. The Triton kernels sum every row, and write nothing but its norm.
        """
        if self.slots is not None:
            from .segment_kernel import squared_norms

            norms = squared_norms(self.starts, self.bags, self.weights, self.dout, self.partial)
            return norms.double().sum()
        counts = self.starts.diff()
        alone = counts == 1
        of_bags = torch.linalg.vector_norm(self.dout, dim=1).double()  # one thread per row: any count, same bits
        places = self.starts[:-1][alone]
        single = self.weights.index_select(0, places).double() * of_bags.index_select(0, self.bags[places])
        total = sum_in_parts(single.square())
        rest = self._rows_where(~alone, counts)
        for start, stop in rest.chunks():
            total += torch.linalg.vector_norm(rest.chunk(start, stop), dim=1).double().square().sum()
        return total

    def _rows_where(self, chosen: Tensor, counts: Tensor) -> RowGradient:
        """The part of the gradient of the chosen rows [U] (bool), which have so many contributions each, counts [U]."""
        of_chosen = chosen.repeat_interleave(counts)
        starts = F.pad(counts[chosen].cumsum(0), (1, 0))
        return RowGradient(self.rows[chosen], starts, self.bags[of_chosen], self.weights[of_chosen], self.dout)

    def dense(self, slots: int) -> Tensor:
        """The gradient of a table of `slots` rows: [slots, D], zero where nothing was touched."""
        out = lazy_zeros((slots, self.dout.shape[1]), self.dtype, self.dout.device)
        for start, stop in self.chunks():
            out.index_copy_(0, self.rows[start:stop], self.chunk(start, stop))
        return out

    def to_sparse(self, slots: int) -> Tensor:
        """The gradient of a table of `slots` rows as a coalesced sparse COO tensor [slots, D]."""
        size = (slots, self.dout.shape[1])
        return torch.sparse_coo_tensor(
            self.rows[None], self.chunk(0, len(self)), size, is_coalesced=True, check_invariants=False
        )


def row_gradient(
    parts: Sequence[BagGradient], keep: Tensor | None = None, *, size: int | None = None, impl: str = "auto"
) -> RowGradient:
    """Group the gradients of all uses of one table by row, in a fixed order.

    parts: one or more, of one width D and one device, B and K free; a row's sum runs over the parts in their order,
    then over bags and slots in theirs. Sums are made in float32, or float64 if a part is.
    keep [N], bool: rows that are not kept are left out as if nothing had touched them. size: N, if known; a table of
    less than 2^31 rows is sorted faster on a GPU. impl: what makes the sums, "torch" or "triton".
    """
    assert parts, "at least one part is needed"
    dtype = torch.float32
    for part in parts:
        assert part.slots.shape == part.weights.shape, "shapes do not match"
        assert part.bags is not None or len(part.slots) == len(part.dout), "shapes do not match"
        dtype = torch.promote_types(dtype, torch.promote_types(part.weights.dtype, part.dout.dtype))
    triton = fastest(impl, parts[0].dout.device) == "triton"
    slots = torch.cat([part.slots.flatten() for part in parts])  # [S]
    if triton and size is not None and size < 1 << 31:
        slots = slots.int()
    # Triton's kernels read bags as they are, and widen what they read
    wide = dtype if dtype == torch.float64 or not triton or len({part.dout.dtype for part in parts}) > 1 else None
    weights = torch.cat([part.weights.detach().flatten().to(dtype) for part in parts])
    dout = torch.cat([part.dout.detach().to(wide or part.dout.dtype) for part in parts])  # [sum of B, D]
    bags = torch.cat(_bag_numbers(parts))
    if keep is not None:
        kept = keep[slots.long()].nonzero().squeeze(1)
        slots, weights, bags = slots[kept], weights[kept], bags[kept]
    slots, order = sort_slots(slots)
    first = torch.ones_like(slots, dtype=torch.bool)  # of its row
    torch.ne(slots[1:], slots[:-1], out=first[1:])
    starts = first.nonzero().squeeze(1)
    rows = slots.index_select(0, starts).long()
    starts = torch.cat([starts, starts.new_tensor([len(slots)])])
    bags, weights = bags.index_select(0, order), weights.index_select(0, order)
    return RowGradient(rows, starts, bags, weights, dout.contiguous(), slots if triton else None)


def _bag_numbers(parts: Sequence[BagGradient]) -> list[Tensor]:
    """For every contribution of every part the row of the concatenated douts that it reads."""
    numbers, base = [], 0
    for part in parts:
        bags, slots = part.slots.shape
        if part.bags is None:
            number = torch.arange(base, base + bags, device=part.slots.device)
            numbers.append(number[:, None].expand(bags, slots).flatten())
        else:
            numbers.append(part.bags.flatten().long() + base)
        base += len(part.dout)
    return numbers


@torch.library.custom_op("memx::table_gradient", mutates_args=())
def table_gradient(slots: Tensor, weights: Tensor, dout: Tensor, rows: int, impl: str) -> Tensor:
    """The dense gradient [rows, D] of one use of a table; an op of its own, so that torch.compile sees no loop."""
    if fastest(impl, dout.device) == "triton":
        return _triton_table_gradient(slots, weights, dout, rows)
    if weights.dtype == dout.dtype == torch.float32 and native.available(weights, slots, dout):
        table = lazy_zeros((rows, dout.shape[1]), dout.dtype, dout.device)
        native.scatter(weights, slots, dout, table)
        return table
    return row_gradient([BagGradient(slots, weights, dout)], impl=impl).dense(rows).to(dout.dtype)


@table_gradient.register_fake
def _(slots: Tensor, weights: Tensor, dout: Tensor, rows: int, impl: str) -> Tensor:
    return dout.new_empty(rows, dout.shape[1])


def _triton_table_gradient(slots: Tensor, weights: Tensor, dout: Tensor, rows: int) -> Tensor:
    """Every row of the table in one kernel, zeros included: no count of touched rows, so nothing waits for the GPU."""
    from .segment_kernel import partial_sums, write_rows

    dout = dout.contiguous()
    small = rows < 1 << 31
    ordered, order = (slots.flatten().int() if small else slots.flatten()).sort(stable=True)
    bags = order // max(1, slots.shape[1])
    weights = weights.flatten().index_select(0, order)
    bounds = torch.arange(rows + 1, dtype=ordered.dtype, device=ordered.device)
    starts = torch.searchsorted(ordered, bounds)
    wide = torch.promote_types(dout.dtype, torch.float32)
    out = dout.new_empty(rows, dout.shape[1])
    write_rows(starts, bags, weights, dout, partial_sums(ordered, bags, weights, dout, wide), out)
    return out


def hand_over(part: BagGradient, values: Tensor, mode: GradientMode, impl: str) -> Tensor | None:
    """What a backward returns for the table `values` [N, D]: its gradient, or None once a list has the part."""
    if isinstance(mode, list):
        mode.append(part.detached())  # saved ones still hang on the graph
        return None
    if mode == "rows":
        gradient = row_gradient([part], size=len(values), impl=impl)
        return gradient.to_sparse(len(values)).to(values.dtype)
    return table_gradient(part.slots, part.weights, part.dout, len(values), impl).to(values.dtype)
