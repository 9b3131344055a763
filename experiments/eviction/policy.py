"""What `memx evict` is asked for: a config -> the policy that evicts, and in words how it chooses."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any, cast

from ...errors import MemxError
from ...namm.policies.base import Policy, Rule, check_interval
from ...namm.policies.heuristics import check_policy, make_policy
from ...namm.policies.keep import Grouping
from ...namm.policies.network import RUN, Namm
from ...namm.saved import places
from ...namm.saved.files import load, read_files
from ...results.namm.rows import size_text
from ..base_models.model_folder import SMOLLM2
from .default_model import model_of_run
from .head_shares import HEAD_SHARES, read_shares

DEFAULT_NAMM, DEFAULT_BUDGET = "universal", 0.5
OTHER_HEADS = "this NAMM has numbers for the heads of {}; for those of another model they are wrong"
_PROTECTION = {"protect_first": "first", "protect_newest": "newest"}  # the rule's own names


@dataclass(frozen=True)
class EvictConfig:
    """What to run: a prompt, a host, and a policy by name or a saved NAMM by its folder or name.

    Without either, the policy is the NAMM `universal` that comes with memx, at half of the cache.
    budget, every: None for the policy's own; threshold, grouping: of a NAMM; protect: spans START:STOP of token
    numbers, either end open or counted from the prompt's end; compare: whether the full cache writes an answer too;
    allocation, shares: how heads share the budget, and the file of a table of head shares; protect_first,
    protect_newest: tokens that are kept within the budget; None for the NAMM's own, or 0.
    """

    prompt: str
    host: str = SMOLLM2
    policy: str | None = None
    namm: str | Path | None = None
    budget: float | None = None
    every: int | None = None
    threshold: float | None = None
    grouping: str | None = None
    protect: Sequence[str] = ()
    new_tokens: int = 64
    compare: bool = False
    seed: int = 0
    device: str = "auto"
    dtype: str | None = None
    allocation: str | None = None
    shares: Path | None = None
    protect_first: int | None = None
    protect_newest: int | None = None

    @property
    def uses_default(self) -> bool:
        """Whether the policy is the NAMM that evicts by default."""
        return self.namm is None and self.policy in (None, "namm")

    @property
    def name(self) -> str:
        """The name of its folder: the same settings have the same, also those that older versions did not have."""
        unused = {name for name in ("allocation", "shares", *_PROTECTION) if getattr(self, name) is None}
        tree = {name: value for name, value in asdict(self).items() if name not in unused}
        if self.uses_default:
            tree["policy"] = f"{DEFAULT_NAMM} {DEFAULT_BUDGET}"  # older versions had another default
        tree = json.dumps(tree, sort_keys=True, default=str)
        return f"evict-{hashlib.sha256(tree.encode()).hexdigest()[:8]}"


def build_policy(config: EvictConfig) -> Policy:
    """The policy of a config. Raises MemxError for one that there is not, or settings that do not go together."""
    if config.uses_default:  # whatever folder of its name there is here
        budget = DEFAULT_BUDGET if config.budget is None and config.threshold is None else config.budget
        policy = _build_namm(replace(config, budget=budget), places.SHIPPED / DEFAULT_NAMM)
    elif config.namm is None:
        for option, value in (("--threshold", config.threshold), ("--grouping", config.grouping)):
            if value is not None:
                raise MemxError(
                    f"{option} applies only to a NAMM", hint="add --namm FOLDER, or use --budget with this policy"
                )
        name = str(config.policy)
        if places.is_shipped(name):
            raise MemxError(f"{name} is a NAMM, not a policy", hint=f"use --namm {name}")
        check_policy(name)
        budget = DEFAULT_BUDGET if config.budget is None and name != "full" else config.budget
        every = RUN if config.every is None else config.every
        if name == "full":
            _check_full(config)
        rule = Rule() if name == "full" else shared_rule(config, Rule(budget=budget))
        policy = make_policy(name, budget=budget, every=every, seed=config.seed, rule=rule)
    else:
        policy = _build_namm(config, config.namm)
    check_interval(policy)
    return policy


def other_heads(config: EvictConfig, policy: Policy) -> str | None:
    """What to tell about a NAMM with numbers for each head that was made for another model; None if nothing is."""
    if config.namm is None or not isinstance(policy, Namm) or policy.table is None:
        return None
    made_for = read_files(places.find_namm(config.namm))[1].host
    same = made_for in (None, config.host) or config.host == model_of_run(config.namm)
    return None if same else OTHER_HEADS.format(made_for)


def _check_full(config: EvictConfig) -> None:
    """Raise MemxError for settings of an eviction, of which there is none."""
    given = {
        "--allocation": config.allocation,
        "--shares": config.shares,
        "--protect-first": config.protect_first,
        "--protect-newest": config.protect_newest,
    }
    for option, value in given.items():
        if value:
            raise MemxError(f"{option} has no effect with the policy full, which keeps every token", hint="remove it")


def _build_namm(config: EvictConfig, place: str | Path) -> Namm:
    if config.policy not in (None, "namm"):
        raise MemxError(f"--namm and --policy {config.policy} cannot be combined", hint="give only one of them")
    if config.budget is not None and config.threshold is not None:
        raise MemxError("--budget and --threshold cannot be combined", hint="give only one of them")
    if config.threshold is not None and not isfinite(config.threshold):
        raise MemxError(
            f"--threshold must be finite, not {config.threshold}", hint="to keep every token, use --policy full"
        )
    namm = load(place)
    rule = namm.rule
    if config.budget is not None:
        rule = replace(rule, budget=config.budget)
    if config.threshold is not None:
        rule = replace(rule, budget=None, threshold=config.threshold)
    if config.grouping is not None:
        if rule.budget is not None:
            hint = "add --threshold, or use --allocation to share a budget between heads"
            raise MemxError("--grouping applies only to a threshold", hint=hint)
        rule = replace(rule, grouping=cast(Grouping, config.grouping))  # checked by the rule itself
    rule = shared_rule(config, rule)
    return replace(namm, rule=rule, every=namm.every if config.every is None else config.every)


def shared_rule(config: EvictConfig, rule: Rule) -> Rule:
    """A rule with the config's allocation between heads and its protected first and newest tokens.

    Args:
        config: What was asked; None leaves what the rule has.
        rule: The rule of the policy, with its budget or threshold.

    Returns:
        The rule.

    Raises:
        MemxError: There is no such allocation, no budget to share, no table for it, or a table that is not used.
    """
    changes: dict[str, Any] = {
        name: value for option, name in _PROTECTION.items() if (value := getattr(config, option)) is not None
    }
    allocation = "table" if config.shares is not None and config.allocation is None else config.allocation
    if config.shares is not None:
        if allocation != "table":
            raise MemxError(f"--shares is not used by --allocation {allocation}", hint="use --allocation table")
        changes["shares"] = read_shares(config.shares)
    if allocation is not None:
        if rule.budget is None:
            raise MemxError("--allocation needs a budget to share between heads", hint="add --budget, e.g. 0.25")
        if allocation == "table" and config.shares is None and rule.shares is None:
            raise MemxError(
                "--allocation table needs a table of head shares",
                hint=f"add --shares FILE, e.g. {HEAD_SHARES} of a run of memx eval-namm --allocation table; "
                "the NAMM smollm2 has one, for SmolLM2-135M",
            )
        changes["allocation"] = allocation  # checked by the rule itself
    return replace(rule, **changes)


def describe(policy: Policy) -> str:
    """How a policy chooses, in words."""
    rule = policy.rule
    if policy.every is None:
        return "keeps everything"
    text = f"threshold {rule.threshold:g}, {rule.grouping}"
    if rule.budget is not None:
        text = f"budget {size_text(rule.budget)}" + ("" if rule.allocation == "equal" else f", {rule.allocation}")
    protection = [f"{name} {count}" for name in ("first", "newest") if (count := getattr(rule, name))]
    return text + (f", {' and '.join(protection)} protected" if protection else "")
