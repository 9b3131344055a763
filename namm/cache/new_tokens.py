"""The new tokens of a forward pass, as every layer of a cache gets them, and the size of a layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LayerSize:
    """What a layer holds, over all sequences.

    Attributes:
        layer: Number of the layer.
        slots: Entries of its fullest head.
        tokens: Tokens per head (logical), a mean.
        kv_bytes: Bytes of keys and values. Where heads hold different numbers of tokens, the sum over them.
        bookkeeping_bytes: Bytes of all else that is stored.
        heads: Tokens of each head, means over the sequences.
    """

    layer: int
    slots: int
    tokens: float
    kv_bytes: int
    bookkeeping_bytes: int
    heads: tuple[float, ...] = ()


@dataclass(frozen=True)
class NewTokens:
    """New tokens of a forward pass, in every layer alike: Q columns, of which each sequence fills its first few.

    Attributes:
        seen: [B]: tokens that each sequence had before.
        new: [B]: those that it gets now.
        columns: Q.
        groups: Sequences that are treated together: all of them if they are at the same length between two evictions,
            else each for itself.
        due: Of each group, whether the policy evicts after these tokens.
        positions: [B, 1, Q], int32: how many tokens of its sequence came before each column's.
    """

    seen: list[int]
    new: list[int]
    columns: int
    groups: list[slice]
    due: list[bool]
    positions: Tensor

    @classmethod
    def of(
        cls, seen: list[int], new: list[int], columns: int, every: int | None, hop: int, device: torch.device
    ) -> NewTokens:
        """What arrives in sequences of so many tokens, under a policy that runs every so many (None: never)."""
        steps = {(before % (every or hop or 1), now) for before, now in zip(seen, new, strict=True)}
        groups = [slice(None)] if len(steps) == 1 else [slice(b, b + 1) for b in range(len(seen))]
        firsts = [(seen[group.start or 0], new[group.start or 0]) for group in groups]
        due = [every is not None and now > 0 and (before + now) % every == 0 for before, now in firsts]
        first = torch.tensor(seen, dtype=torch.int32, device=device)[:, None, None]
        positions = first + torch.arange(columns, dtype=torch.int32, device=device)
        return cls(seen, new, columns, groups, due, positions)

    def pairs(self) -> Iterator[tuple[int, int]]:
        """(tokens before, new tokens) of each sequence."""
        return zip(self.seen, self.new, strict=True)

    @property
    def padded(self) -> bool:
        """Whether some sequence leaves columns empty."""
        return any(new < self.columns for new in self.new)
