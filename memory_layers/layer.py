"""The memory layer: hidden states [..., d] -> weighted sums of table rows [..., d].

d width, N = n*n slots, H heads, k kept per head, d_k key width. Source: Berges et al. 2024, "Memory Layers at
Scale" (arXiv 2412.09764), section 2.1; Lample et al. 2019 for the product keys.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from ..kernels.embedding_bag import embedding_bag
from ..kernels.product_topk import product_topk
from .slots import check_top_k, half_keys


def _without_autocast(device: str) -> AbstractContextManager[object]:
    available = torch.amp.is_autocast_available(device)  # not on the meta device
    return torch.autocast(device, enabled=False) if available else nullcontext()


class MemoryValues(nn.Module):
    """The value table, one parameter [N, d]; several memory layers of one model may read the same."""

    def __init__(self, slots: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(slots, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw N(0, 1/sqrt(d))."""
        nn.init.normal_(self.weight, std=self.weight.shape[1] ** -0.5)

    def extra_repr(self) -> str:
        return f"slots={self.weight.shape[0]}, width={self.weight.shape[1]}"


class MemoryLayer(nn.Module):
    """A product-key memory in place of a feed-forward layer.

    q = W_q x, per head split in two halves; each half is scored against n half-keys; the k best of the n*n pair
    sums are found exactly; softmax over them weighs k rows of the value table, summed over heads.

    width: d. slots: N, a square. key_width: d_k, both halves together (default d/2). qk_norm: RMSNorm of each
    query half and each half-key, with gains that start at (d_k/2)^(-1/4), so that scores start at unit variance.
    values: a table to share with another layer; None makes an own one. Keys are never shared.
    Raises MemxError if slots is not a square or top_k exceeds the half-keys per list.
    """

    def __init__(
        self,
        width: int,
        slots: int,
        *,
        heads: int = 4,
        top_k: int = 32,
        key_width: int | None = None,
        qk_norm: bool = False,
        values: MemoryValues | None = None,
    ) -> None:
        super().__init__()
        check_top_k(top_k, slots)
        self.heads, self.top_k = heads, top_k
        self.key_width = width // 2 if key_width is None else key_width
        assert self.key_width % 2 == 0, f"key_width {self.key_width} has no two halves"
        assert values is None or values.weight.shape == (slots, width), "the shared table has another shape"
        self.query = nn.Linear(width, heads * self.key_width, bias=False)
        self.keys = nn.Parameter(torch.empty(2, heads, half_keys(slots), self.key_width // 2))
        self.query_norm = nn.RMSNorm(self.key_width // 2, eps=1e-6) if qk_norm else None
        self.key_norm = nn.RMSNorm(self.key_width // 2, eps=1e-6) if qk_norm else None
        # A table of one's own is a submodule. A shared one belongs to its first layer: here it is held in a
        # tuple, unregistered, so that it is saved once, stepped once, and follows deepcopy, .to() and loading.
        self.table = MemoryValues(slots, width) if values is None else None
        self._shared = (values,)
        self.reset_parameters()

    @property
    def values(self) -> MemoryValues:
        """The value table that this layer reads, its own or the shared one."""
        values = self.table if self.table is not None else self._shared[0]
        assert values is not None
        return values

    def reset_parameters(self) -> None:
        """Draw queries U(+-1/sqrt(d)) and keys U(+-1/sqrt(d_k)); the value table draws itself."""
        query_bound, key_bound = self.query.in_features**-0.5, self.key_width**-0.5
        nn.init.uniform_(self.query.weight, -query_bound, query_bound)
        nn.init.uniform_(self.keys, -key_bound, key_bound)
        for norm in (self.query_norm, self.key_norm):
            if norm is not None:
                nn.init.constant_(norm.weight, (self.key_width / 2) ** -0.25)

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
            return slots, scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., d] to [..., d]."""
        slots, weights = self.lookup(x.flatten(0, -2))
        table = self.values.weight
        # [T, H*k] rows in one bag per token
        y = embedding_bag(table, slots.flatten(1), weights.flatten(1).to(table.dtype))
        return y.to(x.dtype).view(x.shape)
