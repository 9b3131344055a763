"""Slots and half-keys: a product-key table of N slots has n = sqrt(N) half-keys per list. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

from ..errors import MemxError


def half_keys(slots: int) -> int:
    """Return n for a table of n*n slots. Raises MemxError, naming the nearest square, for any other number."""
    n = isqrt(max(slots, 0))
    if slots < 1 or n * n != slots:
        nearest = min((max(n, 1) ** 2, (n + 1) ** 2), key=lambda square: abs(square - slots))
        raise MemxError(f"slots {slots} is not a square number", hint=f"use the nearest, {nearest}")
    return n


def check_top_k(top_k: int, slots: int) -> None:
    """Raise MemxError unless 1 <= top_k <= n: no list of n half-keys can give more."""
    n = half_keys(slots)
    if not 1 <= top_k <= n:
        raise MemxError(
            f"top_k {top_k} is not in 1..{n}, the square root of {slots} slots",
            hint=f"lower top_k to {n}, or use at least {top_k * top_k} slots",
        )


def check_virtual(slots: int, expansion: int) -> None:
    """Raise MemxError unless both the rows of a table and the number of virtual tables over it are squares."""
    half_keys(slots)
    if isqrt(expansion) ** 2 != expansion:
        raise MemxError(
            f"expansion {expansion} is not a square number of virtual tables", hint="use 1, 4, 9 or 16 of them"
        )


def check_rank(rank: int, key_width: int) -> None:
    """Raise MemxError unless both halves of a key have `rank` parts of equal width."""
    if key_width % (2 * rank):
        raise MemxError(
            f"key_width {key_width} cannot be split into 2 halves of {rank} equal parts",
            hint=f"use a multiple of {2 * rank}, or rank 1",
        )


def check_orders(orders: Sequence[int]) -> None:
    """Check the orders of n-grams.

    Args:
        orders: The orders.

    Raises:
        MemxError: There are none, one is not in 1..8, or one stands twice.
    """
    if not orders or len(set(orders)) < len(orders) or not all(1 <= order <= 8 for order in orders):
        raise MemxError(f"ngrams {list(orders)} must be different numbers from 1 to 8", hint="use [2, 3]")
