"""Product-key lookup as a module: hidden states [T, d] -> slots and weights [T, H, k]. Base of what reads a table.

d width, N = n*n slots, H heads, k kept per head, d_k key width. Source: Lample et al. 2019, "Large Memory Layers with
Product Keys" (arXiv 1907.05242), section 3; Berges et al. 2024 (arXiv 2412.09764), section 2.1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from ..kernels.embedding_bag import embedding_bag
from ..kernels.huge_pages import use_huge_pages
from ..kernels.product_topk import product_topk
from .slots import check_top_k, half_keys

if TYPE_CHECKING:
    from ..kernels.embedding_bag.gradient import BagGradient
    from .tables.host_rows import HostRows
    from .tables.table_shards import TableShard

_DRAWN = 1 << 24  # elements of a shared-out table that are drawn at once


def _without_autocast(device: str) -> AbstractContextManager[object]:
    available = torch.amp.is_autocast_available(device)  # not on the meta device
    return torch.autocast(device, enabled=False) if available else nullcontext()


class MemoryValues(nn.Module):
    """A table of rows, one parameter [N, d_v]; several memory layers of one model may read the same.

    sink: None gives the table a dense gradient. A list gives it none: the backward pass appends to the list what the
    gradient consists of, so that an optimiser may update the touched rows alone.
    """

    def __init__(self, slots: int, width: int) -> None:
        super().__init__()
        weight = torch.empty(slots, width)
        use_huge_pages(weight)
        self.weight = nn.Parameter(weight)
        self.shape = (slots, width)  # of the whole table
        self.sink: list[BagGradient] | None = None
        self.shard: TableShard | None = None
        self.host: HostRows | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw N(0, 1/sqrt(d_v)); of a shared-out table every rank gets its part of the same numbers."""
        std = self.shape[1] ** -0.5
        if self.shard is None or self.weight.is_meta:
            nn.init.normal_(self.weight, std=std)
            return
        # torch draws in sixteens: pieces of whole sixteens are the stream that one table would be drawn from
        rows, width = self.shape
        each = max(16, _DRAWN // width // 16 * 16)
        ends = [*range(each, max(rows - 16, 1), each), rows]
        mine = self.shard.part(torch.arange(rows)) if self.shard.by == "rows" else None
        for start, end in zip([0, *ends], ends, strict=False):
            drawn = torch.empty(end - start, width).normal_(std=std)
            if mine is None:
                self.weight.data[start:end] = self.shard.part(drawn)
            else:
                first, last = max(start, int(mine[0])), min(end, int(mine[-1]) + 1)
                if first < last:
                    self.weight.data[first - int(mine[0]) : last - int(mine[0])] = drawn[first - start : last - start]

    def schedule(self, shard: TableShard) -> None:
        """Keep this rank's part of the table alone, which its weights, if they are there, are cut to."""
        assert self.shard is None and (shard.slots, shard.width) == self.shape, "another table's shard"
        part = shard.part(self.weight.detach())
        self.weight = nn.Parameter(part.clone(), requires_grad=self.weight.requires_grad)
        self.shard = shard

    def keep_on_host(self) -> None:
        """Keep the table in host memory from now on, wherever the module moves; lookups take their rows from there."""
        from .tables.host_rows import HostRows

        if not self.weight.is_meta:
            self.to("cpu")
        self.host = HostRows()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        if self.host is None:
            return super()._apply(fn, recurse)
        probe = fn(self.weight.detach()[:0])  # what would become of it, without moving it there
        fill = self.weight.is_meta and not probe.is_meta
        place = torch.device("cpu") if fill else self.weight.device
        make = torch.empty_like if fill else Tensor.to
        return super()._apply(lambda x: make(x, dtype=probe.dtype, device=place), recurse)

    def take(self) -> list[BagGradient]:
        """Empty the sink: what the backward passes left there, on the table's device."""
        assert self.sink is not None
        if self.host is not None:
            self.host.arrive()
        parts = [*self.sink]
        self.sink.clear()  # the same list: a forward pass whose backward is still to come holds it
        return parts

    def bag(self, slots: Tensor, weights: Tensor) -> Tensor:
        """Sum the rows of slots [T, K] of the whole table, weighed by weights [T, K]: [T, d_v]."""
        weights = weights.to(self.weight.dtype)
        if self.host is not None:
            from .tables.host_rows import host_bag

            return host_bag(self, slots, weights)
        if self.shard is not None and self.shard.size > 1:
            from .tables.table_shards import sharded_bag

            return sharded_bag(self.weight, slots, weights, self.shard, self.sink)
        return embedding_bag(self.weight, slots, weights, gradient="dense" if self.sink is None else self.sink)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "sink": None}  # no optimizer steps the rows of a copy

    def extra_repr(self) -> str:
        """What `print` shows of it."""
        return f"slots={self.shape[0]}, width={self.shape[1]}"


class ProductKeys(nn.Module, ABC):
    """Queries and half-keys: q = W_q x; each half is scored against n half-keys; the k best of n*n sums, exactly.

    width: d. slots: N, a square. key_width: d_k, both halves together (default d/2). qk_norm: RMSNorm of each query
    half and each half-key, with gains that start at (d_k/2)^(-1/4), so that scores start at unit variance.
    observe: called with the slots [T, H, k] of each lookup, if set; for statistics of use.
    Raises MemxError if slots is not a square or top_k exceeds the half-keys per list.
    """

    def __init__(
        self, width: int, slots: int, *, heads: int, top_k: int, key_width: int | None = None, qk_norm: bool = False
    ) -> None:
        super().__init__()
        check_top_k(top_k, slots)
        self.width, self.slots, self.heads, self.top_k = width, slots, heads, top_k
        self.key_width = width // 2 if key_width is None else key_width
        assert self.key_width % 2 == 0, f"key_width {self.key_width} has no two halves"
        self.query = nn.Linear(width, heads * self.key_width, bias=False)
        self.keys = nn.Parameter(torch.empty(2, heads, half_keys(slots), self.key_width // 2))
        self.query_norm = nn.RMSNorm(self.key_width // 2, eps=1e-6) if qk_norm else None
        self.key_norm = nn.RMSNorm(self.key_width // 2, eps=1e-6) if qk_norm else None
        self.observe: Callable[[Tensor], object] | None = None

    def reset_parameters(self) -> None:
        """Draw queries U(+-1/sqrt(d)) and keys U(+-1/sqrt(d_k)); tables draw themselves."""
        query_bound, key_bound = self.width**-0.5, self.key_width**-0.5
        nn.init.uniform_(self.query.weight, -query_bound, query_bound)
        nn.init.uniform_(self.keys, -key_bound, key_bound)
        for norm in (self.query_norm, self.key_norm):
            if norm is not None:
                nn.init.constant_(norm.weight, (self.key_width / 2) ** -0.25)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "observe": None}  # whoever watches a layer does not watch its copies

    @abstractmethod
    def tables(self) -> tuple[MemoryValues, ...]:
        """The tables that the slots are rows of, own or shared."""

    def lookup(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Find slots [T, H, k] and their weights [T, H, k] (softmax per head) for x [T, d]."""
        query = self.query(x).unflatten(-1, (self.heads, self.key_width))  # [T, H, d_k]
        # bfloat16 tells too few scores apart to rank them: under autocast, ranking stays in the keys' dtype
        with _without_autocast(x.device.type):
            query, keys = query.to(self.keys.dtype), self.keys
            if self.query_norm is not None and self.key_norm is not None:
                query = self.query_norm(query.unflatten(-1, (2, -1))).flatten(-2)
                keys = self.key_norm(keys)
            scores, slots = product_topk(query, keys, self.top_k)
            if self.observe is not None:
                self.observe(slots.detach())
            return slots, scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))
