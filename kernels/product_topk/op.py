"""`product_topk`: the public op, its checks and its `Op` record."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from ..op import Op, Shape, choose
from .lookup import lookup, lookup_backward
from .reference import candidate_ranks, product_topk_reference


def product_topk(
    query: Tensor, keys: Tensor, k: int, *, impl: Literal["auto", "torch", "triton"] = "auto"
) -> tuple[Tensor, Tensor]:
    """Find the k best of n*n product-key slots for each token and head.

    query [B, H, d_k] and keys [2, H, n, d_k/2], same dtype; 1 <= k <= n. Returns scores [B, H, k], best first,
    and slots [B, H, k] (int64) with slot = i*n + j, i from the first half. Scores carry gradients to query and
    keys. impl: a Triton kernel on CUDA, torch elsewhere, unless named; the kernel ranks in float32, takes no float64.
    Raises MemxError for an implementation that is not there. Source: Lample et al. 2019, section 3.
    """
    assert query.dim() == 3 and keys.dim() == 4 and keys.shape[0] == 2, (query.shape, keys.shape)
    assert query.shape[1] == keys.shape[1] and query.shape[2] == 2 * keys.shape[3], (query.shape, keys.shape)
    assert 1 <= k <= keys.shape[2], f"k {k} is not in 1..{keys.shape[2]}, the half-keys per list"
    return _topk(query, keys, k, impl)


def _chosen(impl: str, query: Tensor) -> str:
    available = OP.available(query.device)
    if query.dtype == torch.float64:
        available = tuple(name for name in available if name != "triton")  # it ranks in float32
    return choose("product_topk", impl, available)


@torch.library.custom_op("memx::product_topk", mutates_args=())
def _topk(query: Tensor, keys: Tensor, k: int, impl: str) -> tuple[Tensor, Tensor]:
    return lookup(query, keys, k, _chosen(impl, query))


@_topk.register_fake
def _(query: Tensor, keys: Tensor, k: int, impl: str) -> tuple[Tensor, Tensor]:
    shape = (*query.shape[:2], k)
    return query.new_empty(shape), query.new_empty(shape, dtype=torch.int64)


@torch.library.custom_op("memx::product_topk_backward", mutates_args=())
def _topk_backward(dscores: Tensor, slots: Tensor, query: Tensor, keys: Tensor, impl: str) -> tuple[Tensor, Tensor]:
    return lookup_backward(dscores, slots, query, keys, _chosen(impl, query))


@_topk_backward.register_fake
def _(dscores: Tensor, slots: Tensor, query: Tensor, keys: Tensor, impl: str) -> tuple[Tensor, Tensor]:
    return query.new_empty(query.shape), keys.new_empty(keys.shape)


def _save(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    ctx.impl = inputs[3]
    ctx.save_for_backward(output[1], inputs[0], inputs[1])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, dscores: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor, None, None]:
    return *_topk_backward(dscores, *ctx.saved_tensors, ctx.impl), None, None


_topk.register_autograd(_backward, setup_context=_save)


def unpruned(query: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The usual product-key lookup: all k*k sums of the two best lists are ranked."""
    first, second = query.chunk(2, dim=-1)  # [B, H, d_k/2]
    best1, index1 = torch.einsum("bhd,hnd->bhn", first, keys[0]).topk(k, dim=-1)  # [B, H, k]
    best2, index2 = torch.einsum("bhd,hnd->bhn", second, keys[1]).topk(k, dim=-1)
    scores, pair = (best1[..., :, None] + best2[..., None, :]).flatten(-2).topk(k, dim=-1)
    return scores, index1.gather(-1, pair // k) * keys.shape[2] + index2.gather(-1, pair % k)


def _make_inputs(shape: Shape, dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> tuple:
    half = shape["d_k"] // 2
    query = torch.randn(shape["B"], shape["H"], 2 * half, generator=generator)
    keys = torch.randn(2, shape["H"], shape["n"], half, generator=generator) * half**-0.5
    return query.to(device, dtype), keys.to(device, dtype), shape["k"]


def _observe(inputs: tuple, outputs: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """The scores, and what the returned slots score exactly; a slot returned twice scores nothing."""
    scores, slots = outputs
    repeated = (slots[..., :, None] == slots[..., None, :]).sum(-1) > 1
    return scores, _held(inputs, outputs)[0].masked_fill(repeated, torch.inf)


def _held(inputs: tuple, outputs: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """What the returned slots score."""
    (query, keys, _), (_, slots) = inputs, outputs
    lists = torch.einsum("bhpd,phnd->pbhn", query.unflatten(-1, (2, -1)), keys)
    n = keys.shape[2]
    return (lists[0].gather(-1, slots // n) + lists[1].gather(-1, slots % n),)


def _bytes_moved(shape: Shape, dtype: torch.dtype) -> int:
    tokens = shape["B"] * shape["H"]
    return tokens * (shape["d_k"] * dtype.itemsize + shape["k"] * (dtype.itemsize + 8)) + (
        shape["H"] * shape["n"] * shape["d_k"] * dtype.itemsize
    )


def _backward_bytes(shape: Shape, dtype: torch.dtype) -> int:
    """Read queries, keys, slots and the gradient of the scores; write the gradients of queries and keys."""
    tokens, keys = shape["B"] * shape["H"], shape["H"] * shape["n"] * shape["d_k"]
    return 2 * (tokens * shape["d_k"] + keys) * dtype.itemsize + tokens * shape["k"] * (dtype.itemsize + 8)


def _flops(shape: Shape) -> int:
    candidates = len(candidate_ranks(shape["k"])[0])
    return shape["B"] * shape["H"] * (2 * shape["n"] * shape["d_k"] + candidates)


OP = Op(
    name="product_topk",
    run=product_topk,
    reference=product_topk_reference,
    make_inputs=_make_inputs,
    observe=_observe,
    held=_held,
    shapes=(
        {"B": 512, "H": 2, "d_k": 32, "n": 128, "k": 8},
        {"B": 512, "H": 4, "d_k": 64, "n": 256, "k": 16},
        {"B": 1024, "H": 4, "d_k": 128, "n": 1024, "k": 32},
    ),
    large_shapes=(
        {"B": 8192, "H": 4, "d_k": 128, "n": 1024, "k": 32},
        {"B": 8192, "H": 4, "d_k": 512, "n": 2048, "k": 32},
        {"B": 8192, "H": 4, "d_k": 512, "n": 4096, "k": 32},
    ),
    odd_shapes=(
        {"B": 5, "H": 2, "d_k": 80, "n": 150, "k": 8},
        {"B": 9, "H": 1, "d_k": 6, "n": 9, "k": 8},
    ),
    gradients=(0, 1),
    implementations=("triton", "torch"),
    loops="backward",
    bytes_moved=_bytes_moved,
    flops=_flops,
    backward_bytes=_backward_bytes,
    backward_flops=lambda shape: 4 * shape["B"] * shape["H"] * shape["k"] * shape["d_k"],
    rivals={"all k*k pairs": unpruned},
    terms=lambda shape: shape["d_k"],
)
