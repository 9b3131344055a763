"""What the built-in policies under a budget share: how their rule gets it, and that most note nothing of a token."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from .base import Block, Policy, check_every


def set_budget(policy: Any) -> None:
    """Set the budget of a policy's rule. Raise MemxError if it is no share in (0, 1], or for a bad interval."""
    check_every(policy.every)
    object.__setattr__(policy, "rule", replace(policy.rule, budget=policy.budget))


def unobserved(policy: Policy, block: Block) -> Tensor:
    """Never called, as the hop is 0: this policy notes nothing of a token."""
    raise AssertionError(f"{policy.name} observes no queries")
