"""What ranks of a group send each other: tensors of equal shape on every rank, unless it says so.

G ranks. Sums are made in the order of the ranks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed

from ...torch_compat import all_gather

Group = Any  # a ProcessGroup


def gather(x: Tensor, group: Group) -> Tensor:
    """Every rank's x [B, ...], one after another: [G*B, ...]."""
    size = distributed.get_world_size(group)
    out = x.new_empty(size * len(x), *x.shape[1:])
    all_gather(out, x.contiguous(), group)
    return out


def swap(x: Tensor, group: Group) -> Tensor:
    """x [G, B, ...] holds one part for each rank; returns the parts that the ranks hold for this one, [G, B, ...]."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    distributed.all_to_all_single(out, x.contiguous(), group=group)
    return out


def swap_uneven(x: Tensor, sent: list[int], received: list[int], group: Group) -> Tensor:
    """x [sum of sent, ...] holds sent[j] rows for rank j; returns received[i] rows from each rank i, in their order."""
    out = x.new_empty(sum(received), *x.shape[1:])
    distributed.all_to_all_single(out, x.contiguous(), received, sent, group=group)
    return out


def sum_scatter(x: Tensor, group: Group) -> Tensor:
    """x [G, B, ...] holds one part for each rank; returns the sum of the parts that the ranks hold for this one.

    Summed here, in the order of the ranks, so that the result is the same bits on any backend.
    """
    return swap(x, group).sum(0)


def total(x: Tensor, group: Group) -> Tensor:
    """The sum of every rank's x."""
    x = x.clone()
    distributed.all_reduce(x, group=group)
    return x


def gather_uneven(x: Tensor, group: Group) -> list[Tensor]:
    """Every rank's x [B, ...], where B differs, by rank."""
    length = torch.tensor([len(x)], dtype=torch.int64, device=x.device)
    lengths = gather(length, group).tolist()
    padded = x.new_zeros(max(lengths), *x.shape[1:])
    padded[: len(x)] = x
    return [part[:length] for part, length in zip(gather(padded, group).chunk(len(lengths)), lengths, strict=True)]
