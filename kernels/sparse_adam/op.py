"""`sparse_adam` and `sparse_sgd`: one optimiser step of a table that reads and writes only its touched rows."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ...errors import MemxError
from .. import native
from ..embedding_bag.gradient import BagGradient, RowGradient, row_gradient
from ..op import Op, Shape, choose, fastest
from . import by_rows
from .catch_up import catch_up, curves
from .reference import sparse_adam_reference
from .state import TableState, WholeRows

Implementation = Literal["auto", "native", "torch", "triton"]


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
    whole: WholeRows | None = None,
) -> None:
    """Take one Adam step of values [N, D] and its state, in place, on the rows of the gradient alone.

    step counts from 1. A row touched last at step s first decays its moments by beta^(step - s), as if its gradients
    since had been zero; bias correction counts all steps. Rows not touched keep every bit; with every row touched
    each step this is Adam (Kingma and Ba 2015). For rows touched now and then it follows Adam too: there such a row
    coasts on its momentum for a while, 13 times as far as its first step at betas .9, .95. Here it coasts at once, for
    as many steps as lay between its last two touches, and what that was off by is settled when it is touched again.
    scale multiplies the gradients, for clipping. Arithmetic is in float32 (float64 for a float64 table). A bfloat16
    table without masters is rounded stochastically, with `generator`.
    impl: "triton" is one kernel that sums the gradient too; "native" is one pass in compiled C, for float32 tables on a
    CPU; "torch" takes several, in torch's ops; "auto" is the first that fits. Raises MemxError for an implementation
    that does not exist or does not fit.
    whole: where values are some columns of wider rows; with one second moment a row it is that of the whole row.
    """
    apart = whole is not None and state.second.dim() == 1
    chosen = "torch" if apart else choose("sparse_adam", impl, OP.available(values.device))
    assert step >= 1, f"step {step}: steps count from 1"
    assert state.momentum is not None or betas[0] == 0, "a state without momentum needs betas[0] = 0"
    small = eps * (1 - betas[1] ** step) ** 0.5
    if values.dtype == torch.float16 and state.master is None:
        raise MemxError(
            "sparse_adam: a float16 table needs master weights", hint="use make_state(values, masters=True)"
        )
    if chosen == "triton":
        from . import kernel

        if kernel.fits(values, gradient, state):
            tables = curves(betas, step, values.device)
            settings = {"lr": lr, "betas": betas, "eps": small, "scale": scale, "generator": generator}
            kernel.adam(values, gradient, state, tables, step=step, **settings)
            return
    compiled = chosen == "native" and _native_fits(values, gradient, state)
    if impl in ("native", "triton") and not compiled:
        takes = {"native": "whole float32 tables with a momentum", "triton": "whole tables and gradients grouped by it"}
        raise MemxError(f"sparse_adam: the {impl} implementation supports only {takes[impl]}", hint="use impl='auto'")
    factors = catch_up(state, gradient.rows, step=step, lr=lr, betas=betas)
    if compiled and state.momentum is not None:
        parts = (gradient.rows, gradient.starts, gradient.bags, gradient.weights, gradient.dout)
        settings = {"betas": betas, "eps": small, "scale": float(scale)}
        native.adam(values, state.momentum, state.second, *parts, **factors._asdict(), **settings)
    else:
        by_rows.adam(values, gradient, state, factors, betas, small, float(scale), generator, whole)


def _native_fits(values: Tensor, gradient: RowGradient, state: TableState) -> bool:
    """Whether the compiled step takes this table and state."""
    momentum, second = state.momentum, state.second
    if momentum is None or state.master is not None or values.dtype != torch.float32 or gradient.dtype != torch.float32:
        return False
    moments = momentum.dtype in (torch.float32, torch.bfloat16)
    squares = torch.float32 if second.dim() == 1 else momentum.dtype
    whole = all(x.is_contiguous() for x in (values, momentum, second))
    return moments and whole and second.dtype == squares and native.available(values, momentum, second, gradient.dout)


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
        by_rows.add(values, None, gradient.rows[start:stop], update, generator)


_STEP, _LR, _BETAS = 4, 1e-3, (0.9, 0.95)  # of the check and the benchmark


def _run(
    values: Tensor,
    weights: Tensor,
    dout: Tensor,
    momentum: Tensor,
    second: Tensor,
    slots: Tensor,
    last: Tensor,
    gap: Tensor,
    impl: Implementation = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """Group the gradient of one use of the table and take a step, in place; what a training step does."""
    grouped = "triton" if fastest(impl, values.device) == "triton" else "torch"
    gradient = row_gradient([BagGradient(slots, weights, dout)], size=len(values), impl=grouped)
    sparse_adam(values, gradient, TableState(momentum, second, last, gap), step=_STEP, lr=_LR, betas=_BETAS, impl=impl)
    return values, momentum, second


def _reference(
    values: Tensor,
    weights: Tensor,
    dout: Tensor,
    momentum: Tensor,
    second: Tensor,
    slots: Tensor,
    last: Tensor,
    gap: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    gradient = torch.zeros_like(values)
    gradient.index_add_(0, slots.flatten(), (weights[..., None] * dout[:, None]).flatten(0, 1))
    touched = torch.zeros_like(last, dtype=torch.bool).index_fill_(0, slots.flatten(), True)
    state = (momentum, second, last, gap)
    new = sparse_adam_reference(values, gradient, touched, *state, step=_STEP, lr=_LR, betas=_BETAS)
    return new.values, new.momentum, new.second


def _make_inputs(shape: Shape, dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> tuple:
    rows, width, bags, kept = (shape[name] for name in "NDBK")
    values = torch.randn(rows, width, generator=generator) * width**-0.5
    weights = torch.rand(bags, kept, generator=generator)
    dout = torch.randn(bags, width, generator=generator)
    momentum = torch.randn(rows, width, generator=generator)
    second = torch.rand((rows, width) if shape["full"] else (rows,), generator=generator)
    slots = torch.randint(rows, (bags, kept), generator=generator)
    last, gap = (torch.randint(1, _STEP, (rows,), generator=generator, dtype=torch.int32) for _ in range(2))
    floating = [x.to(device, dtype) for x in (values, weights, dout, momentum)]
    exact = torch.promote_types(dtype, torch.float32) if not shape["full"] else dtype  # as `make_state` keeps it
    return *floating, second.to(device, exact), slots.to(device), last.to(device), gap.to(device)


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
        {"B": 1024, "K": 128, "N": 2**16, "D": 256, "full": 1},
    ),
    large_shapes=(
        {"B": 8192, "K": 128, "N": 2**20, "D": 1024, "full": 1},
        {"B": 8192, "K": 128, "N": 2**22, "D": 1024, "full": 0},
    ),
    odd_shapes=(
        {"B": 90, "K": 4, "N": 2, "D": 20, "full": 1},
        {"B": 30, "K": 4, "N": 90, "D": 600, "full": 0},
    ),
    gradients=(),
    implementations=("triton", "native", "torch"),
    bytes_moved=_bytes_moved,
    flops=_flops,
    terms=lambda shape: max(2, shape["B"] * shape["K"] // shape["N"]),
    rivals={"dense gradient and state": _reference},
)
