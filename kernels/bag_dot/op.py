"""`bag_dot`: the public op, its checks and its `Op` record."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..embedding_bag import OP as EMBEDDING_BAG
from ..embedding_bag.gradient import BagGradient, GradientMode, hand_over
from ..embedding_bag.sums import dot_products, weighted_sums
from ..op import Op, Shape, choose
from .reference import bag_dot_reference


def bag_dot(
    vectors: Tensor,
    values: Tensor,
    slots: Tensor,
    *,
    impl: Literal["auto", "torch", "triton"] = "auto",
    gradient: GradientMode = "dense",
) -> Tensor:
    """Dot each of B vectors with K rows of a value table: [B, K].

    vectors [B, D] and values [N, D] of one dtype, slots [B, K] (int32 or int64, in 0..N-1). vectors gets the gradient
    sum_k dout[b, k] * V[slot]; gradient says what becomes of that of values, as in `embedding_bag`. No [B, K, D] rows
    are written. Not twice differentiable. The scores of PEER's experts (He 2024, arXiv 2407.04153) are this.
    impl: Triton kernels on CUDA, torch (or compiled loops) elsewhere, unless named.
    Raises MemxError for an implementation that is not there.
    """
    assert values.dim() == 2 and slots.dim() == 2, (values.shape, slots.shape)
    assert vectors.shape == (slots.shape[0], values.shape[1]), (vectors.shape, slots.shape, values.shape)
    if isinstance(gradient, list):
        return _SinkingDot.apply(vectors, values, slots, gradient, impl)
    return _dot(vectors, values, slots, gradient, impl)


def _forward(vectors: Tensor, values: Tensor, slots: Tensor, impl: str) -> Tensor:
    return dot_products(vectors, values, slots, choose("bag_dot", impl, OP.available(values.device)))


def _save(ctx: Any, inputs: tuple, output: Tensor) -> None:
    vectors, values, slots, ctx.gradient, ctx.impl = inputs
    ctx.save_for_backward(vectors, values, slots)


def _backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
    vectors, values, slots = ctx.saved_tensors
    dvectors, dvalues = None, None
    if ctx.needs_input_grad[0]:
        dvectors = weighted_sums(values, slots, dout, ctx.impl).to(vectors.dtype)
    if ctx.needs_input_grad[1]:
        dvalues = hand_over(BagGradient(slots, dout, vectors), values, ctx.gradient, ctx.impl)
    return dvectors, dvalues, None, None, None


@torch.library.custom_op("memx::bag_dot", mutates_args=())
def _dot(vectors: Tensor, values: Tensor, slots: Tensor, gradient: str, impl: str) -> Tensor:
    return _forward(vectors, values, slots, impl)


@_dot.register_fake
def _(vectors: Tensor, values: Tensor, slots: Tensor, gradient: str, impl: str) -> Tensor:
    return values.new_empty(slots.shape)


_dot.register_autograd(_backward, setup_context=_save)


class _SinkingDot(torch.autograd.Function):
    """The same op with a list for the gradient of values, which no operator schema can name."""

    @staticmethod
    def forward(vectors: Tensor, values: Tensor, slots: Tensor, gradient: list[BagGradient], impl: str) -> Tensor:
        return _forward(vectors, values, slots, impl)

    setup_context = staticmethod(_save)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return once_differentiable(_backward)(ctx, *grad_outputs)


def _make_inputs(shape: Shape, dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> tuple:
    vectors = torch.randn(shape["B"], shape["D"], generator=generator)
    values = torch.randn(shape["N"], shape["D"], generator=generator) * shape["D"] ** -0.5
    slots = torch.randint(shape["N"], (shape["B"], shape["K"]), generator=generator)
    return vectors.to(device, dtype), values.to(device, dtype), slots.to(device)


# the transposed embedding bag: the same bags and rows, the same bytes and multiply-adds
OP = Op(
    name="bag_dot",
    run=bag_dot,
    reference=bag_dot_reference,
    make_inputs=_make_inputs,
    shapes=EMBEDDING_BAG.shapes,
    large_shapes=EMBEDDING_BAG.large_shapes,
    odd_shapes=EMBEDDING_BAG.odd_shapes,
    gradients=(0, 1),
    implementations=("triton", "torch"),
    loops="all",
    bytes_moved=EMBEDDING_BAG.bytes_moved,
    flops=EMBEDDING_BAG.flops,
    backward_bytes=EMBEDDING_BAG.backward_bytes,
    backward_flops=EMBEDDING_BAG.backward_flops,
    terms=lambda shape: shape["D"],
    rivals={"gather and sum": bag_dot_reference},
)
