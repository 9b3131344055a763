"""What an eviction policy is: it watches new queries meet the cached keys of a layer, and scores the keys when asked.

B sequences, Hq query heads that share H key-value heads, Q queries, T cached keys, oldest first; d numbers a head.
One policy serves all layers of a host and holds nothing of any sequence: what it keeps of a token lies in the cache
beside the token's key, and is moved and dropped with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import isnan
from typing import Protocol

import torch
from torch import Tensor

from ...errors import MemxError
from ...kernels.attention_spectrogram import attention_lse
from .features import HOP
from .keep import Grouping


@dataclass(frozen=True)
class Rule:
    """How scores become a choice of tokens.

    The newest token and protected ones always stay.

    Args:
        threshold: Tokens that score at least this stay; unused with a budget.
        budget: The share of all tokens *seen so far* that stays in each head, the best of them, in (0, 1]; None: the
            threshold decides.
        grouping: "layer_max": every head of a layer keeps as many as the head that keeps most; "per_head": exactly
            its own. See `kept_tokens`.

    Raises:
        MemxError: A budget outside (0, 1], a threshold that is not a number, or an unknown grouping.
    """

    threshold: float = 0.0
    budget: float | None = None
    grouping: Grouping = "layer_max"

    def __post_init__(self) -> None:
        if self.budget is not None and not 0 < self.budget <= 1:
            raise MemxError(
                f"budget must be in (0, 1], got {self.budget:g}", hint="give the share of the cache to keep, e.g. 0.5"
            )
        if isnan(self.threshold):
            raise MemxError("the threshold is not a number", hint="use a number, inf or -inf")
        if self.grouping not in ("layer_max", "per_head"):
            raise MemxError(f"unknown grouping {self.grouping!r}", hint="use layer_max or per_head")

    def budget_tokens(self, seen: Sequence[int]) -> list[int] | None:
        """The budget in tokens.

        Args:
            seen: All tokens that each sequence ever had.

        Returns:
            How many each may keep, rounded down, at least 1; None without a budget.
        """
        if self.budget is None:
            return None
        share = Fraction(str(self.budget))  # as it is written: 0.42 of 38,400 is 16,128, in floats one less
        return [max(1, int(tokens * share)) for tokens in seen]


def check_every(every: int | None) -> None:
    """Raise MemxError for an interval between runs that is not a positive multiple of the spectrogram's hop."""
    if every is not None and (every <= 0 or every % HOP):
        raise MemxError(
            f"the eviction interval must be a positive multiple of {HOP} tokens, got {every}",
            hint=f"use e.g. {HOP}, {4 * HOP} or {32 * HOP}",
        )


@dataclass(frozen=True)
class Attention:
    """Queries of one layer and all keys that were cached when the last of them came.

    Attributes:
        query: [B, Hq, Q, d], after rotary positions.
        key: [B, H, T, d], after rotary positions, oldest first; any strides.
        lse: [B, Hq, Q], natural: the log-sum-exp of each query's scores *when it attended*, over keys that may be gone
            by now; +inf for a query that never was.
        own: [B, 1, Q]: how many tokens the sequence had before each query.
        positions: [B, H, T]: and before each key.
        exists: [B, H, T], bool: entries that hold a token; None: all.
        scale: What the products of queries and keys are multiplied by.
        window: How many positions a query sees back, itself counted; None: all.
    """

    query: Tensor
    key: Tensor
    lse: Tensor
    own: Tensor
    positions: Tensor
    exists: Tensor | None
    scale: float
    window: int | None

    def last(self, count: int) -> Attention:
        """The last few queries alone, or none for 0, with all keys."""
        chosen = slice(max(self.query.shape[2] - count, 0), None)
        return replace(self, query=self.query[:, :, chosen], lse=self.lse[:, :, chosen], own=self.own[:, :, chosen])

    def parts(self, size: int) -> Iterator[Attention]:
        """So many queries at a time, each with the keys up to its last one's own. The last Q keys are the queries'."""
        queries, keys = self.query.shape[2], self.key.shape[2]
        for start in range(0, queries, size):
            stop = min(start + size, queries)
            part, seen = slice(start, stop), slice(keys - queries + stop)
            exists = None if self.exists is None else self.exists[..., seen]
            query, lse, own = self.query[:, :, part], self.lse[:, :, part], self.own[:, :, part]
            yield Attention(
                query, self.key[:, :, seen], lse, own, self.positions[..., seen], exists, self.scale, self.window
            )

    def rows(self) -> Tensor:
        """Attention of all queries, averaged over the query heads of a group: [B, H, Q, T], float32."""
        lse = self.lse.unflatten(1, (self.key.shape[1], -1))[..., None]
        return (self._scores() - lse).exp_().masked_fill_(~self.visible()[:, :, None], 0).mean(2)

    def log_sum_exp(self) -> Tensor:
        """The log-sum-exp of each query's scores over the keys here, whose last Q are the queries': [B, Hq, Q]."""
        if self.window is None:
            return attention_lse(self.query, self.key, self.exists, self.scale)
        unseen = ~self.visible()[:, :, None]
        return self._scores().masked_fill_(unseen, -torch.inf).logsumexp(-1).flatten(1, 2)

    def visible(self) -> Tensor:
        """Which keys each query sees: [B, H, Q, T], bool."""
        back = self.own[..., :, None] - self.positions[..., None, :]
        seen = back >= 0 if self.window is None else (back >= 0) & (back < self.window)
        return seen if self.exists is None else seen & self.exists[..., None, :]

    def _scores(self) -> Tensor:
        """Scaled products of all queries and keys: [B, H, G, Q, T], float32."""
        dtype = torch.promote_types(self.query.dtype, torch.float32)
        grouped = self.query.to(dtype).unflatten(1, (self.key.shape[1], -1)).flatten(2, 3)  # [B, H, G*Q, d]
        scores = (grouped @ self.key.to(dtype).mT).mul_(self.scale)
        return scores.unflatten(2, (-1, self.query.shape[2]))


@dataclass(frozen=True)
class Block:
    """New queries for `Policy.observe`.

    Attributes:
        attention: Q queries, a multiple of the policy's hop, with all T keys.
        context: The `Policy.context` queries before them, with the T - Q keys that were there before.
        state: [B, H, T - Q, width]: what `observe` returned for those keys; None if there are none.
    """

    attention: Attention
    context: Attention
    state: Tensor | None


@dataclass(frozen=True)
class View:
    """A layer when its policy evicts, for `Policy.scores`.

    Attributes:
        layer: Its number.
        recent: The `Policy.context` newest queries with all cached keys.
        value: [B, H, T, d].
        state: [B, H, T, width]: what `observe` returned last.
        seen: [B]: all tokens that each sequence ever had.
        room: [B]: how many of them the rule lets it keep; None without a budget.
    """

    layer: int
    recent: Attention
    value: Tensor
    state: Tensor
    seen: Tensor
    room: Tensor | None

    @property
    def key(self) -> Tensor:
        """The cached keys [B, H, T, d], at their original rotary positions."""
        return self.recent.key

    @property
    def ages(self) -> Tensor:
        """How many tokens ago each token came, 0 for the newest: [B, H, T]."""
        return self.seen[:, None, None] - 1 - self.recent.positions


class Policy(Protocol):
    """Scores cached tokens; those that its rule then drops are gone for good.

    One object serves all layers and sequences and keeps nothing of them: numbers for a token are stored in the cache.
    """

    @property
    def name(self) -> str:
        """What tables and pictures call it."""
        ...

    @property
    def rule(self) -> Rule:
        """How its scores become a choice."""
        ...

    @property
    def every(self) -> int | None:
        """It runs whenever a sequence's length is a multiple of this many tokens; None: never."""
        ...

    @property
    def hop(self) -> int:
        """`observe` takes queries by so many or a multiple; 0: it need not see any."""
        ...

    @property
    def context(self) -> int:
        """How many of the last queries it looks at again when new ones come, and at a run."""
        ...

    @property
    def width(self) -> int:
        """How many numbers it keeps beside each key."""
        ...

    def observe(self, block: Block) -> Tensor:
        """The numbers beside each key after new queries: [B, H, T, width], float32."""
        ...

    def scores(self, view: View) -> Tensor:
        """What each cached token is worth: [B, H, T]; entries that hold no token may score anything."""
        ...
