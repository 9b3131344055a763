"""The torch path of the attention spectrogram and of its log-sum-exp: a few heads and a tile of keys at a time.

Names as in `reference.py`. Nothing of Q x T numbers is kept: a tile's probabilities become its spectrum in cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .reference import BINS, CARRY, HOP, sum_dtype, windowed_dft

_CACHED_SCORES = 1 << 20  # scores at a time on the CPU: 4 MB of float32
_DEVICE_SCORES = 1 << 26


class Tile(NamedTuple):
    """One sequence, some of its key-value heads, some of its keys."""

    batch: int
    heads: slice
    keys: slice


def tiles(query: Tensor, key: Tensor) -> Iterator[Tile]:
    """Cut [B, H, T] so that the scores of a tile, for all queries of its heads, fit the cache."""
    (_, query_heads, queries, _), (batch, heads, keys, _) = query.shape, key.shape
    size = _CACHED_SCORES if query.device.type == "cpu" else _DEVICE_SCORES
    rows = query_heads // heads * queries
    width = min(keys, max(64, size // rows))
    together = min(heads, max(1, size // (rows * width)))
    for b in range(batch):
        for head in range(0, heads, together):
            for start in range(0, keys, width):
                yield Tile(b, slice(head, min(head + together, heads)), slice(start, min(start + width, keys)))


def spectrogram(
    query: Tensor,
    key: Tensor,
    lse: Tensor,
    carry: Tensor | None,
    previous: Tensor | None,
    mask: Tensor | None,
    scale: float,
    decay: float | None,
) -> tuple[Tensor, Tensor]:
    """The spectrum, and the new carry by key [B, H, T, 16]."""
    (batch, heads, keys, _), queries, dtype = key.shape, query.shape[2], sum_dtype(query)
    frames, old = queries // HOP, keys - queries
    shape = (batch, heads, frames, keys, BINS) if decay is None else (batch, heads, keys, BINS)
    spectrum = query.new_empty(shape, dtype=dtype)
    new_carry = query.new_empty(batch, heads, keys, CARRY, dtype=dtype)
    dft = windowed_dft(dtype, query.device).T  # [32 outputs, 32 rows]
    for tile in tiles(query, key):
        b, part, span = tile
        rows = _averaged(query, key, lse, mask, scale, tile)  # [heads, Q, t]
        rows = torch.cat([rows.new_zeros(len(rows), CARRY, rows.shape[2]), rows], 1)
        known = max(0, min(span.stop, old) - span.start)  # keys of the tile that were there before
        if carry is not None and known:
            rows[:, :CARRY, :known] = carry[b, part, :, span.start : span.start + known]
        new_carry[b, part, span] = rows[:, -CARRY:].mT
        magnitude = _magnitude(rows, dft)  # [heads, F, 17, t]
        if decay is None:
            spectrum[b, part, :, span] = magnitude.mT
            continue
        ages = torch.arange(frames - 1, -1, -1, dtype=dtype, device=query.device)
        weights = (1 - decay**HOP) * decay ** (HOP * ages)
        spectrum[b, part, span] = torch.matmul(weights, magnitude.flatten(2)).unflatten(1, (BINS, -1)).mT
        if previous is not None and known:
            before = previous[b, part, span.start : span.start + known]
            spectrum[b, part, span.start : span.start + known].add_(before, alpha=decay**queries)
    return spectrum, new_carry


def log_sum_exp(query: Tensor, key: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """log sum exp of each query's scores, a tile of keys at a time: [B, Hq, Q]."""
    heads, queries, dtype = key.shape[1], query.shape[2], sum_dtype(query)
    total = query.new_full((query.shape[0], heads, query.shape[1] // heads * queries), -torch.inf, dtype=dtype)
    for tile in tiles(query, key):
        scores = torch.bmm(*_operands(query, key, tile)).mul_(scale)  # [heads, G*Q, t]
        unseen = _unseen(query, key, mask, tile)
        if unseen is not None:
            scores.unflatten(1, (-1, queries)).masked_fill_(unseen, -torch.inf)
        part = total[tile.batch, tile.heads]
        torch.logaddexp(part, scores.logsumexp(-1), out=part)
    return total.view(query.shape[:3])


def _operands(query: Tensor, key: Tensor, tile: Tile) -> tuple[Tensor, Tensor]:
    """The queries of a tile's heads [heads, G*Q, d] and its keys [heads, d, t]."""
    dtype = sum_dtype(query)
    grouped = query[tile.batch].unflatten(0, (key.shape[1], -1))[tile.heads].flatten(1, 2)
    return grouped.to(dtype), key[tile.batch, tile.heads, tile.keys].to(dtype).mT


def _averaged(query: Tensor, key: Tensor, lse: Tensor, mask: Tensor | None, scale: float, tile: Tile) -> Tensor:
    """Attention of a tile's keys, averaged over the group: [heads, Q, t]."""
    queries, keys = _operands(query, key, tile)
    offset = lse[tile.batch].view(key.shape[1], -1, 1)[tile.heads].to(queries.dtype)  # [heads, G*Q, 1]
    weights = torch.baddbmm(offset, queries, keys, beta=-1, alpha=scale).exp_()
    weights = weights.unflatten(1, (-1, query.shape[2]))  # [heads, G, Q, t]
    unseen = _unseen(query, key, mask, tile)
    if unseen is not None:
        weights.masked_fill_(unseen, 0)
    return weights.mean(1)


def _unseen(query: Tensor, key: Tensor, mask: Tensor | None, tile: Tile) -> Tensor | None:
    """Which keys of a tile a query does not see: [1 or heads, 1, Q, t]; None where all see all."""
    old, start, stop = key.shape[2] - query.shape[2], tile.keys.start, tile.keys.stop
    unseen = None
    if stop > old:
        index = torch.arange(start - old, stop - old, device=key.device)
        unseen = (index > torch.arange(query.shape[2], device=key.device)[:, None])[None, None]
    if mask is None:
        return unseen
    heads = tile.heads if mask.shape[1] > 1 else slice(None)
    absent = ~mask[tile.batch, heads, None, None, tile.keys]
    return absent if unseen is None else absent | unseen


def _magnitude(rows: Tensor, dft: Tensor) -> Tensor:
    """The magnitudes of all frames of rows [heads, 16 + Q, t]: [heads, F, 17, t]; dft [32, 32] transposed."""
    blocks = rows.unflatten(1, (-1, HOP))  # [heads, F + 1, 16, t]
    packed = torch.matmul(dft[:, :HOP], blocks[:, :-1]) + torch.matmul(dft[:, HOP:], blocks[:, 1:])
    first, last = packed[:, :, 0].abs(), packed[:, :, HOP].abs()  # bins 0 and 16 have no sine
    out = packed.new_empty(*packed.shape[:2], BINS, packed.shape[3])
    squares = packed.square_()
    torch.add(squares[:, :, 1:HOP], squares[:, :, HOP + 1 :], out=out[:, :, 1:HOP])
    out[:, :, 1:HOP].sqrt_()
    out[:, :, 0], out[:, :, HOP] = first, last
    return out
