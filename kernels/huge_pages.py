"""Large pages for large tables on a CPU: rows read at random otherwise cost a page walk each, as much as the row."""

from __future__ import annotations

import ctypes
import sys

from torch import Tensor

_PAGE = 2 << 20  # bytes
_LATER, _NOW = 14, 25  # MADV_HUGEPAGE, MADV_COLLAPSE of Linux's mman.h


def use_huge_pages(table: Tensor) -> bool:
    """Ask Linux to keep a CPU tensor in large pages, in place; returns whether it agreed.

    What has been written moves at once, the rest is put there as it is written. Values stay. Elsewhere, and for
    tensors below a page, nothing happens.
    """
    if not sys.platform.startswith("linux") or type(table) is not Tensor:  # others may have no memory of their own
        return False
    if table.device.type != "cpu" or not table.is_contiguous():
        return False
    start = -(-table.data_ptr() // _PAGE) * _PAGE
    stop = (table.data_ptr() + table.nbytes) // _PAGE * _PAGE
    advise = getattr(ctypes.CDLL(None), "madvise", None)
    if advise is None or stop <= start:
        return False
    place = (ctypes.c_void_p(start), ctypes.c_size_t(stop - start))
    agreed = advise(*place, _LATER) == 0
    if agreed:
        advise(*place, _NOW)  # an older kernel does so in its own time
    return agreed
