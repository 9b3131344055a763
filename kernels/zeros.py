"""Large tables of zeros that cost nothing until they are written."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor


def lazy_zeros(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros of a shape; on the CPU in memory that the system provides, in large pages, as it is first written.

    torch.zeros writes all of it at once and in small pages, which for the gradient or the state of a large table
    takes longer than filling in the touched rows.
    """
    if device.type != "cpu" or 0 in shape:
        return torch.zeros(*shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(prod(shape) * dtype.itemsize, np.uint8)).view(dtype).view(*shape)
