"""Bag dot: one vector per token, slots and a table -> the dot product with every row of the token's bag.

N slots of width D, B bags of K rows.
"""

from __future__ import annotations

from torch import Tensor


def bag_dot_reference(vectors: Tensor, values: Tensor, slots: Tensor) -> Tensor:
    """Return <vectors[b], values[slots[b, k]]>: [B, K]. Writes the [B, K, D] rows: the definition only.

    vectors [B, D]; values [N, D]; slots [B, K], integers in 0..N-1.
    """
    rows = values[slots.long()]  # [B, K, D]
    return (vectors[:, None] * rows).sum(-1)
