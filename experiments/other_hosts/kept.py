"""Which tokens of each kind a cache still holds, counted from an evicting cache.

B sequences, L layers, N tokens.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ...namm.cache.cache import EvictingCache
from .measured import Count

Kinds = Mapping[str, NDArray[np.bool_]]  # of each kind, which of a sequence's tokens are of it [N]


def kept_by_kind(cache: EvictingCache, sequence: int, kinds: Kinds) -> dict[str, list[Count]]:
    """Count what a sequence of a cache holds of each kind of token.

    Args:
        cache: The cache.
        sequence: The sequence's number in the batch.
        kinds: Of each kind, which tokens are of it [N], by their number in the sequence.

    Returns:
        Of each kind, of each layer the pairs of keys and values that are held, in all heads, and those there were.
    """
    found: dict[str, list[Count]] = {kind: [] for kind in kinds}
    for layer in cache.layers:
        held = [positions.numpy() for positions in layer.state.held(sequence)]
        for kind, of_kind in kinds.items():
            kept = sum(int(of_kind[positions].sum()) for positions in held)
            found[kind].append(Count(kept, int(of_kind.sum()) * len(held)))
    return found


def kept_of_layers(cache: EvictingCache, sequence: int) -> list[float]:
    """The share of the tokens of a sequence that each layer holds, a mean over heads."""
    seen = cache.seen[sequence]
    counts = [layer.state.counts[sequence] for layer in cache.layers]
    return [round(sum(heads) / len(heads) / seen, 5) for heads in counts]


def bytes_of_sequence(cache: EvictingCache, sequence: int) -> int:
    """Bytes of the keys and values that one sequence of a cache holds, as if it were alone."""
    total = 0
    for layer in cache.layers:
        state = layer.state
        pair = state.keys.shape[3] * state.keys.itemsize + state.values.shape[3] * state.values.itemsize
        total += sum(state.counts[sequence]) * pair
    return total
