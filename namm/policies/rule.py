"""How a policy's scores become a choice: how much is kept, how heads share it, and what is protected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import Any

from ...errors import MemxError
from .keep import ALLOCATIONS, Allocation, Grouping, check_budget
from .shares import HeadShares, allowed


@dataclass(frozen=True)
class Rule:
    """How a policy's scores become a choice of tokens to keep.

    The newest token and protected tokens are always kept.

    Args:
        threshold: Keep tokens that score at least this. Not used with a budget.
        budget: Keep the best tokens: a share of all tokens seen so far, in (0, 1], or a whole number of tokens above 1,
            that of each head or, where heads get different parts, their mean. None: use the threshold.
        grouping: With a threshold. "layer_max" (published): each head of a layer keeps as many tokens as the head that
            keeps most. "per_head": each head keeps exactly its choice.
        allocation: How a budget is shared between heads. "equal": every head keeps the same share. "global": the best
            tokens of all layers and heads together, by one threshold, share x layers x heads x tokens in all. "table":
            each head keeps its own share, by `shares`. "layer_max": one threshold, with every head of a layer filled
            up to its fullest, and the budget counts what layers then hold.
        shares: The table of head shares, with the allocation "table".
        first: Number of first tokens of a sequence that are kept in any case, within the budget.
        newest: Number of newest tokens that are kept in any case, within the budget. Where the budget of a head is too
            small for all of them, those that score best are kept.

    Raises:
        MemxError: The budget is neither a share nor a whole number, the threshold is not a number, the grouping or
            allocation is unknown, there is no table where one is needed, or a number of protected tokens is negative.

    Example:
        ```python
        from memx.namm import Rule

        Rule(budget=0.25)  # a quarter of the tokens of every head
        Rule(budget=512)  # 512 tokens of every head, however long the text is
        Rule(budget=0.25, allocation="global", first=4)  # a quarter of the whole cache
        Rule(threshold=0.5)  # as many tokens as score at least 0.5
        ```
    """

    threshold: float = 0.0
    budget: float | None = None
    grouping: Grouping = "layer_max"
    allocation: Allocation = "equal"
    shares: HeadShares | None = field(default=None, repr=False)
    first: int = 0
    newest: int = 0

    def __post_init__(self) -> None:
        if self.budget is not None:
            check_budget(self.budget)
        if isnan(self.threshold):
            raise MemxError("the threshold is not a number", hint="use a number, inf or -inf")
        if self.grouping not in ("layer_max", "per_head"):
            raise MemxError(f"unknown grouping {self.grouping!r}", hint="use layer_max or per_head")
        if self.allocation not in ALLOCATIONS:
            raise MemxError(f"unknown allocation {self.allocation!r}", hint=f"use {', '.join(ALLOCATIONS)}")
        if self.allocation == "table" and self.shares is None:
            raise MemxError(
                "the allocation table needs a table of head shares",
                hint="give one that memx.namm.measure_shares measured, or use another allocation",
            )
        for name, count in (("first", self.first), ("newest", self.newest)):
            if count < 0:
                raise MemxError(f"{name} must not be negative, got {count}", hint="give a number of tokens, e.g. 4")

    @property
    def spans_layers(self) -> bool:
        """Whether heads are given different parts of a budget, so that the choice is one for all layers together."""
        return self.budget is not None and self.allocation != "equal"

    def budget_tokens(self, seen: Sequence[int]) -> list[int] | None:
        """Compute the budget in tokens of a head, a mean over heads where they get different parts.

        Args:
            seen: Number of tokens of each sequence so far, evicted ones included.

        Returns:
            Number of tokens that each sequence may keep, rounded down, at least 1. None without a budget.
        """
        if self.budget is None:
            return None
        return [max(1, int(allowed(self.budget, tokens))) for tokens in seen]


class Around:
    """A policy around another, which stands for it in all that a subclass does not say itself.

    Attributes:
        policy: The other policy.
    """

    policy: Any

    def __getattr__(self, name: str) -> Any:
        if name == "policy" or name.startswith("__"):  # asked for while a copy is made, before there is a policy
            raise AttributeError(name)
        return getattr(self.policy, name)


class _UnderRule(Around):
    """A policy whose own rule is set aside."""

    def __init__(self, policy: Any, rule: Rule) -> None:
        self.policy, self.rule = policy, rule


def under_rule(policy: Any, rule: Rule) -> Any:
    """A policy of any class under another rule.

    Args:
        policy: A `Policy`.
        rule: The rule.

    Returns:
        A policy that scores as this one does.
    """
    return _UnderRule(policy, rule)
