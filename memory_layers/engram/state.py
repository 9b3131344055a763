"""What n-gram memories need of earlier forward passes, kept with a cache: tensors [B, ...] by name.

Any cache of transformers can carry them. They follow its sequences when beams are reordered, sequences repeated,
selected or cropped. A cache that has `carried` itself, as those with an eviction policy do, sees to that itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ...errors import MemxError

SEEN = "token_classes"  # of all columns so far [B, P], -1 for padding


def carried_by(cache: Any) -> dict[str, Tensor]:
    """What a cache carries for n-gram memories.

    Args:
        cache: A cache of transformers.

    Returns:
        The tensors, which may be replaced in place; empty for an empty cache.

    Raises:
        MemxError: The cache has tokens that no n-gram memory has seen, or fewer than it has seen.
    """
    if not hasattr(cache, "carried"):
        cache.__class__ = _carrying(type(cache))
        cache.carried = {}
    if isinstance(cache, _Carrying):
        seen = cache.carried[SEEN].shape[1] if SEEN in cache.carried else 0
        if (held := int(cache.get_seq_length())) != seen:
            raise MemxError(
                f"the cache holds {held} tokens, and the n-gram memory has seen {seen} of them",
                hint="use a cache that this model has filled, or start a new one",
            )
    return cache.carried


class _Carrying:
    """Mixed into the class of a cache: `carried` follows its sequences."""

    carried: dict[str, Tensor]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)  # pyright: ignore[reportAttributeAccessIssue]
        self._map(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)  # pyright: ignore[reportAttributeAccessIssue]
        self._map(lambda x: x.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)  # pyright: ignore[reportAttributeAccessIssue]
        self._map(lambda x: x[indices.to(x.device)])

    def crop(self, *args: Any, **kwargs: Any) -> None:
        """Drop the newest tokens, for memories without a convolution, whose inputs are not kept for all tokens."""
        if self.carried.keys() - {SEEN}:
            raise MemxError(
                "a cache cannot be cropped: the convolution of the n-gram memory keeps its newest inputs only",
                hint="decode without an assistant model",
            )
        super().crop(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        length = int(self.get_seq_length())  # pyright: ignore[reportAttributeAccessIssue]
        self._map(lambda x: x[:, :length])

    def reset(self) -> None:
        super().reset()  # pyright: ignore[reportAttributeAccessIssue]
        self.carried = {}

    def _map(self, change: Callable[[Tensor], Tensor]) -> None:
        self.carried = {name: change(tensor) for name, tensor in self.carried.items()}


@lru_cache
def _carrying(kind: type) -> type:
    return type(kind.__name__, (_Carrying, kind), {"__module__": kind.__module__})


def add_tokens(carried: dict[str, Tensor], classes: Tensor) -> Tensor:
    """Put new tokens behind those that a cache carries.

    Args:
        carried: What `carried_by` returned.
        classes: Classes of the new tokens [B, Q], int64, -1 for padding.

    Returns:
        Those of all tokens so far [B, P + Q].

    Raises:
        MemxError: The cache has another number of sequences.
    """
    before = carried.get(SEEN)
    if before is None:
        return classes
    if len(before) != len(classes):
        raise MemxError(
            f"the cache has {len(before)} sequences, the input has {len(classes)}",
            hint="use a separate cache for each batch",
        )
    return torch.cat([before.to(classes.device), classes], 1)
