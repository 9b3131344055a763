"""What an eviction policy is: it watches new queries meet the cached keys of a layer, and scores the keys when asked.

B sequences, Hq query heads that share H key-value heads, Q queries, T cached keys, oldest first; d numbers a head.
One policy serves all layers of a host and holds nothing of any sequence: what it keeps of a token lies in the cache
with the token's key, and is moved and dropped with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ...errors import MemxError
from ...kernels.attention_spectrogram import HOP
from .attention import Attention as Attention
from .rotary import Rotary
from .rule import Rule as Rule


def check_every(every: int | None) -> None:
    """Raise MemxError for an interval between runs that is not a positive multiple of the spectrogram's hop."""
    if every is not None and (every <= 0 or every % HOP):
        raise MemxError(
            f"the eviction interval must be a positive multiple of {HOP} tokens, got {every}",
            hint=f"use e.g. {HOP}, {4 * HOP} or {32 * HOP}",
        )


@dataclass(frozen=True)
class Block:
    """New queries, as `Policy.observe` gets them.

    Attributes:
        attention: The Q new queries, a multiple of the policy's `hop`, with all T keys.
        context: The `Policy.context` queries before them, with the T - Q keys that were cached then.
        state: What `observe` returned for these keys: [B, H, T - Q, width]. None if there are none.
        layer: Number of the layer, from 0.
    """

    attention: Attention
    context: Attention
    state: Tensor | None
    layer: int = 0


@dataclass(frozen=True)
class View:
    """The cache of one layer when its policy evicts, as `Policy.scores` gets it.

    Attributes:
        layer: Number of the layer, from 0.
        recent: The `Policy.context` newest queries, with all cached keys.
        value: Cached values [B, H, T, d].
        state: What `observe` returned last: [B, H, T, width].
        seen: Number of tokens of each sequence so far [B], evicted ones included.
        room: Number of tokens that the rule lets each head of a sequence keep, a mean where they differ [B]. None
            without a budget.
        rooms: The number for each head [B, H], where a table gives them different ones. None: `room` for all.
        summary: What `summarise` returned last: [B, Hq, numbers]. None for a policy that summarises nothing.
        first_head: Number of the first of the H heads; above 0 where other processes hold those before.
        total_heads: Heads of the layer in all processes together. None: all are here.
    """

    layer: int
    recent: Attention
    value: Tensor
    state: Tensor
    seen: Tensor
    room: Tensor | None
    rooms: Tensor | None = None
    summary: Tensor | None = None
    first_head: int = 0
    total_heads: int | None = None

    @property
    def rotary(self) -> Rotary:
        """How the layer turns queries and keys by their positions, and back."""
        return self.recent.rotary

    @property
    def key(self) -> Tensor:
        """The cached keys [B, H, T, d], at their original rotary positions."""
        return self.recent.key

    @property
    def ages(self) -> Tensor:
        """Age of each cached token in tokens, 0 for the newest: [B, H, T]."""
        return self.seen[:, None, None] - 1 - self.recent.positions


class Policy(Protocol):
    """What an eviction policy must have: a class with these attributes and methods works with `attach`.

    At each eviction the policy scores the cached tokens of a layer, and its rule chooses which to keep. Evicted tokens
    do not come back. One object serves all layers and sequences, so it must not store anything about them: numbers
    about a token are returned by `observe` and stored in the cache with the token's key. A policy that needs numbers
    about a whole sequence, such as the mean of its queries, is a `SummaryPolicy`.

    Example:
        ```python
        from dataclasses import dataclass, field

        from memx.namm import Rule


        @dataclass(frozen=True)
        class Oldest:

            every: int = 64
            rule: Rule = field(default_factory=lambda: Rule(budget=0.25))
            name = "oldest"
            hop = context = width = 0  # observes no queries

            def observe(self, block):
                raise AssertionError("never called: hop is 0")

            def scores(self, view):
                return view.ages.float()
        ```
    """

    @property
    def name(self) -> str:
        """Name in tables and figures."""
        ...

    @property
    def rule(self) -> Rule:
        """How scores become a choice of tokens."""
        ...

    @property
    def every(self) -> int | None:
        """Tokens between evictions, a multiple of 16: it evicts when the length is a multiple of this. None: never."""
        ...

    @property
    def hop(self) -> int:
        """`observe` gets new queries in multiples of this number. 0: `observe` is never called."""
        ...

    @property
    def context(self) -> int:
        """Number of previous queries that `observe` and `scores` also get."""
        ...

    @property
    def width(self) -> int:
        """Numbers per key that `observe` returns and the cache stores."""
        ...

    def observe(self, block: Block) -> Tensor:
        """Update the numbers of each key with new queries.

        Args:
            block: The new queries, the queries before them, and the numbers so far.

        Returns:
            The numbers [B, H, T, width], float32.
        """
        ...

    def scores(self, view: View) -> Tensor:
        """Score each cached token; larger means more worth keeping.

        Args:
            view: The layer's cache.

        Returns:
            Scores [B, H, T]. Scores of entries that are not tokens have no effect.
        """
        ...


class SummaryPolicy(Policy, Protocol):
    """A policy that also keeps numbers of each sequence and query head, whatever tokens stay, as means of queries."""

    def summary_size(self, width: int) -> int:
        """Numbers that are kept for each sequence and query head; 0: none.

        Args:
            width: Numbers in a key or query of one head.
        """
        ...

    def summarise(self, block: Block, summary: Tensor) -> Tensor:
        """Update the numbers of each sequence with new queries; called beside `observe`, so that `hop` is not 0.

        Args:
            block: The new queries.
            summary: The numbers so far [B, Hq, numbers]: float32 (float64 of float64 queries), zeros at first.

        Returns:
            The numbers [B, Hq, numbers].
        """
        ...


def check_interval(policy: Policy) -> None:
    """Raise MemxError for a policy whose interval is no multiple of 16, or shorter than the queries that it reads."""
    check_every(policy.every)
    if policy.every is not None and policy.context > policy.every:
        raise MemxError(
            f"{policy.name} needs an eviction interval of at least {policy.context} tokens, got {policy.every}",
            hint=f"set the eviction interval to {policy.context} or more",
        )


def check_model(policy: Policy, layers: int) -> None:
    """Raise MemxError if a policy says that it is made for a model with another number of layers."""
    if (check := getattr(policy, "check_model", None)) is not None:
        check(layers)


def summary_size(policy: Policy, width: int) -> int:
    """Numbers that a policy keeps for each sequence and query head of this width; 0 for one that has no summary."""
    size = getattr(policy, "summary_size", None)
    return 0 if size is None else size(width)


def summarise(policy: Policy, block: Block, summary: Tensor) -> Tensor:
    """The summary [B, Hq, numbers] after new queries; as it was, for a policy that has none."""
    return policy.summarise(block, summary) if summary.shape[2] else summary  # type: ignore[attr-defined]
