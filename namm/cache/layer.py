"""One layer of an evicting cache: new keys and values in, those that survive held, each with what a policy notes of it.

B sequences, H key-value heads, T slots. Slots are packed to the right: the newest token of every head is in the last
slot, and a head that holds fewer tokens than others leaves its first slots unused. Sequences may be at different
lengths, as in a left-padded batch; each then goes its own way, as if alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from ...errors import MemxError
from ..policies.base import Attention, Policy
from . import evict, observe
from .attention import lower_right
from .new_tokens import LayerSize, NewTokens

_TENSORS = ("keys", "values", "positions", "state", "recent", "lse")


class EvictingLayer(CacheLayerMixin):
    """Keys and values [B, H, T, d] of the tokens that one layer still holds."""

    is_croppable = False
    keys: Any  # Tensor [B, H, T, d] once there is one
    values: Any
    positions: Tensor  # [B, H, T] int32: tokens of the sequence before each
    state: Tensor  # [B, H, <= T, width]: the policy's numbers beside each key; the last few keys may lack theirs
    recent: Tensor | None  # [B, Hq, context + waiting, d]: queries that the policy looks at again or waits to see
    lse: Tensor | None  # [B, Hq, context]: the log-sum-exp of the former

    def __init__(self, index: int, policy: Policy, window: int | None, protect: Sequence[tuple[int, int]] = ()) -> None:
        """index: the layer's number; window: how far its queries see back, None for all; protect: spans that stay."""
        super().__init__()
        self.index, self.policy, self.window, self.protect = index, policy, window, tuple(protect)
        self.arrival: NewTokens
        self.begun = False  # a forward pass under the policy is on
        self.counts: list[list[int]] = []  # [B][H] tokens held
        self.recent = self.lse = None
        self.scale = 1.0  # of the scores

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Make empty tensors like the first keys and values."""
        batch, heads = key_states.shape[:2]
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        self.positions = torch.empty(batch, heads, 0, dtype=torch.int32, device=self.device)
        self.state = torch.empty(batch, heads, 0, self.policy.width, dtype=self._state_dtype(), device=self.device)
        self.counts = [[0] * heads for _ in range(batch)]
        self.is_initialized = True

    def _state_dtype(self) -> torch.dtype:
        """float32; beside narrow heads of half precision float16, so as to stay below a fifth of their bytes."""
        held = (self.keys.shape[3] + self.values.shape[3]) * self.dtype.itemsize
        fits = 4 * self.policy.width + 4 <= 0.2 * held
        return torch.float32 if fits or self.dtype.itemsize >= 4 else torch.float16  # a spectrum is at most 16

    # -- what transformers asks of a layer

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        """Append the new columns [B, H, Q, d]; return all keys and values [B, H, T, d], which the queries then meet."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        batch, heads, columns = key_states.shape[:3]
        if not self.begun:
            raise MemxError("this cache evicts, and its policy is not attached", hint="stay inside `with attach(...)`")
        new = self.arrival.positions.to(self.device).expand(batch, heads, columns)
        self.keys = torch.cat([self.keys, key_states], 2)
        self.values = torch.cat([self.values, value_states], 2)
        self.positions = torch.cat([self.positions, new], 2)
        self.counts = [[c + n for c in held] for held, n in zip(self.counts, self.arrival.new, strict=True)]
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int | Tensor) -> tuple[int, int]:
        """Length and offset of a mask over all slots; memx makes its own masks."""
        # older versions of transformers give the queries' positions
        queries = query_length if isinstance(query_length, int) else len(query_length)
        return self.get_seq_length() + queries, 0

    def get_seq_length(self) -> int:
        """Slots in use, which is not how many tokens there have been: the cache knows that."""
        return self.keys.shape[2] if self.is_initialized else 0

    def get_max_length(self) -> int:
        """No maximum."""
        return -1

    get_max_cache_shape = get_max_length  # its name in older versions of transformers

    def reset(self) -> None:
        """Forget everything."""
        if self.is_initialized:
            del self.keys, self.values, self.positions, self.state
        self.recent = self.lse = None
        self.counts, self.is_initialized = [], False

    def crop(self, *args, **kwargs) -> None:
        """Refused: what was evicted cannot come back."""
        raise MemxError(
            "a cache that evicts cannot be rolled back", hint="assisted generation needs a full cache: leave memx out"
        )

    def select(self, rows: Callable[[Tensor], Tensor], order: list[int]) -> None:
        """Reorder, drop or repeat sequences: rows does it to a tensor, order is the old number of each new one."""
        if self.is_initialized:
            for name in _TENSORS:
                if (tensor := getattr(self, name)) is not None:
                    setattr(self, name, rows(tensor))
            self.counts = [list(self.counts[b]) for b in order]

    # -- what the attention function asks

    def exists(self, group: slice, slots: slice) -> Tensor | None:
        """Which of some slots hold tokens, before the last arrival's padding: [b, H, t]; None where all do."""
        counts, size = self.counts[group], slots.stop - slots.start
        if all(c == size for held in counts for c in held):
            return None
        held = torch.tensor(counts, device=self.device)[..., None]
        return torch.arange(size, device=self.device) >= size - held

    def narrow(self) -> int | None:
        """The window, once a sequence is longer than that."""
        longest = max(self.arrival.seen) + self.arrival.columns
        return self.window if self.window is not None and longest > self.window else None

    def visible(self) -> Tensor | None:
        """Which slots the newest columns see: [B or 1, H or 1, Q, T]; None: all of them, up to their own."""
        columns, slots = self.arrival.columns, self.keys.shape[2]
        width = slots - columns  # the slots before them
        old = [[c - n for c in held] for held, n in zip(self.counts, self.arrival.new, strict=True)]
        ragged = any(c != width for held in old for c in held)
        narrow = self.narrow()
        if not ragged and narrow is None:
            return None
        seen = lower_right(columns, slots, self.device)[None, None]  # [1, 1, Q, T]
        if ragged:
            first = width - torch.tensor(old, device=self.device)[..., None, None]  # [B, H, 1, 1]
            seen = seen & (torch.arange(slots, device=self.device) >= first)
        if narrow is not None:
            back = self.positions[:, :, width:, None] - self.positions[:, :, None, :]
            seen = seen & (back < narrow)
        return seen

    # -- what users ask

    def size(self) -> LayerSize:
        """What this layer holds now."""
        if not self.is_initialized:
            return LayerSize(self.index, 0, 0.0, 0, 0)
        held = [c for counts in self.counts for c in counts]
        beside = [self.positions, self.state, self.recent, self.lse]
        return LayerSize(
            self.index,
            self.keys.shape[2],
            sum(held) / len(held),
            self.keys.nbytes + self.values.nbytes,
            sum(tensor.nbytes for tensor in beside if tensor is not None),
        )

    def holds(self, sequence: int, tokens: int) -> Tensor:
        """The share of heads that hold each of the first so many tokens of a sequence: [tokens]."""
        share = torch.zeros(tokens)
        for head, count in enumerate(self.counts[sequence]):
            held = self.positions[sequence, head, self.keys.shape[2] - count :]
            share[held.long().cpu()] += 1 / len(self.counts[sequence])
        return share

    # -- after the attention

    def settle(self, query: Tensor, lse: Tensor | None, scale: float) -> None:
        """After the new columns have attended: let the policy see them, and evict where a sequence is due.

        query [B, Hq, Q, d]; lse [B, Hq, Q] of their scores if it is known.
        """
        policy, arrival, self.scale = self.policy, self.arrival, scale
        if policy.hop or policy.context:
            observe.note(self, query, lse, arrival.groups, scale)
        if any(arrival.due) or arrival.padded or evict.passes(self):
            steps = zip(arrival.groups, arrival.due, strict=True)
            evict.hold(self, [evict.stays(self, group, scale, due=due) for group, due in steps], arrival.groups)

    def branch(self, policy: Policy, copies: int, seen: list[int], then: Policy) -> EvictingLayer:
        """A layer of so many copies of each sequence, in which a policy has run now, to go on under another."""
        other = EvictingLayer(self.index, policy, self.window, self.protect)
        for name in _TENSORS:
            tensor = getattr(self, name)
            if tensor is not None:  # copies of one sequence share its memory until they differ
                tensor = tensor[None].expand(copies, *tensor.shape).flatten(0, 1)
            setattr(other, name, tensor)
        other.counts = [list(held) for held in self.counts * copies]
        other.dtype, other.device, other.is_initialized, other.scale = self.dtype, self.device, True, self.scale
        other.arrival = NewTokens.of(seen * copies, [0] * len(other.counts), 0, None, policy.hop, self.device)
        groups = other.arrival.groups
        waits = [other.arrival.seen[group.start or 0] % max(policy.hop, 1) for group in groups]
        stays = [
            evict.stays(other, group, self.scale, due=True, waiting=wait)
            for group, wait in zip(groups, waits, strict=True)
        ]
        evict.hold(other, stays, groups)
        other.policy = then
        if not then.width:
            other.recent = other.lse = None
            other.state = other.state.new_empty(*other.keys.shape[:3], 0)
        return other

    def slots(self, group: slice) -> slice:
        """Where the tokens of sequences that go in step lie, without padding behind them."""
        stop = self.keys.shape[2] - (self.arrival.columns - self.arrival.new[group.start or 0])
        return slice(stop - max(c for held in self.counts[group] for c in held), stop)

    def attention(
        self, group: slice, query: Tensor, lse: Tensor | None, keys: slice, scale: float, *, left: int = 0
    ) -> Attention:
        """Queries of a group with the keys in some slots; `left` of its tokens came after the last of them.

        Without lse that of the queries is computed; the last keys are then their own.
        """
        seen = torch.tensor([s + n - left for s, n in list(self.arrival.pairs())[group]], device=self.device)
        own = seen[:, None, None] + torch.arange(-query.shape[2], 0, device=self.device)
        exists = self.exists(group, self.slots(group))
        met = Attention(
            query,
            self.keys[group, :, keys],
            query.new_empty(0) if lse is None else lse,
            own,
            self.positions[group, :, keys],
            None if exists is None else exists[..., : keys.stop - keys.start],
            scale,
            self.narrow(),
        )
        return met if lse is not None else replace(met, lse=met.log_sum_exp())
