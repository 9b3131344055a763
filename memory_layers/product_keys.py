"""Product-key lookup as a module: hidden states [T, d] -> slots and weights [T, H, k]. Base of what reads a table.

d width, N = n*n slots, H heads, k kept per head, d_k key width. Source: Lample et al. 2019, "Large Memory Layers with
Product Keys" (arXiv 1907.05242), section 3; Berges et al. 2024 (arXiv 2412.09764), section 2.1.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from ..kernels.product_topk import product_topk
from .slots import check_top_k, half_keys
from .tables.initial_scale import squared_weights
from .tables.table_layer import TableLayer


def _without_autocast(device: str) -> AbstractContextManager[object]:
    available = torch.amp.is_autocast_available(device)  # not on the meta device
    return torch.autocast(device, enabled=False) if available else nullcontext()


class ProductKeys(TableLayer):
    """Queries and half-keys: q = W_q x; each half is scored against n half-keys; the k best of n*n sums, exactly.

    Source: Lample et al. 2019 (arXiv 1907.05242), section 3.1.

    Args:
        width: d of the hidden states.
        slots: N = n*n, a square.
        heads: H query heads, each with half-keys of its own.
        top_k: k slots kept per head, at most n.
        key_width: d_k, both halves together; None: d/2.
        qk_norm: RMSNorm of each query half and each half-key, with gains that start at (d_k/2)^(-1/4), so that scores
            start at unit variance.
        scores: What weighs the rows of a head: a softmax over its k scores, or with "none" the scores themselves
            (Huang et al. 2024, UltraMem, arXiv 2411.12364).

    Raises:
        MemxError: slots is not a square, or top_k exceeds the half-keys per list.
    """

    def __init__(
        self,
        width: int,
        slots: int,
        *,
        heads: int,
        top_k: int,
        key_width: int | None = None,
        qk_norm: bool = False,
        scores: Literal["softmax", "none"] = "softmax",
    ) -> None:
        super().__init__()
        check_top_k(top_k, slots)
        self.width, self.slots, self.heads, self.top_k = width, slots, heads, top_k
        self.scores = scores
        self.key_width = width // 2 if key_width is None else key_width
        assert self.key_width % 2 == 0, f"key_width {self.key_width} is odd; use an even number"
        self.query = nn.Linear(width, heads * self.key_width, bias=False)
        self.keys = nn.Parameter(torch.empty(2, heads, half_keys(slots), self.key_width // 2))
        self.query_norm = nn.RMSNorm(self.key_width // 2, eps=1e-6) if qk_norm else None
        self.key_norm = nn.RMSNorm(self.key_width // 2, eps=1e-6) if qk_norm else None

    def reset_parameters(self) -> None:
        """Draw queries U(+-1/sqrt(d)) and keys U(+-1/sqrt(d_k)); tables draw themselves."""
        query_bound, key_bound = self.width**-0.5, self.key_width**-0.5
        nn.init.uniform_(self.query.weight, -query_bound, query_bound)
        nn.init.uniform_(self.keys, -key_bound, key_bound)
        for norm in (self.query_norm, self.key_norm):
            if norm is not None:
                nn.init.constant_(norm.weight, (self.key_width / 2) ** -0.25)

    def lookup(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Find the slots of each token.

        Args:
            x: Hidden states [T, d].

        Returns:
            Slots [T, H, k], best first, and their weights [T, H, k]: a softmax over the k scores of each head, or the
            scores.
        """
        query = self.query(x).unflatten(-1, (self.heads, self.key_width))  # [T, H, d_k]
        # bfloat16 tells too few scores apart to rank them: under autocast, ranking stays in the keys' dtype
        with _without_autocast(x.device.type):
            query, keys = query.to(self.keys.dtype), self.keys
            if self.query_norm is not None and self.key_norm is not None:
                width = self.key_norm.weight.shape[0]
                query = self.query_norm(query.unflatten(-1, (-1, width))).flatten(-2)
                keys = self.key_norm(keys.unflatten(-1, (-1, width))).flatten(-2)
            scores, slots = self.best_slots(query, keys)
            if self.observe is not None:
                self.observe(self.rows_of(slots).detach())
            wide = torch.promote_types(scores.dtype, torch.float32)
            return slots, scores.softmax(-1, dtype=wide) if self.scores == "softmax" else scores.to(wide)

    def best_slots(self, query: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and slots [T, H, k] of queries [T, H, d_k] among half-keys [2, H, n, d_k/2], best first."""
        return product_topk(query, keys, self.top_k)

    def squared_weights(self) -> float:
        """The expected sum over heads and slots of the squared weights at the start, for inputs of unit variance."""
        # a part of w numbers of a query with variance 1/3, times half-keys with variance 1/(3 d_k)
        spread = 1.0 if self.query_norm is not None else 18**-0.5
        return self.heads * squared_weights(self.keys.shape[2], self.top_k, scores=self.scores, score_std=spread)

    def rows_of(self, slots: Tensor) -> Tensor:
        """The rows of the tables that slots are read from: the slots themselves, unless several share a row."""
        return slots
