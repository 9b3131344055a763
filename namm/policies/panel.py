"""Several policies at once: all watch one reading of a context, and those under the same rule go on in one batch.

P members, S sequences; sequence s of member p is number p * S + s. Read a context under `PolicySlots`, then
`EvictingCache.fork` with a `PolicyBatch`: each member decides as it would alone, on its own copies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor

from ...kernels.attention_spectrogram import HOP
from .base import Block, Policy, Rule, View, check_model, summarise, summary_size
from .heuristics import Full


@dataclass(frozen=True)
class PolicySlots:
    """Keeps everything and notes, for a choice that is made later, what each of some kinds of policies reads.

    kinds: one policy of each kind; those that observe the same share its numbers: those of a class, or where a policy
    says what it observes, as `Namm.observes`, of that.
    All wait for a full hop of 16 queries, also those that observe none: at a length that is no multiple of 16 the
    newest tokens, fewer than 16, are not seen by any policy yet and stay, within its budget. The numbers may be stored
    in float16 if those of every kind may.
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
        return max((kind.context for kind in self.kinds), default=0)

    @property
    def half_state(self) -> bool:
        """Whether the numbers of every kind may be stored in float16."""
        return all(getattr(kind, "half_state", False) for kind in self.kinds if kind.width)

    @property
    def observers(self) -> dict[object, tuple[Policy, slice]]:
        """By what it observes, each kind that keeps numbers beside a key, and where they lie."""
        observers: dict[object, tuple[Policy, slice]] = {}
        start = 0
        for kind in self.kinds:
            if kind.width and _observes(kind) not in observers:
                observers[_observes(kind)] = kind, slice(start, start + kind.width)
                start += kind.width
        return observers

    def summaries(self, width: int) -> dict[object, tuple[Policy, slice]]:
        """By what it observes, each kind with a summary of heads of this width, and where its numbers lie."""
        summaries: dict[object, tuple[Policy, slice]] = {}
        start = 0
        for kind in self.kinds:
            size = summary_size(kind, width)
            if size and _observes(kind) not in summaries:
                summaries[_observes(kind)] = kind, slice(start, start + size)
                start += size
        return summaries

    def summary_size(self, width: int) -> int:
        """Of all kinds together."""
        return sum(own.stop - own.start for _, own in self.summaries(width).values())

    def check_model(self, layers: int) -> None:
        """Raise MemxError if a kind is made for a model with other layers."""
        for kind in self.kinds:
            check_model(kind, layers)

    @property
    def needs_rotary(self) -> bool:
        """Whether any kind reads keys before rotary positions."""
        return any(getattr(kind, "needs_rotary", False) for kind in self.kinds)

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
            states.append(kind.observe(replace(_last(block, kind.context), state=state)))
        return torch.cat(states, -1)

    def summarise(self, block: Block, summary: Tensor) -> Tensor:
        """The summaries of all kinds side by side: [B, Hq, numbers]."""
        own = self.summaries(block.attention.query.shape[3]).values()
        return torch.cat([summarise(kind, _last(block, kind.context), summary[..., part]) for kind, part in own], -1)

    def scores(self, view: View) -> Tensor:
        """Never asked."""
        raise AssertionError("batched observers do not score tokens")

    def view(self, view: View, policy: Policy) -> View:
        """What one policy sees of what was noted for all."""
        own = self.observers[_observes(policy)][1] if policy.width else slice(0)
        summary, width = view.summary, view.recent.query.shape[3]
        if summary is not None:
            known = self.summaries(width)
            summary = summary[..., known[_observes(policy)][1] if summary_size(policy, width) else slice(0)]
        return replace(view, recent=view.recent.last(policy.context), state=view.state[..., own], summary=summary)


def _observes(policy: Policy) -> object:
    """What a policy observes: policies of which this is equal keep the same numbers."""
    return getattr(policy, "observes", type(policy))


def _last(block: Block, context: int) -> Block:
    """A block with fewer queries of before."""
    return replace(block, context=block.context.last(context))


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

    @property
    def half_state(self) -> bool:
        """That of the slots."""
        return self.slots.half_state

    def check_model(self, layers: int) -> None:
        """Raise MemxError if a member is made for a model with other layers."""
        for member in self.members:
            check_model(member, layers)

    @property
    def needs_rotary(self) -> bool:
        """That of the slots."""
        return self.slots.needs_rotary

    def observe(self, block: Block) -> Tensor:
        """The numbers of all kinds side by side: [P*S, H, T, width]."""
        return self.slots.observe(block)

    def summary_size(self, width: int) -> int:
        """That of the slots."""
        return self.slots.summary_size(width)

    def summarise(self, block: Block, summary: Tensor) -> Tensor:
        """The summaries of all kinds side by side: [P*S, Hq, numbers]."""
        return self.slots.summarise(block, summary)

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
    return replace(
        view,
        recent=recent,
        value=view.value[chosen],
        state=view.state[chosen],
        seen=view.seen[chosen],
        room=some(view.room),
        rooms=some(view.rooms),
        summary=some(view.summary),
    )
