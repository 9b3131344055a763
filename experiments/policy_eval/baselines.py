"""The config of an evaluation and its NAMMs -> the policies that it compares, each made for a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ...namm.policies.base import Policy, Rule
from ...namm.policies.heuristics import make_policy
from ...namm.policies.network import Namm
from ...results.namm.rows import PER_HEAD
from ..config.policy_eval import EvalConfig


@dataclass(frozen=True)
class Baseline:
    """A policy in the tables.

    Attributes:
        variant: Its name.
        make: Makes it for a budget; a NAMM under its own rule for None.
        rule: The own rule of a NAMM; None for all other policies.
    """

    variant: str
    make: Callable[[float | None], Policy]
    rule: Rule | None = None

    @property
    def threshold(self) -> bool:
        """Whether it is a NAMM that decides by itself how much it keeps."""
        return self.rule is not None and self.rule.budget is None

    def called(self, share: float | None) -> str:
        """Its name in the tables where every head keeps the same share."""
        return self.variant + (PER_HEAD if self.threshold and share is not None else "")


def baselines(config: EvalConfig, namms: Sequence[Namm], seed: int) -> list[Baseline]:
    """List all policies of an evaluation.

    Args:
        config: The evaluation.
        namms: The NAMM of each entry of `config.namms`.
        seed: Of the policy that evicts at random.

    Returns:
        The NAMMs, then the other policies, each in the order of the config.
    """

    def of_namm(namm: Namm) -> Callable[[float | None], Policy]:
        namm = replace(namm, every=config.every)
        return lambda budget: namm if budget is None else replace(namm, rule=Rule(budget=budget))

    def of_name(name: str) -> Callable[[float | None], Policy]:
        return lambda budget: make_policy(name, budget=budget, every=config.every, seed=seed)

    sources = zip(config.namms, namms, strict=True)
    return [
        *(Baseline(source.label, of_namm(namm), namm.rule) for source, namm in sources),
        *(Baseline(name, of_name(name)) for name in config.policies),
    ]
