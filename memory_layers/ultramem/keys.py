"""Tucker keys as a module: hidden states [T, d] -> slots and weights [T, H, k]. Base of the UltraMem layer.

d width, n*n slots, H heads, k kept per head, d_k key width, r rank. Source: Huang et al. 2024, "Ultra-Sparse Memory
Network" (UltraMem, arXiv 2411.12364), section 3.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..product_keys import ProductKeys
from ..slots import check_rank
from ..tables.initial_scale import squared_weights
from .tucker import excess, tucker_topk

_CORE_NOISE = 0.05


class TuckerKeys(ProductKeys):
    """Product keys whose slots are scored by S_row^T C S_col with a trained core C [r, r] instead of by a sum.

    Source: Huang et al. 2024, UltraMem (arXiv 2411.12364), section 3.

    Args:
        width: Width d of the hidden states.
        slots: Number of slots n*n, a square.
        rank: r; must divide half of the key width. 1: no core, scores are the sums of product keys.
        heads: Number of query heads H.
        top_k: Slots k that each head selects.
        key_width: Width d_k of a query and of a key. None: d/2.
        qk_norm: Whether to apply RMSNorm to the r parts of query halves and half-keys.
        scores: Whether weights are a softmax over the scores, or the scores.

    Raises:
        MemxError: `slots` is not a square, `top_k` exceeds its root, or the key width has no 2*r equal parts.
    """

    def __init__(
        self,
        width: int,
        slots: int,
        *,
        rank: int,
        heads: int,
        top_k: int,
        key_width: int | None,
        qk_norm: bool,
        scores: Literal["softmax", "none"],
    ) -> None:
        lookup: dict[str, Any] = dict(heads=heads, top_k=top_k, key_width=key_width, qk_norm=qk_norm, scores=scores)
        super().__init__(width, slots, **lookup)
        check_rank(rank, self.key_width)
        self.rank = rank
        self.core = nn.Parameter(torch.empty(rank, rank)) if rank > 1 else None
        if qk_norm:
            self.query_norm, self.key_norm = (nn.RMSNorm(self.part_width, eps=1e-6) for _ in range(2))

    @property
    def part_width(self) -> int:
        """Width of one of the r parts of a half-key."""
        return self.key_width // 2 // self.rank

    def reset_parameters(self) -> None:
        """Draw queries, keys and norms so that each list's scores start alike, and a core of nearly rank one."""
        super().reset_parameters()
        for norm in (self.query_norm, self.key_norm):
            if norm is not None:
                nn.init.constant_(norm.weight, self.part_width**-0.25)
        if self.core is not None:
            # all singular values but the first start far below the threshold of the loss on them
            nn.init.normal_(self.core, mean=1 / self.rank, std=_CORE_NOISE)

    def best_slots(self, query: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and slots [T, H, k] by Tucker scores; for rank 1 those of product keys."""
        if self.core is None:
            return super().best_slots(query, keys)
        return tucker_topk(query, keys, self.core.to(keys.dtype), self.top_k)

    def squared_weights(self) -> float:
        """The expected sum over heads and slots of the squared weights at the start, for inputs of unit variance."""
        if self.core is None:
            return super().squared_weights()
        spread = 1.0 if self.query_norm is not None else (18 * self.rank) ** -0.5
        n = self.keys.shape[2]
        of_head = squared_weights(n, self.top_k, scores=self.scores, score_std=spread, combined="product")
        return self.heads * of_head

    def core_loss(self) -> Tensor | None:
        """How far the core is from rank one, for the auxiliary loss. None: there is no core."""
        return None if self.core is None else excess(self.core)
