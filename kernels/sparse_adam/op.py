"""`sparse_adam` and `sparse_sgd`: one optimiser step of a table that reads and writes only its touched rows."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..embedding_bag.gradient import BagGradient, RowGradient, row_gradient
from ..op import Op, Shape, choose
from .reference import sparse_adam_reference
from .rounding import stochastic_round
from .state import TableState

Implementation = Literal["auto", "torch", "triton"]


@torch.no_grad()
def sparse_adam(
    values: Tensor,
    gradient: RowGradient,
    state: TableState,
    *,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float = 1e-8,
    scale: float | Tensor = 1.0,
    generator: torch.Generator | None = None,
    impl: Implementation = "auto",
) -> None:
    """Take one Adam step of values [N, D] and its state, in place, on the rows of the gradient alone.

    step counts from 1. A row touched last at step s first decays its moments by beta^(step - s), as if its gradients
    since had been zero; bias correction counts all steps. Rows not touched keep every bit; with every row touched
    each step this is Adam (Kingma and Ba 2015). scale multiplies the gradients, for clipping. Arithmetic is in float32
    (float64 for a float64 table). A bfloat16 table without masters is rounded stochastically, with `generator`.
    Raises MemxError for an implementation that does not exist.
    """
    choose("sparse_adam", impl, OP.implementations)
    assert step >= 1, f"step {step}: steps count from 1"
    assert state.momentum is not None or betas[0] == 0, "a state without momentum needs betas[0] = 0"
    rows, scale = gradient.rows, float(scale)
    gap = (step - state.last.index_select(0, rows)).double()
    decays = [(beta**gap).to(gradient.dtype)[:, None] for beta in betas]  # [U, 1] each
    state.last.index_fill_(0, rows, step)
    correction = (1 - betas[1] ** step) ** 0.5
    size = lr * correction / (1 - betas[0] ** step)
    for start, stop in gradient.chunks():
        chunk = rows[start:stop]
        grad = gradient.chunk(start, stop)  # [C, D]
        if scale != 1:
            grad.mul_(scale)
        root = _second_moment(state.second, chunk, grad, decays[1][start:stop], betas[1]).sqrt_()
        rate = root.add_(eps * correction).reciprocal_().mul_(-size)  # [C, D] or [C, 1]
        if state.momentum is not None:
            momentum = state.momentum.index_select(0, chunk).to(grad.dtype)
            grad = momentum.mul_(decays[0][start:stop]).add_(grad, alpha=1 - betas[0])
            state.momentum.index_copy_(0, chunk, momentum.to(state.momentum.dtype))
        _add(values, state.master, chunk, grad.mul_(rate), generator)


def _second_moment(second: Tensor, rows: Tensor, grad: Tensor, decay: Tensor, beta: float) -> Tensor:
    """Update the second moment of the rows and return a copy of it: [C, D], or [C, 1] with one scalar per row."""
    if second.dim() == 1:
        new = second.index_select(0, rows)[:, None].mul_(decay)
        new.add_(torch.linalg.vector_norm(grad, dim=1, keepdim=True).square_(), alpha=(1 - beta) / grad.shape[1])
        second.index_copy_(0, rows, new.squeeze(1))
        return new
    new = second.index_select(0, rows).to(grad.dtype).mul_(decay).addcmul_(grad, grad, value=1 - beta)
    second.index_copy_(0, rows, new.to(second.dtype))
    return new


@torch.no_grad()
def sparse_sgd(
    values: Tensor,
    gradient: RowGradient,
    *,
    lr: float,
    scale: float | Tensor = 1.0,
    generator: torch.Generator | None = None,
) -> None:
    """Take one step of plain SGD on the rows of the gradient: values -= lr * scale * gradient, in place.

    A bfloat16 table is rounded stochastically, with `generator`.
    """
    for start, stop in gradient.chunks():
        update = gradient.chunk(start, stop).mul_(-lr * float(scale))
        _add(values, None, gradient.rows[start:stop], update, generator)


def _add(
    values: Tensor, master: Tensor | None, rows: Tensor, update: Tensor, generator: torch.Generator | None
) -> None:
    """Add update [C, D] to rows of the table, by way of its master if it has one."""
    if master is None and values.dtype == update.dtype:
        # along an expanded index of distinct rows this is torch's fastest read-add-write of whole rows
        values.scatter_add_(0, rows[:, None].expand_as(update), update)
        return
    new = (values if master is None else master).index_select(0, rows).to(update.dtype).add_(update)
    if master is not None:
        master.index_copy_(0, rows, new)
        new = new.to(values.dtype)
    else:
        new = stochastic_round(new, generator)
    values.index_copy_(0, rows, new)


_STEP, _LR, _BETAS = 4, 1e-3, (0.9, 0.95)  # of the check and the benchmark


def _run(
    values: Tensor,
    weights: Tensor,
    dout: Tensor,
    momentum: Tensor,
    second: Tensor,
    slots: Tensor,
    last: Tensor,
    impl: Implementation = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """Group the gradient of one use of the table and take a step, in place; what a training step does."""
    gradient = row_gradient([BagGradient(slots, weights, dout)])
    sparse_adam(values, gradient, TableState(momentum, second, last), step=_STEP, lr=_LR, betas=_BETAS, impl=impl)
    return values, momentum, second


def _reference(
    values: Tensor, weights: Tensor, dout: Tensor, momentum: Tensor, second: Tensor, slots: Tensor, last: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    gradient = torch.zeros_like(values)
    gradient.index_put_((slots,), weights[..., None] * dout[:, None], accumulate=True)
    touched = torch.zeros_like(last, dtype=torch.bool).index_fill_(0, slots.flatten(), True)
    new = sparse_adam_reference(values, gradient, touched, momentum, second, last, step=_STEP, lr=_LR, betas=_BETAS)
    return new.values, new.momentum, new.second


def _make_inputs(shape: Shape, dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> tuple:
    rows, width, bags, kept = (shape[name] for name in "NDBK")
    values = torch.randn(rows, width, generator=generator) * width**-0.5
    weights = torch.rand(bags, kept, generator=generator)
    dout = torch.randn(bags, width, generator=generator)
    momentum = torch.randn(rows, width, generator=generator)
    second = torch.rand((rows, width) if shape["full"] else (rows,), generator=generator)
    slots = torch.randint(rows, (bags, kept), generator=generator)
    last = torch.randint(_STEP, (rows,), generator=generator, dtype=torch.int32)
    floating = (x.to(device, dtype) for x in (values, weights, dout, momentum, second))
    return *floating, slots.to(device), last.to(device)


def _touched(shape: Shape) -> int:
    """Rows that B*K uniform draws are expected to touch."""
    return round(shape["N"] * (1 - (1 - 1 / shape["N"]) ** (shape["B"] * shape["K"])))


def _bytes_moved(shape: Shape, dtype: torch.dtype) -> int:
    uses, width = shape["B"] * shape["K"], shape["D"]
    state = 2 * (2 + shape["full"]) * width * dtype.itemsize  # each read and written
    return _touched(shape) * state + uses * (dtype.itemsize + 8) + shape["B"] * width * dtype.itemsize


def _flops(shape: Shape) -> int:
    return shape["D"] * (2 * shape["B"] * shape["K"] + 12 * _touched(shape))


OP = Op(
    name="sparse_adam",
    run=_run,
    reference=_reference,
    make_inputs=_make_inputs,
    shapes=(
        {"B": 2048, "K": 16, "N": 2**14, "D": 64, "full": 1},
        {"B": 2048, "K": 32, "N": 2**18, "D": 64, "full": 0},
        {"B": 1024, "K": 128, "N": 2**18, "D": 256, "full": 1},
    ),
    gradients=(),
    bytes_moved=_bytes_moved,
    flops=_flops,
    terms=lambda shape: max(2, shape["B"] * shape["K"] // shape["N"]),
    rivals={"dense gradient and state": _reference},
)
