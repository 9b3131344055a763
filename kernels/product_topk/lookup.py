"""The product-key lookup without its n-wide score lists in memory, and its backward through the kept slots alone.

B tokens, H heads, n half-keys per list, k kept. On the CPU a few tokens at a time are scored and ranked in cache.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import native
from ..embedding_bag.gradient import table_gradient
from ..embedding_bag.sums import weighted_sums
from ..op import fastest
from .reference import candidate_ranks, product_topk_reference
from .select import smallest

_CACHED_SCORES = 1 << 19  # half-key scores at a time on the CPU: 2 MB of float32


def lookup(query: Tensor, keys: Tensor, k: int, impl: str = "auto") -> tuple[Tensor, Tensor]:
    """What `product_topk_reference` returns, not differentiable."""
    if fastest(impl, query.device) == "triton":
        from . import kernel

        return kernel.lookup(query, keys, k)
    query, keys = query.detach(), keys.detach()
    with torch.autocast(query.device.type, enabled=False):
        if query.device.type != "cpu" or query.dtype == torch.float64:
            return product_topk_reference(query, keys, k)
        tokens, heads, _ = query.shape
        scores, slots = query.new_empty(tokens, heads, k), torch.empty(tokens, heads, k, dtype=torch.int64)
        size = max(1, _CACHED_SCORES // (2 * heads * keys.shape[2]))
        for start in range(0, tokens, size):
            part = slice(start, start + size)
            scores[part], slots[part] = _lookup(query[part], keys, k)
    return scores, slots


def _lookup(query: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The lookup of b tokens. Everything is negated, and the smallest sums are sought."""
    (tokens, heads, _), n = query.shape, keys.shape[2]
    halves = query.neg().unflatten(-1, (2, -1)).permute(2, 1, 0, 3).flatten(0, 1)  # [2*H, b, d_k/2]
    lists = torch.bmm(halves, keys.flatten(0, 1).mT)  # [2*H, b, n]
    best, index = smallest(lists.flatten(0, 1).float(), k)  # [2*H*b, k]
    best, index = best.to(query.dtype).unflatten(0, (2, -1)), index.unflatten(0, (2, -1))  # [2, H*b, k]
    first, second = (torch.tensor(ranks) for ranks in candidate_ranks(k))
    sums = best[0].index_select(1, first) + best[1].index_select(1, second)  # [H*b, candidates]
    top, pair = smallest(sums.float(), k)  # [H*b, k]
    slots = index[0].gather(1, first[pair]).mul_(n).add_(index[1].gather(1, second[pair]))
    top = top.neg_().to(query.dtype)
    return top.view(heads, tokens, k).transpose(0, 1), slots.view(heads, tokens, k).transpose(0, 1)


def lookup_backward(
    dscores: Tensor, slots: Tensor, query: Tensor, keys: Tensor, impl: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Gradients of query [B, H, d_k] and keys [2, H, n, d_k/2] for dscores [B, H, k] of slots [B, H, k].

    All ways are exact and sum in a fixed order. Written out, the gradient of the score lists costs n a token, kept
    sparse it costs k; by torch's ops they meet at n = 8k on the CPU.
    """
    impl = fastest(impl, query.device)
    if impl == "triton":
        dscores = dscores.to(query.dtype)
    elif dscores.dtype == query.dtype == keys.dtype == torch.float32 and native.available(dscores, slots, query, keys):
        return native.lookup_backward(dscores, slots, query, keys)
    n, k = keys.shape[2], slots.shape[2]
    index = torch.stack([slots // n, slots % n], 2)  # [B, H, 2, k]
    with torch.autocast(query.device.type, enabled=False):
        if query.device.type == "cpu" and impl == "torch" and n < 8 * k:
            return _dense_backward(dscores, index, query, keys)
        return _sparse_backward(dscores, index, query, keys, impl)


def _sparse_backward(dscores: Tensor, index: Tensor, query: Tensor, keys: Tensor, impl: str) -> tuple[Tensor, Tensor]:
    """Each half of a query read k rows of the half-keys of its list and head: this is the backward of `bag_dot`."""
    heads, n, half = keys.shape[1:]
    offset = torch.arange(2 * heads, device=index.device).view(2, heads).T * n  # [H, 2], where the lists begin
    rows = (index + offset[..., None]).flatten(0, 2)  # [B*H*2, k]
    weights = dscores[:, :, None].expand(index.shape).flatten(0, 2)
    dquery = weighted_sums(keys.reshape(-1, half), rows, weights, impl)  # [B*H*2, d_k/2]
    dkeys = table_gradient(rows, weights, query.reshape(-1, half), 2 * heads * n, impl)
    return dquery.view(query.shape), dkeys.to(keys.dtype).view(keys.shape)


def _dense_backward(dscores: Tensor, index: Tensor, query: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Write the gradient of the score lists, a few tokens at a time, and multiply."""
    heads, n, _ = keys.shape[1:]
    halves = query.unflatten(-1, (2, -1)).permute(2, 1, 0, 3).flatten(0, 1)  # [2*H, B, d_k/2]
    index = index.permute(2, 1, 0, 3).flatten(0, 1)  # [2*H, B, k]
    weights = dscores.transpose(0, 1).repeat(2, 1, 1)  # [2*H, B, k]
    table, wide = keys.flatten(0, 1), torch.promote_types(keys.dtype, torch.float32)
    dhalves, dtable = torch.empty_like(halves), torch.zeros_like(table, dtype=wide)
    size = max(1, _CACHED_SCORES // (2 * heads * n))
    for start in range(0, len(query), size):
        part = slice(start, start + size)
        lists = weights.new_zeros(2 * heads, index[:, part].shape[1], n, dtype=wide)
        lists.scatter_add_(2, index[:, part], weights[:, part].to(wide))
        dhalves[:, part] = torch.bmm(lists, table.to(wide)).to(halves.dtype)
        dtable.baddbmm_(lists.mT, halves[:, part].to(wide))
    return dhalves.unflatten(0, (2, heads)).permute(2, 1, 0, 3).reshape(query.shape), dtable.to(keys.dtype).view_as(
        keys
    )
