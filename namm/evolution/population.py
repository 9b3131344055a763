"""Members of a population as one policy: a batch in which every member has its own copies of the same sequences.

P members, S sequences; sequence s of member p is number p * S + s. What comes before the first choice is the same for
all and need be computed once: run it under `ObserveOnly`, then `EvictingCache.fork` with a `Population`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from torch import Tensor

from ..policies.base import Block, Rule, View
from ..policies.features import BINS, HOP
from ..policies.network import Namm, moving_spectrum


@dataclass(frozen=True)
class ObserveOnly:
    """Keeps everything and notes what a NAMM reads, for a choice that is made later."""

    rule: Rule = field(default_factory=lambda: Rule(threshold=-inf))

    name = "watch"
    every = None
    hop = context = HOP
    width = BINS

    def observe(self, block: Block) -> Tensor:
        """The moving average of each key's spectrum after new queries: [B, H, T, 17]."""
        return moving_spectrum(block)

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
    hop = context = HOP
    width = BINS

    @property
    def rule(self) -> Rule:
        """That of the NAMM."""
        return self.namm.rule

    @property
    def every(self) -> int:
        """That of the NAMM."""
        return self.namm.every

    def observe(self, block: Block) -> Tensor:
        """The moving average of each key's spectrum after new queries: [P*S, H, T, 17]."""
        return moving_spectrum(block)

    def scores(self, view: View) -> Tensor:
        """Each member's scores of its own sequences: [P*S, H, T]."""
        members, tokens = len(self.parameters), self.namm.tokens(view)
        assert len(tokens) % members == 0, "each candidate needs the same sequences"
        own = tokens.unflatten(0, (members, -1))
        return self.namm.score(self.parameters, own, view.recent.exists).flatten(0, 1)
