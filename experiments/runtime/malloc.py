"""Keeps the memory that torch frees on a CPU for its next tensors, in place of giving it back to the system.

A training step, or a pass over a prompt, frees and asks again for the same large activations; mapped anew each time,
they cost a sixth of the time of a prompt, and as much as the arithmetic of a small model's training step.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to keep freed memory in this process; returns whether it could (it cannot elsewhere)."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
