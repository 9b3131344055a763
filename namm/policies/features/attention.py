"""Features of the attention that a key received: of the newest queries, or of all, which needs a pass over them.

a_qi: attention of query q to key i, for each of the G query heads that share the key; N: queries so far.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..base import Attention, View
from .feature import Feature, RowObserver, observed

RECENT = 32  # newest queries; and how much later than a key "later" is
SMALL = 1e-6  # added before a logarithm
_AT_ONCE = 2**22  # numbers of attention written out at a time


def recent_max(view: View, state: Tensor) -> Tensor:
    """log(1e-6 + max a_qi) over the last 32 queries that were observed and over the group: [B, H, T, 1]."""
    recent = view.recent.last(RECENT)
    greatest = torch.zeros(view.key.shape[:3], device=view.key.device)
    size = max(1, _AT_ONCE // max(1, recent.query.shape[1] * view.key.shape[2]))
    for start in range(0, recent.query.shape[2], size):
        rows = recent.some(slice(start, start + size)).by_head()
        greatest = torch.maximum(greatest, rows.amax((2, 3)))
    return (SMALL + greatest[..., None]).log()


def received(view: View, state: Tensor) -> Tensor:
    """log(1e-6 + sum_q a_qi / (N - i)), averaged over the group: [B, H, T, 1].

    N - i is how many queries could attend to key i, its own included; at most as many as a layer's window.
    """
    later = (observed(view) - view.recent.positions).clamp(1, view.recent.window)
    return (SMALL + state.float() / later[..., None]).log()


def later_max(view: View, state: Tensor) -> Tensor:
    """log(1e-6 + max a_qi) over the queries q >= i + 32 and over the group: [B, H, T, 1]."""
    return (SMALL + state.float()).log()


def _add(total: Tensor, queries: Attention, rows: Tensor) -> Tensor:
    return total + rows.mean(2).sum(2)[..., None]


def _greatest(greatest: Tensor, queries: Attention, rows: Tensor) -> Tensor:
    back = queries.own[..., :, None] - queries.positions[..., None, :]  # [B, H, q, t]
    rows = rows.amax(2).masked_fill(back < RECENT, 0)
    return torch.maximum(greatest, rows.amax(2)[..., None])


FEATURES = (
    Feature("recent_max", 1, recent_max, "log(1e-6 + max of a_qi over the last 32 queries)", queries=RECENT),
    Feature("received", 1, received, "log(1e-6 + mean of a_qi over queries q >= i)", observer=RowObserver(_add)),
    Feature("later_max", 1, later_max, "log(1e-6 + max of a_qi over q >= i + 32)", observer=RowObserver(_greatest)),
)
