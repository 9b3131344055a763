"""Sizes of the hash tables of n-gram memories: wanted rows -> a prime number of rows for each hash head. No torch here.

Source: Engram (arXiv 2601.07372), section 2: all tables of all layers have sizes that are prime and differ, so that two
n-grams that share a row in one of them seldom share a row in another.
"""

from __future__ import annotations

from functools import lru_cache


@lru_cache
def table_primes(slots: int, heads: int, orders: int, layers: int) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Choose the rows of every hash head.

    Args:
        slots: Wanted rows of one layer, over all its heads.
        heads: Hash heads of one n-gram order.
        orders: Number of n-gram orders.
        layers: Number of layers with an n-gram memory.

    Returns:
        For each layer and order the rows of its heads: the smallest primes, all different, that are at least
        slots / (heads * orders).
    """
    from sympy import nextprime  # torch depends on it; importing it takes half a second

    prime = max(1, -(-slots // (heads * orders)) - 1)
    found: list[int] = []
    for _ in range(layers * orders * heads):
        prime = int(nextprime(prime))
        found.append(prime)
    numbers = iter(found)
    return tuple(tuple(tuple(next(numbers) for _ in range(heads)) for _ in range(orders)) for _ in range(layers))


def table_rows(slots: int, heads: int, orders: int, layers: int) -> int:
    """Rows of the tables of all layers together.

    Args:
        slots: Wanted rows of one layer, over all its heads.
        heads: Hash heads of one n-gram order.
        orders: Number of n-gram orders.
        layers: Number of layers with an n-gram memory.

    Returns:
        The sum of all primes that `table_primes` chooses.
    """
    return sum(sum(map(sum, layer)) for layer in table_primes(slots, heads, orders, layers))
