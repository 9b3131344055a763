"""What the device can do at most, measured in the same run: a device and a dtype -> copy bandwidth and matmul rate.

They give every op a floor: the time in which its least bytes and FLOPs could have been moved and computed.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from .timing import Stopwatch, Timing

_COPIED = {"cuda": 4 * 2**30, "cpu": 256 * 2**20}  # bytes; many times any cache
_SIDE = {"cuda": 8192, "cpu": 1024}  # of the square matrices


class Ceilings(NamedTuple):
    """Bytes a second of a large copy, read and written; FLOPs a second of a large matmul; and how they were timed."""

    bandwidth: float
    matmul: float
    copied: int
    side: int
    copy_timing: Timing
    matmul_timing: Timing

    def floor(self, moved: int, flops: int) -> float:
        """The least seconds for so many bytes and FLOPs."""
        return max(moved / self.bandwidth, flops / self.matmul)


def measure_ceilings(stopwatch: Stopwatch, dtype: torch.dtype) -> Ceilings:
    """Copy a buffer far beyond any cache, and multiply square random matrices of the dtype."""
    device = stopwatch.device
    copied, side = _COPIED[device.type], _SIDE[device.type]
    if device.type == "cuda":
        copied = min(copied, torch.cuda.mem_get_info(device)[0] // 4)
    source = torch.ones(copied // 4, device=device)
    target = torch.empty_like(source)
    copy = stopwatch.time(lambda: target.copy_(source))
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    product = torch.empty_like(left)
    matmul = stopwatch.time(lambda: torch.mm(left, right, out=product))
    return Ceilings(2 * copied / copy.seconds, 2 * side**3 / matmul.seconds, copied, side, copy, matmul)
