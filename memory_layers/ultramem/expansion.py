"""Implicit value expansion: virtual slots -> rows of one physical table and the projection that each of them has.

E virtual tables of N slots each are one table V [N, d_v] seen through E projections W_p: virtual table p is V W_p. The
addresses 0..E*N-1 are permuted at random, so that slots which share a half-key are spread over rows and projections.
T tokens, K slots of each. Source: Huang et al. 2024, UltraMem (arXiv 2411.12364), section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..tables.values import MemoryValues

_ROUNDS = 4
_BITS = (1 << 31) - 1


def scattered(slots: Tensor, n: int) -> Tensor:
    """Permute the slots 0..n*n-1 by a fixed permutation that looks random, computed slot by slot.

    A slot i*n + j goes through four rounds of a Feistel network, (i, j) -> (j, i + f(j) mod n), each with a hash f of
    its own. A table of the permutation would be as long as the virtual one.

    Args:
        slots: Integers (int64) in 0..n*n-1, any shape.
        n: Half-keys in a list.

    Returns:
        Addresses in 0..n*n-1, of the same shape, different for different slots.
    """
    i, j = slots // n, slots % n
    for turn in range(_ROUNDS):
        i, j = j, (i + _hash(j, turn)) % n
    return i * n + j


def gathered(addresses: Tensor, n: int) -> Tensor:
    """The slots that `scattered` sends to these addresses."""
    i, j = addresses // n, addresses % n
    for turn in reversed(range(_ROUNDS)):
        i, j = (j - _hash(i, turn)) % n, i
    return i * n + j


def _hash(numbers: Tensor, turn: int) -> Tensor:
    """Hash int64 numbers to 31 bits; all products stay below 2^62, so that every device gives the same."""
    mixed = (numbers + 0x51ED270B * (turn + 1)) & _BITS
    for shift, factor in ((16, 0x21F0AAAD), (15, 0x35A2D97B)):
        mixed = ((mixed ^ (mixed >> shift)) * factor) & _BITS
    return mixed ^ (mixed >> 15)


def block_bags(values: MemoryValues, rows: Tensor, blocks: Tensor, weights: Tensor, expansion: int) -> Tensor:
    """Sum each token's rows by block, each with its weight.

    A token is read as E bags of the table, in which the slots of other blocks weigh zero. On the CPU, where lengths
    that depend on the data cost nothing, a bag holds the slots of its block alone, and padding up to the longest bag.

    Args:
        values: The physical table [N, d_v]; one that is sharded or in CPU memory is read as any other.
        rows: Its rows [T, K].
        blocks: The block of each of them [T, K], 0 to E - 1.
        weights: Their weights [T, K].
        expansion: E.

    Returns:
        The sums [T, E, d_v].
    """
    if expansion == 1:
        return values.bag(rows, weights)[:, None]
    if _lengths_may_vary(values, rows):
        rows, weights = _by_block(rows, blocks, weights, expansion)  # [T, E, L]
    else:
        own = blocks[:, None] == torch.arange(expansion, device=blocks.device)[:, None]
        weights = torch.where(own, weights[:, None], 0)  # [T, E, K]
        rows = rows[:, None].expand(weights.shape)
    return values.bag(rows.flatten(0, 1), weights.flatten(0, 1)).unflatten(0, (-1, expansion))


def _lengths_may_vary(values: MemoryValues, rows: Tensor) -> bool:
    """Whether lengths of bags may depend on the data: no device waits for them, and no rank expects others."""
    return rows.device.type == "cpu" and values.shard is None and not torch.compiler.is_compiling()


def _by_block(rows: Tensor, blocks: Tensor, weights: Tensor, expansion: int) -> tuple[Tensor, Tensor]:
    """Rows and weights [T, E, L] of each block; L is the most that one holds, and padding weighs zero."""
    counts = (blocks[:, None] == torch.arange(expansion)[:, None]).sum(-1)  # [T, E]
    place = torch.arange(int(counts.max()) if len(rows) else 1)
    order = blocks.argsort(stable=True)  # [T, K]
    inside = (counts.cumsum(-1) - counts)[..., None] + place  # [T, E, L]
    source = order.gather(1, inside.flatten(1).clamp(max=rows.shape[1] - 1))
    filled = place < counts[..., None]
    weights = torch.where(filled, weights.gather(1, source).view(filled.shape), 0)
    return rows.gather(1, source).view(filled.shape), weights  # padding is of the token's own rows
