"""Several policies at once: all watch one reading of a context, and those under the same rule go on in one batch.

P members, S sequences; sequence s of member p is number p * S + s. Read a context under `PolicySlots`, then
`EvictingCache.fork` with a `PolicyBatch`: each member decides as it would alone, on its own copies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor

from .base import Block, Policy, Rule, View
from .features import HOP
from .heuristics import Full


@dataclass(frozen=True)
class PolicySlots:
    """Keeps everything and notes, for a choice that is made later, what each of some kinds of policies reads.

    kinds: one policy of each kind; those of a class that keep numbers beside a key note the same and share them.
    All wait for a full hop of 16 queries, also those that observe none: at a length that is no multiple of 16 the
    newest tokens, fewer than 16, are not seen by any policy yet and stay, within its budget. Where the cache holds the
    numbers in float16, it holds those of every kind so.
    """

    kinds: tuple[Policy, ...]

    name = "seats"
    every = None
    hop = HOP
    rule = Rule(threshold=-inf)

    def __post_init__(self) -> None:
        assert all(kind.hop in (0, HOP) for kind in self.kinds), self.kinds

    @property
    def context(self) -> int:
        """The most that any kind looks back."""
        return max(kind.context for kind in self.kinds)

    @property
    def observers(self) -> dict[type, tuple[Policy, slice]]:
        """By its class, each kind that keeps numbers beside a key, and where they lie."""
        observers: dict[type, tuple[Policy, slice]] = {}
        start = 0
        for kind in self.kinds:
            if kind.width and type(kind) not in observers:
                observers[type(kind)] = kind, slice(start, start + kind.width)
                start += kind.width
        return observers

    @property
    def width(self) -> int:
        """Of all observers together."""
        return sum(kind.width for kind, _ in self.observers.values())

    def observe(self, block: Block) -> Tensor:
        """The numbers of all observers side by side: [B, H, T, width]."""
        key = block.attention.key
        states = [torch.zeros(*key.shape[:3], 0, device=key.device)]
        for kind, own in self.observers.values():
            state = None if block.state is None else block.state[..., own]
            states.append(kind.observe(Block(block.attention, block.context.last(kind.context), state)))
        return torch.cat(states, -1)

    def scores(self, view: View) -> Tensor:
        """Never asked."""
        raise AssertionError("batched observers do not score tokens")

    def view(self, view: View, policy: Policy) -> View:
        """What one policy sees of what was noted for all."""
        own = self.observers[type(policy)][1] if policy.width else slice(0)
        return replace(view, recent=view.recent.last(policy.context), state=view.state[..., own])


@dataclass(frozen=True)
class PolicyBatch:
    """Policies under the same rule, each with its own copies of the same sequences."""

    slots: PolicySlots
    members: tuple[Policy, ...]

    name = "panel"
    hop = HOP

    def __post_init__(self) -> None:
        rules = {(member.rule, member.every) for member in self.members}
        assert len(rules) == 1, f"batched policies need one rule and one eviction interval: {rules}"

    @property
    def rule(self) -> Rule:
        """That of each member."""
        return self.members[0].rule

    @property
    def every(self) -> int | None:
        """That of each member."""
        return self.members[0].every

    @property
    def context(self) -> int:
        """That of the slots."""
        return self.slots.context

    @property
    def width(self) -> int:
        """That of the slots."""
        return self.slots.width

    def observe(self, block: Block) -> Tensor:
        """The numbers of all kinds side by side: [P*S, H, T, width]."""
        return self.slots.observe(block)

    def scores(self, view: View) -> Tensor:
        """Each member's scores of its own sequences: [P*S, H, T]."""
        size, left = divmod(len(view.seen), len(self.members))
        assert not left, "each batched policy needs the same sequences"
        return torch.cat(
            [
                member.scores(self.slots.view(some_sequences(view, slice(number * size, (number + 1) * size)), member))
                for number, member in enumerate(self.members)
            ]
        )


def keep_all(slots: PolicySlots) -> PolicyBatch:
    """A panel of one that keeps everything, for branches in which nothing is chosen yet."""
    return PolicyBatch(slots, (Full(),))


def some_sequences(view: View, chosen: slice) -> View:
    """Some sequences of a view."""
    full = view.recent

    def some(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[chosen]

    recent = replace(
        full,
        query=full.query[chosen],
        key=full.key[chosen],
        lse=full.lse[chosen],
        own=full.own[chosen],
        positions=full.positions[chosen],
        exists=some(full.exists),
    )
    value, state, seen = view.value[chosen], view.state[chosen], view.seen[chosen]
    return View(view.layer, recent, value, state, seen, some(view.room), some(view.rooms))
