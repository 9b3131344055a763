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
    noise = torch.randint(1 << 16, x.shape, dtype=torch.int32, device=x.device, generator=generator)
    # bfloat16 is the upper half of a float32: noise in the lower half carries into it as often as it should
    bits = (noise.add_(x.view(torch.int32)) & -(1 << 16)).view(torch.float32)
    return torch.where(x.isfinite(), bits, x).to(torch.bfloat16)
