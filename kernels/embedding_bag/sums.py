"""The two sums over the rows of bags that `embedding_bag` and `bag_dot` are made of, each the other's backward.

N slots of width D, B bags of K rows. Neither carries gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import native
from ..op import fastest

_CACHED_ROWS = 1024  # rows gathered at a time on the CPU, so that they are still in cache when they are used


def weighted_sums(values: Tensor, slots: Tensor, weights: Tensor, impl: str = "auto") -> Tensor:
    """sum_k weights[b, k] * values[slots[b, k]]: [B, D], in the dtype of values."""
    if fastest(impl, values.device) == "triton":
        from . import kernel

        return kernel.weighted_sums(values, slots, weights)
    if slots.numel() == 0:  # torch's bag refuses these; the sum of no rows is zero
        return values.new_zeros(len(slots), values.shape[1])
    return F.embedding_bag(slots, values.detach(), per_sample_weights=weights.detach().to(values.dtype), mode="sum")


@torch.library.custom_op("memx::dot_products", mutates_args=())
def dot_products(vectors: Tensor, values: Tensor, slots: Tensor, impl: str = "auto") -> Tensor:
    """<vectors[b], values[slots[b, k]]>: [B, K], in the dtype of values; vectors [B, D]."""
    if fastest(impl, values.device) == "triton":
        from . import kernel

        return kernel.dot_products(vectors, values, slots)
    bags, rows = slots.shape
    out = values.new_empty(bags, rows)
    if out.numel() == 0:
        return out
    vectors = vectors.to(values.dtype)
    if values.dtype == torch.float32 and native.available(vectors, values, slots):
        return native.dots(vectors, values, slots)
    size = max(1, _CACHED_ROWS // rows) if values.device.type == "cpu" else bags
    with torch.autocast(values.device.type, enabled=False):
        for start in range(0, bags, size):
            part = slots[start : start + size]
            read = gather(values, part.flatten()).view(*part.shape, -1)  # [size, K, D]
            # this way round: with the vector on the right, the CPU's bmm is 9 times slower
            out[start : start + size] = torch.bmm(vectors[start : start + size, None], read.mT).squeeze(1)
    return out


@dot_products.register_fake
def _(vectors: Tensor, values: Tensor, slots: Tensor, impl: str = "auto") -> Tensor:
    return values.new_empty(slots.shape)


def gather(values: Tensor, rows: Tensor) -> Tensor:
    """values[rows]: [R, D] for rows [R], R >= 1.

    On the CPU by bags of one row: torch's bag prefetches the rows of large tables, its index_select does not.
    """
    if values.device.type == "cpu" and values.dtype in (torch.float32, torch.bfloat16, torch.float16):
        return F.embedding_bag(rows, values, torch.arange(len(rows), dtype=rows.dtype), mode="sum")
    return values.index_select(0, rows)
