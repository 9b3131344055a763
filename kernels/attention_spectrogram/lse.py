"""`attention_lse`: the log-sum-exp of the last queries' scores, for hosts whose own attention does not hand it out."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ...errors import MemxError
from .. import native
from ..op import choose, runs_triton
from . import tiles
from .reference import sum_dtype

WIDEST = 256  # the widest head that the Triton kernels take


def attention_lse(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None = None,
    scale: float | None = None,
    *,
    impl: Literal["auto", "torch", "triton"] = "auto",
) -> Tensor:
    """log sum_j exp(scale <query_i, key_j>) over the keys that query i sees: [B, Hq, Q], float32, natural.

    query [B, Hq, Q, d], the last Q queries of a sequence; key [B, H, T, d], theirs the last; both of one dtype, any
    strides. Query i sees keys 0..T-Q+i that exist by mask ([B, 1 or H, T], bool); without any, its sum is -inf.
    scale: d^-0.5 by default. float64 inputs give float64, by torch alone. No gradients.
    This is the cheap extra pass: the query-key half of attention, no values and no probabilities. A flash attention
    that returns its log-sum-exp gives the same numbers for nothing.
    Raises MemxError for an implementation that is not there or does not take the inputs.
    """
    check_attention(query, key, mask)
    chosen = pick("attention_lse", impl, query)
    scale = query.shape[3] ** -0.5 if scale is None else scale
    return _lse(query.detach(), key.detach(), mask, scale, chosen)


def check_attention(query: Tensor, key: Tensor, mask: Tensor | None) -> None:
    """Assert that the shapes and dtypes of queries, keys and mask fit."""
    assert query.dim() == key.dim() == 4 and query.dtype == key.dtype, (query.shape, key.shape, query.dtype, key.dtype)
    batch, heads, keys, dim = key.shape
    assert query.shape[0] == batch and query.shape[3] == dim, (query.shape, key.shape)
    assert query.shape[1] % heads == 0 and keys >= query.shape[2], (query.shape, key.shape)
    if mask is not None:
        assert mask.dtype == torch.bool and mask.shape in ((batch, 1, keys), (batch, heads, keys)), mask.shape


def pick(op: str, impl: str, query: Tensor) -> str:
    """The implementation to use: Triton on CUDA for the dtypes and heads that it takes, torch elsewhere."""
    fits = query.dtype in (torch.float32, torch.bfloat16, torch.float16) and query.shape[3] <= WIDEST
    if impl == "triton" and runs_triton(query.device) and not fits:
        raise MemxError(
            f"the Triton kernel of {op} has no {str(query.dtype).removeprefix('torch.')} heads of {query.shape[3]}",
            hint=f"use impl='torch', or float32, bfloat16 or float16 heads of at most {WIDEST}",
        )
    here = ("triton", "torch") if query.device.type == "cuda" else ("torch", "triton")
    return choose(op, impl, tuple(x for x in here if x == "torch" or (fits and runs_triton(query.device))))


@torch.library.custom_op(
    "memx::attention_lse",
    mutates_args=(),
    schema="(Tensor query, Tensor key, Tensor? mask, float scale, str impl) -> Tensor",
)
def _lse(query: Tensor, key: Tensor, mask: Tensor | None, scale: float, impl: str) -> Tensor:
    if impl == "triton":
        from . import lse_kernel

        return lse_kernel.log_sum_exp(query, key, mask, scale)
    loops = native if sum_dtype(query) == torch.float32 and native.available(query, key) else tiles
    return loops.log_sum_exp(query, key, mask, scale)


@_lse.register_fake
def _(query: Tensor, key: Tensor, mask: Tensor | None, scale: float, impl: str) -> Tensor:
    return query.new_empty(query.shape[:3], dtype=sum_dtype(query))
