"""Ragged attention: queries, and the keys and values of each head one after another -> output and log-sum-exp.

B sequences, Hq query heads that share H key-value heads, Q queries, S stored keys in all, d numbers a key, e a value.
Pair b*H + h (a sequence and one of its heads) has keys offsets[b*H + h] to offsets[b*H + h + 1].
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class RaggedAttention(NamedTuple):
    """What the stored keys say to each query.

    Attributes:
        output: [B, Hq, Q, e], of the queries' dtype.
        lse: [B, Hq, Q]: natural log-sum-exp of the scaled scores; -inf for a query that sees no key.
    """

    output: Tensor
    lse: Tensor


def sum_dtype(query: Tensor) -> torch.dtype:
    """What sums are in: float32, or float64 for float64 queries."""
    return torch.promote_types(query.dtype, torch.float32)


def visible(positions: Tensor, own: Tensor, window: int | None) -> Tensor:
    """Which keys at positions [n] the queries at own [Q] see: those not after them, in the window: [Q, n], bool."""
    back = own[:, None] - positions
    return back >= 0 if window is None else (back >= 0) & (back < window)


def ragged_attention_reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    offsets: Tensor,
    scale: float | None = None,
    positions: Tensor | None = None,
    own: Tensor | None = None,
    window: int | None = None,
    longest: int | None = None,
) -> RaggedAttention:
    """What `ragged_attention` returns, one pair after another: the definition only."""
    (batch, query_heads, queries, width), pairs = query.shape, len(offsets) - 1
    factor: float = width**-0.5 if scale is None else scale
    ends, heads = offsets.tolist(), pairs // batch
    dtype = sum_dtype(query)
    output = query.new_zeros(pairs, query_heads // heads, queries, value.shape[1], dtype=dtype)
    lse = output.new_full(output.shape[:3], -torch.inf)
    for pair, rows in enumerate(query.reshape(pairs, -1, queries, width)):
        own_keys = slice(ends[pair], ends[pair + 1])
        if ends[pair] == ends[pair + 1]:
            continue
        scores = rows.to(dtype) @ key[own_keys].to(dtype).mT * factor  # [G, Q, n]
        if positions is not None and own is not None:
            seen = visible(positions[own_keys], own[pair // heads], window)
            scores = scores.masked_fill(~seen, -torch.inf)
        lse[pair] = scores.logsumexp(-1)
        weights = (scores - lse[pair][..., None]).exp().nan_to_num(0)  # nan where all is -inf
        output[pair] = weights @ value[own_keys].to(dtype)
    shape = (batch, query_heads, queries)
    return RaggedAttention(output.view(*shape, -1).to(query.dtype), lse.view(shape))
