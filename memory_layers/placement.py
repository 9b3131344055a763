"""Which blocks get a memory layer: number of blocks, memories and stride -> block indices. No torch here."""

from __future__ import annotations

from ..errors import MemxError

_SMALL = 20  # blocks; below it the published stride is 4, from it on 8 (arXiv 2412.09764, section 3.3)


def centred(blocks: int, count: int, stride: int | None = None) -> tuple[int, ...]:
    """Spread `count` memories around the middle block, `stride` blocks apart.

    stride None is the published one, 4 for small models and 8 for large ones, or the widest below it that fits:
    24 blocks give 4, 12, 20. Raises MemxError if the memories do not fit.
    """
    wanted = stride or (4 if blocks < _SMALL else 8)
    for step in range(wanted, 0 if stride is None else wanted - 1, -1):
        first = blocks // 2 - step * (count - 1) // 2
        last = first + step * (count - 1)
        if last >= blocks:  # an even number of memories may stand a little left of the middle
            first, last = first - (last - blocks + 1), blocks - 1
        if first >= 0:
            return tuple(range(first, last + 1, step))
    raise MemxError(
        f"{count} memory layers with a stride of {wanted} do not fit in {blocks} blocks",
        hint="lower memory.count or memory.stride, or list the blocks in memory.layers",
    )


def early(blocks: int, count: int) -> tuple[int, ...]:
    """Spread `count` n-gram memories evenly from the second block to the one before the middle.

    Two of them stand in blocks 1 and 14 of 30, counted from 0, as published (arXiv 2601.07372, section 4). Raises
    MemxError if they do not fit.
    """
    first = min(1, blocks - 1)
    if count > blocks - first:
        raise MemxError(
            f"{count} n-gram memories do not fit in {blocks} blocks",
            hint="lower memory.count, or list the blocks in memory.layers",
        )
    last = max(blocks // 2 - 1, first + count - 1)
    return tuple(first + round(i * (last - first) / max(1, count - 1)) for i in range(count))
