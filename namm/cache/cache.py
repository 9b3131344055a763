"""A transformers cache that holds the tokens that an eviction policy keeps, and frees the memory of the rest.

N columns of input are not N tokens of every sequence: padding is never stored. Each sequence counts its own tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor
from transformers import Cache

from ...errors import MemxError
from ..policies.base import Policy, check_every
from .layer import EvictingLayer
from .new_tokens import LayerSize, NewTokens


class EvictingCache(Cache):
    """Past keys and values of all layers under one policy; made by `memx.namm.attach`.

    Args:
        policy: What evicts.
        windows: How far the queries of each layer see back, None for all.
        protect: Spans (first, one past the last) of token numbers that are never evicted.

    Attributes:
        seen: Tokens that each sequence ever had.
        columns: Which columns of the input so far were tokens and not padding: [B, N], bool.

    Raises:
        MemxError: The policy's interval is no multiple of the hop, or shorter than what the policy looks back at.
    """

    layers: list[EvictingLayer]

    def __init__(self, policy: Policy, windows: Sequence[int | None], protect: Sequence[tuple[int, int]] = ()) -> None:
        check_every(policy.every)
        if policy.every is not None and policy.context > policy.every:
            raise MemxError(
                f"{policy.name} needs an eviction interval of at least {policy.context} tokens, got {policy.every}",
                hint=f"set the eviction interval to {policy.context} or more",
            )
        super().__init__(layers=[EvictingLayer(i, policy, window, protect) for i, window in enumerate(windows)])
        self.policy, self.protect = policy, tuple(protect)
        self.seen: list[int] = []
        self.columns: Tensor | None = None

    def begin(self, columns: Tensor) -> None:
        """Make room for the next columns [B, Q] of a forward pass; True where they hold tokens, first in each row."""
        new = columns.sum(1).tolist()
        self.seen = self.seen or [0] * len(new)
        tokens = NewTokens.of(self.seen, new, columns.shape[1], self.policy.every, self.policy.hop, columns.device)
        for layer in self.layers:
            layer.state.new_tokens, layer.begun = tokens, True

    def finish(self) -> None:
        """Count the tokens of the columns that all layers have seen now."""
        self.seen = [seen + new for seen, new in self.layers[0].state.new_tokens.pairs()]
        for layer in self.layers:
            layer.begun = False

    def new(self, policy: Policy | None = None) -> EvictingCache:
        """An empty cache for the same model and protected spans, under the same policy or another."""
        return EvictingCache(policy or self.policy, [layer.state.window for layer in self.layers], self.protect)

    def fork(self, policy: Policy, copies: int = 1, *, continue_with: Policy) -> EvictingCache:
        """Copy every sequence, and let a policy evict from the copies now. This cache stays as it is.

        The newest tokens, fewer than a hop, which no policy has seen yet, stay.

        Args:
            policy: What evicts once. This cache's own policy must have observed what `policy` reads.
            copies: Copies of each sequence; copy c of sequence s is sequence c * S + s.
            continue_with: What the new cache goes on under: the policy itself, or one that never runs again.

        Returns:
            The cache of the copies.
        """
        own = self.policy
        assert (own.hop, own.context, own.width) == (policy.hop, policy.context, policy.width), (own, policy)
        other = self.new(continue_with)
        other.layers = [layer.fork(policy, copies, self.seen, continue_with) for layer in self.layers]
        other.seen = self.seen * copies
        other.columns = None if self.columns is None else self.columns.repeat(copies, 1)
        return other

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns of input so far, evicted tokens and padding included: where the next position follows."""
        return 0 if self.columns is None else self.columns.shape[1]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Let sequence i continue what sequence beam_idx[i] was: for beam search."""
        self._select(beam_idx.tolist())

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every sequence."""
        self._select([b for b in range(len(self.seen)) for _ in range(repeats)])

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some sequences alone."""
        self._select(torch.arange(len(self.seen))[indices.cpu()].tolist())

    def _select(self, order: list[int]) -> None:
        def rows(tensor: Tensor) -> Tensor:
            return tensor.index_select(0, torch.tensor(order, device=tensor.device))

        self.seen = [self.seen[b] for b in order]
        self.columns = None if self.columns is None else rows(self.columns)
        for layer in self.layers:
            layer.state.map_sequences(rows, order)

    def reset(self) -> None:
        """Drop all tokens."""
        super().reset()
        self.seen, self.columns = [], None

    def __deepcopy__(self, memo: dict[int, object]) -> EvictingCache:
        """A copy that goes on by itself, under the same policy: for a beginning that several continuations share."""
        memo[id(self.policy)] = self.policy
        other = object.__new__(type(self))
        memo[id(self)] = other
        other.__dict__.update({name: deepcopy(value, memo) for name, value in vars(self).items()})
        return other

    def sizes(self) -> list[LayerSize]:
        """Slots, tokens and bytes of each layer now, of all sequences together."""
        return [layer.state.size() for layer in self.layers]

    def kept_share(self, sequence: int = 0) -> Tensor:
        """The share of each layer's heads that still hold each token of a sequence.

        Args:
            sequence: Its number in the batch.

        Returns:
            [layers, tokens], on the CPU; evicted tokens are 0.
        """
        return torch.stack([layer.state.kept_share(sequence, self.seen[sequence]) for layer in self.layers])

    holds = kept_share  # its name in older versions of memx
