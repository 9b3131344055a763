"""The config of an evaluation and its NAMMs -> the policies that it compares, each made for a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...namm.policies.base import Policy, Rule
from ...namm.policies.fixed import FixedScores
from ...namm.policies.heuristics import make_policy
from ...namm.policies.keep import Allocation
from ...namm.policies.network import Namm
from ...namm.policies.shares import HeadShares
from ...results.namm.rows import ALLOCATED, CEILINGS, PER_HEAD
from ..config.eviction.policy_eval import EvalConfig

Make = Callable[[float | None, Allocation], Policy]


@dataclass(frozen=True)
class Baseline:
    """A policy in the tables.

    Attributes:
        variant: Its name.
        make: Makes it for a budget and an allocation of that between heads; a NAMM under its own rule for None.
        rule: The own rule of a NAMM; None for all other policies.
    """

    variant: str
    make: Make
    rule: Rule | None = None

    @property
    def threshold(self) -> bool:
        """Whether it is a NAMM that decides by itself how much it keeps."""
        return self.rule is not None and self.rule.budget is None

    def called(self, share: float | None, allocation: Allocation = "equal") -> str:
        """Its name in the tables at a budget, with how heads share it."""
        if share is None:
            return self.variant
        equal = PER_HEAD if self.threshold else ""
        return self.variant + ALLOCATED.get(allocation, equal)


def protected(rule: Rule, config: EvalConfig, own: Rule) -> Rule:
    """A rule with the tokens that a policy always keeps.

    Args:
        rule: The rule.
        config: The evaluation, which may say how many.
        own: What else says so: the rule of a NAMM.

    Returns:
        The rule.
    """
    first = own.first if config.protect_first is None else config.protect_first
    newest = own.newest if config.protect_newest is None else config.protect_newest
    return replace(rule, first=first, newest=newest)


def baselines(
    config: EvalConfig,
    namms: Sequence[Namm],
    seed: int,
    shares: HeadShares | None = None,
    ceiling: Tensor | None = None,
) -> list[Baseline]:
    """List all policies of an evaluation.

    Args:
        config: The evaluation.
        namms: The NAMM of each entry of `config.namms`.
        seed: Of the policy that evicts at random.
        shares: The table of head shares, for the allocation "table".
        ceiling: KVzip's scores of the context [L, H, N], if it is evaluated. None: no context was read yet.

    Returns:
        The NAMMs, then the other policies, each in the order of the config.
    """

    def shared(budget: float | None, allocation: Allocation, own: Rule = Rule()) -> Rule:
        return protected(Rule(budget=budget, allocation=allocation, shares=shares), config, own)

    def of_namm(namm: Namm) -> Make:
        own, namm = namm.rule, replace(namm, every=config.every)
        under_own = protected(own, config, own)
        return lambda budget, allocation: replace(
            namm, rule=under_own if budget is None else shared(budget, allocation, own)
        )

    def of_name(name: str) -> Make:
        if name in CEILINGS:
            scores = torch.zeros(1, 1, 1) if ceiling is None else ceiling
            return lambda budget, allocation: FixedScores(
                scores, budget or 1.0, config.every, name, shared(budget, allocation)
            )
        return lambda budget, allocation: make_policy(
            name, budget=budget, every=config.every, seed=seed, rule=shared(budget, allocation)
        )

    sources = zip(config.namms, namms, strict=True)
    return [
        *(Baseline(source.label, of_namm(namm), namm.rule) for source, namm in sources),
        *(Baseline(name, of_name(name)) for name in config.policies),
    ]
