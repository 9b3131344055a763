"""Embedding bag: a value table, slots and weights -> one weighted sum of rows per token.

N slots of width D, B bags of K rows.
"""

from __future__ import annotations

from torch import Tensor


def embedding_bag_reference(values: Tensor, slots: Tensor, weights: Tensor) -> Tensor:
    """Return sum_k weights[b, k] * values[slots[b, k]]: [B, D]. Writes the [B, K, D] rows: the definition only.

    values [N, D]; slots [B, K], integers in 0..N-1; weights [B, K].
    """
    rows = values[slots.long()]  # [B, K, D]
    return (weights[..., None] * rows).sum(1)
