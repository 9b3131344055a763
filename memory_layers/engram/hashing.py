"""Windows of token classes [..., n] -> table rows [..., J]: one row for each n-gram order and hash head.

n is the longest order, J the number of orders times hash heads. Entry k of a window is the class of the token k places
before; tokens before the start are padding.

Source: Engram (arXiv 2601.07372), section 2.2: XOR over k of (class k * multiplier k), modulo a prime of each head.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor


def draw_multipliers(count: int, vocabulary: int, seed: int, layer: int) -> tuple[int, ...]:
    """Draw the multipliers of one layer's hash.

    Args:
        count: How many, one for each place of the longest n-gram.
        vocabulary: Number of classes; no product of a class and a multiplier overflows 63 bits.
        seed: Random seed of the model's hashes.
        layer: Number of the block, so that layers hash differently.

    Returns:
        Odd numbers of at least 1.
    """
    generator = Random(f"{seed}/{layer}")
    most = (2**63 - 1) // max(vocabulary, 1)
    return tuple(2 * generator.randrange((most + 1) // 2) + 1 for _ in range(count))


class NgramHash:
    """The hash functions of one layer, and where each head's rows lie in the layer's table.

    Args:
        orders: Orders n of the n-grams, such as (2, 3).
        primes: For each order the rows of its hash heads.
        multipliers: Odd numbers, one for each place of the longest n-gram.
    """

    def __init__(self, orders: Sequence[int], primes: Sequence[Sequence[int]], multipliers: Sequence[int]) -> None:
        assert len(orders) == len(primes) and len(multipliers) >= max(orders), (orders, primes, multipliers)
        self.orders, self.multipliers = tuple(orders), tuple(multipliers)
        self.primes = tuple(tuple(of_order) for of_order in primes)
        self.rows = sum(map(sum, self.primes))
        self.lookups = sum(map(len, self.primes))

    def __call__(self, windows: Tensor) -> Tensor:
        """Hash the n-grams that end at each token.

        Args:
            windows: Token classes [..., n], int64, not negative.

        Returns:
            Rows of the table [..., J], int64: those of the first order's heads, then of the next order's.
        """
        slots, offset = [], 0
        for order, primes in zip(self.orders, self.primes, strict=True):
            mix = windows[..., 0] * self.multipliers[0]
            for back in range(1, order):
                mix = mix ^ (windows[..., back] * self.multipliers[back])
            sizes = torch.tensor(primes, device=windows.device)
            starts = offset + sizes.cumsum(0) - sizes
            slots.append(mix[..., None] % sizes + starts)
            offset += sum(primes)
        return torch.cat(slots, -1)
