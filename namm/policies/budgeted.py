"""What policies under a budget share: how their rule gets it, and that most note nothing of a token."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from .base import Block, Policy, Rule, View, check_every
from .network import RUN


def set_budget(policy: Any) -> None:
    """Set the budget of a policy's rule. Raise MemxError for a budget or an interval that is none."""
    check_every(policy.every)
    object.__setattr__(policy, "rule", replace(policy.rule, budget=policy.budget))


def unobserved(policy: Policy, block: Block) -> Tensor:
    """Never called, as the hop is 0: this policy notes nothing of a token."""
    raise AssertionError(f"{policy.name} has a hop of {policy.hop} and no method observe of its own")


@dataclass(frozen=True)
class BudgetPolicy:
    """Base class of policies that keep a share of the cache and score tokens by what is cached of them.

    A subclass has a name and the method `scores`; a name that it does not set is that of the class. It is used by
    `--policy FILE.py:CLASS` or `--policy MODULE:CLASS` in all commands.

    Attributes:
        budget: Share of all tokens so far that is kept, in (0, 1], or above 1 a number of tokens of each head.
        every: Tokens between evictions; a multiple of 16.
        rule: How heads share the budget, and which first and newest tokens are kept in any case.

    Example:
        ```python
        from memx.namm import BudgetPolicy


        class LongValues(BudgetPolicy):
            name = "long-values"

            def scores(self, view):
                return view.value.norm(dim=-1)
        ```
    """

    budget: float
    every: int = RUN
    rule: Rule = field(default=Rule(), repr=False)

    name = ""
    hop = context = width = 0
    observe = unobserved

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" not in cls.__dict__:
            cls.name = cls.__name__

    def __post_init__(self) -> None:
        set_budget(self)

    def scores(self, view: View) -> Tensor:
        """Score each cached token; larger means more worth keeping.

        Args:
            view: The layer's cache: `key`, `value` [B, H, T, d], `ages` [B, H, T] and more.

        Returns:
            Scores [B, H, T].
        """
        raise NotImplementedError(f"{type(self).__name__} has no method scores")
