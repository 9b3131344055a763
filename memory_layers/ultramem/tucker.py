"""Tucker scores: queries [T, H, d_k] and two lists of n half-keys -> the k best of n*n slots and their scores.

T tokens, H heads, n half-keys per list, k kept per head, r rank. A query half and a half-key consist of r parts of
equal width, so that each list has r scores for each of its half-keys: S_row and S_col [r, n]. Slot i*n + j scores
(S_row^T C S_col)[i, j] with a trained core C [r, r].

Source: Huang et al. 2024, "Ultra-Sparse Memory Network" (UltraMem, arXiv 2411.12364), section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels.bag_dot import bag_dot
from ...kernels.product_topk.select import smallest

_CACHED_SCORES = 1 << 19  # scores at a time on the CPU: 2 MB of float32


def leading_vectors(core: Tensor) -> tuple[Tensor, Tensor]:
    """The leading singular vectors u and t [r] of a core [r, r], with signs such that u sums to zero or more."""
    wide = core.detach().to(torch.promote_types(core.dtype, torch.float32))
    left, _, right = torch.linalg.svd(wide)
    u, t = left[:, 0], right[0]
    sign = torch.where(u.sum() < 0, -1, 1)  # (u, t) and (-u, -t) are the same matrix, yet rank half-keys oppositely
    return (sign * u).to(core.dtype), (sign * t).to(core.dtype)


def tucker_topk(query: Tensor, keys: Tensor, core: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Find the best slots of each token and head by Tucker scores.

    The k best half-keys of each list by u^T S_row and t^T S_col are candidates, with u and t the leading singular
    vectors of the core. All k*k pairs of candidates are scored exactly, and the k best remain. A slot that is not a
    pair of candidates is missed, which is rare while the other singular values of the core are small.

    Args:
        query: Queries [T, H, d_k]. The first half is for rows.
        keys: Half-keys [2, H, n, d_k/2], of the dtype of the queries.
        core: C [r, r]; r divides d_k/2.
        k: Slots for each token and head, 1 to n.

    Returns:
        Scores [T, H, k], which carry gradients to queries, keys and core, and slots [T, H, k] (int64), i*n + j. Best
        first, up to rounding.
    """
    rank = len(core)
    assert query.shape[2] == 2 * keys.shape[3] and keys.shape[3] % rank == 0, (query.shape, keys.shape, core.shape)
    assert 1 <= k <= keys.shape[2], f"k {k} is not in 1..{keys.shape[2]}, the half-keys per list"
    slots = _best_slots(query, keys, core, k)
    return tucker_scores(query, keys, core, slots), slots


def tucker_scores(query: Tensor, keys: Tensor, core: Tensor, slots: Tensor) -> Tensor:
    """The scores [T, H, k] of slots [T, H, k]; other arguments as of `tucker_topk`. No list of n scores is made."""
    n = keys.shape[2]
    row, column = _part_scores(query, keys, len(core), torch.stack([slots // n, slots % n], 2)).unbind(2)
    return (torch.einsum("ac,thak->thck", core.to(row.dtype), row) * column).sum(2)


def _part_scores(query: Tensor, keys: Tensor, rank: int, index: Tensor) -> Tensor:
    """The r scores of each of the half-keys index [T, H, 2, k] of both lists: [T, H, 2, r, k]."""
    heads, n, half = keys.shape[1:]
    table = keys.reshape(-1, half // rank)  # [2*H*n*r, w]: the r parts of a half-key are rows next to each other
    lists = torch.arange(2 * heads, device=index.device).view(2, heads).T * n  # [H, 2], where the lists begin
    parts = torch.arange(rank, device=index.device)
    rows = (index + lists[..., None])[:, :, :, None] * rank + parts[:, None]  # [T, H, 2, r, k]
    return bag_dot(query.reshape(-1, half // rank), table, rows.flatten(0, 3)).view(rows.shape)


def excess(core: Tensor, threshold: float = 0.15) -> Tensor:
    """How far a core is from rank one: the sum over i >= 2 of max(0, l_i - threshold)^2 / (r - 1).

    Args:
        core: C [r, r] with singular values l_1 >= l_2 >= ...
        threshold: Singular values up to this cost nothing.

    Returns:
        A scalar; zero for r = 1.
    """
    if len(core) == 1:
        return core.new_zeros(())
    wide = core.to(torch.promote_types(core.dtype, torch.float32))
    others = torch.linalg.svdvals(wide)[1:]
    return (others - threshold).clamp(min=0).square().sum() / (len(core) - 1)


@torch.library.custom_op("memx::tucker_slots", mutates_args=())
def _best_slots(query: Tensor, keys: Tensor, core: Tensor, k: int) -> Tensor:
    tokens, heads, _ = query.shape
    slots = torch.empty(tokens, heads, k, dtype=torch.int64, device=query.device)
    cached = _CACHED_SCORES if query.device.type == "cpu" else 128 * _CACHED_SCORES
    size = max(1, cached // (heads * max(2 * keys.shape[2], k * k)))
    with torch.autocast(query.device.type, enabled=False):
        for start in range(0, tokens, size):
            slots[start : start + size] = _search(query[start : start + size], keys, core, k)
    return slots


@_best_slots.register_fake
def _(query: Tensor, keys: Tensor, core: Tensor, k: int) -> Tensor:
    return query.new_empty((*query.shape[:2], k), dtype=torch.int64)


def _search(query: Tensor, keys: Tensor, core: Tensor, k: int) -> Tensor:
    """The slots [t, H, k] of t tokens. Each list is ranked by one product, of queries that u and t weigh."""
    rank, n = len(core), keys.shape[2]
    parts = query.unflatten(-1, (2, rank, -1))  # [t, H, 2, r, w]
    weighed = parts * torch.stack(leading_vectors(core))[..., None]  # u and t over the parts of either half
    leading = torch.einsum("thpd,phnd->pthn", weighed.flatten(3), keys)
    index = _largest(leading, k)  # [2, t, H, k]
    row, column = _part_scores(query, keys, rank, index.permute(1, 2, 0, 3)).unbind(2)  # [t, H, r, k]
    scores = torch.einsum("thai,ac,thcj->thij", row, core.to(row.dtype), column).flatten(-2)  # [t, H, k*k]
    pair = _largest(scores, k)
    return index[0].gather(-1, pair // k) * n + index[1].gather(-1, pair % k)


def _largest(scores: Tensor, k: int) -> Tensor:
    """Positions of the k largest along the last axis, largest first."""
    if scores.device.type == "cpu" and scores.dtype == torch.float32:
        return smallest(scores.neg().flatten(0, -2), k)[1].view(*scores.shape[:-1], k)
    return scores.topk(k, dim=-1).indices
