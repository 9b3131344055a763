"""Queries of a layer that meet its cached keys: what policies watch -> attention weights, and who sees whom.

B sequences, Hq query heads that share H key-value heads, Q queries, T cached keys, oldest first; d numbers a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...kernels.attention_spectrogram import attention_lse
from .rotary import UNKNOWN, Rotary


@dataclass(frozen=True)
class Attention:
    """Queries of one layer, and all keys that were cached when the last of them was computed.

    B sequences, Hq query heads, H key-value heads, Q queries, T keys, width d of a head.

    Attributes:
        query: Queries [B, Hq, Q, d], after rotary positions.
        key: Keys [B, H, T, d], after rotary positions, oldest first; any strides.
        lse: Log-sum-exp [B, Hq, Q] (natural) of each query's scores when it attended, also over keys that were evicted
            since. +inf for a query that does not exist.
        own: Position [B, 1, Q] of each query: how many tokens the sequence had before it.
        positions: Position [B, H, T] of each key.
        exists: Which entries are tokens [B, H, T], bool. None: all.
        scale: Factor of the products of queries and keys.
        window: Number of positions that a query can attend to, including its own position. None: all.
        rotary: How the layer turns queries and keys by their positions, and back.
    """

    query: Tensor
    key: Tensor
    lse: Tensor
    own: Tensor
    positions: Tensor
    exists: Tensor | None
    scale: float
    window: int | None
    rotary: Rotary = UNKNOWN

    def last(self, count: int) -> Attention:
        """The last few queries alone, or none for 0, with all keys."""
        return self.some(slice(max(self.query.shape[2] - count, 0), None))

    def some(self, chosen: slice) -> Attention:
        """Some queries alone, with all keys."""
        return replace(self, query=self.query[:, :, chosen], lse=self.lse[:, :, chosen], own=self.own[:, :, chosen])

    def parts(self, size: int) -> Iterator[Attention]:
        """So many queries at a time, each with the keys up to its last one's own. The last Q keys are the queries'."""
        queries, keys = self.query.shape[2], self.key.shape[2]
        for start in range(0, queries, size):
            stop = min(start + size, queries)
            part, seen = slice(start, stop), slice(keys - queries + stop)
            exists = None if self.exists is None else self.exists[..., seen]
            query, lse, own = self.query[:, :, part], self.lse[:, :, part], self.own[:, :, part]
            key, positions = self.key[:, :, seen], self.positions[..., seen]
            yield replace(self, query=query, key=key, lse=lse, own=own, positions=positions, exists=exists)

    def rows(self) -> Tensor:
        """Compute the attention of all queries, averaged over the query heads of a group.

        Returns:
            Attention weights [B, H, Q, T], float32.
        """
        return self.by_head().mean(2)

    def by_head(self) -> Tensor:
        """Compute the attention of all queries, of each query head of a group by itself.

        Returns:
            Attention weights [B, H, G, Q, T] of G = Hq / H query heads, float32 (float64 of float64 queries).
        """
        lse = self.lse.unflatten(1, (self.key.shape[1], -1))[..., None]
        return (self._scores() - lse).exp_().masked_fill_(~self.visible()[:, :, None], 0)

    def log_sum_exp(self) -> Tensor:
        """The log-sum-exp of each query's scores over the keys here, whose last Q are the queries': [B, Hq, Q]."""
        if self.window is None:
            dtype = torch.promote_types(self.query.dtype, self.key.dtype)  # contexts may be kept in float16
            query, key, exists = self.query, self.key, self.exists
            if all(one is None or one.stride(0) == 0 for one in (query, key, exists)):
                # copies of one sequence that share their memory: computed once
                query, key, exists = query[:1], key[:1], None if exists is None else exists[:1]
            return attention_lse(query.to(dtype), key.to(dtype), exists, self.scale).expand(len(self.query), -1, -1)
        unseen = ~self.visible()[:, :, None]
        return self._scores().masked_fill_(unseen, -torch.inf).logsumexp(-1).flatten(1, 2)

    def visible(self) -> Tensor:
        """Compute which keys each query can attend to: [B, H, Q, T], bool."""
        back = self.own[..., :, None] - self.positions[..., None, :]
        seen = back >= 0 if self.window is None else (back >= 0) & (back < self.window)
        return seen if self.exists is None else seen & self.exists[..., None, :]

    def _scores(self) -> Tensor:
        """Scaled products of all queries and keys: [B, H, G, Q, T], float32."""
        dtype = torch.promote_types(self.query.dtype, torch.float32)
        grouped = self.query.to(dtype).unflatten(1, (self.key.shape[1], -1)).flatten(2, 3)  # [B, H, G*Q, d]
        scores = (grouped @ self.key.to(dtype).mT).mul_(self.scale)
        return scores.unflatten(2, (-1, self.query.shape[2]))
