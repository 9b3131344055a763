"""Scores that were computed elsewhere, such as in a second reading of the context: a policy that looks them up."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ...errors import MemxError
from .base import Block, Rule, View, check_every
from .network import RUN


@dataclass(frozen=True, eq=False)
class FixedScores:
    """Keeps tokens by given scores, such as KVzip's, which need a second reading of the whole context.

    Args:
        table: The score of each token of one text in each head of each layer [L, H, N], larger means more worth
            keeping. Tokens that came after it score lowest.
        budget: Share of all tokens so far that is kept, in (0, 1], or above 1 a number of tokens of each head.
        every: Tokens between evictions; a multiple of 16.
        name: Name in tables and figures.
        rule: How heads share the budget; its own budget is not used.

    Raises:
        MemxError: The scores are not [L, H, N], the budget is no share and no number of tokens, or `every`
            is not a multiple of 16.
    """

    table: Tensor
    budget: float
    every: int = RUN
    name: str = "fixed"
    rule: Rule = field(default=Rule(), repr=False)

    hop = context = width = 0

    def __post_init__(self) -> None:
        check_every(self.every)
        if self.table.dim() != 3:
            raise MemxError(
                f"scores of shape {list(self.table.shape)} are not one per token",
                hint="give a tensor [layers, heads, tokens]",
            )
        object.__setattr__(self, "rule", replace(self.rule, budget=self.budget))

    def observe(self, block: Block) -> Tensor:
        """Never called, as the hop is 0."""
        raise AssertionError(f"{self.name} observes no queries")

    def scores(self, view: View) -> Tensor:
        """The given score of each cached token: [B, H, T]."""
        positions = view.recent.positions.long()
        table = self.table[view.layer].to(positions.device)  # [H, N]
        known = positions < table.shape[1]
        found = table.expand(len(positions), *table.shape).gather(2, positions.clamp(max=table.shape[1] - 1))
        return found.where(known, -torch.inf)
