"""Sparse Adam, the definition: dense masks over the whole table, nothing in place, no chunks.

N slots of width D. Source: Kingma and Ba 2015, "Adam", with moments that catch up when a row is touched again.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class AdamStep(NamedTuple):
    """What one step leaves: values [N, D], momentum [N, D], second [N, D] or [N], last [N], gap [N]."""

    values: Tensor
    momentum: Tensor
    second: Tensor
    last: Tensor
    gap: Tensor


def coasted(gap: Tensor, betas: tuple[float, float]) -> Tensor:
    """How far Adam carries a weight in the gap - 1 steps without gradient after a step, in multiples of that step.

    The step is m / sqrt(v); without gradients m decays by beta1 and v by beta2, so each step is r = beta1 / sqrt(beta2)
    times the last: the sum of r^i for i from 1 to gap - 1.
    """
    ratio = betas[0] / betas[1] ** 0.5
    assert ratio < 1, f"betas {betas}: beta1 must be below the root of beta2"
    return ratio * (1 - ratio ** (gap - 1)) / (1 - ratio)


def sparse_adam_reference(
    values: Tensor,
    gradient: Tensor,
    touched: Tensor,
    momentum: Tensor,
    second: Tensor,
    last: Tensor,
    gap: Tensor,
    *,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float = 1e-8,
) -> AdamStep:
    """Return the tables after one step in which only rows with touched [N] (bool) have a gradient.

    values, gradient, momentum [N, D]; second [N, D], or [N]: one scalar per row, of the mean of g^2 over D;
    last [N]: the step (1-based) at which each row was last touched, 0 for never. A touched row's moments first decay
    for the steps since, as if their gradients had been zero; bias correction counts all steps. It then coasts ahead
    for as many steps as it went untouched, and settles what it coasted at its last touch, for gap [N] steps: too far or
    not far enough. The other rows stay.
    """
    since = (step - last).to(values.dtype)  # [N]
    square = gradient.square() if second.dim() == 2 else gradient.square().mean(1)
    wide = since[:, None] if second.dim() == 2 else since
    new_momentum = betas[0] ** since[:, None] * momentum + (1 - betas[0]) * gradient
    new_second = betas[1] ** wide * second + (1 - betas[1]) * square
    owed = coasted(since, betas) - coasted(gap.to(values.dtype), betas)
    owed = torch.where(last > 0, owed * _bias(last.clamp_min(1).to(values.dtype), betas), 0)
    now = _bias(torch.tensor(float(step), dtype=values.dtype), betas) * (1 + coasted(since, betas))
    small = eps * (1 - betas[1] ** step) ** 0.5

    def step_of(first: Tensor, squares: Tensor) -> Tensor:
        return first / ((squares if squares.dim() == 2 else squares[:, None]).sqrt() + small)

    moved = now[:, None] * step_of(new_momentum, new_second) + owed[:, None] * step_of(momentum, second)
    new_values = values - lr * moved
    row = touched[:, None]
    return AdamStep(
        values.where(~row, new_values),
        momentum.where(~row, new_momentum),
        second.where(~(row if second.dim() == 2 else touched), new_second),
        last.where(~touched, torch.full_like(last, step)),
        gap.where(~touched, step - last),
    )


def _bias(steps: Tensor, betas: tuple[float, float]) -> Tensor:
    """Adam's bias corrections of both moments in one factor."""
    return (1 - betas[1] ** steps).sqrt() / (1 - betas[0] ** steps)
