"""The table of values that memory layers read: slots and weights [T, K] -> weighted sums of rows [T, d_v].

The whole table may lie on the module's device, one part of it on each rank of a group (`table_shards.py`), or in host
memory (`host_rows.py`); a layer that reads it need not know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from ...kernels.embedding_bag import embedding_bag
from ...kernels.embedding_bag.gradient import BagGradient
from ...kernels.huge_pages import use_huge_pages
from ...torch_compat import DRAW_BLOCK
from .host_rows import HostRows, PendingRows, host_bag
from .table_shards import TableShard, sharded_bag

_DRAW_ELEMENTS = 1 << 24  # elements of a sharded table that are drawn at once


class MemoryValues(nn.Module):
    """The value table of memory layers: one parameter [N, d_v], which several layers of a model may share.

    Args:
        slots: Number of rows N.
        width: Width d_v of a row.
        std: Standard deviation of its initial values. None: 1/sqrt(d_v).

    Attributes:
        weight: The table [N, d_v], or the part of it that this process stores.
        shape: (N, d_v) of the whole table.
        gradient_buffer: None: `weight` gets a dense gradient. A list: `weight` gets no gradient, and each backward pass
            appends the factors of the gradient to the list, so an optimizer can update only the rows that were read.
        shard: Which part of the table this process stores. None: all of it.
        padded: Whether bags have slots of zero weight that stand for none, which an optimizer leaves out.
        host: Reads rows of a table in CPU memory while the model is on a GPU. None: it is on the module's device.

    Example:
        ```python
        from torch import nn

        from memx import MemoryLayer, MemoryValues

        table = MemoryValues(16_384, 512)
        blocks = nn.ModuleList(MemoryLayer(512, 16_384, values=table) for _ in range(3))  # three layers, one table
        ```
    """

    def __init__(self, slots: int, width: int, *, std: float | None = None) -> None:
        super().__init__()
        weight = torch.empty(slots, width)
        use_huge_pages(weight)
        self.weight = nn.Parameter(weight)
        self.shape, self.std = (slots, width), width**-0.5 if std is None else std
        self.gradient_buffer: list[BagGradient] | None = None
        self.padded = False
        self.shard: TableShard | None = None
        self.host: HostRows | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw N(0, std); of a sharded table every rank gets its part of the same numbers."""
        std = self.std
        if self.shard is None or self.weight.is_meta:
            nn.init.normal_(self.weight, std=std)
            return
        # The whole table is never there, and yet a run must not depend on the number of ranks: all ranks draw the
        # stream of one table, some rows at a time, and keep their part. torch fills a tensor in blocks of sixteen
        # numbers, and draws a last block that is not full anew: so every piece but the last is of whole blocks, and
        # the last, of at least sixteen rows, ends as the whole table would.
        rows, width = self.shape
        piece = max(DRAW_BLOCK, _DRAW_ELEMENTS // width // DRAW_BLOCK * DRAW_BLOCK)
        ends = [*range(piece, max(rows - DRAW_BLOCK, 1), piece), rows]
        own = self.shard.part(torch.arange(rows)) if self.shard.by == "rows" else None
        for start, end in zip([0, *ends], ends, strict=False):
            drawn = torch.empty(end - start, width).normal_(std=std)
            if own is None:
                self.weight.data[start:end] = self.shard.part(drawn)
                continue
            offset = int(own[0])
            first, last = max(start, offset), min(end, int(own[-1]) + 1)
            if first < last:
                self.weight.data[first - offset : last - offset] = drawn[first - start : last - start]

    def keep_shard(self, shard: TableShard) -> None:
        """Keep this rank's part of the table alone, which its weights, if they are there, are cut to."""
        assert self.shard is None and (shard.slots, shard.width) == self.shape, "the shard is of a different table"
        part = shard.part(self.weight.detach())
        self.weight = nn.Parameter(part.clone(), requires_grad=self.weight.requires_grad)
        self.shard = shard

    def keep_on_host(self) -> None:
        """Keep the table in CPU memory when the module moves to a GPU; lookups copy the rows that they need."""
        if not self.weight.is_meta:
            self.to("cpu")
        self.host = HostRows()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What `to`, `cuda` and `half` run: a table in host memory takes the new dtype, not the new device."""
        if self.host is None:
            return super()._apply(fn, recurse)
        probe = fn(self.weight.detach()[:0])  # what would become of it, without moving it there
        fill = self.weight.is_meta and not probe.is_meta
        place = torch.device("cpu") if fill else self.weight.device
        make = torch.empty_like if fill else Tensor.to
        return super()._apply(lambda x: make(x, dtype=probe.dtype, device=place), recurse)

    @property
    def gradient(self) -> Literal["dense"] | list[BagGradient]:
        """Where the kernels put the table's gradient: their argument of this name."""
        return "dense" if self.gradient_buffer is None else self.gradient_buffer

    def pop_gradients(self) -> list[BagGradient]:
        """Return the contents of the gradient buffer and empty it.

        Returns:
            The factors that the backward passes since the last call appended, on the table's device.
        """
        assert self.gradient_buffer is not None
        if self.host is not None:
            self.host.synchronize()
        gradients = [*self.gradient_buffer]
        self.gradient_buffer.clear()  # the same list: a forward pass whose backward is still to come holds it
        return gradients

    @property
    def whole(self) -> bool:
        """Whether this process stores all of the table."""
        return self.shard is None or self.shard.size == 1

    def start_reading(self, slots: Tensor) -> PendingRows:
        """Start to bring rows of a whole table in CPU memory to the device of the slots [T, K], for a later `bag`."""
        assert self.host is not None and self.whole, "only rows of a whole table in CPU memory are on their way"
        return self.host.start(self.weight, slots)

    def bag(self, slots: Tensor, weights: Tensor, *, pending: PendingRows | None = None) -> Tensor:
        """Compute weighted sums of rows.

        With a sharded table, every rank of the group must call this with the same number of tokens.

        Args:
            slots: Numbers of rows of the whole table [T, K], integers.
            weights: Weights of these rows [T, K].
            pending: What `start_reading` returned for these slots, if the rows were asked for before.

        Returns:
            The sums [T, d_v].

        Raises:
            MemxError: The table is in CPU memory and has no gradient buffer.
        """
        weights = weights.to(self.weight.dtype)
        if self.host is not None:
            return host_bag(self.host, self.weight, slots, weights, self.gradient_buffer, self.shard, pending)
        if self.shard is not None and not self.whole:
            return sharded_bag(self.weight, slots, weights, self.shard, self.gradient_buffer)
        return embedding_bag(self.weight, slots, weights, gradient=self.gradient)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "gradient_buffer": None}  # no optimizer steps the rows of a copy

    def extra_repr(self) -> str:
        """What `print` shows of it."""
        return f"slots={self.shape[0]}, width={self.shape[1]}"
