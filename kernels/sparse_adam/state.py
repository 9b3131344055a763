"""The state that a sparse optimiser keeps beside a table: plain tensors, so that any format can save them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..zeros import lazy_zeros


class WholeRows(NamedTuple):
    """For a table whose rows lie in parts: their whole width, and what turns sums of squares over this part's columns,
    [C, 1], into sums over all."""

    width: int
    complete: Callable[[Tensor], Tensor]


@dataclass
class TableState:
    """State of one table [N, D].

    momentum [N, D], or None for betas[0] = 0; second [N, D], or [N] with one scalar per row; last [N] (int32): the step
    (1-based) at which a row was last touched, 0 for never; gap [N] (int32): how many steps lay between its last two
    touches, which is for how many it coasted ahead; master [N, D] (float32): the exact values of a half-precision
    table, or None.
    """

    momentum: Tensor | None
    second: Tensor
    last: Tensor
    gap: Tensor
    master: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """The tensors there are, by name."""
        return {name: tensor for name, tensor in vars(self).items() if tensor is not None}


def make_state(
    values: Tensor,
    *,
    second_moment: Literal["full", "row"] = "full",
    moments: torch.dtype = torch.float32,
    masters: bool = False,
    momentum: bool = True,
) -> TableState:
    """Make the state of a table [N, D] that no step has touched.

    second_moment: one number per weight, or per row (the mean of its squares, as in Adafactor's rows). moments: the
    dtype that momentum and a full second moment are stored in; bfloat16 rounds to nearest, and then betas[1] above
    0.99 stalls the second moment. masters: keep the values of a bfloat16 or float16 table in float32 as well.
    momentum: False saves the momentum of an optimiser with betas[0] = 0.
    """
    rows, device = len(values), values.device
    full = second_moment == "full"
    wide = torch.promote_types(moments, torch.float32)
    return TableState(
        momentum=lazy_zeros(values.shape, moments, device) if momentum else None,
        second=lazy_zeros(values.shape, moments, device) if full else torch.zeros(rows, dtype=wide, device=device),
        last=torch.zeros(rows, dtype=torch.int32, device=device),
        gap=torch.ones(rows, dtype=torch.int32, device=device),
        master=values.detach().float() if masters and values.dtype != torch.float32 else None,
    )
