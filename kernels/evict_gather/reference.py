"""Evict gather: tensors stored by key and the kept keys' indices -> the kept rows, packed.

B sequences, H heads, T keys, M of them kept at most, each tensor of its own width W and dtype.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def evict_gather_reference(tensors: Sequence[Tensor], kept: Tensor, counts: Tensor | None = None) -> tuple[Tensor, ...]:
    """What `evict_gather` returns, by torch.gather with an index for every number: the definition only."""
    return tuple(_gather(tensor, kept.long(), counts) for tensor in tensors)


def _gather(tensor: Tensor, kept: Tensor, counts: Tensor | None) -> Tensor:
    there = torch.ones_like(kept, dtype=torch.bool) if counts is None else used(kept, counts)
    index = kept.masked_fill(~there, 0).view(*kept.shape, *[1] * (tensor.dim() - 3))
    index = index.expand(*kept.shape, *tensor.shape[3:])  # [B, H, M] or [B, H, M, W]
    out = tensor.gather(2, index)
    return out.masked_fill(~there.view(*kept.shape, *[1] * (tensor.dim() - 3)), 0)


def used(kept: Tensor, counts: Tensor) -> Tensor:
    """Which entries of kept [B, H, M] count: the first counts [B, H] of each head."""
    return torch.arange(kept.shape[2], device=kept.device) < counts[..., None]
