"""Evaluation with an evicting cache: the config's policy -> the model with it attached, and what rows say of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import MemxError
from ...namm.plugins import is_plugin, plugin_digest, short_name
from ...namm.saved.places import DESCRIPTION, find_namm
from ...results.namm.rows import budget_text
from ..config.base import from_options
from ..config.question_answering import QaConfig, QaEviction

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ...namm.policies.base import Policy

_FULL = "full"


def evictions(
    policies: Sequence[str], namms: Sequence[str], budgets: Sequence[float], **settings: Any
) -> list[QaEviction | None]:
    """List what is evaluated of a model: each policy and NAMM at each budget.

    Args:
        policies: Names of policies; full is the unmodified model.
        namms: Saved NAMMs, as `memx evict --namm` takes them.
        budgets: Shares of the cache or numbers of tokens; empty for half, or a NAMM's own.
        settings: Further fields of `QaEviction`, of all of them.

    Returns:
        The settings of each; None for the unmodified model, which is all there is without a policy.

    Raises:
        MemxError: A policy or NAMM that there is not, or settings without one.
    """
    if not policies and not namms:
        _refuse(budgets, settings, "needs --policy or --namm", "add e.g. --policy snapkv or --namm universal")
        return [None]
    found: list[QaEviction | None] = []
    for (kind, name), budget in product(
        [*(("policy", name) for name in policies), *(("namm", name) for name in namms)], budgets or [None]
    ):
        if name == _FULL and kind == "policy":
            found.append(None)
            continue
        values = {kind: name, "budget": budget, "sha256": _digest(kind, name, settings.get("shares")), **settings}
        found.append(from_options(QaEviction, {"every": "--interval"}, **values))
    if all(one is None for one in found):
        _refuse(budgets, settings, "has no effect with the policy full, which keeps every token", "remove it")
    return list(dict.fromkeys(found))


def check_policies(configs: Sequence[QaConfig]) -> None:
    """Make the policies of all evaluations, before the first one begins.

    Args:
        configs: The evaluations.

    Raises:
        MemxError: A policy cannot be made.
    """
    for config in configs:
        if config.eviction is not None:
            build(config.eviction, config)


def build(eviction: QaEviction, config: QaConfig) -> Policy:
    """Make the policy of an evaluation. Raises MemxError for one that there is not, or that does not go together."""
    from ..eviction.policy import EvictConfig, build_policy

    return build_policy(
        EvictConfig(
            "",
            host=config.model,
            policy=eviction.policy,
            namm=eviction.namm,
            budget=eviction.budget,
            every=eviction.every,
            seed=config.seed,
            allocation=eviction.allocation,
            shares=None if eviction.shares is None else Path(eviction.shares),
        )
    )


@contextmanager
def evicting(model: PreTrainedModel, config: QaConfig) -> Iterator[Policy | None]:
    """Attach the policy of an evaluation, if it has one.

    Args:
        model: The model, on its device.
        config: The evaluation.

    Yields:
        The policy.

    Raises:
        MemxError: The policy cannot be made, or the model does not support one.
    """
    if config.eviction is None:
        yield None
        return
    from ...namm.attachment import attach

    policy, usual = build(config.eviction, config), model.config.use_cache
    model.config.use_cache = True  # a pass without a cache evicts nothing
    try:
        with attach(model, policy):
            yield policy
    finally:
        model.config.use_cache = usual


def about_eviction(policy: Policy | None, config: QaConfig, variant: str) -> dict[str, Any]:
    """Describe the policy of an evaluation in the fields of rows.

    Args:
        policy: The policy.
        config: The evaluation.
        variant: That of the model.

    Returns:
        Fields of `Row`; none without a policy.
    """
    if policy is None or config.eviction is None:
        return {}
    rule = policy.rule
    name = (
        f"namm {Path(config.eviction.namm).name}" if config.eviction.namm else short_name(str(config.eviction.policy))
    )
    size = f" {budget_text(rule.budget)}" if rule.budget is not None else ""
    shared = f" {rule.allocation}" if rule.budget is not None and rule.allocation != "equal" else ""
    return {
        "variant": ", ".join(part for part in (variant, name + shared + size) if part),
        "policy": name,
        "budget": rule.budget,
        "allocation": rule.allocation if rule.budget is not None else "",
        "every": policy.every,
    }


def _refuse(budgets: Sequence[float], settings: dict[str, Any], why: str, hint: str) -> None:
    """Raise MemxError for settings of an eviction, of which there is none."""
    for name, value in {"budget": budgets or None, **settings}.items():
        if value is not None:
            raise MemxError(f"--{'interval' if name == 'every' else name} {why}", hint=hint)


def _digest(kind: str, name: str, shares: str | None) -> str:
    """A checksum of all files that a policy is made of; empty for one of memx."""
    parts = [plugin_digest(name)] if kind == "policy" and is_plugin(name) else []
    files = [find_namm(Path(name)) / DESCRIPTION] if kind == "namm" else []  # it has the checksum of the numbers
    files += [Path(shares)] if shares is not None else []
    for file in files:
        try:
            parts.append(sha256(file.read_bytes()).hexdigest())
        except OSError as error:
            raise MemxError(f"cannot read {file}: {error.strerror}", hint="check the path") from None
    return parts[0] if len(parts) == 1 else sha256(" ".join(parts).encode()).hexdigest() if parts else ""
