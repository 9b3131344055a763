"""What a KV cache has: tokens that were read, how many of them it keeps, and bytes; with a policy or without."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ...namm.cache.cache import EvictingCache


@dataclass(frozen=True)
class CacheSizes:
    """The size of the cache of one sequence.

    Attributes:
        seen: Tokens that were read into it.
        kept: Tokens that it has, a mean over layers and heads.
        bytes: Of keys, values and what the policy stores.
    """

    seen: int
    kept: float
    bytes: int

    def __str__(self) -> str:
        share = self.kept / self.seen if self.seen else 1.0
        mib = self.bytes / 2**20
        return f"{self.seen:,} tokens read, {self.kept:,.0f} kept ({share:.0%}), {mib:,.{2 if mib < 10 else 1}f} MiB"


def cache_sizes(cache: Any) -> CacheSizes:
    """Measure a cache of one sequence.

    Args:
        cache: An evicting cache, or one of transformers.

    Returns:
        Its size. Layers with a sliding window count with what they have.
    """
    if isinstance(cache, EvictingCache):
        sizes = cache.sizes()
        size = sum(layer.kv_bytes + layer.bookkeeping_bytes for layer in sizes)
        return CacheSizes(cache.seen[0] if cache.seen else 0, fmean(layer.tokens for layer in sizes), size)
    tensors = [(layer.keys, layer.values) for layer in cache.layers if getattr(layer, "keys", None) is not None]
    if not tensors:
        return CacheSizes(0, 0.0, 0)
    size = sum(tensor.numel() * tensor.itemsize for pair in tensors for tensor in pair)
    return CacheSizes(int(cache.get_seq_length()), fmean(keys.shape[-2] for keys, _ in tensors), size)
