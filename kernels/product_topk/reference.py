"""Product-key lookup: queries and two lists of half-keys -> the k best slots and their scores.

B tokens, H heads, n half-keys per list, k kept. Source: Lample et al. 2019, "Large Memory Layers with
Product Keys", section 3; the pruning is the one of sorted lists: pair (i, j) of 1-based ranks has at least
i*j - 1 pairs that are no worse, so it can be among the k best only if i*j <= k.
"""

from __future__ import annotations

import torch
from torch import Tensor


def candidate_ranks(k: int) -> tuple[list[int], list[int]]:
    """Ranks (0-based) of the pairs that can be among the k best sums of two sorted lists of k."""
    pairs = [(i, j) for i in range(k) for j in range(k // (i + 1))]
    return [i for i, _ in pairs], [j for _, j in pairs]


def product_topk_reference(query: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return scores [B, H, k], best first, and slots [B, H, k] (int64), slot = i*n + j.

    query [B, H, d_k]; its first half meets keys[0], the second keys[1]; keys [2, H, n, d_k/2]; 1 <= k <= n.
    Differentiable in query and keys through the scores.
    """
    n = keys.shape[2]
    halves = query.unflatten(-1, (2, -1))  # [B, H, 2, d_k/2]
    scores = torch.einsum("bhpd,phnd->pbhn", halves, keys)  # [2, B, H, n]
    best, index = scores.topk(k, dim=-1)  # [2, B, H, k]
    first, second = (torch.tensor(ranks, device=query.device) for ranks in candidate_ranks(k))
    sums = best[0].index_select(-1, first) + best[1].index_select(-1, second)  # [B, H, candidates]
    top, pair = sums.topk(k, dim=-1)  # [B, H, k]
    slots = index[0].gather(-1, first[pair]) * n + index[1].gather(-1, second[pair])
    return top, slots
