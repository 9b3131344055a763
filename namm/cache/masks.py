"""Causal masks for queries that are the last of the keys."""

from __future__ import annotations

import torch
from torch import Tensor


def bottom_right_causal(queries: int, keys: int, device: torch.device) -> Tensor:
    """Which keys each query sees, the last queries' own keys being the last: [Q, T], bool, True up to its own."""
    own = torch.arange(keys - queries, keys, device=device)[:, None]
    return torch.arange(keys, device=device) <= own
