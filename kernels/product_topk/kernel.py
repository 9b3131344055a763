"""Product-key lookup as one Triton kernel: queries and half-keys -> the k best slots; no list of scores in memory.

B tokens, H heads, n half-keys per list, k kept. A program takes a few tokens of one head. It scores a list tile by
tile, keeps the best of what it has seen, sorted, and drops the rest of each tile where it stands; then it ranks the
pairs of ranks (i, j) with i*j <= k. A score and its place are one int64, ordered by the score first and then by the
lower place, so that each comparison is one instruction and ties always fall the same way.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..tuning import settings
from .reference import candidate_ranks

_LEAST = tl.constexpr(-(1 << 63))  # below every packed score


@triton.jit
def _packed(scores, place):
    """Float32 scores and their places (0..2^31 - 1) as int64 of the order of the scores, lower places first."""
    bits = scores.to(tl.int32, bitcast=True)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.to(tl.int64) << 32) | (0x7FFFFFFF - place).to(tl.int64)


@triton.jit
def _score(packed):
    """The scores of what `_packed` made."""
    ordered = (packed >> 32).to(tl.int32)
    return (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def _place(packed):
    """The places of what `_packed` made (int32)."""
    return 0x7FFFFFFF - (packed & 0x7FFFFFFF).to(tl.int32)


@triton.jit
def _best_of_list(
    query, keys, token, there, stride, n, half,
    KEPT: tl.constexpr, TOKENS: tl.constexpr, TILE: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The KEPT best of n half-keys [n, half] for each token, packed, best first: [TOKENS, KEPT]."""
    best = tl.full([TOKENS, KEPT], _LEAST, tl.int64)
    for begin in range(0, n, TILE):
        key = begin + tl.arange(0, TILE)
        scores = tl.zeros([TOKENS, TILE], tl.float32)
        for low in range(0, half, DEPTH):
            depth = low + tl.arange(0, DEPTH)
            inside = depth < half
            part = tl.load(
                query + token[:, None] * stride + depth[None, :], mask=there[:, None] & inside[None, :], other=0
            )
            rows = tl.load(
                keys + key[None, :].to(tl.int64) * half + depth[:, None],
                mask=(key < n)[None, :] & inside[:, None],
                other=0,
            )
            scores = tl.dot(part, rows, scores, input_precision=PRECISION)
        packed = tl.where((key < n)[None, :], _packed(scores, key[None, :]), _LEAST)
        # both sorted: the larger of one and the other reversed are the best of both, falling and rising once
        best = tl.bitonic_merge(tl.maximum(best, tl.flip(tl.topk(packed, KEPT), 1)), descending=True)
    return best


@triton.jit
def lookup_kernel(
    query, keys, first, second, scores, slots, tokens, n, half, kept, candidates,
    KEPT: tl.constexpr, CANDIDATES: tl.constexpr, TOKENS: tl.constexpr, TILE: tl.constexpr, DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """scores and slots [B, H, k]; grid (tiles of tokens, H). first, second: ranks of the candidates."""
    head = tl.program_id(1)
    token = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    there = token < tokens
    heads = tl.num_programs(1).to(tl.int64)
    stride = heads * 2 * half
    query += head.to(tl.int64) * 2 * half
    keys += head.to(tl.int64) * n * half
    best1 = _best_of_list(query, keys, token, there, stride, n, half, KEPT, TOKENS, TILE, DEPTH, PRECISION)
    keys += heads * n * half
    best2 = _best_of_list(query + half, keys, token, there, stride, n, half, KEPT, TOKENS, TILE, DEPTH, PRECISION)

    candidate = tl.arange(0, CANDIDATES)
    counts = candidate < candidates
    rank1 = tl.load(first + candidate, mask=counts, other=0)
    rank2 = tl.load(second + candidate, mask=counts, other=0)
    pair1 = tl.gather(best1, tl.broadcast_to(rank1[None, :], [TOKENS, CANDIDATES]), 1)
    pair2 = tl.gather(best2, tl.broadcast_to(rank2[None, :], [TOKENS, CANDIDATES]), 1)
    sums = tl.where(counts[None, :], _packed(_score(pair1) + _score(pair2), candidate[None, :]), _LEAST)
    slot = _place(pair1).to(tl.int64) * n + _place(pair2).to(tl.int64)
    top = tl.topk(sums, KEPT)
    chosen = tl.gather(slot, tl.minimum(_place(top), CANDIDATES - 1), 1)  # a place beyond is not stored
    rank = tl.arange(0, KEPT)
    out = (token[:, None] * heads + head) * kept + rank[None, :]
    mask = there[:, None] & (rank < kept)[None, :]
    tl.store(scores + out, _score(top), mask=mask)
    tl.store(slots + out, chosen, mask=mask)


@lru_cache(maxsize=16)
def _ranks(k: int, device: torch.device) -> tuple[Tensor, Tensor]:
    first, second = (torch.tensor(ranks, dtype=torch.int32) for ranks in candidate_ranks(k))
    return first.to(device), second.to(device)


def lookup(query: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """What `product_topk_reference` returns, ranked and summed in float32; query and keys no wider than that."""
    query, keys = query.detach().contiguous(), keys.detach().contiguous()
    (tokens, heads, _), (n, half) = query.shape, keys.shape[2:]
    assert n < 1 << 31 and query.dtype != torch.float64, (n, query.dtype)
    first, second = _ranks(k, query.device)
    scores = query.new_empty(tokens, heads, k)
    slots = torch.empty(tokens, heads, k, dtype=torch.int64, device=query.device)
    if scores.numel() == 0:
        return scores, slots
    kept = max(8, triton.next_power_of_2(k))  # fewer are too few for the threads of a gather
    chosen = settings("lookup", (n, half, k, query.dtype), _blocks(n, half, kept, query.dtype), query.device)
    with torch.cuda.device_of(query):  # else Triton launches on the current one
        lookup_kernel[triton.cdiv(tokens, chosen["TOKENS"]), heads](
            query, keys, first, second, scores, slots, tokens, n, half, k, len(first),
            KEPT=kept, CANDIDATES=max(2 * kept, triton.next_power_of_2(len(first))), PRECISION="ieee", **chosen,
        )  # fmt: skip
    return scores, slots


def _blocks(n: int, half: int, kept: int, dtype: torch.dtype) -> dict[str, int]:
    """The largest blocks that fit the registers: float32 products, made without matrix units, leave room for less."""
    tile = 64 if dtype == torch.float32 else 128
    return {
        "TOKENS": 16,  # the least that matrix units take
        "TILE": max(2 * kept, min(tile, triton.next_power_of_2(n))),
        "DEPTH": max(16, min(32, triton.next_power_of_2(half))),
        "num_warps": 4,
        "num_stages": 2,
    }


def aot() -> list[tuple]:
    """What `kernels.resources` compiles: 32 of 1024 half-keys of width 64 a list, and the best of one key alone."""
    numbers = ("tokens", "n", "half", "kept", "candidates")
    integers = {"first": "*i32", "second": "*i32", "slots": "*i64"}
    found = []
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        floats = dict.fromkeys(("query", "keys", "scores"), f"*{name}")
        for size, kept, candidates in ((1024, 32, 128), (1, 8, 16)):
            constants = {**_blocks(size, min(size, 64), kept, dtype), "KEPT": kept, "CANDIDATES": candidates}
            warps, stages = constants.pop("num_warps"), constants.pop("num_stages")
            # Triton makes a constant of every argument that is 1
            given = dict.fromkeys(numbers, "i32") if size > 1 else {}
            constants |= {"PRECISION": "ieee"} | ({} if size > 1 else dict.fromkeys(numbers, 1))
            signature = {**floats, **integers, **given}
            title = f"lookup {name}" if size > 1 else f"lookup of one {name}"
            found.append((title, lookup_kernel, signature, constants, warps, stages, ("n", "half") if given else ()))
    return found
