"""`embedding_bag`: the public op, its checks and its `Op` record."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ..op import Op, Shape, choose
from .gradient import BagGradient, GradientMode, hand_over
from .reference import embedding_bag_reference
from .sums import dot_products, weighted_sums


def embedding_bag(
    values: Tensor,
    slots: Tensor,
    weights: Tensor,
    *,
    impl: Literal["auto", "torch", "triton"] = "auto",
    gradient: GradientMode = "dense",
) -> Tensor:
    """Sum K weighted rows of a value table for each of B bags: [B, D].

    values [N, D], slots [B, K] (int32 or int64, in 0..N-1), weights [B, K] of the dtype of values. weights gets the
    gradient <dout, V[slot]>. gradient says what becomes of that of values: "dense" [N, D], "rows" a coalesced sparse
    COO tensor of the touched rows, or a list, to which each backward appends a `BagGradient` (values.grad then stays
    as it is; values must still require a gradient). All three sum each row in a fixed order, and no [B, K, D] rows
    are written. Not twice differentiable. impl: Triton kernels on CUDA, torch elsewhere, unless named.
    Raises MemxError for an implementation that is not there.
    """
    assert values.dim() == 2 and slots.dim() == 2, (values.shape, slots.shape)
    assert slots.shape == weights.shape, (slots.shape, weights.shape)
    if isinstance(gradient, list):
        return _SinkingBag.apply(values, slots, weights, gradient, impl)
    return _bag(values, slots, weights, gradient, impl)


def _forward(values: Tensor, slots: Tensor, weights: Tensor, impl: str) -> Tensor:
    return weighted_sums(values, slots, weights, choose("embedding_bag", impl, OP.available(values.device)))


def _save(ctx: Any, inputs: tuple, output: Tensor) -> None:
    values, slots, weights, ctx.gradient, ctx.impl = inputs
    ctx.save_for_backward(values, slots, weights)


def _backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, None, Tensor | None, None, None]:
    values, slots, weights = ctx.saved_tensors
    dvalues, dweights = None, None
    if ctx.needs_input_grad[0]:
        dvalues = hand_over(BagGradient(slots, weights, dout), values, ctx.gradient, ctx.impl)
    if ctx.needs_input_grad[2]:
        dweights = dot_products(dout, values, slots, ctx.impl).to(weights.dtype)
    return dvalues, None, dweights, None, None


@torch.library.custom_op("memx::embedding_bag", mutates_args=())
def _bag(values: Tensor, slots: Tensor, weights: Tensor, gradient: str, impl: str) -> Tensor:
    return _forward(values, slots, weights, impl)


@_bag.register_fake
def _(values: Tensor, slots: Tensor, weights: Tensor, gradient: str, impl: str) -> Tensor:
    return values.new_empty(slots.shape[0], values.shape[1])


_bag.register_autograd(_backward, setup_context=_save)


class _SinkingBag(torch.autograd.Function):
    """The same op with a list for the gradient of values, which no operator schema can name."""

    @staticmethod
    def forward(values: Tensor, slots: Tensor, weights: Tensor, gradient: list[BagGradient], impl: str) -> Tensor:
        return _forward(values, slots, weights, impl)

    setup_context = staticmethod(_save)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return once_differentiable(_backward)(ctx, *grad_outputs)


def torch_bag(values: Tensor, slots: Tensor, weights: Tensor) -> Tensor:
    """The usual way: torch's own bag, with its own backward pass and a dense gradient."""
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


def _backward_bytes(shape: Shape, dtype: torch.dtype) -> int:
    """Read rows, slots, weights and dout, write the dense gradient and that of the weights; sorting is not counted."""
    uses, table = shape["B"] * shape["K"], shape["N"] * shape["D"]
    return uses * (shape["D"] * dtype.itemsize + 2 * dtype.itemsize + 8) + (
        (table + shape["B"] * shape["D"]) * dtype.itemsize
    )


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
    large_shapes=(
        {"B": 8192, "K": 128, "N": 2**20, "D": 512},
        {"B": 8192, "K": 128, "N": 2**20, "D": 1024},
        {"B": 4096, "K": 128, "N": 2**20, "D": 4096},
        {"B": 8192, "K": 128, "N": 2**24, "D": 1024},
    ),
    odd_shapes=(
        {"B": 2, "K": 40, "N": 9, "D": 600},
        {"B": 80, "K": 4, "N": 2, "D": 200},
    ),
    gradients=(0, 2),
    implementations=("triton", "torch"),
    loops="backward",
    bytes_moved=_bytes_moved,
    flops=_flops,
    backward_bytes=_backward_bytes,
    backward_flops=lambda shape: 2 * _flops(shape),
    terms=lambda shape: shape["K"],
    rivals={"F.embedding_bag": torch_bag, "gather and sum": embedding_bag_reference},
)
