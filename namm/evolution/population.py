"""Members of a population as one policy: a batch in which every member has its own copies of the same sequences.

P members, S sequences; sequence s of member p is number p * S + s. What comes before the first choice is the same for
all and need be computed once: run it under `ObserveOnly`, then `EvictingCache.fork` with a `Population`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from torch import Tensor

from ..policies.base import Block, Rule, View
from ..policies.network import Namm


@dataclass(frozen=True)
class ObserveOnly:
    """Keeps everything and notes what a NAMM reads, for a choice that is made later."""

    rule: Rule = field(default_factory=lambda: Rule(threshold=-inf))
    namm: Namm = field(default_factory=lambda: Namm())

    name = "watch"
    every = None

    @property
    def hop(self) -> int:
        """That of the NAMM."""
        return self.namm.hop

    @property
    def context(self) -> int:
        """That of the NAMM."""
        return self.namm.context

    @property
    def width(self) -> int:
        """That of the NAMM."""
        return self.namm.width

    @property
    def half_state(self) -> bool:
        """That of the NAMM."""
        return self.namm.half_state

    @property
    def needs_rotary(self) -> bool:
        """Whether the NAMM reads keys or queries before rotary positions."""
        return self.namm.needs_rotary

    def check_model(self, layers: int) -> None:
        """Raise MemxError if the NAMM is made for a model with other layers."""
        self.namm.check_model(layers)

    def observe(self, block: Block) -> Tensor:
        """What the NAMM notes of each key after new queries: [B, H, T, width]."""
        return self.namm.observe(block)

    def summary_size(self, width: int) -> int:
        """That of the NAMM."""
        return self.namm.summary_size(width)

    def summarise(self, block: Block, summary: Tensor) -> Tensor:
        """What the NAMM notes of each sequence after new queries: [B, Hq, numbers]."""
        return self.namm.summarise(block, summary)

    def scores(self, view: View) -> Tensor:
        """Never asked."""
        raise AssertionError("this policy never runs")


@dataclass(frozen=True)
class Population:
    """NAMMs that differ in their parameters [P, n] alone; all else is that of `namm`.

    A batch's sequences must be at the same lengths, so that members are scored together.
    """

    parameters: Tensor
    namm: Namm

    name = "population"

    @property
    def hop(self) -> int:
        """That of the NAMM."""
        return self.namm.hop

    @property
    def context(self) -> int:
        """That of the NAMM."""
        return self.namm.context

    @property
    def width(self) -> int:
        """That of the NAMM."""
        return self.namm.width

    @property
    def half_state(self) -> bool:
        """That of the NAMM."""
        return self.namm.half_state

    @property
    def needs_rotary(self) -> bool:
        """Whether the NAMM reads keys or queries before rotary positions."""
        return self.namm.needs_rotary

    def check_model(self, layers: int) -> None:
        """Raise MemxError if the NAMM is made for a model with other layers."""
        self.namm.check_model(layers)

    @property
    def rule(self) -> Rule:
        """That of the NAMM."""
        return self.namm.rule

    @property
    def every(self) -> int:
        """That of the NAMM."""
        return self.namm.every

    def observe(self, block: Block) -> Tensor:
        """What the NAMM notes of each key after new queries: [P*S, H, T, width]."""
        return self.namm.observe(block)

    def summary_size(self, width: int) -> int:
        """That of the NAMM."""
        return self.namm.summary_size(width)

    def summarise(self, block: Block, summary: Tensor) -> Tensor:
        """What the NAMM notes of each sequence after new queries: [P*S, Hq, numbers]."""
        return self.namm.summarise(block, summary)

    def scores(self, view: View) -> Tensor:
        """Each member's scores of its own sequences: [P*S, H, T]."""
        members, tokens = len(self.parameters), self.namm.tokens(view)
        assert len(tokens) % members == 0, "each candidate needs the same sequences"
        own = tokens.unflatten(0, (members, -1))
        return self.namm.score(self.parameters, own, view.recent.exists, layer=view.layer).flatten(0, 1)
