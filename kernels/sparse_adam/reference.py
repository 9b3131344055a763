"""Sparse Adam, the definition: dense masks over the whole table, nothing in place, no chunks.

N slots of width D. Source: Kingma and Ba 2015, "Adam", with moments that catch up when a row is touched again.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class AdamStep(NamedTuple):
    """What one step leaves: values [N, D], momentum [N, D], second [N, D] or [N], last [N]."""

    values: Tensor
    momentum: Tensor
    second: Tensor
    last: Tensor


def sparse_adam_reference(
    values: Tensor,
    gradient: Tensor,
    touched: Tensor,
    momentum: Tensor,
    second: Tensor,
    last: Tensor,
    *,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float = 1e-8,
) -> AdamStep:
    """Return the tables after one step in which only rows with touched [N] (bool) have a gradient.

    values, gradient, momentum [N, D]; second [N, D], or [N]: one scalar per row, of the mean of g^2 over D;
    last [N]: the step (1-based) at which each row was last touched, 0 for never. A touched row's moments first decay
    for the steps since, as if their gradients had been zero; bias correction counts all steps. The other rows stay.
    """
    gap = (step - last).to(values.dtype)  # [N]
    square = gradient.square() if second.dim() == 2 else gradient.square().mean(1)
    wide = gap[:, None] if second.dim() == 2 else gap
    new_momentum = betas[0] ** gap[:, None] * momentum + (1 - betas[0]) * gradient
    new_second = betas[1] ** wide * second + (1 - betas[1]) * square
    denominator = (new_second / (1 - betas[1] ** step)).sqrt() + eps
    if second.dim() == 1:
        denominator = denominator[:, None]
    new_values = values - lr * new_momentum / (1 - betas[0] ** step) / denominator
    row = touched[:, None]
    return AdamStep(
        values.where(~row, new_values),
        momentum.where(~row, new_momentum),
        second.where(~(row if second.dim() == 2 else touched), new_second),
        last.where(~touched, torch.full_like(last, step)),
    )
