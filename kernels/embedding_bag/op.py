"""`embedding_bag`: the public op, its checks and its `Op` record."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..op import Op, Shape, choose
from .reference import embedding_bag_reference


def embedding_bag(
    values: Tensor, slots: Tensor, weights: Tensor, *, impl: Literal["auto", "torch", "triton"] = "auto"
) -> Tensor:
    """Sum K weighted rows of a value table for each of B bags: [B, D].

    values [N, D], slots [B, K] (int32 or int64, in 0..N-1), weights [B, K] of the dtype of values. Gradients go
    to values (dense) and to weights (<dout, V[slot]>). The torch path is torch's own fused bag, which never
    writes the [B, K, D] rows and whose CPU backward sums each row in a fixed order.
    Raises MemxError for an implementation that does not exist.
    """
    assert values.dim() == 2 and slots.dim() == 2, (values.shape, slots.shape)
    assert slots.shape == weights.shape, (slots.shape, weights.shape)
    choose("embedding_bag", impl, OP.implementations)
    if slots.shape[0] == 0 or slots.shape[1] == 0:  # torch's bag refuses these; the sum of no rows is zero
        return embedding_bag_reference(values, slots, weights)
    return F.embedding_bag(slots, values, per_sample_weights=weights, mode="sum")


def _make_inputs(shape: Shape, dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> tuple:
    values = torch.randn(shape["N"], shape["D"], generator=generator) * shape["D"] ** -0.5
    slots = torch.randint(shape["N"], (shape["B"], shape["K"]), generator=generator)
    weights = torch.rand(shape["B"], shape["K"], generator=generator)
    weights = weights / weights.sum(-1, keepdim=True)
    return values.to(device, dtype), slots.to(device), weights.to(device, dtype)


def _bytes_moved(shape: Shape, dtype: torch.dtype) -> int:
    bags, rows = shape["B"], shape["B"] * shape["K"]
    return rows * (shape["D"] * dtype.itemsize + dtype.itemsize + 8) + bags * shape["D"] * dtype.itemsize


def _flops(shape: Shape) -> int:
    return 2 * shape["B"] * shape["K"] * shape["D"]


OP = Op(
    name="embedding_bag",
    run=embedding_bag,
    reference=embedding_bag_reference,
    make_inputs=_make_inputs,
    shapes=(
        {"B": 2048, "K": 16, "N": 2**14, "D": 64},
        {"B": 2048, "K": 32, "N": 2**18, "D": 64},
        {"B": 1024, "K": 128, "N": 2**18, "D": 256},
    ),
    gradients=(0, 2),
    bytes_moved=_bytes_moved,
    flops=_flops,
    terms=lambda shape: shape["K"],
    rivals={"gather and sum": embedding_bag_reference},
)
