"""What an evaluation would do, before anything is loaded: config -> prompts, contexts read, answers and caches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import MemxError
from ...namm.policies.base import Policy
from ...namm.policies.keep import Allocation
from ...namm.policies.network import Namm
from ...namm.saved.files import load
from ...namm.saved.places import find_namm
from ...results.namm.rows import CEILINGS
from ..config.base import run_name
from ..config.eviction.policy_eval import EAGER, EvalConfig
from ..eviction.base_model import describe_base_model
from ..planning.estimate_caches import CacheCost, cache_cost
from .baselines import baselines


@dataclass(frozen=True)
class EvaluationCost:
    """Counts of what an evaluation reads and asks, and where it would write.

    Attributes:
        folder: The run folder.
        host: The model, by name or by the preset that trains it.
        namms: Label and folder of each NAMM.
        mode: post_hoc or online.
        question: When it is read, after eviction or before.
        trained: Families of tasks that a NAMM was evolved on.
        held_out: The other families.
        length: Tokens of a prompt, at most.
        budgets: Shares of the cache.
        own_sizes: NAMMs that run under a threshold of their own.
        allocations: How heads share a budget, each with every policy; behind a policy's name, of that one.
        policies: The other policies.
        prompts: Prompts of all families.
        presses: Those of kvpress.
        prefills: Contexts of prompts that are read; where policies read them twice, twice.
        prefill_tokens: Tokens of one of them, at most.
        read_online: Tokens that the policies read by themselves.
        answers: Answers whose likelihood is measured.
        documents: Documents on which evicted tokens are counted.
        written: Answers that are also written.
        reuse: The evaluation from which measurements are taken, if any; what it has is not measured again.
        cache: Bytes of a prompt's cache under each policy, and work by token; None where that cannot be counted.
        not_counted: Why, then.
    """

    folder: str
    host: str
    namms: list[str]
    mode: str
    question: str
    trained: list[str]
    held_out: list[str]
    length: int
    budgets: list[float]
    own_sizes: int
    allocations: list[str]
    policies: list[str]
    prompts: int
    presses: list[str]
    prefills: int
    prefill_tokens: int
    read_online: int
    answers: int
    documents: int
    written: int
    reuse: str | None = None
    cache: CacheCost | None = None
    not_counted: str | None = None


def evaluation_cost(config: EvalConfig, runs: Path) -> EvaluationCost:
    """Count what an evaluation reads and asks, as if nothing were reused.

    A context is read once for all policies of memx, up to their first run if they evict online. Policies that read it
    twice count once more. Not counted: training prompts that a table of head shares or thresholds are measured on.

    Args:
        config: The evaluation.
        runs: The folder of all runs.

    Returns:
        The counts.
    """
    prompts = len(config.tasks) * config.prompts
    cache, not_counted = _cache(config)
    thresholds = sum(one.budget is None for one in config.namms)
    shares, rivals = len(config.shares), sum(len(config.allocations_for(name)) for name in config.policies)
    named = [*config.presses, *config.ceiling_presses]
    presses = len(named)
    online = config.mode == "online"
    own = {one.label: config.allocations_for(one.label) for one in config.namms}
    namms = sum(len(given) for given in own.values())
    answers = 1 + shares * (namms + rivals + presses) + thresholds * (1 + rivals + presses)
    if not online:  # under a threshold of their own, and with all heads alike
        answers += shares * sum(one.budget is None and "layer_max" not in own[one.label] for one in config.namms)
    answers += shares * len(config.namms) if config.online_thresholds else 0
    twice = len(config.ceiling_presses) + len({*config.policies} & {*CEILINGS})
    eager = {name in EAGER for name in config.presses}  # these read a context of their own
    return EvaluationCost(
        folder=str(runs / run_name(config)),
        host=config.host.name or f"preset {config.host.preset}",
        namms=[f"{one.label}: {one.folder}" for one in config.namms],
        mode=config.mode,
        question=config.question,
        trained=[task for task in config.tasks if task in config.trained],
        held_out=[task for task in config.tasks if task not in config.trained],
        length=config.length,
        budgets=list(config.shares),
        own_sizes=thresholds,
        allocations=[
            *config.allocations,
            *(f"{name}: {', '.join(given)}" for name, given in config.allocations_of.items()),
        ],
        policies=list(config.policies),
        prompts=prompts,
        presses=named,
        prefills=prompts * (1 + len(eager) + twice),
        prefill_tokens=min(config.every, config.length) if online else config.length,
        read_online=(answers - 1) * prompts * max(config.length - config.every, 0) if online else 0,
        answers=answers * prompts,
        documents=2 * config.documents,
        written=answers * prompts if config.write else 0,
        reuse=config.reuse,
        cache=cache,
        not_counted=not_counted,
    )


def _cache(config: EvalConfig) -> tuple[CacheCost | None, str | None]:
    """The bytes of its caches, or why they cannot be counted: the evaluation itself will say so as well."""
    if config.host.weights is not None:
        return None, "weights in 8 bits"
    try:
        namms = [load(find_namm(one.folder)) for one in config.namms]
        described = describe_base_model(config.host)
        return cache_cost(described, config.host.dtype, config.length, evaluated(config, namms)), None
    except MemxError as error:
        return None, error.message


def evaluated(config: EvalConfig, namms: Sequence[Namm]) -> Iterator[tuple[str, float | None, Policy]]:
    """Name, budget and policy of each cache of an evaluation.

    Args:
        config: The evaluation.
        namms: The NAMM of each entry of `config.namms`.

    Yields:
        Each policy under each budget and allocation; None is the budget of a NAMM under its own threshold.
    """
    for baseline in baselines(config, namms, config.seed):
        own: list[tuple[float | None, Allocation]] = [(None, "equal")] if baseline.threshold else []
        shared = [(share, one) for share in config.shares for one in config.allocations_for(baseline.variant)]
        for share, allocation in [*own, *shared]:
            # a table gives heads other numbers, and in all as many
            policy = baseline.make(share, "global" if allocation == "table" else allocation)
            yield baseline.called(share, allocation), share, policy
