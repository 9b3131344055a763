"""The config of an evaluation and its NAMMs -> the policies that it compares, each made for a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from ...namm.policies.base import Policy, Rule
from ...namm.policies.heuristics import make_policy
from ...namm.policies.keep import Allocation
from ...namm.policies.network import Namm
from ...results.namm.rows import ALLOCATED, FULL
from ..config.eviction.universal_eval import UniversalEvalConfig


class Line(NamedTuple):
    """A line of the table: a policy at a budget.

    Attributes:
        variant: Its name, with how heads share the budget unless they do equally.
        budget: The budget; None for the full cache.
        allocation: How heads share it; empty for the full cache.
        policy: Makes it anew for a batch of units.
    """

    variant: str
    budget: float | None
    allocation: str

    @property
    def key(self) -> tuple[str, float | None]:
        """What tells lines apart."""
        return self.variant, self.budget


def lines(config: UniversalEvalConfig) -> list[Line]:
    """All lines of an evaluation: the full cache, then NAMMs and rivals at each budget.

    Args:
        config: The evaluation.
    """
    names = [*(namm.label for namm in config.namms), *config.policies]
    found = [Line(FULL, None, "")]
    for budget in config.budgets:
        for name in names:
            found += [Line(name + ALLOCATED.get(way, ""), budget, way) for way in config.allocations]
    return found


def policy_of(line: Line, config: UniversalEvalConfig, namms: Sequence[Namm], seed: int) -> Policy | None:
    """Make the policy of a line.

    Args:
        line: The line.
        config: The evaluation.
        namms: The NAMM of each entry of `config.namms`.
        seed: Of the policy that evicts at random.

    Returns:
        The policy; None for the full cache, which needs none.
    """
    if line.budget is None:
        return None
    name = line.variant.removesuffix(ALLOCATED.get(line.allocation, ""))
    by_label = dict(zip((source.label for source in config.namms), namms, strict=True))
    own = by_label[name].rule if name in by_label else Rule()
    allocation: Allocation = line.allocation  # type: ignore[assignment]
    first = own.first if config.protect_first is None else config.protect_first
    newest = own.newest if config.protect_newest is None else config.protect_newest
    rule = Rule(budget=line.budget, allocation=allocation, first=first, newest=newest)
    if name in by_label:
        return replace(by_label[name], every=config.every, rule=rule)
    return make_policy(name, budget=line.budget, every=config.every, seed=seed, rule=rule)
