"""What one layer of an evicting cache holds: its tokens, and what a policy keeps of each. Observation and eviction
(`observe.py`, `evict.py`) read and write it; `layer.py` shows it to transformers.

B sequences, Hq query heads that share H key-value heads, Q new columns, T slots, d numbers a head. Slots are packed to
the right: the newest token of every head is in the last slot, and a head that holds fewer tokens than others leaves its
first slots unused.

    slot            0     1     2     3     4
    head 0        token token token token newest      counts[b][0] = 5
    head 1          -     -   token token newest      counts[b][1] = 3

Where heads of a cache hold different numbers after an eviction, nothing is padded: what stays is stored head by head
(`ragged.py`), and the slots hold what came since. `padded` shows both in slots, to those who look at all of them.

Sequences may be at different lengths, as in a left-padded batch. Those at one length go together (a group); otherwise
each is a group of its own, and the policy sees it as if it were alone.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..policies.base import Policy, summary_size
from ..policies.rotary import UNKNOWN, Rotary
from .head_shards import HeadShards
from .new_tokens import LayerSize, NewTokens
from .ragged import RaggedTokens

_TENSORS = ("keys", "values", "positions", "policy_state", "recent", "lse", "summary")


@dataclass(eq=False)
class LayerState:
    """The tokens of one layer.

    Attributes:
        index: The layer's number.
        policy: What observes and evicts.
        window: How many positions a query sees back, itself counted; None for all.
        protect: Spans (first, one past the last) of token numbers that are never evicted.
        scale: What the products of queries and keys are multiplied by.
        counts: Tokens held, [B][H], ragged ones included.
        ragged: What survived the last eviction, if heads kept different numbers; the slots hold what came since, as
            many tokens of every head. None: the slots hold everything.
        keys, values: [B, H, T, d]; None before the first token.
        positions: [B, H, T], int32: how many tokens of its sequence came before each.
        policy_state: [B, H, <= T, width]: the policy's numbers for each key; the last few keys may lack theirs.
        recent: [B, Hq, context + unobserved, d]: the last queries that the policy saw and looks at again, then those
            that wait until a hop is full.
        lse: [B, Hq, context]: the log-sum-exp of the scores of the former, when they attended.
        summary: [B, Hq, numbers]: the policy's numbers for each sequence and query head.
        rotary: How the layer turns queries and keys by their positions.
        shards: How several processes share out the layer's heads. None: all are here.
        new_tokens: What the forward pass that is on brings.
    """

    index: int
    policy: Policy
    window: int | None
    protect: tuple[tuple[int, int], ...]
    scale: float = 1.0
    counts: list[list[int]] = field(default_factory=list)
    keys: Any = None
    values: Any = None
    positions: Tensor = field(init=False)
    policy_state: Tensor = field(init=False)
    recent: Tensor | None = None
    lse: Tensor | None = None
    summary: Tensor | None = None
    rotary: Rotary = UNKNOWN
    shards: HeadShards | None = None
    new_tokens: NewTokens = field(init=False)
    ragged: RaggedTokens | None = None

    @property
    def device(self) -> torch.device:
        """Where the tokens are."""
        return self.keys.device

    @property
    def all_heads(self) -> int:
        """Key-value heads of the layer in all processes together; H where none shares them."""
        heads = self.keys.shape[1]
        return self.shards.total if self.shards is not None and self.shards.split(heads) else heads

    @property
    def first_head(self) -> int:
        """The number of the first head that is here."""
        return 0 if self.shards is None else self.shards.first(self.keys.shape[1])

    @property
    def width(self) -> int:
        """Slots that `padded` has: the tokens of the fullest head, and the padding of new columns."""
        return self.keys.shape[2] + (0 if self.ragged is None else self.ragged.most)

    def start(self, keys: Tensor, values: Tensor) -> None:
        """Make empty tensors like the first keys and values."""
        batch, heads = keys.shape[:2]
        self.keys, self.values = keys[:, :, :0], values[:, :, :0]
        self.positions = torch.empty(batch, heads, 0, dtype=torch.int32, device=keys.device)
        self.policy_state = torch.empty(
            batch, heads, 0, self.policy.width, dtype=self._policy_dtype(), device=keys.device
        )
        self.counts = [[0] * heads for _ in range(batch)]

    def _policy_dtype(self) -> torch.dtype:
        """float32; for narrow heads of half precision float16, so as to stay below a fifth of their bytes.

        Only of a policy that says by `half_state` that its numbers bear it: sums of attention may exceed float16.
        """
        itemsize = self.keys.dtype.itemsize
        kv_bytes = (self.keys.shape[3] + self.values.shape[3]) * itemsize
        fits = 4 * self.policy.width + 4 <= 0.2 * kv_bytes
        narrow = not fits and itemsize < 4 and getattr(self.policy, "half_state", False)
        return torch.float16 if narrow else torch.float32

    def start_summary(self, query: Tensor) -> None:
        """Make the summary of before the first queries, like [B, Hq, Q, d]: zeros."""
        numbers = summary_size(self.policy, query.shape[3])
        dtype = torch.promote_types(query.dtype, torch.float32)
        self.summary = query.new_zeros(*query.shape[:2], numbers, dtype=dtype)

    def notes(self, policy: Policy) -> tuple[int, ...]:
        """How much a policy would note here: queries at a time and looked at again, numbers of keys and of heads."""
        return policy.hop, policy.context, policy.width, summary_size(policy, self.keys.shape[3])

    def clear(self) -> None:
        """Drop all tokens."""
        self.keys = self.values = self.recent = self.lse = self.summary = self.ragged = None
        for name in ("positions", "policy_state"):  # frees them; `start` makes them anew
            vars(self).pop(name, None)
        self.counts = []

    def append(self, keys: Tensor, values: Tensor) -> None:
        """Append the new columns [B, H, Q, d]."""
        batch, heads, columns = keys.shape[:3]
        positions = self.new_tokens.positions.to(self.device).expand(batch, heads, columns)
        self.keys = torch.cat([self.keys, keys], 2)
        self.values = torch.cat([self.values, values], 2)
        self.positions = torch.cat([self.positions, positions], 2)
        self.counts = [
            [count + new for count in heads] for heads, new in zip(self.counts, self.new_tokens.new, strict=True)
        ]

    def map_sequences(self, change: Callable[[Tensor], Tensor], order: list[int]) -> None:
        """Reorder, drop or repeat sequences: change does it to a tensor, order is the old number of each new one."""
        if self.keys is None:  # nothing was read yet
            return
        for name in _TENSORS:
            if (tensor := getattr(self, name)) is not None:
                setattr(self, name, change(tensor))
        self.counts = [list(self.counts[b]) for b in order]
        self.ragged = self.ragged and self.ragged.select(order)

    def padded(self, *, values: bool = True) -> LayerState:
        """This layer with all of its tokens in slots: itself, or a copy in which ragged heads are padded.

        Args:
            values: Whether the copy gets the values too; else its `values` are of the new tokens alone.

        Returns:
            A state to look at. What is changed in it must be given back by `observed` or `evict.compact`.
        """
        if self.ragged is None:
            return self
        whole = copy(self)
        whole.ragged = None
        for name in ("keys", "positions", "policy_state", *(["values"] if values else [])):
            setattr(whole, name, torch.cat([self.ragged.padded(name), getattr(self, name)], 2))
        return whole

    def observed(self, whole: LayerState) -> None:
        """Take over what a policy has observed in `padded()`."""
        if self.ragged is None or whole is self:
            return
        ours = {name: getattr(self, name) for name in ("ragged", "keys", "values", "positions")}
        vars(self).update({**vars(whole), **ours})
        most = self.ragged.most
        state = F.pad(whole.policy_state, (0, 0, 0, max(0, most - whole.policy_state.shape[2])))
        self.ragged.set_state(state[:, :, :most])
        self.policy_state = state[:, :, most:].clone()  # a view would hold the padded numbers of all heads

    def size(self) -> LayerSize:
        """How much this layer holds now."""
        if self.keys is None:
            return LayerSize(self.index, 0, 0.0, 0, 0)
        heads = [sum(of_head) / len(of_head) for of_head in zip(*self.counts, strict=True)]
        parts = [self] if self.ragged is None else [self, self.ragged]
        bookkeeping = [tensor for part in parts for tensor in (part.positions, part.policy_state)]
        bookkeeping += [self.recent, self.lse, self.summary, None if self.ragged is None else self.ragged.offsets]
        return LayerSize(
            self.index,
            self.width,
            sum(heads) / len(heads),
            sum(part.keys.nbytes + part.values.nbytes for part in parts),
            sum(tensor.nbytes for tensor in bookkeeping if tensor is not None),
            tuple(heads),
        )

    def held(self, sequence: int) -> list[Tensor]:
        """The positions of the tokens that each head of a sequence holds, oldest first, on the CPU."""
        found = []
        for head, count in enumerate(self.counts[sequence]):
            positions = self.positions[sequence, head]
            if self.ragged is not None:
                positions = torch.cat([self.ragged.of_head("positions", sequence, head), positions])
            found.append(positions[len(positions) - count :].long().cpu())
        return found

    def kept_share(self, sequence: int, tokens: int) -> Tensor:
        """The share of heads that hold each of the first so many tokens of a sequence: [tokens], on the CPU."""
        share = torch.zeros(tokens)
        for positions in self.held(sequence):
            share[positions] += 1 / len(self.counts[sequence])
        return share

    def unobserved(self) -> list[int]:
        """Of each group without new tokens, how many of its newest queries wait for a full hop."""
        hop = max(self.policy.hop, 1)
        return [self.new_tokens.seen[group.start or 0] % hop for group in self.new_tokens.groups]

    def slots(self, group: slice) -> slice:
        """The slots that hold tokens of a group, without the padding of the newest columns behind them."""
        stop = self.keys.shape[2] - (self.new_tokens.columns - self.new_tokens.new[group.start or 0])
        return slice(stop - max(count for heads in self.counts[group] for count in heads), stop)

    def exists(self, group: slice, slots: slice) -> Tensor | None:
        """Which of `slots(group)` hold tokens of each head: [b, H, t], bool; None where all do."""
        counts, size = self.counts[group], slots.stop - slots.start
        if all(count == size for heads in counts for count in heads):
            return None
        return torch.arange(size, device=self.device) >= size - torch.tensor(counts, device=self.device)[..., None]

    def window_in_use(self) -> int | None:
        """The window, once a sequence is longer than that."""
        longest = max(self.new_tokens.seen) + self.new_tokens.columns
        return self.window if self.window is not None and longest > self.window else None

    def copies(self, policy: Policy, count: int, seen: list[int]) -> LayerState:
        """So many copies of each sequence, under another policy that reads the same; copy c of s is c * S + s.

        seen: tokens that each sequence ever had. Copies of one sequence share its memory until they differ.
        """
        twin = LayerState(
            self.index, policy, self.window, self.protect, self.scale, [], rotary=self.rotary, shards=self.shards
        )
        for name in _TENSORS:
            tensor = getattr(self, name)
            if tensor is not None:
                tensor = tensor[None].expand(count, *tensor.shape).flatten(0, 1)
            setattr(twin, name, tensor)
        twin.counts = [list(heads) for heads in self.counts * count]
        twin.ragged = self.ragged and self.ragged.select([*range(len(self.counts))] * count)
        twin.new_tokens = NewTokens.of(seen * count, [0] * len(twin.counts), 0, None, policy.hop, self.device)
        return twin
