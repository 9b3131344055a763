"""Triton kernel of the log-sum-exp of the last queries' scores, and what both kernels of this op share.

Names as in `reference.py`. The score half of flash attention: a program takes a tile of one head's queries and a span
of keys, and keeps a running maximum and sum. Offsets of rows are 64-bit.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2E = 1.4426950408889634  # kernels work with powers of two
_SPAN = 4096  # keys that a program takes


@triton.jit
def lse_kernel(
    query, key, mask, out,
    query_b, query_h, query_t, key_b, key_h, key_t, mask_b, mask_h,
    keys, old, heads, queries, dim, scale,
    G: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
    SPAN: tl.constexpr, HAS_MASK: tl.constexpr,
):  # fmt: skip
    """One (span of keys, sequence, query head, tile of queries) a program: out [spans, B, Hq, Q], natural."""
    blocks = tl.cdiv(queries, BLOCK_Q)
    place = (tl.program_id(0) // blocks).to(tl.int64)  # sequence * query heads + query head
    batch, head = place // (heads * G), place % (heads * G)
    i = (tl.program_id(0) % blocks) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    feature = tl.arange(0, BLOCK_D)
    row = batch * query_b + head * query_h + i.to(tl.int64)[:, None] * query_t
    q = tl.load(query + row + feature[None, :], mask=(i < queries)[:, None] & (feature < dim)[None, :], other=0)
    top = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    base = key + batch * key_b + head // G * key_h
    first = tl.program_id(1) * SPAN
    last = min(min(first + SPAN, keys), old + (tl.program_id(0) % blocks + 1) * BLOCK_Q)  # none is seen after it
    for start in range(first, last, BLOCK_T):
        t = start + tl.arange(0, BLOCK_T)
        exists = t < keys
        k = tl.load(
            base + t.to(tl.int64)[None, :] * key_t + feature[:, None],
            mask=exists[None, :] & (feature < dim)[:, None], other=0,
        )  # fmt: skip
        if HAS_MASK:
            exists &= tl.load(mask + batch * mask_b + head // G * mask_h + t, mask=exists, other=0) != 0
        seen = exists[None, :] & (t[None, :] <= (old + i)[:, None])
        scores = tl.where(seen, tl.dot(q, k, input_precision="ieee") * scale, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        shift = tl.where(higher == float("-inf"), 0.0, higher)  # nothing seen yet
        total = total * tl.exp2(top - shift) + tl.sum(tl.exp2(scores - shift[:, None]), 1)
        top = higher
    result = (top + tl.log2(tl.where(total > 0, total, 1.0))) * 0.6931471805599453
    spans_before = tl.program_id(1).to(tl.int64) * (tl.num_programs(0) // blocks)
    tl.store(out + (spans_before + place) * queries + i, result, mask=i < queries)


def log_sum_exp(query: Tensor, key: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """log sum exp of each query's scores: [B, Hq, Q], float32. Spans of keys are summed apart, then together."""
    (batch, heads, keys, dim), (_, query_heads, queries, _) = key.shape, query.shape
    query, key, mask = unit(query), unit(key), as_bytes(mask)
    spans = -(-keys // _SPAN)
    out = query.new_empty(spans, batch, query_heads, queries, dtype=torch.float32)
    settings = lse_settings(query.dtype, dim, query_heads // heads)
    programs = triton.cdiv(queries, settings["BLOCK_Q"]) * batch * query_heads
    if programs:
        launch: Any = lse_kernel[(programs, spans)]
        with torch.cuda.device_of(query):  # else Triton launches on the current one
            launch(
                query, key, mask, out, *query.stride()[:3], *key.stride()[:3], *mask_strides(mask),
                keys, keys - queries, heads, queries, dim, scale * LOG2E, **settings, HAS_MASK=mask is not None,
            )  # fmt: skip
    return out[0] if spans == 1 else out.logsumexp(0)


def lse_settings(dtype: torch.dtype, dim: int, group: int) -> dict[str, Any]:
    """Tile sizes of the log-sum-exp, as `spectrogram_settings`."""
    wide, exact = max(16, triton.next_power_of_2(dim)), dtype == torch.float32
    block = 32 if exact else 64
    tile = {"G": group, "BLOCK_Q": block, "BLOCK_T": block, "BLOCK_D": wide, "SPAN": _SPAN}
    return tile | {"num_warps": 4, "num_stages": 2 if exact or wide > 128 else 3}


def as_bytes(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.contiguous().view(torch.uint8)


def mask_strides(mask: Tensor | None) -> tuple[int, int]:
    """Strides of a mask [B, 1 or H, T] by sequence and head."""
    return (0, 0) if mask is None else (mask.stride(0), mask.stride(1) if mask.shape[1] > 1 else 0)


def unit(x: Tensor) -> Tensor:
    """The tensor with unit stride along its last dimension; a cache's views have that already."""
    return x if x.stride(-1) == 1 else x.contiguous()
