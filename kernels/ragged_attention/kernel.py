"""Triton kernel of ragged attention: flash attention over the keys that each head has.

Names as in `reference.py`. A program takes a tile of a pair's rows (the queries of its group) and a span of its keys,
and keeps a running maximum and sum. Spans are put together afterwards, so that few queries of long heads fill a GPU.
Offsets of rows are 64-bit.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_LOG2E = 1.4426950408889634  # the kernel works with powers of two
_SPAN = 1024  # keys that a program takes of a pair, where there are few rows
_FEW = 64  # rows


@triton.jit
def ragged_kernel(
    query, key, value, offsets, positions, own, output, lse,
    query_b, query_h, query_t, key_s, value_s, own_b,
    pairs, heads, rows, queries, width, depth, window, scale,
    BLOCK_R: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    SPAN: tl.constexpr, HAS_POSITIONS: tl.constexpr, HAS_WINDOW: tl.constexpr,
):  # fmt: skip
    """One (tile of rows, pair; span) a program: output [spans, pairs, R, e], lse [spans, pairs, R] in powers of two."""
    tiles = tl.cdiv(rows, BLOCK_R)
    pair = (tl.program_id(0) // tiles).to(tl.int64)
    r = (tl.program_id(0) % tiles) * BLOCK_R + tl.arange(0, BLOCK_R)
    here = r < rows
    batch, head = pair // heads, pair % heads * (rows // queries) + r // queries
    i = r % queries
    feature, number = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_E)
    place = batch * query_b + head.to(tl.int64) * query_h + i.to(tl.int64) * query_t
    q = tl.load(query + place[:, None] + feature[None, :], mask=here[:, None] & (feature < width)[None, :], other=0)
    if HAS_POSITIONS:
        mine = tl.load(own + batch * own_b + i, mask=here, other=0)
    top = tl.full([BLOCK_R], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_R], tl.float32)
    sums = tl.zeros([BLOCK_R, BLOCK_E], tl.float32)
    first, end = tl.load(offsets + pair), tl.load(offsets + pair + 1)
    if SPAN:
        first += tl.program_id(1) * SPAN
        end = tl.minimum(end, first + SPAN)
    for start in range(first, end, BLOCK_T):
        t = start + tl.arange(0, BLOCK_T)
        exists = t < end
        k = tl.load(
            key + t[None, :] * key_s + feature[:, None], mask=exists[None, :] & (feature < width)[:, None], other=0
        )
        seen = exists[None, :] & here[:, None]
        if HAS_POSITIONS:
            back = mine[:, None] - tl.load(positions + t, mask=exists, other=0)[None, :]
            seen &= back >= 0
            if HAS_WINDOW:
                seen &= back < window
        scores = tl.where(seen, tl.dot(q, k, input_precision="ieee") * scale, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        shift = tl.where(higher == float("-inf"), 0.0, higher)  # nothing seen yet
        powers, kept = tl.exp2(scores - shift[:, None]), tl.exp2(top - shift)
        v = tl.load(
            value + t[:, None] * value_s + number[None, :], mask=exists[:, None] & (number < depth)[None, :], other=0
        )
        sums = sums * kept[:, None] + tl.dot(powers.to(v.dtype), v, input_precision="ieee")
        total = total * kept + tl.sum(powers, 1)
        top = higher
    some = tl.where(total > 0, total, 1.0)
    out_row = (tl.program_id(1).to(tl.int64) * pairs + pair) * rows + r
    tl.store(lse + out_row, top + tl.log2(some), mask=here)
    tl.store(
        output + out_row[:, None] * depth + number[None, :], sums / some[:, None],
        mask=here[:, None] & (number < depth)[None, :],
    )  # fmt: skip


def ragged_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    offsets: Tensor,
    scale: float,
    positions: Tensor | None,
    own: Tensor | None,
    window: int | None,
    longest: int | None,
) -> tuple[Tensor, Tensor]:
    """Output [B, Hq, Q, e] and log-sum-exp [B, Hq, Q]. Spans of keys are summed apart, then together."""
    (batch, query_heads, queries, width), pairs, depth = query.shape, len(offsets) - 1, value.shape[1]
    rows = batch * query_heads // pairs * queries
    query, key, value = (x if x.stride(-1) == 1 else x.contiguous() for x in (query, key, value))
    spans = 1
    if rows <= _FEW:
        longest = int(offsets.diff().max()) if longest is None else longest
        spans = max(1, triton.cdiv(longest, _SPAN))
    output = query.new_empty(spans, batch, query_heads, queries, depth, dtype=torch.float32)
    lse = query.new_empty(spans, batch, query_heads, queries, dtype=torch.float32)
    settings = ragged_settings(query.dtype, width, depth, rows)
    programs = triton.cdiv(rows, settings["BLOCK_R"]) * pairs
    if programs:
        launch: Any = ragged_kernel[(programs, spans)]
        with torch.cuda.device_of(query):  # else Triton launches on the current one
            launch(
                query, key, value, offsets, *(None if x is None else x.int().contiguous() for x in (positions, own)),
                output, lse, *query.stride()[:3], key.stride(0), value.stride(0), queries,
                pairs, pairs // batch, rows, queries, width, depth, window or 0, scale * _LOG2E, **settings,
                SPAN=_SPAN if spans > 1 else 0, HAS_POSITIONS=positions is not None, HAS_WINDOW=window is not None,
            )  # fmt: skip
    lse = lse * 0.6931471805599453
    if spans == 1:
        return output[0].to(query.dtype), lse[0]
    joined = lse.logsumexp(0)
    shares = (lse - joined.nan_to_num(neginf=0)).exp_()[..., None]
    return (output * shares).sum(0).to(query.dtype), joined


def ragged_settings(dtype: torch.dtype, width: int, depth: int, rows: int) -> dict[str, Any]:
    """Tile sizes of a launch: the largest with which no register spills on an A100 or H100."""
    wide, deep = (max(16, triton.next_power_of_2(n)) for n in (width, depth))
    exact = dtype == torch.float32
    block = 16 if rows <= 16 else 32
    keys = 32 if exact or wide > 128 else 64
    tile = {"BLOCK_R": block, "BLOCK_T": keys, "BLOCK_D": wide, "BLOCK_E": deep}
    return tile | {"num_warps": 8 if exact else 4, "num_stages": 2 if exact or wide > 128 else 3}


def aot() -> list[tuple]:
    """What `kernels.resources` compiles: heads of 128, for one query of each of 4 query heads, and for many."""
    variants = []
    for name, dtype, rows, span in (("bf16 decode", torch.bfloat16, 4, _SPAN), ("bf16", torch.bfloat16, 2048, 0),
                                    ("fp32 decode", torch.float32, 4, _SPAN)):  # fmt: skip
        pointer = "*bf16" if dtype == torch.bfloat16 else "*fp32"
        signature: dict[str, Any] = dict.fromkeys(("query", "key", "value"), pointer)
        signature |= {"offsets": "*i64", "positions": "*i32", "own": "*i32", "output": "*fp32", "lse": "*fp32"}
        names = "query_b query_h query_t key_s value_s own_b pairs heads rows queries width depth window"
        signature |= dict.fromkeys(names.split(), "i32") | {"scale": "fp32"}
        constants = ragged_settings(dtype, 128, 128, rows) | {"SPAN": span, "HAS_POSITIONS": False, "HAS_WINDOW": False}
        warps, stages = constants.pop("num_warps"), constants.pop("num_stages")
        multiples = ("query_b", "query_h", "query_t", "key_s", "value_s")
        variants.append((f"ragged attention {name}", ragged_kernel, signature, constants, warps, stages, multiples))
    return variants
