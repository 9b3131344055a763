"""A transformers cache that holds the tokens that an eviction policy keeps, and frees the memory of the rest.

N columns of input are not N tokens of every sequence: padding is never stored. Each sequence counts its own tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from ..policies.base import Policy, check_interval, check_model
from ..policies.rotary import UNKNOWN, Rotary
from .allocate import evict_together, masks_together
from .evict import keep_mask
from .head_shards import HeadShards
from .layer import EvictingLayer
from .new_tokens import LayerSize, NewTokens


class EvictingCache(Cache):
    """A transformers cache of the keys and values that a policy keeps; `attach` makes it.

    Args:
        policy: The policy that evicts.
        windows: Attention window of each layer in tokens. None: full attention.
        protect: Spans (first, one past the last) of token numbers that are never evicted.
        rotary: How each layer turns queries and keys by their positions. None: not known.
        shards: How several processes share out the heads of each layer. None: all are here.

    Attributes:
        seen: Number of tokens of each sequence so far, evicted ones included.
        columns: Which columns of the input so far were tokens, not padding: [B, N], bool.
        carried: What layers other than attention need of earlier tokens, such as n-gram memories: tensors [B, ...] by
            name, which follow the sequences.
        length: Number of positions that the whole text will have, for models whose rotary factors depend on it. Set it
            before the first of several forward passes over one text; 0: as many as each pass has reached.

    Raises:
        MemxError: The policy's interval is not a multiple of 16, or is shorter than the queries that the policy reads.
    """

    layers: list[EvictingLayer]

    def __init__(
        self,
        policy: Policy,
        windows: Sequence[int | None],
        protect: Sequence[tuple[int, int]] = (),
        rotary: Sequence[Rotary] | None = None,
        shards: HeadShards | None = None,
    ) -> None:
        check_interval(policy)
        check_model(policy, len(windows))
        self.rotary = tuple([UNKNOWN] * len(windows) if rotary is None else rotary)
        by_layer = enumerate(zip(windows, self.rotary, strict=True))
        layers: list[Any] = [EvictingLayer(i, policy, window, protect, turn, shards) for i, (window, turn) in by_layer]
        super().__init__(layers=layers)
        self.policy, self.protect, self.shards = policy, tuple(protect), shards
        self.seen: list[int] = []
        self.columns: Tensor | None = None
        self.carried: dict[str, Tensor] = {}
        self.length = 0

    def begin(self, columns: Tensor) -> None:
        """Make room for the next columns [B, Q] of a forward pass; True where they hold tokens, first in each row."""
        new = columns.sum(1).tolist()
        self.seen = self.seen or [0] * len(new)
        tokens = NewTokens.of(self.seen, new, columns.shape[1], self.policy.every, self.policy.hop, columns.device)
        for layer in self.layers:
            layer.state.new_tokens, layer.begun = tokens, True

    def finish(self) -> None:
        """Evict where heads of all layers share one budget, and count the tokens that all layers have seen now."""
        new = self.layers[0].state.new_tokens
        if self.policy.rule.spans_layers and any(new.due):
            # policies run at multiples of a hop, so that no query waits where one is due
            states = [layer.state for layer in self.layers]
            with torch.no_grad():
                evict_together(states, due=new.due, unobserved=[0] * len(new.groups))
        self.seen = [seen + new for seen, new in new.pairs()]
        for layer in self.layers:
            layer.begun = False

    def new(self, policy: Policy | None = None) -> EvictingCache:
        """Make an empty cache for the same model and protected spans.

        Args:
            policy: The policy of the new cache. None: the same.

        Returns:
            The cache.
        """
        windows = [layer.state.window for layer in self.layers]
        return EvictingCache(policy or self.policy, windows, self.protect, self.rotary, self.shards)

    def fork(self, policy: Policy, copies: int = 1, *, continue_with: Policy) -> EvictingCache:
        """Copy every sequence and evict from the copies now; this cache does not change.

        The newest tokens, up to 15, that the policy has not observed yet are kept.

        Args:
            policy: The policy that evicts now. It must read the same numbers as this cache's policy.
            copies: Copies of each sequence; copy c of sequence s of S is sequence c * S + s.
            continue_with: The policy of the new cache from then on, such as `policy` itself.

        Returns:
            The cache of the copies.
        """
        own = self.policy
        assert (own.hop, own.context, own.width) == (policy.hop, policy.context, policy.width), (own, policy)
        other = self.new(continue_with)
        other.layers = self._forked(policy, copies)
        for layer in other.layers:
            layer.continue_with(continue_with)
        other.seen, other.length = self.seen * copies, self.length
        other.columns = None if self.columns is None else self.columns.repeat(copies, 1)
        other.carried = {name: torch.cat([tensor] * copies) for name, tensor in self.carried.items()}
        return other

    def _forked(self, policy: Policy, copies: int) -> list[EvictingLayer]:
        """Layers of copies of each sequence, from which a policy has evicted now."""
        twins = []
        for layer in self.layers:
            twins.append(layer.copies(policy, copies, self.seen))
            if not policy.rule.spans_layers:  # at once: copies share their memory until they differ
                twins[-1].evict_now()
        if policy.rule.spans_layers:
            states = [twin.state for twin in twins]
            groups = len(states[0].new_tokens.groups)
            evict_together(states, due=[True] * groups, unobserved=states[0].unobserved())
        return twins

    def choices(self, policy: Policy, copies: int = 1) -> list[Tensor]:
        """What `fork` would leave of this cache's one sequence, without copying or evicting anything.

        Args:
            policy: The policy that chooses, as in `fork`.
            copies: Number of choices; it sees so many copies of the sequence, which share their memory.

        Returns:
            Of each layer the tokens that stay [copies, H, T], bool, T being all that the layer holds.
        """
        assert len(self.seen) == 1, "choices are made from one sequence"
        states = [layer.copies(policy, copies, self.seen).state for layer in self.layers]
        waiting = states[0].unobserved()
        if policy.rule.spans_layers:
            return [of_layer for (of_layer,) in masks_together(states, due=[True], unobserved=waiting)]
        return [keep_mask(state, slice(None), due=True, unobserved=waiting[0]) for state in states]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of input columns so far, including evicted tokens and padding.

        Args:
            layer_idx: Number of the layer; all have the same length.

        Returns:
            The number of columns.
        """
        return 0 if self.columns is None else self.columns.shape[1]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Replace sequence i by sequence `beam_idx[i]`, for beam search."""
        self._select(beam_idx.tolist())

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every sequence."""
        self._select([b for b in range(len(self.seen)) for _ in range(repeats)])

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the given sequences only."""
        self._select(torch.arange(len(self.seen))[indices.cpu()].tolist())

    def _select(self, order: list[int]) -> None:
        def rows(tensor: Tensor) -> Tensor:
            return tensor.index_select(0, torch.tensor(order, device=tensor.device))

        self.seen = [self.seen[b] for b in order]
        self.columns = None if self.columns is None else rows(self.columns)
        self.carried = {name: rows(tensor) for name, tensor in self.carried.items()}
        for layer in self.layers:
            layer.state.map_sequences(rows, order)

    def reset(self) -> None:
        """Drop all tokens."""
        super().reset()
        self.seen, self.columns, self.carried, self.length = [], None, {}, 0

    def __deepcopy__(self, memo: dict[int, object]) -> EvictingCache:
        """A copy that goes on by itself, under the same policy: for a beginning that several continuations share."""
        memo[id(self.policy)] = self.policy
        other = object.__new__(type(self))
        memo[id(self)] = other
        other.__dict__.update({name: deepcopy(value, memo) for name, value in vars(self).items()})
        return other

    def sizes(self) -> list[LayerSize]:
        """Measure the cache of each layer, over all sequences.

        Returns:
            For each layer its slots (length of its tensors), tokens (mean over heads), bytes of keys and values, and
            bytes of what the policy stores.
        """
        return [layer.state.size() for layer in self.layers]

    def kept_share(self, sequence: int = 0) -> Tensor:
        """Compute which tokens of a sequence each layer still has.

        Args:
            sequence: Number of the sequence in the batch.

        Returns:
            Share of the layer's heads that keep each token: [layers, tokens], on the CPU. 0: evicted by all heads.
        """
        return torch.stack([layer.state.kept_share(sequence, self.seen[sequence]) for layer in self.layers])

    holds = kept_share  # its name in older versions of memx
