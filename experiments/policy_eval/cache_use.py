"""What one sequence of a batch under several policies holds, as if it were read under its policy alone."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from ...namm.cache.cache import EvictingCache
from ...namm.cache.state import LayerState
from ...namm.policies.base import Policy, summary_size
from ..eviction.measurements import CacheUse

_OFFSET_BYTES = 8  # of where a head's tokens begin, where heads hold different numbers of them


def cache_use(cache: EvictingCache, sequence: int, policy: Policy, heads: Sequence[int]) -> CacheUse:
    """Measure what one sequence of a cache holds.

    Args:
        cache: The cache.
        sequence: The sequence's index.
        policy: The policy of that sequence.
        heads: The number of query heads of each layer.

    Returns:
        Shares of the tokens that were read, and bytes as a cache of that sequence alone would have under that policy.
    """
    tokens = cache.seen[sequence]
    counts = [layer.state.counts[sequence] for layer in cache.layers]  # of each layer, the tokens of each head
    layers = [sum(of_heads) / len(of_heads) / tokens for of_heads in counts]
    sizes = [_bytes(layer.state, sequence, policy, of, tokens) for layer, of in zip(cache.layers, heads, strict=True)]
    return CacheUse(
        kept=fmean(layers),
        held=fmean(layers),  # nothing is padded
        layers=[round(share, 5) for share in layers],
        kv_bytes=sum(size for size, _ in sizes),
        bookkeeping_bytes=sum(size for _, size in sizes),
    )


def _bytes(layer: LayerState, sequence: int, policy: Policy, heads: int, tokens: int) -> tuple[int, int]:
    """Bytes of a layer's keys and values, and of all that its policy stores with them."""
    # the batch's state is as wide as its widest policy needs; this one is of the policy's own width and type
    alone = LayerState(layer.index, policy, layer.window, ())
    alone.start(layer.keys[:1], layer.values[:1])
    counts = layer.counts[sequence]
    held, ragged = sum(counts), len({*counts}) > 1
    key, value = (part.shape[3] * part.itemsize for part in (layer.keys, layer.values))
    waiting = tokens % policy.hop if policy.hop else 0  # tokens since the last hop, of which nothing is stored yet
    stored = held * alone.positions.itemsize + (len(counts) + 1) * _OFFSET_BYTES * ragged
    stored += (held - len(counts) * waiting) * policy.width * alone.policy_state.itemsize
    queries = policy.context + waiting if policy.hop else min(policy.context, tokens)
    sums = policy.context * max(4, layer.keys.itemsize) if policy.hop else 0  # log-sum-exps, float32 or wider
    summary = summary_size(policy, layer.keys.shape[3]) * max(4, layer.keys.itemsize)
    return held * (key + value), stored + heads * (queries * key + sums + summary)
