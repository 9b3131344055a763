"""Stochastic rounding: float32 -> bfloat16 that is right on average."""

from __future__ import annotations

import torch
from torch import Tensor


def stochastic_round(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Round float32 x to one of the two nearest bfloat16 values, each as likely as x is near it.

    The mean is x, so updates far below the spacing of bfloat16 (2^-8 of a value) still add up. A representable value,
    infinity and nan stay. generator: of the device of x; the same state gives the same result.
    """
    assert x.dtype == torch.float32, x.dtype
    # bfloat16 is the upper half of a float32: noise in the lower half carries into it as often as it should
    bits = _noise(x, generator).add_(x.view(torch.int32))
    upper = bits.flatten().view(torch.bfloat16)[1::2].view(x.shape)  # little-endian
    return torch.where(x.isnan(), x.to(torch.bfloat16), upper)


def _noise(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform int32 in 0..2^16-1 of the shape of x; four come from each 64-bit draw."""
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device)
    draws.random_(-(1 << 63), None, generator=generator)
    return draws.view(torch.uint16)[: x.numel()].view(x.shape).to(torch.int32)
