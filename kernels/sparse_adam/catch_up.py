"""What a touched row makes up for: the steps since its last touch -> decays of its moments, and how far it coasts."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from .reference import coasted
from .state import TableState


class CatchUp(NamedTuple):
    """In float64, of U touched rows: decays [2, U], what is left of either moment; ahead [U], what its new moments'
    ratio moves a weight by; owed [U], the same of its old moments for what its last coasting was off by."""

    decays: Tensor
    ahead: Tensor
    owed: Tensor


def catch_up(state: TableState, rows: Tensor, *, step: int, lr: float, betas: tuple[float, float]) -> CatchUp:
    """The factors of rows [U] in step `step`, which is noted in the state as their last."""
    tables = curves(betas, step, rows.device)
    last = state.last.index_select(0, rows)  # [U], int32
    gap = step - last
    coasting = tables[2].index_select(0, gap)
    owed = coasting - tables[2].index_select(0, state.gap.index_select(0, rows))
    owed.mul_(tables[3].index_select(0, last)).mul_(lr)
    state.last.index_fill_(0, rows, step)
    state.gap.index_copy_(0, rows, gap)
    ahead = coasting.add_(1).mul_(tables[3, step] * lr)
    return CatchUp(tables[:2].index_select(1, gap), ahead, owed)


def curves(betas: tuple[float, float], step: int, device: torch.device) -> Tensor:
    """By number of steps 0..L - 1, L > step, in float64: powers of both betas, coasting, bias correction: [4, L]."""
    return _curves(tuple(betas), 1 << step.bit_length(), device)


@lru_cache(maxsize=4)
def _curves(betas: tuple[float, float], length: int, device: torch.device) -> Tensor:
    steps = torch.arange(length, dtype=torch.float64, device=device)
    correction = (1 - betas[1] ** steps).sqrt() / (1 - betas[0] ** steps)
    correction[0] = 0  # a row that was never touched owes nothing
    return torch.stack([betas[0] ** steps, betas[1] ** steps, coasted(steps, betas), correction])
