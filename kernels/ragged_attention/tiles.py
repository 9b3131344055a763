"""Ragged attention by torch's ops, one head after another: the fast way for many queries on a CPU."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from ...torch_compat import flash_attention_for_cpu, has_flash_attention_for_cpu
from .reference import sum_dtype, visible


def ragged_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    offsets: Tensor,
    scale: float,
    positions: Tensor | None,
    own: Tensor | None,
    window: int | None,
) -> tuple[Tensor, Tensor]:
    """Output [B, Hq, Q, e] and log-sum-exp [B, Hq, Q], as the op returns them."""
    batch, query_heads, queries, _ = query.shape
    ends, pairs = offsets.tolist(), len(offsets) - 1
    heads = pairs // batch
    grouped = query.reshape(pairs, query_heads // heads, queries, -1)
    output = query.new_zeros(*grouped.shape[:3], value.shape[1])
    lse = query.new_full(grouped.shape[:3], -torch.inf, dtype=sum_dtype(query))
    for pair, (start, stop) in enumerate(pairwise(ends)):
        if start == stop:
            continue
        seen = None
        if positions is not None and own is not None:
            seen = visible(positions[start:stop], own[pair // heads], window)
        output[pair], lse[pair] = _one_head(grouped[pair], key[start:stop], value[start:stop], seen, scale)
    shape = (batch, query_heads, queries)
    return output.view(*shape, -1), lse.view(shape)


def _one_head(query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """Queries [G, Q, d] of one head with its keys [n, d] and values [n, e]: [G, Q, e] and [G, Q]."""
    if query.device.type == "cpu" and key.shape[1] == value.shape[1] and has_flash_attention_for_cpu():
        bias = None
        if seen is not None:
            bias = torch.zeros(seen.shape, dtype=query.dtype, device=seen.device).masked_fill_(~seen, -torch.inf)[
                None, None
            ]
        output, lse = flash_attention_for_cpu(
            query[None], key[None, None], value[None, None], causal=False, bias=bias, scale=scale
        )
        output, lse = output[0], lse[0]
        blind = None if seen is None else ~seen.any(-1)
        if blind is not None and blind.any():
            output, lse = output.masked_fill(blind[:, None], 0), lse.masked_fill(blind, -torch.inf)
        return output, lse
    dtype = sum_dtype(query)
    scores = query.to(dtype) @ key.to(dtype).mT * scale
    scores = scores if seen is None else scores.masked_fill_(~seen, -torch.inf)
    lse = scores.logsumexp(-1)
    weights = (scores - lse[..., None].nan_to_num(neginf=0)).exp_()
    return (weights @ value.to(dtype)).to(query.dtype), lse
