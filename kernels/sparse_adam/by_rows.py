"""The sparse Adam step by torch's ops: touched rows are gathered, stepped and put back, a chunk at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from ..embedding_bag.gradient import RowGradient
from .catch_up import CatchUp
from .rounding import stochastic_round
from .state import TableState, WholeRows


def adam(
    values: Tensor,
    gradient: RowGradient,
    state: TableState,
    factors: CatchUp,
    betas: tuple[float, float],
    eps: float,
    scale: float,
    generator: torch.Generator | None,
    whole: WholeRows | None = None,
) -> None:
    """The step by torch's ops, a chunk of rows at a time, so that they stay in cache."""
    decays, ahead, owed = (factor.to(gradient.dtype)[..., None] for factor in factors)
    settle = bool(owed.any())
    for start, stop in gradient.chunks():
        chunk = gradient.rows[start:stop]
        grad = gradient.chunk(start, stop)  # [C, D]
        if scale != 1:
            grad.mul_(scale)
        second = _gather_second(state.second, chunk, grad.dtype)  # [C, D] or [C, 1]
        owing, moments = None, state.momentum
        momentum = None if moments is None else moments.index_select(0, chunk).to(grad.dtype)
        if settle and momentum is not None:
            owing = second.sqrt().add_(eps).reciprocal_().mul_(owed[start:stop]) * momentum
        _step_second(state.second, chunk, second.mul_(decays[1, start:stop]), grad, betas[1], whole)
        if momentum is not None and moments is not None:
            grad = momentum.mul_(decays[0, start:stop]).add_(grad, alpha=1 - betas[0])
            moments.index_copy_(0, chunk, momentum.to(moments.dtype))
        update = grad.mul_(second.sqrt_().add_(eps).reciprocal_().mul_(ahead[start:stop])).neg_()
        add(values, state.master, chunk, update if owing is None else update.sub_(owing), generator)


def _gather_second(second: Tensor, rows: Tensor, dtype: torch.dtype) -> Tensor:
    """The second moment of the rows, a copy: [C, D], or [C, 1] with one scalar per row."""
    found = second.index_select(0, rows).to(dtype)
    return found[:, None] if second.dim() == 1 else found


def _step_second(
    second: Tensor, rows: Tensor, decayed: Tensor, grad: Tensor, beta: float, whole: WholeRows | None
) -> None:
    """Add the squares of the gradient to a decayed second moment, in place, and store it."""
    if second.dim() == 1:
        squares = torch.linalg.vector_norm(grad, dim=1, keepdim=True).square_()
        width = grad.shape[1]
        if whole is not None:
            width, squares = whole.width, whole.complete(squares)
        decayed.add_(squares, alpha=(1 - beta) / width)
        second.index_copy_(0, rows, decayed.squeeze(1))
    else:
        decayed.addcmul_(grad, grad, value=1 - beta)
        second.index_copy_(0, rows, decayed.to(second.dtype))


def add(values: Tensor, master: Tensor | None, rows: Tensor, update: Tensor, generator: torch.Generator | None) -> None:
    """Add update [C, D] to rows of the table, by way of its master if it has one."""
    if master is None and values.dtype == update.dtype:
        # along an expanded index of distinct rows this is torch's fastest read-add-write of whole rows
        values.scatter_add_(0, rows[:, None].expand_as(update), update)
        return
    assert master is not None or values.dtype == torch.bfloat16, f"a table of {values.dtype} needs master weights"
    new = (values if master is None else master).index_select(0, rows).to(update.dtype).add_(update)
    if master is not None:
        master.index_copy_(0, rows, new)
        new = new.to(values.dtype)
    else:
        new = stochastic_round(new, generator)
    values.index_copy_(0, rows, new)
