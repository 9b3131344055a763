"""Slots [S] in ascending order, and sums of [S]: both the same bits with any number of threads."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def sum_in_parts(x: Tensor) -> Tensor:
    """The sum of x [S], in parts that each one thread sums: the same bits with any number of them."""
    part = 4096
    return F.pad(x, (0, -len(x) % part)).view(-1, part).sum(1).sum()


def sort_slots(slots: Tensor) -> tuple[Tensor, Tensor]:
    """Slots [S] in ascending order, equal ones in theirs, and where each came from (int64)."""
    bits = len(slots).bit_length()
    if slots.device.type != "cpu" or (len(slots) and int(slots.max()) >> (63 - bits)):
        return slots.sort(stable=True)
    # slot and place as one number: no two are the same, and numpy's sort of those is many times faster
    both = (slots.long() << bits) | torch.arange(len(slots), device=slots.device)
    both.numpy().sort()
    return both >> bits, both & ((1 << bits) - 1)
